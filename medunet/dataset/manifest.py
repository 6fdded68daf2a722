"""From a description and a data root to a case list with folds, and from a case back to its files."""

import os
from collections.abc import Mapping
from pathlib import Path

from medunet.dataset.datalists import has_cases, read_datalist
from medunet.dataset.layouts import Listing, expected_files, scan_folder, stem, volume_files
from medunet.dataset.splits import fixed_folds, hold_out, make_folds
from medunet.errors import InputError
from medunet.records import Case, Description, Excluded, Manifest

DATA_ROOT_VARIABLE = "MEDUNET_DATA_ROOT"


def make_manifest(
    description: Description,
    data_root: Path,
    *,
    seed: int = 0,
    folds: list[list[str]] | None = None,
    holdout: float | None = None,
    exclude: Mapping[str, str] = {},
    datalist: Path | None = None,
) -> Manifest:
    """List the cases below a data root, with folds; what belongs to no case is listed as unmatched.

    Cases come from `datalist` (MONAI's form), else from a `dataset.json` in a root of layout msd, else from
    the file names. Folds are the given ones, or a share is held out as fold 0; else the datalist's, else made from
    the seed: `description.folds` of them, patients kept whole.

    Args:
        seed: of the folds.
        folds: fixed folds, lists of case ids.
        holdout: share of the cases to hold out instead.
        exclude: case id to reason; such cases stay listed but get no fold.

    Raises:
        InputError: no cases, names that do not exist, paths that lead out of the data root, or both fixed folds and
            a share to hold out.
    """
    if folds is not None and holdout is not None:
        raise InputError(
            "fixed folds and a share to hold out exclude each other",
            where="holdout",
            mend="Give folds_file or holdout, not both.",
        )
    if not data_root.is_dir():
        raise InputError("no such folder", where=str(data_root), mend="Check --data-root.")
    listing = _list_cases(description, data_root, datalist)
    if not listing.cases:
        num_files = len(volume_files(description, data_root))
        raise InputError(
            f"no case of layout {description.layout} among the {num_files} volume files",
            where=str(data_root),
            mend=f"The layout expects {expected_files(description)}; check --data-root and the description.",
        )
    known = {case.id for case in listing.cases}
    if unknown := sorted(
        name
        for name in exclude
        if name not in known and not any(stem(item.path).startswith(name) for item in listing.unmatched)
    ):
        raise InputError(f"excluded cases do not exist: {', '.join(unknown)}", where=description.name)
    training = [case for case in listing.cases if case.split == "train" and case.id not in exclude]
    if folds is not None:
        fold_of = fixed_folds(training, folds, exclude)
    elif holdout is not None:
        fold_of = hold_out(training, holdout, seed)
    elif any(case.fold is not None for case in training):
        fold_of = {case.id: case.fold for case in training if case.fold is not None}
    else:
        fold_of = make_folds(training, description.folds, seed)
    manifest = Manifest(
        description=description,
        cases=tuple(case.model_copy(update={"fold": fold_of.get(case.id)}) for case in listing.cases),
        unmatched=listing.unmatched,
        excluded=tuple(Excluded(id=name, reason=exclude[name]) for name in sorted(known & set(exclude))),
    )
    for case in manifest.cases:
        case_paths(case, description, data_root)
    return manifest


def data_root_from(option: Path | None) -> Path:
    """Return the data root: the `--data-root` given, else the environment variable MEDUNET_DATA_ROOT.

    Raises:
        InputError: neither is given, or it is no folder.
    """
    text = option or os.environ.get(DATA_ROOT_VARIABLE)
    if not text:
        raise InputError(
            "no data root is given", mend=f"Add --data-root FOLDER or set {DATA_ROOT_VARIABLE} to it."
        )
    if not Path(text).is_dir():
        source = "--data-root" if option else DATA_ROOT_VARIABLE
        raise InputError("the data root is no folder", where=str(text), mend=f"Check {source}.")
    return Path(text)


def case_paths(case: Case, description: Description, data_root: Path) -> tuple[list[Path], Path | None]:
    """Return a case's image paths, one for each channel in the description's order, and its label's path.

    Raises:
        InputError: a path leads out of the data root, itself or through a link.
    """
    images = [file_path(case.images[name], data_root, f"case {case.id}") for name in description.channels]
    label = None if case.label is None else file_path(case.label, data_root, f"case {case.id}")
    return images, label


def file_path(relative: str, data_root: Path, where: str) -> Path:
    """Return the path of a file below the data root.

    Raises:
        InputError: it leads out of the data root, itself or through a link.
    """
    path = data_root / relative
    if Path(relative).is_absolute() or not path.resolve().is_relative_to(data_root.resolve()):
        raise InputError(
            f"the path {relative} leads out of the data root",
            where=where,
            mend="Move or copy the file into the data root, or choose a root that holds it.",
        )
    return path


def _list_cases(description: Description, data_root: Path, datalist: Path | None) -> Listing:
    dataset_json = data_root / "dataset.json"
    if datalist is None and description.layout == "msd" and dataset_json.exists() and has_cases(dataset_json):
        datalist = dataset_json
    if datalist is not None:
        return read_datalist(datalist, description, data_root)
    return scan_folder(description, data_root)
