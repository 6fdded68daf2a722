"""Checks of one case: each file by itself (N…), the label's values (L…), the files against each other (P…).

Each file is read once; what the checks of the whole set need of it is kept as `VolumeFacts`.
"""

import gzip
import hashlib
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medunet.dataset.fault_codes import make_fault
from medunet.dataset.manifest import file_path
from medunet.errors import DataError, InputError
from medunet.imaging.geometry import Affine, corner_displacement_mm, shear_degrees, spacing_of
from medunet.imaging.nifti import Header
from medunet.imaging.volumes import read_header, read_volume
from medunet.records import Case, Description, Fault

_SPACING_MM = (0.1, 12.0)
_NOTED_MM = 1e-3  # smaller displacements are rounding
_ROUNDED_VOXELS = 0.01  # of the smallest spacing: what a quaternion loses
_DISPLACED_VOXELS = 0.1  # of the smallest spacing: two files no longer lie on one grid
_MAX_SHEAR_DEGREES = 1.0
_GZIP_MAGIC = b"\x1f\x8b"
_SAMPLED_VOXELS = 500_000  # enough for a percentile


@dataclass(frozen=True)
class VolumeFacts:
    """What is kept of a volume that could be read: its grid, a hash of its voxels, its bright end."""

    subject: str
    path: str
    shape: tuple[int, ...]
    affine: Affine
    content: str  # hash of shape and values, whatever their type; "" where all voxels are alike
    bright: dict[str, float] = field(default_factory=dict)  # 99.5 percentile, by channel
    values: frozenset[int] = frozenset()  # of a label


@dataclass(frozen=True)
class CaseFacts:
    """A case with the facts of those of its files that could be read."""

    case: Case
    images: tuple[VolumeFacts, ...] = ()
    label: VolumeFacts | None = None


def check_case(case: Case, description: Description, data_root: Path) -> tuple[list[Fault], CaseFacts]:
    """Read a case's files and check them; whatever goes wrong is a fault of the case, never an exception."""
    faults: list[Fault] = []
    try:
        images = []
        for path in dict.fromkeys(case.images.values()):
            channels = [name for name in description.channels if case.images[name] == path]
            found, facts = _check_image(case.id, path, channels, data_root)
            faults += found
            images += [facts] if facts else []
        label = None
        if case.label is not None:
            found, label = _check_label(case.id, case.label, description, data_root)
            faults += found
        elif case.split == "train":
            faults.append(make_fault("N001", case.id, "label", "no label is named", expected="a label"))
        faults += _compare_files(case.id, images, label)
        return faults, CaseFacts(case, tuple(images), label)
    except Exception as error:  # the other cases go on
        text = f"{type(error).__name__}: {error}"
        for root in (data_root.resolve(), data_root.absolute()):  # saved files hold no absolute path
            text = text.replace(str(root), "")
        return [*faults, make_fault("N099", case.id, "", text)], CaseFacts(case)


def hash_content(array: NDArray[np.float32]) -> str:
    """Return a hash of an array's shape and values, "" where all values are alike."""
    if array.size == 0 or array.min() == array.max():
        return ""
    digest = hashlib.sha256(str(array.shape).encode())
    digest.update(np.ascontiguousarray(array.T).data)  # NIfTI's own order, so mostly no copy
    return digest.hexdigest()


