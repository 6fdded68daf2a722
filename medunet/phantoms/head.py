"""A synthetic patient's brain without skull: white and grey matter, folds, ventricles, vessels, old spots.

Shapes stand in a template (RAS+ mm about the brain's centre), which each head turns, scales and bends. Left and
right are painted alike, in |x|, and differ by the bending.
"""

from dataclasses import dataclass
from enum import IntEnum

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medunet.phantoms.fields import (
    Array,
    Place,
    Points,
    SmoothField,
    draw_field,
    ellipsoid_depth,
    melt,
    tube_depth,
)


class Tissue(IntEnum):
    """What fills a point of the brain; from OEDEMA on it belongs to the glioma."""

    WHITE = 0
    GREY = 1
    DEEP_GREY = 2
    CSF = 3
    VESSEL = 4
    OLD_SPOT = 5  # white matter that age has made bright in FLAIR and T2
    OEDEMA = 6
    SOLID = 7  # tumour that takes up no contrast agent
    NECROSIS = 8
    ENHANCING = 9


# Template mm, centre and half axes (or start, end and radii), the right side standing for both.
_FRONT: tuple[Place, Place] = ((15, 20, 6), (48, 61, 60))
_BACK: tuple[Place, Place] = ((17, -24, 8), (50, 62, 61))
_BASE_MM, _FLATTENED_BELOW = 6.0, 0.5  # hemispheres are flatter below this height than above
_HULL: tuple[Place, Place] = ((0, -2, 6), (67, 85, 66))  # a single ellipsoid about both hemispheres
_TEMPORAL_LOBE: tuple[Place, Place] = ((42, 0, -21), (24, 43, 21))
_CEREBELLUM: tuple[Place, Place] = ((22, -52, -36), (33, 30, 24))
_BRAINSTEM: tuple[Place, Place, tuple[float, float]] = ((0, -18, -12), (0, -32, -64), (13, 9))
_CALLOSUM: tuple[Place, Place] = ((0, -4, 4), (300, 42, 25))  # the fissure between the hemispheres ends here
_DEEP_GREY: tuple[tuple[Place, Place], ...] = (
    ((11, -16, 7), (8, 14, 9)),  # thalamus
    ((14, 14, 10), (5, 12, 9)),  # caudate
    ((26, 4, 3), (6, 17, 10)),  # putamen
)
_VENTRICLES: tuple[tuple[Place, Place, tuple[float, float]], ...] = (
    ((8, 30, 12), (8, 8, 19), (4.5, 4.5)),
    ((8, 8, 19), (15, -24, 20), (4.5, 4.5)),
    ((15, -24, 20), (25, -40, 10), (4.5, 6.0)),
    ((25, -40, 10), (24, -64, 4), (5.0, 1.5)),
    ((25, -40, 8), (33, -16, -18), (3.5, 1.8)),
)
_THIRD_VENTRICLE: tuple[Place, Place] = ((0, -8, 1), (1.6, 13, 9))
_FOURTH_VENTRICLE: tuple[Place, Place] = ((0, -41, -34), (6, 4, 9))
_CHOROID: tuple[Place, Place, tuple[float, float]] = ((20, -34, 16), (26, -40, 6), (1.6, 2.4))

_BEND_MM = 3.0  # standard deviation of what makes left and right differ
_FOLD_GRAIN_MM = 4.2
_FOLD_SPHERE_MM = 50.0  # folds are drawn on a sphere, so that they run inwards from the surface
_FOLD_MM_PER_UNIT = 3.9  # how far from a fold's middle its field reaches 1
_CORTEX_MM = 3.4


@dataclass(frozen=True)
class Head:
    """Everything drawn for one head, none of it depending on the scan or the glioma."""

    scale: NDArray[np.float64]  # (3,), patient mm per template mm
    turn: NDArray[np.float64]  # (3, 3), rotation from template to patient
    bends: tuple[SmoothField, SmoothField, SmoothField]
    folds: SmoothField
    fold_depth: SmoothField
    sulcus_mm: float  # half the width of a fold's fluid: wider with age
    ventricle_scale: float
    old_spots: tuple[tuple[Place, float], ...]  # centre and radius in mm


