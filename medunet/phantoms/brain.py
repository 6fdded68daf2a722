"""Synthetic skull-stripped MR scans of gliomas in four modalities, in the file layout of MSD Task01.

Contrasts follow BraTS: oedema is bright in FLAIR and T2w, a rim enhances in T1gd around a core that is dark there,
fluid is dark in FLAIR and T1w and bright in T2w. Each case and modality has its own intensity scale, as MR has no
units, with bias field, noise, texture, and the blur of thick slices.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medunet.base.errors import InputError
from medunet.base.progress import track
from medunet.imaging.geometry import Affine
from medunet.imaging.nifti import write_volume
from medunet.phantoms.cohort import prepare_cohort
from medunet.phantoms.fields import Array, draw_field, grid_points
from medunet.phantoms.glioma import Kind, displace_tissue, draw_glioma, paint_glioma
from medunet.phantoms.head import Canvas, Tissue, draw_head, paint_head, to_template

VERSION = 2  # of the voxel values; increment it when they change, so that existing cohorts are replaced

MODALITIES = ("FLAIR", "T1w", "T1gd", "T2w")
LABELS = ("background", "edema", "non-enhancing tumor", "enhancing tumour")  # as MSD Task01 spells them
SPACING_MM = (1.9, 1.9, 2.2)
FIELD_OF_VIEW_MM = (152.0, 182.0, 141.0)

# Intensity relative to white matter, in the order of MODALITIES.
_BRIGHTNESS = {
    Tissue.WHITE: (1.0, 1.0, 1.0, 1.0),
    Tissue.GREY: (1.18, 0.78, 0.84, 1.38),
    Tissue.DEEP_GREY: (1.07, 0.86, 0.9, 1.16),
    Tissue.CSF: (0.22, 0.34, 0.4, 2.5),
    Tissue.VESSEL: (0.9, 0.8, 1.7, 0.8),
    Tissue.HYPERINTENSITY: (1.5, 0.9, 0.95, 1.5),
    Tissue.OEDEMA: (1.33, 0.86, 0.88, 1.65),
    Tissue.SOLID: (1.27, 0.76, 0.79, 1.8),
    Tissue.NECROSIS: (1.02, 0.58, 0.56, 2.0),
    Tissue.ENHANCING: (1.33, 0.9, 1.42, 1.45),
}
_SPREAD = 0.04  # standard deviation between cases of the logarithm of a tissue's intensity

# Gliomas of a cohort, repeated in this order: kind, number of foci.
_GLIOMAS: tuple[tuple[Kind, int], ...] = (
    ("ring", 1), ("patchy", 1), ("ring", 1), ("diffuse", 1), ("ring", 2),
    ("ring", 1), ("patchy", 1), ("ring", 3), ("diffuse", 1), ("ring", 1),
)  # fmt: skip


@dataclass(frozen=True)
class BrainPhantom:
    """A synthetic scan: int16 `(I, J, K, 4)`, label uint8 `(I, J, K)` with the values of `LABELS`; RAS+ mm."""

    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    affine: Affine


def make_brain(
    seed: int,
    *,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    field_of_view_mm: tuple[float, float, float] = FIELD_OF_VIEW_MM,
    kind: Kind = "ring",
    num_foci: int = 1,
) -> BrainPhantom:
    """Make a synthetic head with a glioma and scan it; a seed gives the same head on every grid.

    Args:
        seed: Determines head, glioma and contrasts and, together with the grid, the noise.
        spacing_mm: Voxel size along each array axis (L, P, S).
        field_of_view_mm: Size of the grid; (240, 240, 155) at 1 mm is BraTS's own.
        kind: Kind of glioma, see `medunet.phantoms.glioma.Focus`.
        num_foci: Number of foci, 1 to 3.
    """
    head_rng, glioma_rng, contrast_rng, noise_rng = np.random.default_rng(seed).spawn(4)
    head, foci = draw_head(head_rng), draw_glioma(glioma_rng, kind, num_foci)
    shape, affine = _scan_grid(spacing_mm, field_of_view_mm)
    template = to_template(head, grid_points(shape, affine))
    canvas = paint_head(head, displace_tissue(foci, template), edge_mm=float(np.mean(spacing_mm)))
    paint_glioma(foci, canvas, template)

    image = np.empty((*shape, len(MODALITIES)), np.int16)
    inside = canvas.depth_mm > 0
    for index, (contrast, noise) in enumerate(zip(contrast_rng.spawn(4), noise_rng.spawn(4), strict=True)):
        frame = _scan_modality(contrast, noise, index, canvas, grid_points(shape, affine), spacing_mm)
        image[..., index] = np.where(inside, np.clip(np.rint(frame), 1, 32767), 0)
    return BrainPhantom(image, np.where(inside, _label(canvas), 0).astype(np.uint8), affine)


def write_brain_cohort(
    folder: Path,
    num_cases: int,
    *,
    seed: int = 0,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    field_of_view_mm: tuple[float, float, float] = FIELD_OF_VIEW_MM,
) -> None:
    """Write synthetic gliomas in the file layout of MSD Task01; existing cases are kept.

    Case n depends only on `seed`, n and the grid. A cohort with another seed, grid or version is replaced. The index
    `dataset.json` is written first, so that an interrupted call can be repeated to write the missing cases.

    Raises:
        InputError: The folder contains other data or is not writable, or the spacing is out of range.
    """
    if not all(0.5 <= step <= 10 for step in spacing_mm):
        raise InputError(
            f"spacing_mm {[*spacing_mm]} is not 0.5 to 10 mm", hint="Choose for example 1.9 1.9 2.2."
        )
    made_of = {
        "seed": seed,
        "version": VERSION,
        "spacing_mm": [*spacing_mm],
        "field_of_view_mm": [*field_of_view_mm],
    }
    names = [f"BRATS_{number + 1:03d}.nii.gz" for number in range(num_cases)]
    old_files = [path for part in ("imagesTr", "labelsTr") for path in (folder / part).glob("*.nii.gz")]
    prepare_cohort(folder / "dataset.json", {**_msd_index(names), "phantoms": made_of}, old_files)
    for number, name in enumerate(track(names, "Phantoms")):
        image_path, label_path = folder / "imagesTr" / name, folder / "labelsTr" / name
        if image_path.exists() and label_path.exists():
            continue
        kind, num_foci = _GLIOMAS[number % len(_GLIOMAS)]
        phantom = make_brain(
            int(np.random.SeedSequence([seed, number]).generate_state(1)[0]),
            spacing_mm=spacing_mm,
            field_of_view_mm=field_of_view_mm,
            kind=kind,
            num_foci=num_foci,
        )
        write_volume(image_path, phantom.image, phantom.affine)
        write_volume(label_path, phantom.label, phantom.affine)


def _scan_grid(
    spacing_mm: tuple[float, float, float], field_of_view_mm: tuple[float, float, float]
) -> tuple[tuple[int, int, int], Affine]:
    """Return shape and affine of an LPS grid centred on the brain."""
    i, j, k = (max(2, round(size / step)) for size, step in zip(field_of_view_mm, spacing_mm, strict=True))
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    affine[:3, 3] = np.array([0.0, -4.0, 2.0]) - affine[:3, :3] @ ((np.array([i, j, k]) - 1) / 2)
    return (i, j, k), affine


def _scan_modality(
    contrast: np.random.Generator,
    noise: np.random.Generator,
    modality: int,
    canvas: Canvas,
    points: tuple[Array, Array, Array],
    spacing_mm: tuple[float, float, float],
) -> Array:
    """Return the intensities of one modality, `(I, J, K)`, in arbitrary units."""
    frame = np.zeros(canvas.depth_mm.shape, np.float32)
    for tissue, brightness in _BRIGHTNESS.items():
        frame += canvas.shares[tissue] * np.float32(
            brightness[modality] * np.exp(contrast.normal(0, _SPREAD))
        )
    tumour = canvas.shares[Tissue.OEDEMA :].sum(axis=0)
    frame *= 1 + (0.03 + 0.06 * tumour) * draw_field(contrast, 5.0).at(points)
    frame *= np.exp(contrast.uniform(0.05, 0.18) * draw_field(contrast, 60.0).at(points))
    frame = frame ** contrast.uniform(0.9, 1.15)
    blur_mm = (0.6, 0.6, contrast.uniform(0.6, 1.6))  # slices were thicker than the voxels
    frame = ndimage.gaussian_filter(frame, np.divide(blur_mm, spacing_mm), mode="nearest")
    frame += contrast.uniform(0.03, 0.06) * noise.standard_normal(frame.shape, dtype=np.float32)
    return frame * np.float32(np.exp(contrast.uniform(np.log(120), np.log(900))))


def _label(canvas: Canvas) -> NDArray[np.intp]:
    """Return the label with the largest fraction in each voxel."""
    core = canvas.shares[Tissue.SOLID] + canvas.shares[Tissue.NECROSIS]
    parts = (canvas.shares[Tissue.OEDEMA], core, canvas.shares[Tissue.ENHANCING])
    healthy = canvas.shares[: Tissue.OEDEMA].sum(axis=0)
    return np.argmax(np.stack([healthy, *parts]), axis=0)


def _msd_index(names: list[str]) -> dict[str, object]:
    """Return the content of `dataset.json` in the format of the Medical Segmentation Decathlon."""
    return {
        "name": "BRATS phantoms",
        "description": "Synthetic gliomas in four MR modalities",
        "reference": "medunet",
        "licence": "CC0",
        "release": "1.0",
        "tensorImageSize": "4D",
        "modality": {str(index): name for index, name in enumerate(MODALITIES)},
        "labels": {str(value): name for value, name in enumerate(LABELS)},
        "numTraining": len(names),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
        "test": [],
    }
