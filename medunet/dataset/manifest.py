"""From a description and a data root to a case list with folds, and from a case back to its files."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from medunet.base.errors import InputError
from medunet.base.files import read_json
from medunet.dataset.held_out import check_split_options, choose_test_cases
from medunet.dataset.layouts.csv_lists import list_table
from medunet.dataset.layouts.datalists import has_cases, read_datalist
from medunet.dataset.layouts.nnunet import has_file_list, read_file_list
from medunet.dataset.layouts.patterns import Listing, expected_files, scan_folder, stem, volume_files
from medunet.dataset.splits import fixed_folds, hold_out, make_folds, spread_strata
from medunet.dataset.strata import make_strata, measure_labels
from medunet.records.data_root import case_paths
from medunet.records.description import Description
from medunet.records.manifest import Case, Excluded, Manifest


def make_manifest(
    description: Description,
    data_root: Path,
    *,
    seed: int = 0,
    folds: list[list[str]] | None = None,
    holdout: float | None = None,
    test_share: float | None = None,
    test_names: Sequence[str] | None = None,
    stratify: bool = False,
    exclude: Mapping[str, str] = {},
    datalist: Path | None = None,
) -> Manifest:
    """List the cases below a data root, with folds; what belongs to no case is listed as unmatched.

    Cases come from `datalist` (MONAI's form) or the description's table, else from a `dataset.json` that names them
    in a root of layout msd or nnunet, else from the file names. Folds are the given ones, or a share is held out as
    fold 0; else the list's or table's, else made from the seed: `description.folds` of them, patients kept whole.

    Args:
        seed: of the folds.
        folds: fixed folds, lists of case ids.
        holdout: share of the cases to hold out instead.
        test_share: share of the training cases, in whole patients, that becomes the test list before folds are made.
            Excluded cases take part in the draw, so that leaving one out later changes no other's place.
        test_names: the test list by case id or patient instead.
        stratify: read every label, and give what is drawn like shares of label volumes and sites (see strata.py).
        exclude: case id to reason; such cases stay listed but get no fold.

    Raises:
        InputError: no cases, names that do not exist, paths that lead out of the data root, ways to split that
            exclude each other, or labels that cannot be read to stratify by.
    """
    if not data_root.is_dir():
        raise InputError("no such folder", where=str(data_root), hint="Check --data-root.")
    listing = list_cases(description, data_root, datalist)
    if not listing.cases:
        num_files = len(volume_files(description, data_root))
        raise InputError(
            f"no case of layout {description.layout} among the {num_files} volume files",
            where=str(data_root),
            hint=f"The layout expects {expected_files(description)}; check --data-root and the description.",
        )
    known = {case.id for case in listing.cases}
    if unknown := sorted(
        name
        for name in exclude
        if name not in known and not any(stem(item.path).startswith(name) for item in listing.unmatched)
    ):
        raise InputError(f"excluded cases do not exist: {', '.join(unknown)}", where=description.name)
    check_split_options(
        listing.cases,
        folds=folds,
        holdout=holdout,
        test_share=test_share,
        test_names=test_names,
        stratify=stratify,
    )
    candidates = [case for case in listing.cases if case.split == "train"]
    strata = _read_strata(candidates, description, data_root, exclude) if stratify else {}
    tests = choose_test_cases(candidates, test_share, test_names, strata, seed)
    training = [case for case in candidates if case.id not in exclude and case.id not in tests]
    if candidates and not training:
        raise InputError(
            f"no case is left to train on: of {len(candidates)}, {len(tests - exclude.keys())} are for the test "
            f"and {len({case.id for case in candidates} & exclude.keys())} are excluded",
            where=description.name,
            hint="Exclude fewer, or make the test's share or list smaller.",
        )
    if folds is not None:
        fold_of = fixed_folds(training, folds, exclude)
    elif holdout is not None:
        fold_of = hold_out(training, holdout, seed)
    elif any(case.fold is not None for case in training):
        _require_folds_from_0(candidates)
        fold_of = {case.id: case.fold for case in training if case.fold is not None}
    else:
        fold_of = make_folds(training, description.folds, seed)
    if strata:
        fold_of = spread_strata(training, fold_of, strata, seed)
    manifest = Manifest(
        description=description,
        cases=tuple(
            case.model_copy(
                update={"fold": fold_of.get(case.id), "split": "test" if case.id in tests else case.split}
            )
            for case in listing.cases
        ),
        unmatched=listing.unmatched,
        excluded=tuple(Excluded(id=name, reason=exclude[name]) for name in sorted(known & set(exclude))),
    )
    for case in manifest.cases:
        case_paths(case, description, data_root)
    return manifest


def list_cases(description: Description, data_root: Path, datalist: Path | None = None) -> Listing:
    """List the cases below a data root as its description says, with the folds of a list alone.

    Raises:
        InputError: a list or table of cases cannot be used, or the layout is not read.
    """
    dataset_json = data_root / "dataset.json"
    if description.table:
        return list_table(description, data_root)
    if datalist is None and description.layout == "msd" and dataset_json.exists() and has_cases(dataset_json):
        datalist = dataset_json
    if datalist is not None:
        return read_datalist(datalist, description, data_root)
    if description.layout == "nnunet" and dataset_json.exists() and has_file_list(read_json(dataset_json)):
        return read_file_list(dataset_json, description, data_root)
    return scan_folder(description, data_root)


def _require_folds_from_0(cases: Sequence[Case]) -> None:
    """Refuse a list's folds that leave a number out, such as 1 to 5: its fold would have nothing to validate on."""
    given = {case.fold for case in cases if case.fold is not None}
    if missing := sorted(set(range(max(given))) - given):
        raise InputError(
            f"no case is in fold {', '.join(map(str, missing))}; folds are {', '.join(map(str, sorted(given)))}",
            where="the case list's own folds",
            hint="Number the folds 0, 1, ... without a gap.",
        )


def _read_strata(
    cases: Sequence[Case], description: Description, data_root: Path, excluded: Collection[str]
) -> dict[str, frozenset[str]]:
    """Return each labelled case's strata; an excluded case whose label cannot be read has none."""
    paths = {case.id: case_paths(case, description, data_root)[1] for case in cases}
    labels = {case_id: path for case_id, path in paths.items() if path is not None}
    volumes = measure_labels(labels, description, may_fail=excluded)
    return make_strata(volumes, {case.id: case.site for case in cases})