@dataclass
class Canvas:
    """How much of each tissue every voxel holds, `(10, I, J, K)`, and its depth in mm below the brain's surface."""

    shares: Array
    depth_mm: Array
    edge_mm: float  # over which an edge is spread, as a voxel does

    def cover(self, tissue: Tissue, depth_mm: Array, strength: NDArray | float = 1.0) -> None:
        """Paint a tissue over all others where `depth_mm` is positive; `strength` 0 to 1 lets them through."""
        inside = np.clip(depth_mm / self.edge_mm + 0.5, 0, 1)
        inside = inside * np.asarray(strength, np.float32)
        self.shares *= 1 - inside
        self.shares[tissue] += inside


def draw_head(rng: np.random.Generator) -> Head:
    """Draw a head: size, pose, folds, and the width of what age widens."""
    angles = np.deg2rad(rng.uniform(-5, 5, 3))
    age = rng.uniform(0, 1)
    spots = []
    for x, y, z, radius in rng.uniform((15, -50, 14, 2), (32, 40, 32, 4.5), (int(9 * age), 4)).tolist():
        spots.append(((x * rng.choice((-1, 1)).item(), y, z), radius))
    x, y, z = (draw_field(rng, 45.0) for _ in range(3))
    return Head(
        scale=rng.uniform(0.88, 0.96) * rng.uniform(0.97, 1.03, 3),
        turn=nib.eulerangles.euler2mat(*angles),
        bends=(x, y, z),
        folds=draw_field(rng, _FOLD_GRAIN_MM),
        fold_depth=draw_field(rng, 12.0),
        sulcus_mm=0.45 + 0.7 * age,
        ventricle_scale=0.75 + 0.75 * age * rng.uniform(0.6, 1.2),
        old_spots=tuple(spots),
    )


def to_template(head: Head, points: Points) -> Points:
    """Return where the patient's points, in mm about the brain's centre, lie in the straight template."""
    inverse = np.linalg.inv(head.turn * head.scale)
    a, b, c = points
    x, y, z = (np.float32(row[0]) * a + np.float32(row[1]) * b + np.float32(row[2]) * c for row in inverse)
    straight = x, y, z
    bend_x, bend_y, bend_z = (_BEND_MM * bend.at(straight) for bend in head.bends)
    return x + bend_x, y + bend_y, z + bend_z


def hemisphere_depth(points: Points) -> Array:
    """Return the depth below the surface of the nearer hemisphere, its temporal lobe apart."""
    x, y, z = points
    above = z - _BASE_MM
    stretched = np.where(above < 0, above / _FLATTENED_BELOW, above) + _BASE_MM
    mirrored = np.abs(x), y, stretched
    return melt(ellipsoid_depth(mirrored, *_FRONT), ellipsoid_depth(mirrored, *_BACK), blend_mm=5.0)


def paint_head(head: Head, template: Points, edge_mm: float) -> Canvas:
    """Return the tissues of a head at template points."""
    x, y, z = template
    mirrored = np.abs(x), y, z
    hemisphere, temporal = hemisphere_depth(template), ellipsoid_depth(mirrored, *_TEMPORAL_LOBE)
    cerebellum, stem = ellipsoid_depth(mirrored, *_CEREBELLUM), tube_depth(mirrored, *_BRAINSTEM)
    cerebrum = melt(hemisphere, temporal, blend_mm=3.0)
    depth = melt(cerebrum, cerebellum, stem, blend_mm=2.0)

    canvas = Canvas(np.zeros((len(Tissue), *x.shape), np.float32), depth, edge_mm)
    canvas.shares[Tissue.WHITE] = 1
    fluid = _distance_to_fluid(head, template, depth, hemisphere, temporal)
    canvas.cover(Tissue.GREY, _CORTEX_MM - fluid)
    for centre, half_axes in _DEEP_GREY:
        canvas.cover(Tissue.DEEP_GREY, ellipsoid_depth(mirrored, centre, half_axes))
    for centre, radius in head.old_spots:
        canvas.cover(Tissue.OLD_SPOT, ellipsoid_depth(template, centre, (radius, radius * 1.4, radius)))
    _paint_behind(canvas, template, cerebellum, stem)
    canvas.cover(Tissue.CSF, np.where(np.maximum(cerebellum, stem) > 0, -9, head.sulcus_mm - fluid))
    canvas.cover(Tissue.CSF, 0.8 + head.sulcus_mm - depth)
    _paint_ventricles(canvas, head, mirrored)
    sinus = 2.0 - np.hypot(x, depth - 2.0)
    canvas.cover(Tissue.VESSEL, np.where(z - 0.5 * y > 20, sinus, -9))
    return canvas


