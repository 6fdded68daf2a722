"""List the files given to `medunet predict`, without those that cannot be scans, which are named with the reason."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from medunet.base.errors import InputError
from medunet.dataset.layouts.patterns import IMPORT_FIRST, walk_files
from medunet.imaging.formats import PICTURES, SCANS, endings_of, files_of, format_of, header_of_pair
from medunet.records.mask_journal import SCHEMA, read_mask_index

LeftOut = dict[str, list[str]]  # names of files by the reason why they are left out

_FREESURFER = "FreeSurfer's format, which is not read: convert it to .nii.gz, as with mri_convert"
_NO_SCAN = {
    ".img": "the voxels of a volume whose header, .hdr, is missing",
    ".img.gz": "the voxels of a volume whose header, .hdr, is missing",
    ".seg.nrrd": "a segmentation of 3D Slicer, no scan",
    ".mgz": _FREESURFER,
    ".mgh": _FREESURFER,
    ".nhdr": "NRRD with separate data, which is not read: save it as one .nrrd file",
    ".dcm": f"DICOM. {IMPORT_FIRST}",
}


def list_files(
    given: Sequence[Path], left_out: LeftOut, faults: list[str], *, pictures: bool
) -> list[tuple[Path, bool]]:
    """Return each given file, and each file of a given folder, once, and whether it lies in a subfolder.

    Files that cannot be scans are added to `left_out`, paths that do not exist to `faults`. A pair of .hdr and .img
    is one file, and a header with data of its own as well.

    Args:
        pictures: whether 2D pictures are wanted, rather than volumes.

    Raises:
        InputError: a folder cannot be listed.
    """
    found, files = list(_walk(given, left_out, faults)), []
    headers = [path for path, _ in found if format_of(path).may_be_image and format_of(path).data_endings]
    data = {each.absolute() for path in headers for each in files_of(path)[1:]}
    for path, nested in found:
        if path.absolute() in data:
            continue
        if reason := _no_scan(path, pictures=pictures):
            left_out.setdefault(f"in a subfolder, and {reason}" if nested else reason, []).append(path.name)
        else:
            files.append((path, nested))
    return files


def _walk(given: Sequence[Path], left_out: LeftOut, faults: list[str]) -> Iterator[tuple[Path, bool]]:
    """Yield the files, without masks that medunet wrote."""
    seen: set[Path] = set()
    own: dict[Path, set[str]] = {}
    for path in given:
        if path.is_dir():
            names = sorted(walk_files(path))
        elif path.is_file():
            names = [""]
        else:
            faults.append(f"{path}: no such file")
            continue
        for name in names:
            file = path / name if name else path
            if (header := file.with_name(header_of_pair(file.name))).is_file():
                file = header  # x.hdr of x.img
            if file.absolute() in seen:
                continue
            seen.add(file.absolute())
            if file.parent not in own:
                own[file.parent] = _own_masks(file.parent)
            if file.name in own[file.parent]:
                left_out.setdefault("a mask that medunet predicted", []).append(file.name)
            elif file.name != "index.json" or not own[file.parent]:
                yield file, "/" in name


def _own_masks(folder: Path) -> set[str]:
    """Return the names of the masks that medunet wrote into a folder, by its index."""
    try:
        index = read_mask_index(folder)
    except InputError:
        return set()
    if index.get("schema") != SCHEMA:
        return set()
    return {f"{case}{ending}" for case in index.get("cases", {}) for ending in (".nii.gz", ".png")}


def _no_scan(path: Path, *, pictures: bool) -> str:
    """Return why a file is no scan of the kind that is wanted; "" if it may be one."""
    name = path.name.lower()
    is_picture = name.endswith(endings_of(PICTURES))
    is_volume = format_of(path) in SCANS and name.endswith(endings_of(SCANS))
    if (is_picture and pictures) or (is_volume and not pictures):
        return ""
    if is_picture or is_volume:
        one, other = ("a volume", "2D pictures") if pictures else ("a 2D picture", "volumes")
        return f"{one}, but the model was trained on {other}"
    if reason := next((text for ending, text in _NO_SCAN.items() if name.endswith(ending)), ""):
        return reason
    if _is_dicom(path):
        return _NO_SCAN[".dcm"]
    kind = f"of type {path.suffix.lower()}" if path.suffix else "a file without an ending"
    return f"{kind}, which is no scan"


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False
