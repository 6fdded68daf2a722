"""A good set of four tiny cases, and the faults that the tests make of it one by one."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medunet.records.description import Description

SHAPE = (9, 7, 6)
SPACING_MM = (0.8, 1.0, 3.0)
AFFINE = np.diag([-0.8, 1.0, 3.0, 1.0]) + np.array([[0, 0, 0, 20.0], [0, 0, 0, -30], [0, 0, 0, 5], [0] * 4])
T1, T2, SEG = "b_t1.nii.gz", "b_t2.nii.gz", "b_seg.nii.gz"


def describe(**changes: Any) -> Description:
    plain = {
        "name": "tiny",
        "layout": "brats",
        "channels": {name: {"modality": "MR", "endings": [f"_{name.lower()}"]} for name in ("T1", "T2")},
        "labels": {"background": 0, "oedema": 1, "core": 2},
        "folds": 2,
    }
    return Description.parse({**plain, **changes}, "test")


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, qform: np.ndarray | None = None) -> None:
    image = nib.Nifti1Image(array, None)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    image.set_qform(affine if qform is None else qform, 1, strip_shears=True)
    nib.save(image, path)


def load(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj).copy()


def write_good_set(root: Path) -> None:
    """Write four good cases a, b, c, d of two modalities each."""
    rng = np.random.default_rng(7)
    for name in "abcd":
        for channel in ("t1", "t2"):
            save(root / f"{name}_{channel}.nii.gz", rng.normal(500, 80, SHAPE).astype(np.int16))
        save(root / f"{name}_seg.nii.gz", rng.integers(0, 3, SHAPE, dtype=np.uint8))


def change_array(name: str, index: tuple[int, ...], value: float, dtype: Any) -> Callable[[Path], None]:
    def corrupt(root: Path) -> None:
        array = load(root / name).astype(dtype)
        array[index] = value
        save(root / name, array)

    return corrupt


def change_grids(matrix: np.ndarray) -> Callable[[Path], None]:
    """Give all files of case b another affine."""

    def corrupt(root: Path) -> None:
        for name in (T1, T2, SEG):
            save(root / name, load(root / name), matrix)

    return corrupt


def change_affine(name: str, matrix: np.ndarray) -> Callable[[Path], None]:
    return lambda root: save(root / name, load(root / name), matrix)


def change_bytes(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes(change((root / name).read_bytes()))


def copy(source: str, target: str) -> Callable[[Path], None]:
    return lambda root: save(root / target, load(root / source))


def shifted(*offset_mm: float) -> np.ndarray:
    matrix = AFFINE.copy()
    matrix[:3, 3] += offset_mm
    return matrix


def scaled(factor: float) -> np.ndarray:
    return AFFINE @ np.diag([factor, factor, factor, 1.0])


def sheared() -> np.ndarray:
    matrix = AFFINE.copy()
    matrix[1, 2] = 0.6  # a gantry tilt of 11 degrees
    return matrix


def separate_qform(root: Path, offset_mm: float) -> None:
    save(root / T1, load(root / T1), AFFINE, shifted(offset_mm, 0, 0))


def singular(root: Path) -> None:
    image = nib.load(root / T1)
    header = image.header.copy()
    header["srow_z"] = 0
    header["qform_code"] = 0
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, header), root / T1)


def multiplied(root: Path) -> None:
    save(root / SEG, load(root / SEG) * np.float32(1.5))


def ball_label(root: Path) -> np.ndarray:
    """Put a core within an oedema, both of several voxels, in place of noise."""
    steps = np.meshgrid(*(np.arange(n) - n // 2 for n in SHAPE), indexing="ij")
    distance = np.sqrt(sum(step**2 for step in steps))
    label = (distance < 3.2).astype(np.uint8) + (distance < 1.8)
    save(root / SEG, label)
    return label


def interpolated(root: Path) -> None:
    """Shift a label by half a voxel along two axes with linear interpolation."""
    label = ball_label(root).astype(np.float32)
    for axis in (0, 1):
        label = (label + np.roll(label, 1, axis)) / 2
    save(root / SEG, label)


def interpolated_as_integers(root: Path) -> None:
    """Do the same with a mask of 0 and 240, which leaves whole numbers."""
    label = (ball_label(root) > 0) * np.float32(240)
    for axis in (0, 1):
        label = (label + np.roll(label, 1, axis)) / 2
    save(root / SEG, label.astype(np.uint8))


def change_header(name: str, **fields: Any) -> Callable[[Path], object]:
    """Set fields of a file's header and nothing else."""

    def corrupt(root: Path) -> None:
        data = gzip.decompress((root / name).read_bytes())
        header = nib.Nifti1Header(data[:348], check=False)
        for key, value in fields.items():
            header[key] = value
        (root / name).write_bytes(gzip.compress(header.binaryblock + data[348:]))

    return corrupt


