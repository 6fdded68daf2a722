"""Synthetic brain without skull: white and grey matter, folds, ventricles, vessels, white matter hyperintensities.

Shapes are defined in a template (RAS+ mm relative to the brain's centre), which each head rotates, scales and
deforms. The template is symmetric (shapes depend on |x|); the deformation makes left and right differ.
"""

from dataclasses import dataclass
from enum import IntEnum

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medunet.phantoms.fields import (
    Array,
    Point,
    Points,
    SmoothField,
    draw_field,
    ellipsoid_depth,
    smooth_union,
    tube_depth,
)


class Tissue(IntEnum):
    """Tissue classes of the brain; OEDEMA and above belong to the glioma."""

    WHITE = 0
    GREY = 1
    DEEP_GREY = 2
    CSF = 3
    VESSEL = 4
    HYPERINTENSITY = 5  # age-related white matter hyperintensity, bright in FLAIR and T2
    OEDEMA = 6
    SOLID = 7  # non-enhancing tumour
    NECROSIS = 8
    ENHANCING = 9


# In template mm: centre and semi-axes, or start, end and radii. Only the right side is given; the left is its mirror.
_FRONT: tuple[Point, Point] = ((15, 20, 6), (48, 61, 60))
_BACK: tuple[Point, Point] = ((17, -24, 8), (50, 62, 61))
_BASE_MM, _FLATTENED_BELOW = 6.0, 0.5  # hemispheres are flattened by this factor below this height
_HULL: tuple[Point, Point] = ((0, -2, 6), (67, 85, 66))  # ellipsoid around both hemispheres
_TEMPORAL_LOBE: tuple[Point, Point] = ((42, 0, -21), (24, 43, 21))
_CEREBELLUM: tuple[Point, Point] = ((22, -52, -36), (33, 30, 24))
_BRAINSTEM: tuple[Point, Point, tuple[float, float]] = ((0, -18, -12), (0, -32, -64), (13, 9))
_CALLOSUM: tuple[Point, Point] = ((0, -4, 4), (300, 42, 25))  # the fissure between the hemispheres ends here
_DEEP_GREY: tuple[tuple[Point, Point], ...] = (
    ((11, -16, 7), (8, 14, 9)),  # thalamus
    ((14, 14, 10), (5, 12, 9)),  # caudate
    ((26, 4, 3), (6, 17, 10)),  # putamen
)
_VENTRICLES: tuple[tuple[Point, Point, tuple[float, float]], ...] = (
    ((8, 30, 12), (8, 8, 19), (4.5, 4.5)),
    ((8, 8, 19), (15, -24, 20), (4.5, 4.5)),
    ((15, -24, 20), (25, -40, 10), (4.5, 6.0)),
    ((25, -40, 10), (24, -64, 4), (5.0, 1.5)),
    ((25, -40, 8), (33, -16, -18), (3.5, 1.8)),
)
_THIRD_VENTRICLE: tuple[Point, Point] = ((0, -8, 1), (1.6, 13, 9))
_FOURTH_VENTRICLE: tuple[Point, Point] = ((0, -41, -34), (6, 4, 9))
_CHOROID: tuple[Point, Point, tuple[float, float]] = ((20, -34, 16), (26, -40, 6), (1.6, 2.4))

_BEND_MM = 3.0  # standard deviation of the deformation
_FOLD_GRAIN_MM = 4.2
_FOLD_SPHERE_MM = (
    50.0  # folds are drawn on a sphere of this radius, so that they run inwards from the surface
)
_FOLD_MM_PER_UNIT = 3.9  # distance from a fold's centre at which its field reaches 1
_CORTEX_MM = 3.4


@dataclass(frozen=True)
class Head:
    """The random parameters of one head, independent of the scan and the glioma."""

    scale: NDArray[np.float64]  # (3,), patient mm per template mm
    rotation: NDArray[np.float64]  # (3, 3), rotation from template to patient
    bends: tuple[SmoothField, SmoothField, SmoothField]
    folds: SmoothField
    fold_depth: SmoothField
    sulcus_mm: float  # half the width of the fluid in a fold, wider with age
    ventricle_scale: float
    hyperintensities: tuple[tuple[Point, float], ...]  # centre and radius in mm


