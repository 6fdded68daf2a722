"""Choose the held-out test cases: a share of the patients drawn with the seed, or a list in a file."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from medunet.base.errors import InputError
from medunet.base.files import read_json
from medunet.dataset.splits import hold_out, stratify_folds
from medunet.records.manifest import Case

_UNSET = (
    "Give only one of them. Options of earlier commands are kept by the run: unset them with --set KEY=null "
    "(stratify=false), or start a new run."
)


def read_test_names(path: Path) -> list[str]:
    """Read a test list of case ids or patients: JSON, `[...]` or `{"test": [...]}`, or a text file with one per line.

    Empty lines of a text file and lines that start with # are skipped.

    Raises:
        InputError: the file cannot be read, has no such list, or contains duplicates.
    """
    if path.suffix == ".json":
        plain = read_json(path)
        names = plain.get("test") if isinstance(plain, dict) else plain
    else:
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot be read ({error})", where=path.name, hint="Check the path.") from error
        names = [line for line in lines if line and not line.startswith("#")]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(
            "has no test list",
            where=path.name,
            hint='Write a case or patient on each line, or as JSON {"test": ["case", ...]}.',
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"names occur twice: {', '.join(twice)}", where=path.name)
    return names


def check_split_options(
    cases: Sequence[Case],
    *,
    folds: Sequence[Sequence[str]] | None = None,
    holdout: float | None = None,
    test_share: float | None = None,
    test_names: Sequence[str] | None = None,
    stratify: bool = False,
) -> None:
    """Check that the options of the split do not contradict each other or the folds and tests of the listed cases.

    Args:
        cases: all cases of the data root, with the folds and test cases of a case list or layout.

    Raises:
        InputError: they do; the message lists all contradictions.
    """
    training = [case for case in cases if case.split == "train"]
    own_folds = folds is None and holdout is None and any(case.fold is not None for case in training)
    own_tests = [case.id for case in cases if case.split == "test" and case.label is not None]
    fixed = "fixed folds" if folds is not None else "the case list's own folds" if own_folds else ""
    faults = []
    if folds is not None and holdout is not None:
        faults.append(
            "fixed folds and a hold-out share exclude each other: give folds_file or holdout, not both"
        )
    if test_share is not None and test_names is not None:
        faults.append("a test share and a test list exclude each other: give test_share or test_file")
    if (test_share is not None or test_names is not None) and own_tests:
        faults.append(
            f"the data already have {len(own_tests)} labelled test case(s), such as {own_tests[0]}: leave out "
            "test_share and test_file, or move these cases to the training cases"
        )
    if test_share is not None and fixed:
        faults.append(f"test_share cannot be combined with {fixed}: list the test cases in test_file")
    if test_share is not None and len({case.patient for case in training}) < 2:
        faults.append("test_share: one patient cannot be divided into training and test")
    if stratify and fixed:
        faults.append(f"{fixed} cannot be stratified: leave out stratify")
    hint = _UNSET if faults else "Correct the test list."
    if test_names is not None:
        faults += _name_faults(cases, test_names)
    if faults:
        raise InputError("; ".join(faults), where="split", hint=hint)


def choose_test_cases(
    training: Sequence[Case],
    share: float | None,
    names: Sequence[str] | None,
    strata: Mapping[str, Collection[str]],
    seed: int,
) -> set[str]:
    """Return the ids of the test cases: those listed by id or patient, or a share drawn with the seed.

    A drawn share is stratified if `strata` is not empty.
    """
    if names is not None:
        return {case.id for case in training if case.id in names or case.patient in names}
    if share is None:
        return set()
    folds = hold_out(training, share, seed)
    if strata:
        folds = stratify_folds(training, folds, strata, seed)
    return {case_id for case_id, fold in folds.items() if fold == 0}


def _name_faults(cases: Sequence[Case], names: Sequence[str]) -> list[str]:
    """Return the faults of a test list: unknown or ambiguous names, divided patients, no cases left."""
    ids, patients = {case.id for case in cases}, {case.patient for case in cases}
    patient_of = {case.id: case.patient for case in cases}
    training = [case for case in cases if case.split == "train"]
    chosen = choose_test_cases(training, None, names, {}, 0)
    faults = []
    if unknown := sorted(set(names) - ids - patients):
        faults.append(f"the test list has names that are neither case nor patient: {', '.join(unknown)}")
    if both := sorted(name for name in names if name in patients and patient_of.get(name, name) != name):
        faults.append(
            f"the test list has names that are both a patient and a case of another patient: {', '.join(both)}"
        )
    usable = {name for case in training for name in (case.id, case.patient)}
    if useless := sorted((set(names) & (ids | patients)) - usable):
        faults.append(
            f"the test list has names that are not among the labelled training cases: {', '.join(useless)}"
        )
    if divided := sorted(
        {case.patient for case in training if case.id in chosen}
        & {case.patient for case in training if case.id not in chosen}
    ):
        faults.append(f"the test list has only some of the cases of patients: {', '.join(divided)}")
    if training and len(chosen) == len(training):
        faults.append("the test list leaves no training case")
    folds = {case.fold for case in training if case.fold is not None}
    if emptied := folds - {case.fold for case in training if case.id not in chosen}:
        faults.append(f"the test list leaves no case in fold {', '.join(map(str, sorted(emptied)))}")
    return faults
