"""Make the manifest of a dataset: the list of cases below a data root, with folds."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

from medunet.base.errors import InputError
from medunet.base.files import name_on_disk, read_json
from medunet.base.words import list_some
from medunet.dataset.held_out import check_split_options, choose_test_cases
from medunet.dataset.layouts.csv_lists import list_table
from medunet.dataset.layouts.datalists import has_cases, read_datalist
from medunet.dataset.layouts.nnunet import follow_training_list, has_file_list, read_file_list
from medunet.dataset.layouts.patterns import Listing, expected_files, scan_folder, stem, volume_files
from medunet.dataset.splits import fixed_folds, hold_out, make_folds, stratify_folds
from medunet.dataset.strata import make_strata, measure_labels
from medunet.dataset.structure_masks import MERGE_FIRST, describe_structures
from medunet.records.data_root import case_paths
from medunet.records.description import Description
from medunet.records.manifest import Case, Excluded, Manifest

_NAMED_AT_MOST = 5


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
    """List the cases below a data root, with folds, and the files that belong to no case.

    Cases are read from the description's table, `datalist` (in MONAI's format), or a `dataset.json` that lists them
    in a data root of layout msd or nnunet; without any of these, they are found by file names. Folds are taken from
    `folds`, `holdout`, or the list or table, in this order; without any of these, `description.folds` folds are
    drawn with the seed, each patient in one fold.

    Args:
        seed: of the folds.
        folds: fixed folds, lists of case ids.
        holdout: share of the cases to hold out as fold 0 instead.
        test_share: share of the training cases, in whole patients, that become test cases before folds are made.
            Excluded cases are part of the draw, so that excluding a case later does not change the others.
        test_names: case ids or patients of the test cases, instead of a share.
        stratify: read every label and draw splits with similar label volumes and sites (see strata.py).
        exclude: case id to reason; these cases are listed but get no fold.

    Raises:
        InputError: there are no cases, names do not exist or differ only in letter case or Unicode form, paths are
            outside the data root, options of the split contradict each other, or labels needed for stratification
            cannot be read.
    """
    if not data_root.is_dir():
        raise InputError("no such folder", where=str(data_root), hint="Check --data-root.")
    listing = list_cases(description, data_root, datalist)
    if not listing.cases:
        files = volume_files(description, data_root)
        if structures := describe_structures(files):
            raise InputError(structures, where=str(data_root), hint=MERGE_FIRST)
        raise InputError(
            f"no case of layout {description.layout} among the {len(files)} volume files",
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
    _require_distinct_names([name for name in sorted(known) if name not in exclude], description.name)
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
            f"no training case is left: of {len(candidates)}, {len(tests - exclude.keys())} are test cases "
            f"and {len({case.id for case in candidates} & exclude.keys())} are excluded",
            where=description.name,
            hint="Exclude fewer cases, or make the test share or test list smaller.",
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
        fold_of = stratify_folds(training, fold_of, strata, seed)
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
    """List the cases below a data root by its description; only cases of a list or table have folds.

    Raises:
        InputError: a list or table of cases cannot be used, or the layout is not supported.
    """
    dataset_json = data_root / "dataset.json"
    if description.table.lower().endswith(".json"):
        return read_datalist(data_root / description.table, description, data_root)
    if description.table:
        return list_table(description, data_root)
    if datalist is None and description.layout == "msd" and dataset_json.exists() and has_cases(dataset_json):
        datalist = dataset_json
    if datalist is not None:
        return read_datalist(datalist, description, data_root)
    if description.layout == "nnunet" and dataset_json.exists():
        if has_file_list(read_json(dataset_json)):
            return read_file_list(dataset_json, description, data_root)
        if has_cases(dataset_json):
            return follow_training_list(
                scan_folder(description, data_root), dataset_json, description, data_root
            )
    return scan_folder(description, data_root)


def _require_distinct_names(names: Sequence[str], where: str) -> None:
    """Check that case ids differ in more than letter case and Unicode form, which some disks do not tell apart."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(name_on_disk(name), []).append(name)
    groups = [group for group in alike.values() if len(group) > 1]
    if groups:
        named = list_some([" and ".join(map(_tell_form, group)) for group in groups], _NAMED_AT_MOST, "; ")
        raise InputError(
            f"cases whose ids differ only in letter case or Unicode form: {named}",
            where=where,
            hint="Their masks would be one file on some disks: rename all but one, or leave them out with --exclude.",
        )


def _tell_form(name: str) -> str:
    return name if name == normalize("NFC", name) else f"{name} (decomposed letters)"


def _require_folds_from_0(cases: Sequence[Case]) -> None:
    """Check that the folds of a list are numbered from 0 without a gap, since each fold needs validation cases."""
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
    """Return the strata of each labelled case; excluded cases whose label cannot be read are left out."""
    paths = {case.id: case_paths(case, description, data_root)[1] for case in cases}
    labels = {case_id: path for case_id, path in paths.items() if path is not None}
    volumes = measure_labels(labels, description, may_fail=excluded)
    return make_strata(volumes, {case.id: case.site for case in cases})
