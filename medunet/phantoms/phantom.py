"""Synthetic portal-venous CTs of the upper abdomen with liver tumours, the training data of `make demo`.

A body is painted on a finer grid than the scan's and then averaged, which gives partial volume effects in the image
and the majority tissue of each voxel in the label.
"""

from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medunet.base.processor import usable_cores
from medunet.base.progress import track
from medunet.imaging.geometry import Affine
from medunet.imaging.nifti import write_volume
from medunet.phantoms.body import MAX_TUMOURS, Array, Tissue, draw_body, fill_liver
from medunet.phantoms.cohort import prepare_cohort
from medunet.phantoms.painting import find_liver, paint, scan_grid

VERSION = 1  # of the voxel values; increment it when they change, so that existing cohorts are replaced

_MAX_THREADS = 4  # painting a case takes a quarter of a GB
_FINEST_STEP_MM = 1.7  # largest voxel size of the painting grid

# Scans of a cohort, repeated in this order: in-plane spacing, slice spacing, orientation, obliquity in degrees.
_SCANS = (
    (2.0, 3.0, "LPS", 0.0),
    (2.3, 5.0, "RAS", 0.0),
    (2.1, 2.5, "LAS", 8.0),
    (2.2, 4.0, "PIR", 0.0),
    (1.9, 5.0, "LPS", 0.0),
    (2.5, 2.5, "RAS", 15.0),
    (2.2, 3.0, "LPI", 0.0),
    (1.8, 4.0, "LPS", 5.0),
    (2.4, 2.0, "RAS", 0.0),
    (1.5, 5.0, "ARS", 0.0),
    (2.0, 2.5, "LPS", 12.0),
)
_NUM_TUMOURS = (2, 1, 3, 2, 0, 1, 4, 2, 1, 3, 2, 1, 2, 4, 1, 3, 2, 1, 2, 3)
_FILES = {
    "msd": ("imagesTr/phantom_*.nii.gz", "labelsTr/phantom_*.nii.gz"),
    "lits": ("volume-*.nii", "segmentation-*.nii"),
}


@dataclass(frozen=True)
class Phantom:
    """A synthetic scan: HU as int16 `(I, J, K)`; label 0 background, 1 liver, 2 tumour as uint8; RAS+ mm."""

    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    affine: Affine


def make_phantom(
    seed: int,
    *,
    spacing_mm: tuple[float, float, float] = (2.0, 2.0, 3.0),
    orientation: str = "LPS",
    oblique_degrees: float = 0.0,
    num_tumours: int = 2,
) -> Phantom:
    """Make a synthetic body and scan it; a seed gives the same body on every grid.

    Args:
        seed: Determines the body, its tumours and, together with the grid, the noise.
        spacing_mm: Voxel size along each array axis.
        orientation: Direction of each array axis, such as "RAS" or "PIR".
        oblique_degrees: Rotation of the grid relative to the world axes.
        num_tumours: 0 to `MAX_TUMOURS`.
    """
    if not 0 <= num_tumours <= MAX_TUMOURS:
        raise ValueError(f"num_tumours is {num_tumours}; choose 0 to {MAX_TUMOURS}")
    body = draw_body(seed)
    body = fill_liver(body, seed, num_tumours, *find_liver(body))
    shape, affine = scan_grid(body, spacing_mm, orientation, oblique_degrees)
    factors = tuple(int(np.ceil(step / _FINEST_STEP_MM)) for step in spacing_mm)
    tissue = paint(body, *_refine(shape, affine, factors))

    slice_axis = int(np.argmax(np.abs(affine[2, :3])))
    blur_mm = [max(1.0, 0.25 * step) if axis == slice_axis else 1.0 for axis, step in enumerate(spacing_mm)]
    sigma = [blur * n / step for blur, n, step in zip(blur_mm, factors, spacing_mm, strict=True)]
    sharp = body.mean_hu[tissue]
    image = _block_mean(ndimage.gaussian_filter(sharp, sigma, mode="nearest", truncate=3.0), factors)
    image += body.noise_hu * _unit_noise(np.random.default_rng([seed, 1]), shape, spacing_mm)

    liver = _block_mean((tissue >= Tissue.LIVER).astype(np.float32), factors)
    tumour = _block_mean((tissue >= Tissue.TUMOUR).astype(np.float32), factors)
    label = np.where(liver < 0.5, 0, np.where(tumour > liver / 2, 2, 1)).astype(np.uint8)
    return Phantom(np.clip(np.rint(image), -1024, 3071).astype(np.int16), label, affine)