def _distance_to_fluid(
    head: Head, template: Points, depth: Array, hemisphere: Array, temporal: Array
) -> Array:
    """Return how far each point is from the surface, the nearest fold or fissure, in mm.

    A fold is a sheet where a random field is 0. The field is taken on a sphere about the brain's centre, with the
    radius nearly taken out, so that its sheets run inwards from the surface; each ends at some depth.
    """
    offsets = [(axis - centre) / half_axis for axis, centre, half_axis in zip(template, *_HULL, strict=True)]
    radius = np.sqrt(offsets[0] ** 2 + offsets[1] ** 2 + offsets[2] ** 2) + 1e-3
    reach = _FOLD_SPHERE_MM * (0.7 + 0.3 * radius) / radius
    # Left and right fold differently: their spheres lie apart in the field.
    apart = np.where(template[0] < 0, 71.0, 0.0)
    on_sphere = offsets[0] * reach + apart, offsets[1] * reach, offsets[2] * reach
    to_fold = _FOLD_MM_PER_UNIT * np.abs(head.folds.at(on_sphere))
    fold_depth_mm = 18.0 + 5.0 * head.fold_depth.at(template)
    fold = np.hypot(to_fold, np.maximum(depth - fold_depth_mm, 0))
    midline = np.hypot(template[0], np.maximum(ellipsoid_depth(template, *_CALLOSUM), 0))
    sylvian = np.hypot(temporal, np.maximum(32 - np.abs(template[0]), 0))
    sylvian = np.where(hemisphere > -2, sylvian, 99.0)
    return np.minimum(np.minimum(np.maximum(depth, 0), fold), np.minimum(midline, sylvian))


def _paint_behind(canvas: Canvas, template: Points, cerebellum: Array, stem: Array) -> None:
    """Paint the cerebellum with its leaves, a gap of fluid around it, and the brainstem."""
    x, y, z = template
    inside = cerebellum > 0
    canvas.cover(Tissue.CSF, 1.0 - np.abs(cerebellum))
    canvas.cover(Tissue.WHITE, cerebellum)
    leaves = np.abs(np.sin((z + 0.35 * y + 0.1 * np.abs(x)) * np.pi / 8))
    leaves = 8 / np.pi * leaves
    canvas.cover(Tissue.GREY, np.minimum(1.9 - leaves, 16 - cerebellum), inside)
    canvas.cover(Tissue.GREY, np.minimum(3.5 - cerebellum, cerebellum))
    canvas.cover(Tissue.CSF, 0.35 - leaves, inside & (cerebellum < 9))
    canvas.cover(Tissue.WHITE, stem)


def _paint_ventricles(canvas: Canvas, head: Head, mirrored: Points) -> None:
    grow = head.ventricle_scale
    for start, end, (first, last) in _VENTRICLES:
        canvas.cover(Tissue.CSF, tube_depth(mirrored, start, end, (grow * first, grow * last)))
    for centre, (a, b, c) in (_THIRD_VENTRICLE, _FOURTH_VENTRICLE):
        canvas.cover(Tissue.CSF, ellipsoid_depth(mirrored, centre, (grow * a, b, c)))
    canvas.cover(Tissue.VESSEL, tube_depth(mirrored, *_CHOROID), 0.7)