def read_stream(path: Path) -> None:
    """Read a compressed file to its end, where its checksum stands: readers stop at the last voxel.

    Raises:
        DataError: the stream is cut off or its checksum is wrong.
    """
    try:
        with path.open("rb") as packed:
            if packed.read(2) != _GZIP_MAGIC:
                return
        with gzip.open(path) as stream:
            while stream.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error  # an OSError's own text holds the absolute path
        raise DataError(f"the compressed stream is broken ({reason})", where=path.name) from error


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as '35×51×36'."""
    return "×".join(str(n) for n in shape)


def _check_image(
    case_id: str, relative: str, channels: list[str], data_root: Path
) -> tuple[list[Fault], VolumeFacts | None]:
    subject = "+".join(channels)
    faults, header, array = _check_file(case_id, relative, subject, len(channels), data_root)
    if header is None or array is None:
        return faults, None
    grey = array.ndim == 3  # which stands for each colour of a picture
    frames = [array if grey else array[..., index] for index in range(len(channels))]
    stained = header.nifti is None and array.min() < array.max()  # a stain may leave one colour empty
    bright = {}
    for name, frame in zip(channels, frames, strict=True):
        if frame.min() == frame.max() and not stained:
            faults.append(make_fault("N011", case_id, name, f"every voxel is {frame.flat[0]:g}"))
        flat = frame.ravel(order="K")
        bright[name] = float(np.percentile(flat[:: 1 + flat.size // _SAMPLED_VOXELS], 99.5))
    facts = VolumeFacts(
        subject, relative, header.shape[:3], header.affine, hash_content(array), bright=bright
    )
    return faults, facts


def _check_label(
    case_id: str, relative: str, description: Description, data_root: Path
) -> tuple[list[Fault], VolumeFacts | None]:
    faults, header, array = _check_file(case_id, relative, "label", 1, data_root, label=True)
    if header is None or array is None:
        return faults, None
    values: frozenset[int] = frozenset()
    if np.isfinite([array.min(), array.max()]).all():
        found, values = _check_values(case_id, array, header, description)
        faults += found
    return faults, VolumeFacts(
        "label", relative, header.shape, header.affine, hash_content(array), values=values
    )


def _check_file(
    case_id: str, relative: str, subject: str, num_frames: int, data_root: Path, *, label: bool = False
) -> tuple[list[Fault], Header | None, NDArray[np.float32] | None]:
    """Check one file by itself and return its voxels, None where they cannot be used further."""

    def stop(code: str, measured: str, expected: str = "") -> tuple[list[Fault], None, None]:
        return [*faults, make_fault(code, case_id, subject, measured, expected=expected)], None, None

    faults: list[Fault] = []
    try:
        path = file_path(relative, data_root, f"case {case_id}")
    except InputError as error:
        name = Path(relative).name if Path(relative).is_absolute() else relative
        return stop("N013", error.what.replace(relative, name))
    if not path.is_file():
        return stop("N001", f"{relative} does not exist")
    try:
        read_stream(path)
    except DataError as error:
        return stop("N003", error.what)
    try:
        header = read_header(path, label=label)
    except DataError as error:
        return stop("N002", error.what)
    frames = header.shape[3:] or (1,)
    grey = header.nifti is None and frames == (1,) and num_frames > 1
    if grey:
        faults.append(make_fault("N014", case_id, subject, "one channel"))
    elif len(header.shape) < 3 or frames != (num_frames,) or 0 in header.shape:
        expected = "3 axes" if num_frames == 1 else f"4 axes, the last of {num_frames} channels"
        if header.nifti is None:
            expected = "a grey picture, since one channel is described"
        return stop("N005", f"shape {shape_text(header.shape)}", expected)
    faults += _check_grid(case_id, subject, header)
    try:
        array = read_volume(path, label=label).array
    except DataError as error:
        return stop("N003", error.what)
    if not np.isfinite([array.min(), array.max()]).all():
        count = int(array.size - np.count_nonzero(np.isfinite(array)))
        faults.append(make_fault("N004", case_id, subject, f"{count} of {array.size} voxels"))
    return faults, header, array


def _check_grid(case_id: str, subject: str, header: Header) -> list[Fault]:
    """Check size, spacing, axes and the agreement of sform and qform."""
    faults = []

    def add(code: str, measured: str) -> None:
        faults.append(make_fault(code, case_id, subject, measured))

    shape, affine = header.shape[:3], header.affine
    if min(shape if header.nifti is not None else shape[:2]) < 2:
        add("N006", f"shape {shape_text(shape)}")
    if is_singular(affine):
        add("N009", f"axes {np.array2string(affine[:3, :3], precision=3, separator=', ')}".replace("\n", ""))
        return faults
    spacing_mm = spacing_of(affine)
    if min(spacing_mm) < _SPACING_MM[0] or max(spacing_mm) > _SPACING_MM[1]:
        add("N007", " × ".join(f"{x:.4g}" for x in spacing_mm) + " mm")
    shear = shear_degrees(affine)
    if shear > _MAX_SHEAR_DEGREES:
        add("N010", f"{shear:.1f}° from perpendicular")
    elif header.nifti is not None:  # a qform cannot hold shear
        faults += _compare_forms(case_id, subject, header, header.nifti)
    return faults


def _compare_forms(case_id: str, subject: str, header: Header, nifti: nib.Nifti1Header) -> list[Fault]:
    if nifti["sform_code"] == 0 or nifti["qform_code"] == 0:
        return []
    try:
        sform, qform = nifti.get_sform(), nifti.get_qform()
    except (ValueError, nib.spatialimages.HeaderDataError) as error:
        return [make_fault("N008", case_id, subject, f"the qform cannot be read ({error})")]
    mm_per_unit = min(header.spacing_mm) / min(spacing_of(sform))
    apart_mm = corner_displacement_mm(header.shape, sform, qform) * mm_per_unit
    smallest_mm = min(header.spacing_mm)
    if apart_mm <= max(_NOTED_MM, _ROUNDED_VOXELS * smallest_mm):
        return []
    slight = apart_mm <= min(1.0, smallest_mm)  # false for NaN
    measured = f"their corners lie {apart_mm:.3g} mm apart"
    return [make_fault("N008", case_id, subject, measured, severity="warning" if slight else "error")]


def is_singular(affine: Affine) -> bool:
    """Say whether an affine's axes are not finite, of no length or not independent."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or lengths.min() < 1e-9:
        return True
    return bool(abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-4)