@dataclass
class Canvas:
    """Tissue fractions of each voxel, `(10, I, J, K)`, and its depth in mm below the brain's surface, `(I, J, K)`."""

    shares: Array
    depth_mm: Array
    edge_mm: float  # width over which edges are blurred (partial volume)

    def paint(self, tissue: Tissue, depth_mm: Array, strength: NDArray | float = 1.0) -> None:
        """Paint a tissue over all others where `depth_mm` is positive, with opacity `strength` (0 to 1)."""
        inside = np.clip(depth_mm / self.edge_mm + 0.5, 0, 1)
        inside = inside * np.asarray(strength, np.float32)
        self.shares *= 1 - inside
        self.shares[tissue] += inside


def draw_head(rng: np.random.Generator) -> Head:
    """Draw a random head: size, pose, folds, and age-dependent width of sulci and ventricles."""
    angles = np.deg2rad(rng.uniform(-5, 5, 3))
    age = rng.uniform(0, 1)
    spots = []
    for x, y, z, radius in rng.uniform((15, -50, 14, 2), (32, 40, 32, 4.5), (int(9 * age), 4)).tolist():
        spots.append(((x * rng.choice((-1, 1)).item(), y, z), radius))
    x, y, z = (draw_field(rng, 45.0) for _ in range(3))
    return Head(
        scale=rng.uniform(0.88, 0.96) * rng.uniform(0.97, 1.03, 3),
        rotation=nib.eulerangles.euler2mat(*angles),
        bends=(x, y, z),
        folds=draw_field(rng, _FOLD_GRAIN_MM),
        fold_depth=draw_field(rng, 12.0),
        sulcus_mm=0.45 + 0.7 * age,
        ventricle_scale=0.75 + 0.75 * age * rng.uniform(0.6, 1.2),
        hyperintensities=tuple(spots),
    )


def to_template(head: Head, points: Points) -> Points:
    """Transform points of the patient, in mm relative to the brain's centre, to template coordinates."""
    inverse = np.linalg.inv(head.rotation * head.scale)
    a, b, c = points
    x, y, z = (np.float32(row[0]) * a + np.float32(row[1]) * b + np.float32(row[2]) * c for row in inverse)
    straight = x, y, z
    bend_x, bend_y, bend_z = (_BEND_MM * bend.at(straight) for bend in head.bends)
    return x + bend_x, y + bend_y, z + bend_z


def hemisphere_depth(points: Points) -> Array:
    """Return the depth in mm below the surface of the nearer hemisphere, without the temporal lobe."""
    x, y, z = points
    above = z - _BASE_MM
    stretched = np.where(above < 0, above / _FLATTENED_BELOW, above) + _BASE_MM
    mirrored = np.abs(x), y, stretched
    return smooth_union(ellipsoid_depth(mirrored, *_FRONT), ellipsoid_depth(mirrored, *_BACK), blend_mm=5.0)


def paint_head(head: Head, template: Points, edge_mm: float) -> Canvas:
    """Paint the tissues of a head at points in template coordinates."""
    x, y, z = template
    mirrored = np.abs(x), y, z
    hemisphere, temporal = hemisphere_depth(template), ellipsoid_depth(mirrored, *_TEMPORAL_LOBE)
    cerebellum, stem = ellipsoid_depth(mirrored, *_CEREBELLUM), tube_depth(mirrored, *_BRAINSTEM)
    cerebrum = smooth_union(hemisphere, temporal, blend_mm=3.0)
    depth = smooth_union(cerebrum, cerebellum, stem, blend_mm=2.0)

    canvas = Canvas(np.zeros((len(Tissue), *x.shape), np.float32), depth, edge_mm)
    canvas.shares[Tissue.WHITE] = 1
    fluid = _distance_to_fluid(head, template, depth, hemisphere, temporal)
    canvas.paint(Tissue.GREY, _CORTEX_MM - fluid)
    for centre, half_axes in _DEEP_GREY:
        canvas.paint(Tissue.DEEP_GREY, ellipsoid_depth(mirrored, centre, half_axes))
    for centre, radius in head.hyperintensities:
        canvas.paint(Tissue.HYPERINTENSITY, ellipsoid_depth(template, centre, (radius, radius * 1.4, radius)))
    _paint_posterior_fossa(canvas, template, cerebellum, stem)
    canvas.paint(Tissue.CSF, np.where(np.maximum(cerebellum, stem) > 0, -9, head.sulcus_mm - fluid))
    canvas.paint(Tissue.CSF, 0.8 + head.sulcus_mm - depth)
    _paint_ventricles(canvas, head, mirrored)
    sinus = 2.0 - np.hypot(x, depth - 2.0)
    canvas.paint(Tissue.VESSEL, np.where(z - 0.5 * y > 20, sinus, -9))
    return canvas