def _refine(
    shape: tuple[int, int, int], affine: Affine, factors: tuple[int, ...]
) -> tuple[tuple[int, int, int], Affine]:
    """Return the grid that divides each voxel into `factors` parts along each axis."""
    finer = np.diag([*(1 / n for n in factors), 1.0])
    finer[:3, 3] = [0.5 / n - 0.5 for n in factors]
    i, j, k = (size * n for size, n in zip(shape, factors, strict=True))
    return (i, j, k), affine @ finer


def _block_mean(array: Array, factors: tuple[int, ...]) -> Array:
    """Average blocks of `factors` voxels, axis by axis."""
    for axis, n in enumerate(factors):
        if n > 1:
            parts = [array[(slice(None),) * axis + (slice(start, None, n),)] for start in range(n)]
            array = sum(parts[1:], start=parts[0]) / np.float32(n)
    return array


def _unit_noise(rng: np.random.Generator, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Array:
    """Return noise of variance 1: white noise plus a grain of about 2 mm, as in reconstructed CT."""
    white = rng.standard_normal(shape, dtype=np.float32)
    grain = ndimage.gaussian_filter(
        rng.standard_normal(shape, dtype=np.float32), [2.0 / step for step in spacing_mm]
    )
    return np.float32(0.8) * white + np.float32(0.6) * grain / grain.std()


def write_cohort(
    folder: Path,
    *,
    num_cases: int = 20,
    seed: int = 0,
    layout: Literal["msd", "lits"] = "msd",
) -> None:
    """Write phantoms in the file layout of MSD Task03 or of LiTS; existing cases are kept.

    Case n depends only on `seed` and n. A cohort with another seed or version is replaced. The seed is stored in
    `dataset.json` (MSD) or `phantoms.json` (LiTS), which is written first, so that an interrupted call can be
    repeated to write the missing cases.

    Raises:
        InputError: The folder contains other data in this layout, or is not writable.
    """
    stamp = {"seed": seed, "version": VERSION}
    index = folder / ("dataset.json" if layout == "msd" else "phantoms.json")
    pairs = [_case_paths(folder, layout, number) for number in range(num_cases)]
    old_files = [path for pattern in _FILES[layout] for path in folder.glob(pattern)]
    prepare_cohort(
        index, {**(_msd_index(num_cases) if layout == "msd" else {}), "phantoms": stamp}, old_files
    )

    def write_case(number: int) -> None:
        image_path, label_path = pairs[number]
        if image_path.exists() and label_path.exists():
            return
        phantom = _make_case(seed, number)
        write_volume(image_path, phantom.image, phantom.affine)
        write_volume(label_path, phantom.label, phantom.affine)

    with ThreadPool(min(_MAX_THREADS, usable_cores())) as pool:
        cases = range(num_cases)
        for _ in zip(track(cases, "Phantoms"), pool.imap(write_case, cases), strict=True):
            pass


def _make_case(seed: int, number: int) -> Phantom:
    """Make case `number` of the cohort, with its scan parameters and number of tumours."""
    in_plane_mm, slice_mm, orientation, oblique_degrees = _SCANS[number % len(_SCANS)]
    i, j, k = (slice_mm if code in "IS" else in_plane_mm for code in orientation)  # axial slices
    return make_phantom(
        int(np.random.SeedSequence([seed, number]).generate_state(1)[0]),
        spacing_mm=(i, j, k),
        orientation=orientation,
        oblique_degrees=oblique_degrees,
        num_tumours=_NUM_TUMOURS[number % len(_NUM_TUMOURS)],
    )


def _case_paths(folder: Path, layout: Literal["msd", "lits"], number: int) -> tuple[Path, Path]:
    """Return the paths of a case's image and label."""
    name = f"{number:03d}" if layout == "msd" else str(number)
    image, label = (folder / pattern.replace("*", name) for pattern in _FILES[layout])
    return image, label


def _msd_index(num_cases: int) -> dict[str, object]:
    """Return the content of `dataset.json` in the format of the Medical Segmentation Decathlon."""
    root = Path()
    pairs = [_case_paths(root, "msd", number) for number in range(num_cases)]
    return {
        "name": "Phantoms",
        "description": "Synthetic abdominal CT with liver tumours",
        "reference": "medunet",
        "licence": "CC0",
        "release": "1.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "tumour"},
        "numTraining": num_cases,
        "numTest": 0,
        "training": [{"image": f"./{image}", "label": f"./{label}"} for image, label in pairs],
        "test": [],
    }