def _check_values(
    case_id: str, array: NDArray[np.float32], header: Header, description: Description
) -> tuple[list[Fault], frozenset[int]]:
    """Check a label's values against the declared ones, and return those that occur."""
    declared = sorted(description.labels.values())
    instances_as = description.instances_as
    expected = "values " + ", ".join(str(value) for value in declared)
    labels = np.clip(array, -(2**31), 2**31 - 128).astype(np.int32)
    broken = array != labels
    if broken.any():
        count = int(np.count_nonzero(broken))
        examples = ", ".join(f"{x:.4g}" for x in np.unique(array[broken])[:5])
        measured = f"{count} voxels are not whole, such as {examples}"
        return [make_fault("L002", case_id, "label", measured, expected=expected)], frozenset()
    values = _values_of(labels)
    faults = []
    if instances_as is not None:  # every value above 0 is an object's number
        values = frozenset(instances_as if value > 0 else value for value in values)
    if unknown := sorted(values - set(declared)):
        counts = ", ".join(f"{value} in {np.count_nonzero(labels == value)} voxels" for value in unknown[:5])
        more = f" and {len(unknown) - 5} more values" if len(unknown) > 5 else ""
        faults.append(make_fault("L001", case_id, "label", f"{counts}{more}", expected=expected))
    if not values - {0, description.ignore_value}:
        other = "" if values == {0} else " or ignored"
        faults.append(make_fault("L003", case_id, "label", f"every voxel is 0{other}"))
    if header.nifti is not None and (stored := header.nifti.get_data_dtype()).kind == "f":
        faults.append(make_fault("L004", case_id, "label", f"{stored}, all values whole"))
    return faults, values


def _values_of(labels: NDArray[np.int32]) -> frozenset[int]:
    if labels.min() >= 0 and labels.max() < 65536:
        return frozenset(int(value) for value in np.flatnonzero(np.bincount(labels.ravel(order="K"))))
    return frozenset(int(value) for value in np.unique(labels))


def _compare_files(case_id: str, images: list[VolumeFacts], label: VolumeFacts | None) -> list[Fault]:
    """Compare the grids of a case's files with that of its first image."""
    faults = []
    for other in images[1:]:
        faults += _compare_grids(case_id, other, images[0], ("P004", "P005", "P006"))
    if label is not None and images:
        faults += _compare_grids(case_id, label, images[0], ("P001", "P002", "P003"))
    return faults


def _compare_grids(
    case_id: str, facts: VolumeFacts, reference: VolumeFacts, codes: tuple[str, str, str]
) -> list[Fault]:
    """Compare shapes and corners; `codes` are those of another shape, a displacement, a slight one."""
    other_shape, displaced, slightly = codes
    name = facts.subject
    if facts.shape != reference.shape:
        expected = f"{shape_text(reference.shape)}, the shape of {reference.subject}"
        return [make_fault(other_shape, case_id, name, f"shape {shape_text(facts.shape)}", expected=expected)]
    if is_singular(facts.affine) or is_singular(reference.affine):
        return []
    apart_mm = corner_displacement_mm(reference.shape, reference.affine, facts.affine)
    limit_mm = _DISPLACED_VOXELS * min(spacing_of(reference.affine))
    if apart_mm <= _NOTED_MM:
        return []
    return [
        make_fault(
            displaced if apart_mm > limit_mm else slightly,
            case_id,
            name,
            f"its farthest corner lies {apart_mm:.3g} mm from that of {reference.subject}",
            expected=f"at most {limit_mm:.3g} mm, a tenth of a voxel",
        )
    ]