def _distance_to_fluid(
    head: Head, template: Points, depth: Array, hemisphere: Array, temporal: Array
) -> Array:
    """Return the distance in mm of each point to the nearest fluid: brain surface, fold or fissure.

    A fold is a sheet where a random field is 0. The field is evaluated on a sphere around the brain's centre, almost
    independent of the radius, so that its sheets run inwards from the surface; each ends at some depth.
    """
    offsets = [(axis - centre) / half_axis for axis, centre, half_axis in zip(template, *_HULL, strict=True)]
    radius = np.sqrt(offsets[0] ** 2 + offsets[1] ** 2 + offsets[2] ** 2) + 1e-3
    reach = _FOLD_SPHERE_MM * (0.7 + 0.3 * radius) / radius
    # Left and right have different folds: their spheres are far apart in the field.
    apart = np.where(template[0] < 0, 71.0, 0.0)
    on_sphere = offsets[0] * reach + apart, offsets[1] * reach, offsets[2] * reach
    to_fold = _FOLD_MM_PER_UNIT * np.abs(head.folds.at(on_sphere))
    fold_depth_mm = 18.0 + 5.0 * head.fold_depth.at(template)
    fold = np.hypot(to_fold, np.maximum(depth - fold_depth_mm, 0))
    midline = np.hypot(template[0], np.maximum(ellipsoid_depth(template, *_CALLOSUM), 0))
    sylvian = np.hypot(temporal, np.maximum(32 - np.abs(template[0]), 0))
    sylvian = np.where(hemisphere > -2, sylvian, 99.0)
    return np.minimum(np.minimum(np.maximum(depth, 0), fold), np.minimum(midline, sylvian))


def _paint_posterior_fossa(canvas: Canvas, template: Points, cerebellum: Array, stem: Array) -> None:
    """Paint the cerebellum with its folia, the fluid around it, and the brainstem."""
    x, y, z = template
    inside = cerebellum > 0
    canvas.paint(Tissue.CSF, 1.0 - np.abs(cerebellum))
    canvas.paint(Tissue.WHITE, cerebellum)
    leaves = np.abs(np.sin((z + 0.35 * y + 0.1 * np.abs(x)) * np.pi / 8))
    leaves = 8 / np.pi * leaves
    canvas.paint(Tissue.GREY, np.minimum(1.9 - leaves, 16 - cerebellum), inside)
    canvas.paint(Tissue.GREY, np.minimum(3.5 - cerebellum, cerebellum))
    canvas.paint(Tissue.CSF, 0.35 - leaves, inside & (cerebellum < 9))
    canvas.paint(Tissue.WHITE, stem)


def _paint_ventricles(canvas: Canvas, head: Head, mirrored: Points) -> None:
    grow = head.ventricle_scale
    for start, end, (first, last) in _VENTRICLES:
        canvas.paint(Tissue.CSF, tube_depth(mirrored, start, end, (grow * first, grow * last)))
    for centre, (a, b, c) in (_THIRD_VENTRICLE, _FOURTH_VENTRICLE):
        canvas.paint(Tissue.CSF, ellipsoid_depth(mirrored, centre, (grow * a, b, c)))
    canvas.paint(Tissue.VESSEL, tube_depth(mirrored, *_CHOROID), 0.7)
