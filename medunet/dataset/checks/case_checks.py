"""Check one case: each file (N…), the label's values (L…) and the files against each other (P…).

Each file is decoded once, and its voxels are released before the next file is read; only the label's foreground is
kept for comparison with the images. Data for the checks of the whole dataset are returned as `CaseFacts`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medunet.base.errors import DataError, InputError
from medunet.dataset.checks.case_facts import CaseFacts, VolumeFacts
from medunet.dataset.checks.fault_codes import make_fault
from medunet.dataset.checks.header_checks import check_grid, check_readable
from medunet.dataset.checks.image_checks import check_image
from medunet.dataset.checks.label_checks import Foreground, check_label
from medunet.dataset.checks.mirrored import Border, BorderContrast, check_mirrored
from medunet.dataset.checks.pair_checks import compare_files
from medunet.imaging.geometry import max_volume_bytes
from medunet.imaging.gzip_files import SizeError
from medunet.imaging.pictures import ColourError
from medunet.imaging.segment_names import UndeclaredError, join_names
from medunet.imaging.volume import Header, StoredVoxels
from medunet.imaging.volumes import read_header, read_stored
from medunet.imaging.whole_numbers import stored_names
from medunet.records.data_root import file_path
from medunet.records.description import Description
from medunet.records.fault import Fault
from medunet.records.manifest import Case


@np.errstate(over="ignore", invalid="ignore")  # such values are reported as faults
def check_case(case: Case, description: Description, data_root: Path) -> tuple[list[Fault], CaseFacts]:
    """Read and check the files of a case; any error becomes a fault of the case.

    Raises:
        InputError: the limit of a volume's size, `MEDUNET_MAX_VOLUME_GB`, is not a positive number.
    """
    max_volume_bytes()
    faults: list[Fault] = []
    try:
        label = None
        foreground = None
        if case.label is not None:
            found, label, foreground = _check_label(case.id, case.label, description, data_root)
            faults += found
        elif case.split == "train":
            faults.append(make_fault("N001", case.id, "label", "no label is listed", expected="a label"))
        border = Border.of(foreground) if foreground else None
        images: list[VolumeFacts] = []
        contrasts: list[BorderContrast] = []
        for path in dict.fromkeys(case.images.values()):
            channels = [name for name in description.channels if case.images[name] == path]
            found, opened = _read_listed(case.id, path, channels, description, data_root)
            faults += found
            if opened is None:
                continue
            found, facts = check_image(case.id, path, channels, opened.header, opened.stored, description)
            faults += found
            images.append(facts)
            if border and foreground and facts.shape == foreground.shape:
                array = opened.stored.array
                contrasts += [
                    border.measure(array if array.ndim == 3 else array[..., n]) for n in range(len(channels))
                ]
        faults += compare_files(case.id, images, label)
        if label is not None:
            faults += check_mirrored(case.id, contrasts, label.affine)
        return faults, CaseFacts(case, tuple(images), label)
    except Exception as error:  # so that the other cases are still checked
        text = f"{type(error).__name__}: {error}"
        for root in (
            data_root.resolve(),
            data_root.absolute(),
        ):  # saved files must not contain absolute paths
            text = text.replace(str(root), "")
        return [*faults, make_fault("N099", case.id, "", text)], CaseFacts(case)


@dataclass(frozen=True)
class Opened:
    """A file whose voxels could be read."""

    header: Header
    stored: StoredVoxels


def _check_label(
    case_id: str, relative: str, description: Description, data_root: Path
) -> tuple[list[Fault], VolumeFacts | None, Foreground | None]:
    faults, opened = _read_listed(case_id, relative, [], description, data_root)
    if opened is None:
        return faults, None, None
    found, facts, foreground = check_label(case_id, relative, opened.header, opened.stored, description)
    return faults + found, facts, foreground


def _read_listed(
    case_id: str, relative: str, channels: list[str], description: Description, data_root: Path
) -> tuple[list[Fault], Opened | None]:
    """Read a file of the manifest as `read_file` does; it must lie below the data root."""
    try:
        path = file_path(relative, data_root, f"case {case_id}")
    except InputError as error:
        name = Path(relative).name if Path(relative).is_absolute() else relative
        subject = "+".join(channels) or "label"
        return [make_fault("N013", case_id, subject, error.what.replace(relative, name))], None
    return read_file(case_id, path, relative, channels, description)


def read_file(
    case_id: str, path: Path, name: str, channels: list[str], description: Description
) -> tuple[list[Fault], Opened | None]:
    """Read one file and run the checks common to images and labels; None if its voxels cannot be used.

    Args:
        name: how messages name the file.
        channels: whose frames the file holds; none for a label.
    """
    faults: list[Fault] = []
    label, subject = not channels, "+".join(channels) or "label"

    def stop(code: str, measured: str) -> tuple[list[Fault], None]:
        return [*faults, make_fault(code, case_id, subject, measured)], None

    try:
        if not path.is_file():
            return stop("N001", f"{name} does not exist")
        with path.open("rb"):
            pass
    except OSError as error:
        return stop("N021", error.strerror or type(error).__name__)
    try:
        header = read_header(path, label=label)
    except DataError as error:
        return stop("N002", error.what)
    broken = check_readable(case_id, subject, header, len(channels) or 1)
    if any(fault.severity == "error" for fault in broken):
        return broken, None
    faults = broken + check_grid(case_id, subject, header, description.spacing_range_mm(channels))
    if label and not description.instances:
        header = join_names(header, stored_names(description.labels, description.renumber))
    try:
        stored = read_stored(header, label=label)
    except UndeclaredError as error:
        declared = f"segments named {', '.join(name for name, value in description.labels.items() if value)}"
        return [*faults, make_fault("L001", case_id, subject, error.what, expected=declared)], None
    except SizeError as error:
        return stop("N017", error.what)
    except ColourError as error:
        return stop("N023", error.what)
    except DataError as error:
        return stop("N003", error.what)
    if stored.num_surplus:
        measured = f"{stored.num_surplus} bytes after the last voxel"
        faults.append(make_fault("N017", case_id, subject, measured, severity="warning"))
    if measured := _find_infinite(stored):
        faults.append(make_fault("N004", case_id, subject, measured))
    return faults, Opened(header, stored)


def _find_infinite(stored: StoredVoxels) -> str:
    """Describe NaN and infinite voxels, and values beyond float32, in which they are used; "" if there are none."""
    array = stored.array
    if array.dtype.kind != "f" and not stored.is_scaled:
        return ""
    ends = np.array([array.min(), array.max()], np.float64) * stored.slope + stored.intercept
    if (np.abs(ends) <= np.finfo(np.float32).max).all():  # false for NaN
        return ""
    count = array.size - np.count_nonzero(np.isfinite(array))
    return (
        f"{count} of {array.size} voxels"
        if count
        else f"values from {ends.min():g} to {ends.max():g}, beyond float32"
    )
