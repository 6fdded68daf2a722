"""The held-out test list: a share of the patients drawn by the seed, or the cases and patients that a file names."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from medunet.base.errors import InputError
from medunet.base.files import read_json
from medunet.dataset.splits import hold_out, spread_strata
from medunet.records.manifest import Case

_TAKE_BACK = (
    "Give one of them. What an earlier command gave is kept by the run: take it back with --set KEY=null "
    "(stratify=false), or begin a new run."
)


def read_test_names(path: Path) -> list[str]:
    """Read the case ids or patients of a test list: JSON, `[...]` or `{"test": [...]}`, or a text file's lines.

    Empty lines of a text file, and those that begin with #, are left out.

    Raises:
        InputError: the file cannot be read, holds no such list, or names one twice.
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
            "holds no test list",
            where=path.name,
            hint='Write a case or patient on each line, or as JSON {"test": ["case", ...]}.',
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"names stand twice: {', '.join(twice)}", where=path.name)
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
    """Refuse ways to split that exclude each other or what the listed cases bring along.

    Args:
        cases: all cases of the data root, with the folds and the test cases of a case list or layout.

    Raises:
        InputError: names every contradiction at once.
    """
    training = [case for case in cases if case.split == "train"]
    own_folds = folds is None and holdout is None and any(case.fold is not None for case in training)
    own_tests = [case.id for case in cases if case.split == "test" and case.label is not None]
    fixed = "fixed folds" if folds is not None else "the case list's own folds" if own_folds else ""
    faults = []
    if folds is not None and holdout is not None:
        faults.append(
            "fixed folds and a share to hold out exclude each other: give folds_file or holdout, not both"
        )
    if test_share is not None and test_names is not None:
        faults.append("a share for the test and a test list exclude each other: give test_share or test_file")
    if (test_share is not None or test_names is not None) and own_tests:
        faults.append(
            f"the data have {len(own_tests)} labelled test case(s) of their own, such as {own_tests[0]}: leave "
            "test_share and test_file out, or move those among the training cases"
        )
    if test_share is not None and fixed:
        faults.append(f"{fixed} leave no share to draw for the test: name the test cases in test_file")
    if test_share is not None and len({case.patient for case in training}) < 2:
        faults.append("test_share: one patient cannot be divided into training and test")
    if stratify and fixed:
        faults.append(f"{fixed} leave nothing to stratify: leave stratify out")
    hint = _TAKE_BACK if faults else "Correct the test list."
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
    """Return the ids of the test cases: those named by id or patient, or a share drawn by the seed, by `strata`."""
    if names is not None:
        return {case.id for case in training if case.id in names or case.patient in names}
    if share is None:
        return set()
    places = hold_out(training, share, seed)
    if strata:
        places = spread_strata(training, places, strata, seed)
    return {case_id for case_id, place in places.items() if place == 0}


def _name_faults(cases: Sequence[Case], names: Sequence[str]) -> list[str]:
    """Say what is wrong with a test list: names of nothing or of two things, divided patients, nothing left."""
    ids, patients = {case.id for case in cases}, {case.patient for case in cases}
    patient_of = {case.id: case.patient for case in cases}
    training = [case for case in cases if case.split == "train"]
    chosen = choose_test_cases(training, None, names, {}, 0)
    faults = []
    if unknown := sorted(set(names) - ids - patients):
        faults.append(f"the test list names no case or patient: {', '.join(unknown)}")
    if both := sorted(name for name in names if name in patients and patient_of.get(name, name) != name):
        faults.append(f"the test list names a case of one patient and another patient: {', '.join(both)}")
    usable = {name for case in training for name in (case.id, case.patient)}
    if useless := sorted((set(names) & (ids | patients)) - usable):
        faults.append(
            f"the test list names what is not among the labelled training cases: {', '.join(useless)}"
        )
    if divided := sorted(
        {case.patient for case in training if case.id in chosen}
        & {case.patient for case in training if case.id not in chosen}
    ):
        faults.append(f"the test list leaves cases of its patients to train on: {', '.join(divided)}")
    if training and len(chosen) == len(training):
        faults.append("the test list leaves no case to train on")
    folds = {case.fold for case in training if case.fold is not None}
    if emptied := folds - {case.fold for case in training if case.id not in chosen}:
        faults.append(f"the test list leaves no case in fold {', '.join(map(str, sorted(emptied)))}")
    return faults