def change_headers(**fields: Any) -> Callable[[Path], object]:
    """Set fields of the headers of all files of case b."""
    return lambda root: [change_header(name, **fields)(root) for name in (T1, T2, SEG)]


def change_unpacked(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return change_bytes(name, lambda data: gzip.compress(change(gzip.decompress(data))))


def save_type(dtype: Any) -> Callable[[Path], None]:
    return lambda root: nib.save(nib.Nifti1Image(np.zeros(SHAPE, dtype), AFFINE), root / T1)


def in_metres(root: Path) -> None:
    change_grids(scaled(0.001))(root)
    change_headers(xyzt_units=1)(root)


def link_outside(root: Path) -> None:
    outside = root.parent / f"{root.name}_outside.nii.gz"
    outside.write_bytes((root / T1).read_bytes())
    (root / T1).unlink()
    (root / T1).symlink_to(outside)


def cut_uncompressed(root: Path) -> None:
    """Put a whole stream of half a file in the place of a good one."""
    change_unpacked(T1, lambda data: data[: len(data) // 2])(root)


def flip_last_byte_of_checksum(data: bytes) -> bytes:
    return data[:-8] + bytes([data[-8] ^ 1]) + data[-7:]


ERRORS: list[tuple[str, str, Callable[[Path], object]]] = [
    ("N001", "image", lambda root: (root / T2).unlink()),
    ("N001", "label", lambda root: (root / SEG).unlink()),
    ("N002", "text", lambda root: (root / T1).write_bytes(gzip.compress(b"no volume" * 90))),
    ("N002", "not gzip", lambda root: (root / T1).write_bytes(b"no volume" * 90)),
    ("N002", "empty file", lambda root: (root / T1).write_bytes(b"")),
    ("N003", "half", change_bytes(T1, lambda data: data[: len(data) // 2])),
    ("N002", "another format", change_header(T1, magic=b"xyz")),
    ("N002", "no axes", change_header(T1, dim=[0, 9, 7, 6, 1, 1, 1, 1])),
    ("N002", "too many axes", change_header(T1, dim=[200, 9, 7, 6, 1, 1, 1, 1])),
    ("N002", "voxels begin within the header", change_header(T1, vox_offset=0)),
    ("N002", "voxels begin nowhere", change_header(SEG, vox_offset=np.nan)),
    ("N002", "negative size", change_header(T1, dim=[3, 9, -7, 6, 1, 1, 1, 1])),
    ("N003", "bytes behind the stream", change_bytes(T1, lambda data: data + b"more")),
    ("N003", "checksum cut off", change_bytes(T1, lambda data: data[:-8])),
    ("N003", "checksum wrong", change_bytes(SEG, flip_last_byte_of_checksum)),
    ("N004", "NaN", change_array(T1, (1, 2, 3), np.nan, np.float32)),
    ("N004", "infinite", change_array(T2, (1, 2, 3), -np.inf, np.float32)),
    ("N004", "beyond float32", change_array(T1, (1, 2, 3), 1e300, np.float64)),
    ("N004", "scaled beyond float32", change_header(T1, scl_slope=3e38)),
    ("N004", "label", change_array(SEG, (0, 0, 0), np.nan, np.float32)),
    ("N005", "three frames", lambda root: save(root / T1, np.stack([load(root / T1)] * 3, axis=3))),
    ("N005", "flat", lambda root: save(root / T1, load(root / T1)[:, :, 0])),
    ("N005", "no voxels", change_header(T1, dim=[3, 9, 7, 0, 1, 1, 1, 1])),
    ("N005", "label", lambda root: save(root / SEG, np.stack([load(root / SEG)] * 2, axis=3))),
    ("N007", "metres", change_grids(scaled(0.001))),
    ("N007", "coarse", change_grids(scaled(5.0))),
    ("N008", "shifted", lambda root: separate_qform(root, 40.0)),
    ("N008", "no quaternion", change_header(T1, quatern_b=2.0)),
    ("N009", "singular", singular),
    ("N009", "not finite", change_headers(srow_x=[np.nan, 0, 0, 0], qform_code=0)),
    ("N010", "tilted gantry", change_grids(sheared())),
    ("N011", "constant", lambda root: save(root / T1, np.full(SHAPE, 7, np.int16))),
    ("N013", "link", link_outside),
    ("N017", "cut before it was compressed", cut_uncompressed),
    ("N017", "one voxel short", change_unpacked(SEG, lambda data: data[:-1])),
    ("N017", "larger header", change_header(T1, dim=[3, 9, 7, 60, 1, 1, 1, 1])),
    ("N017", "far more than promised", change_unpacked(T1, lambda data: data + bytes(3 << 20))),
    ("N018", "huge header", change_header(T1, dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])),
    ("N022", "slope", change_header(T1, scl_slope=np.inf, scl_inter=5.0)),
    ("N022", "intercept", change_header(T1, scl_slope=1.0, scl_inter=np.nan)),
    ("N022", "label", change_header(SEG, scl_slope=0.0, scl_inter=1.0)),
    ("N023", "complex", save_type(np.complex64)),
    ("N023", "colours", save_type([("R", "u1"), ("G", "u1"), ("B", "u1")])),
    ("L001", "foreign", change_array(SEG, (2, 2, 2), 4, np.uint8)),
    ("L001", "negative", change_array(SEG, (2, 2, 2), -1, np.int16)),
    ("L002", "multiplied", multiplied),
    ("L002", "almost", change_array(SEG, (2, 2, 2), 1.0001, np.float32)),
    ("L002", "huge", change_array(SEG, (2, 2, 2), 1e30, np.float32)),
    ("L005", "interpolated", interpolated),
    ("L005", "interpolated, whole numbers", interpolated_as_integers),
    ("P001", "shape", lambda root: save(root / SEG, load(root / SEG)[:, :, 1:])),
    ("P001", "axes", lambda root: save(root / SEG, load(root / SEG).transpose(1, 0, 2))),
    ("P002", "shifted", change_affine(SEG, shifted(0, 0.5, 0))),
    ("P002", "mirrored", change_affine(SEG, AFFINE @ np.diag([-1, 1, 1, 1]))),
    ("P004", "shape", lambda root: save(root / T2, load(root / T2)[1:])),
    ("P005", "shifted", change_affine(T2, shifted(0, 0, 2.0))),
    ("P010", "elsewhere", change_affine(T2, shifted(900.0, 0, 0))),
    ("P007", "channels", copy(T1, T2)),
    ("S001", "two folds", copy("c_t1.nii.gz", "b_t1.nii.gz")),
    ("S002", "labels", copy("a_seg.nii.gz", "b_seg.nii.gz")),
]


def scaled_label(root: Path) -> None:
    """Save a label of floats with the header of an integer scan, for which NiBabel chooses a slope."""
    header = nib.load(root / T1).header
    nib.save(nib.Nifti1Image(load(root / SEG).astype(float), AFFINE, header), root / SEG)


def thin(root: Path) -> None:
    for name in (T1, T2, SEG):
        save(root / name, load(root / name)[:, :, :1])


def add_stray(root: Path) -> None:
    (root / "raters").mkdir()
    save(root / "raters" / "x.nii.gz", np.arange(24, dtype=np.int16).reshape(2, 3, 4))


def drop_class(root: Path) -> None:
    for name in "abcd":
        labels = load(root / f"{name}_seg.nii.gz")
        save(root / f"{name}_seg.nii.gz", np.where(labels == 2, 0, labels))


WARNINGS: list[tuple[str, str, Callable[[Path], object]]] = [
    ("N006", "warning", thin),
    ("N008", "warning", lambda root: separate_qform(root, 0.3)),
    ("N015", "warning", change_headers(sform_code=0, qform_code=0)),
    ("N016", "warning", in_metres),
    ("N016", "warning", change_headers(xyzt_units=5)),
    ("N024", "warning", change_header(T1, scl_slope=np.inf)),
    ("N024", "warning", change_header(SEG, scl_slope=np.nan, scl_inter=np.nan)),
    ("N017", "warning", change_unpacked(T1, lambda data: data + b"more")),
    ("L003", "warning", lambda root: save(root / SEG, np.zeros(SHAPE, np.uint8))),
    ("L004", "note", lambda root: save(root / SEG, load(root / SEG).astype(np.float32))),
    ("L009", "warning", lambda root: save(root / SEG, np.maximum(load(root / SEG), 1))),
    ("L010", "note", scaled_label),
    ("P003", "note", change_affine(SEG, shifted(0.01, 0, 0))),
    ("P006", "note", change_affine(T2, shifted(0.01, 0, 0))),
    ("S001", "warning", copy("a_t1.nii.gz", "b_t1.nii.gz")),
    ("S001", "warning", copy("a_t1.nii.gz", "stray.nii.gz")),
    ("S002", "warning", copy("a_seg.nii.gz", "stray.nii.gz")),
    ("S004", "warning", add_stray),
    ("S005", "note", lambda root: (root / SEG).unlink()),
    ("S006", "warning", drop_class),
]
