"""Synthetic portal-venous CTs of the upper abdomen with liver tumours: the cohort that `make demo` trains on.

A body is drawn once, in world mm, as smooth shapes; a scan then samples it on any grid. Organs are placed in a
template (RAS+ mm about the body's centre; a small adult), which each patient scales and bends by a smooth
displacement. Vessels and tumours are drawn in the patient's own mm, so that their sizes are exact.

Painting happens on a grid finer than the scan: averaging it gives the partial volume of thick slices in the
image and the majority tissue of each voxel in the label.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medunet.errors import InputError
from medunet.files import read_json, write_json
from medunet.imaging.geometry import Affine
from medunet.imaging.nifti import write_volume
from medunet.progress import track

Array = NDArray[np.float32]
Vector = NDArray[np.float64]
Window = tuple[slice, slice, slice]

VERSION = 1  # of the voxels: any change to them rewrites cohorts that lie on disk
MAX_TUMOURS = 8

_FINEST_STEP_MM = 1.7  # the painting grid is no coarser than this
_COARSE_STEP_MM = 4.0  # of the grid on which tumours and vessels find their place
_FIELD_OF_VIEW_MM = np.array([298.0, 218.0, 164.0])  # of the template, along R, A, S
_HALF_BODY_MM = (138.0, 96.0)  # of the template, along R and A
_BEND_MM = 2.5  # amplitude of each of the waves that bend the body
_OBLIQUE_AXIS = np.array([0.45, 0.2, 0.87])  # gantry tilt and a patient lying askew, together


class Tissue(IntEnum):
    """What fills a point of the body; from LIVER on it belongs to the liver, from TUMOUR on to tumours."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    LUNG = 4
    CORTICAL = 5
    MARROW = 6
    DISC = 7
    CANAL = 8
    BLOOD = 9
    HEART = 10
    SPLEEN = 11
    KIDNEY = 12
    SINUS = 13
    PANCREAS = 14
    GUT_WALL = 15
    CHYME = 16
    FLUID = 17
    GAS = 18
    BILE = 19
    LIVER = 20
    VESSEL = 21
    TUMOUR = 22  # the first of MAX_TUMOURS values, one for each tumour


# Mean HU in the portal-venous phase; the liver's and the tumours' are drawn for each patient.
_MEAN_HU = {
    Tissue.AIR: -1000, Tissue.SKIN: 15, Tissue.FAT: -100, Tissue.MUSCLE: 60, Tissue.LUNG: -840,
    Tissue.CORTICAL: 380, Tissue.MARROW: 190, Tissue.DISC: 85, Tissue.CANAL: 30, Tissue.BLOOD: 160,
    Tissue.HEART: 145, Tissue.SPLEEN: 122, Tissue.KIDNEY: 180, Tissue.SINUS: 5, Tissue.PANCREAS: 92,
    Tissue.GUT_WALL: 78, Tissue.CHYME: 58, Tissue.FLUID: 25, Tissue.GAS: -930, Tissue.BILE: 14,
    Tissue.VESSEL: 160,
}  # fmt: skip


@dataclass(frozen=True)
class _Organ:
    """An ellipsoid in template mm; a hollow one has a wall of `tissue` around its contents, gas on top."""

    tissue: Tissue
    centre_mm: tuple[float, float, float]
    half_axes_mm: tuple[float, float, float]
    contents: Tissue | None = None
    gas_from: float = 1.0  # height above the centre, as a share of the half-axis along A


# In the order of painting: later ones lie over earlier ones.
_LOBES = (
    _Organ(Tissue.LIVER, (54, 2, 4), (66, 74, 68)),
    _Organ(Tissue.LIVER, (-8, 40, 26), (70, 32, 34)),
)
_BEHIND_LIVER = (
    _Organ(Tissue.HEART, (-14, 28, 88), (46, 40, 34)),
    _Organ(Tissue.SPLEEN, (-84, -28, 18), (27, 42, 46)),
    _Organ(Tissue.PANCREAS, (-22, 4, -22), (46, 11, 12)),
    _Organ(Tissue.PANCREAS, (22, 4, -34), (15, 14, 20)),
    _Organ(Tissue.GUT_WALL, (-58, 22, 14), (38, 36, 46), Tissue.CHYME, 0.35),
    _Organ(Tissue.GUT_WALL, (-20, 40, -22), (28, 18, 18), Tissue.CHYME, 0.9),
    _Organ(Tissue.GUT_WALL, (26, 12, -52), (16, 15, 26), Tissue.FLUID),
    _Organ(Tissue.GUT_WALL, (74, 22, -72), (24, 22, 24), Tissue.CHYME, 0.1),
    _Organ(Tissue.GUT_WALL, (24, 56, -66), (34, 16, 17), Tissue.CHYME, 0.0),
    _Organ(Tissue.GUT_WALL, (-34, 56, -58), (34, 16, 17), Tissue.CHYME, 0.2),
    _Organ(Tissue.GUT_WALL, (-26, 20, -66), (22, 18, 16), Tissue.FLUID),
    _Organ(Tissue.GUT_WALL, (-62, 14, -62), (20, 22, 18), Tissue.CHYME),
    _Organ(Tissue.GUT_WALL, (-94, 2, -48), (16, 18, 34), Tissue.CHYME, 0.0),
)
_BEFORE_LIVER = (
    _Organ(Tissue.KIDNEY, (56, -48, -50), (22, 20, 42)),
    _Organ(Tissue.SINUS, (47, -44, -50), (9, 8, 20)),
    _Organ(Tissue.KIDNEY, (-58, -48, -38), (22, 20, 44)),
    _Organ(Tissue.SINUS, (-49, -44, -38), (9, 8, 20)),
    _Organ(Tissue.GUT_WALL, (44, 34, -34), (14, 17, 25), Tissue.BILE),
)
_WALL_MM = 2.5
_VISCERAL_PLANE = ((-0.62, -0.35, -0.70), 20.0)  # normal, and how far along it the liver reaches
_PORTA, _VENOUS_OUTLET = (26.0, -4.0, -8.0), (18.0, -26.0, 44.0)

# What the cohort's scanners do, in turn: in-plane spacing, slice spacing, orientation, obliquity in degrees.
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


@dataclass(frozen=True)
class _Tumour:
    """An irregular ellipsoid in world mm."""

    centre_mm: Vector  # (3,)
    semi_axes_mm: Vector  # (3,)
    axes: Vector  # (3, 3), columns are unit vectors
    waves: Vector  # (2, 4): wave vector in units of the semi-axes, and phase, of the surface's bumps


@dataclass(frozen=True)
class _Segment:
    """A vessel's piece in world mm: a cone with round ends."""

    start_mm: Vector
    end_mm: Vector
    radius_start_mm: float
    radius_end_mm: float


@dataclass(frozen=True)
class _Body:
    """Everything drawn for one patient, none of it depending on the scan."""

    centre_mm: Vector  # where the template's origin lies in the scanner
    scale: float  # patient mm per template mm
    waves: Vector  # (3 components, 2 waves, 4): wave vector in rad/mm, and phase
    lobes: tuple[_Organ, ...]  # of the liver, melting into one another
    behind_liver: tuple[_Organ, ...]
    before_liver: tuple[_Organ, ...]
    fat_rim: float  # share of the body's radius where the subcutaneous fat ends
    mean_hu: Array  # by tissue
    noise_hu: float
    vessels: tuple[_Segment, ...] = ()
    tumours: tuple[_Tumour, ...] = ()

    def to_world(self, template_mm: tuple[float, ...]) -> Vector:
        """Return where a template point lies in the scanner, to within the bending."""
        return self.centre_mm + self.scale * np.array(template_mm)


def make_phantom(
    seed: int,
    *,
    spacing_mm: tuple[float, float, float] = (2.0, 2.0, 3.0),
    orientation: str = "LPS",
    oblique_degrees: float = 0.0,
    num_tumours: int = 2,
) -> Phantom:
    """Draw the body of `seed` and scan it; the same seed is the same body on every grid.

    Args:
        seed: Decides the body, its first `num_tumours` tumours and, with the grid, the noise.
        spacing_mm: Voxel size along each array axis.
        orientation: Direction of each array axis, such as "RAS" or "PIR".
        oblique_degrees: By how much the grid is rotated away from the world's axes.
        num_tumours: 0 to `MAX_TUMOURS`.
    """
    if not 0 <= num_tumours <= MAX_TUMOURS:
        raise ValueError(f"num_tumours is {num_tumours}; choose 0 to {MAX_TUMOURS}")
    body = _draw_body(seed, num_tumours)
    shape, affine = _scan_grid(body, spacing_mm, orientation, oblique_degrees)
    factors = tuple(int(np.ceil(step / _FINEST_STEP_MM)) for step in spacing_mm)
    tissue = _paint(body, *_refine(shape, affine, factors))

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


def _draw_body(seed: int, num_tumours: int) -> _Body:
    """Draw a patient; each part has its own stream, so that one tumour more leaves the rest as it was."""
    build, hu, vessel, *tumours = np.random.default_rng([seed, 0]).spawn(3 + MAX_TUMOURS)
    waves = np.empty((3, 2, 4))
    waves[..., :3] = _unit_vectors(build, (3, 2)) * (2 * np.pi / build.uniform(110, 190, (3, 2, 1)))
    waves[..., 3] = build.uniform(0, 2 * np.pi, (3, 2))
    mean_hu = np.zeros(Tissue.TUMOUR + MAX_TUMOURS, dtype=np.float32)
    for name, value in _MEAN_HU.items():
        mean_hu[name] = value + (0 if name is Tissue.AIR else hu.uniform(-5, 5))
    mean_hu[Tissue.LIVER] = 110 + np.clip(hu.normal(0, 5), -10, 10)
    mean_hu[Tissue.TUMOUR :] = 65 + np.clip(hu.normal(0, 7, MAX_TUMOURS), -15, 15)
    bare = _Body(
        centre_mm=build.uniform((-15, -15, -600), (15, 15, 100)),
        scale=float(build.uniform(0.86, 0.98)),
        waves=waves,
        lobes=_vary(build, _LOBES),
        behind_liver=_vary(build, _BEHIND_LIVER),
        before_liver=_vary(build, _BEFORE_LIVER),
        fat_rim=float(build.uniform(0.87, 0.94)),
        mean_hu=mean_hu,
        noise_hu=float(hu.uniform(16, 18)),
    )
    shape, affine = _scan_grid(bare, (_COARSE_STEP_MM,) * 3, "RAS", 0.0)
    inside = np.pad(_paint(bare, shape, affine) == Tissue.LIVER, 1)
    depth = ndimage.distance_transform_edt(inside, sampling=_COARSE_STEP_MM)[1:-1, 1:-1, 1:-1]
    points = nib.affines.apply_affine(affine, np.argwhere(depth > 0))
    depth_mm = depth[depth > 0]
    trees = [
        _grow_vessels(vessel, bare.to_world(root), points[depth_mm > 6]) for root in (_PORTA, _VENOUS_OUTLET)
    ]
    placed: list[_Tumour] = []
    for number, rng in enumerate(tumours[:num_tumours]):
        placed.append(_place_tumour(rng, points, depth_mm, placed, largest=number == 0))
    return replace(bare, vessels=tuple(trees[0] + trees[1]), tumours=tuple(placed))


def _vary(rng: np.random.Generator, organs: tuple[_Organ, ...]) -> tuple[_Organ, ...]:
    """Shift each organ by up to 4 mm and stretch its axes by up to 8%."""
    varied = []
    for organ in organs:
        x, y, z = np.array(organ.centre_mm) + rng.uniform(-4, 4, 3)
        a, b, c = np.array(organ.half_axes_mm) * rng.uniform(0.92, 1.08, 3)
        varied.append(replace(organ, centre_mm=(x, y, z), half_axes_mm=(a, b, c)))
    return tuple(varied)


def _unit_vectors(rng: np.random.Generator, shape: tuple[int, ...]) -> Vector:
    vectors = rng.normal(size=(*shape, 3))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _grow_vessels(rng: np.random.Generator, root: Vector, points: Vector) -> list[_Segment]:
    """Grow a tree from `root` (3,) to 16 of `points` (n, 3), each joined to the nearest branch by a bend."""
    targets = points[rng.choice(len(points), 16, replace=False)]
    targets = targets[np.argsort(np.linalg.norm(targets - root, axis=1))]
    nodes, segments = [root], []

    def radius_mm(node: Vector) -> float:
        return float(np.clip(6.5 - np.linalg.norm(node - root) / 18, 1.5, 5.5))

    for target in targets:
        start = min(nodes, key=lambda node: float(np.linalg.norm(node - target)))
        length = np.linalg.norm(target - start)
        bend = (start + target) / 2 + rng.normal(0, 0.1 * length, 3)
        for first, last in ((start, bend), (bend, target)):
            segments.append(_Segment(first, last, radius_mm(first), radius_mm(last)))
            nodes.append(last)
    return segments


def _place_tumour(
    rng: np.random.Generator, points: Vector, depth_mm: Vector, others: list[_Tumour], *, largest: bool
) -> _Tumour:
    """Put a tumour where the liver (`points` (n, 3), `depth_mm` (n,)) has room for it, clear of `others`."""
    usual, small = rng.uniform(13, 36), rng.uniform(10, 13)
    diameter = rng.uniform(28, 37) if largest else usual if rng.random() < 0.8 else small
    order = rng.permutation(len(points))
    semi_axes = diameter / 2 * np.array([1.0, *rng.uniform(0.8, 1.0, 2)])
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    waves = np.concatenate([2.6 * _unit_vectors(rng, (2,)), rng.uniform(0, 2 * np.pi, (2, 1))], axis=1)
    gap_mm = 12.0
    while True:
        room = depth_mm > 0.9 * semi_axes[0]
        for other in others:
            reach_mm = other.semi_axes_mm[0] + gap_mm + semi_axes[0]
            room &= np.linalg.norm(points - other.centre_mm, axis=1) > reach_mm
        free = order[room[order]]
        if len(free):
            return _Tumour(points[free[0]], semi_axes, axes, waves)
        semi_axes, gap_mm = np.maximum(semi_axes * 0.9, 5.0), gap_mm * 0.9


def _scan_grid(
    body: _Body, spacing_mm: tuple[float, float, float], orientation: str, oblique_degrees: float
) -> tuple[tuple[int, int, int], Affine]:
    """Return shape and affine of a grid, centred on the body, over the field of view."""
    turns = nib.orientations.axcodes2ornt(tuple(orientation))
    directions = np.zeros((3, 3))
    for axis, (world_axis, sign) in enumerate(turns):
        directions[int(world_axis), axis] = sign
    extent_mm = body.scale * _FIELD_OF_VIEW_MM[turns[:, 0].astype(int)]
    i, j, k = np.rint(extent_mm / spacing_mm).astype(int)
    rotation = nib.quaternions.angle_axis2mat(np.deg2rad(oblique_degrees), _OBLIQUE_AXIS)
    affine = np.eye(4)
    affine[:3, :3] = rotation @ directions * spacing_mm
    affine[:3, 3] = body.centre_mm - affine[:3, :3] @ ((np.array([i, j, k]) - 1) / 2)
    return (int(i), int(j), int(k)), affine


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
    """Return noise of variance 1: white, with a grain of about 2 mm as reconstruction leaves it."""
    white = rng.standard_normal(shape, dtype=np.float32)
    grain = ndimage.gaussian_filter(
        rng.standard_normal(shape, dtype=np.float32), [2.0 / step for step in spacing_mm]
    )
    return np.float32(0.8) * white + np.float32(0.6) * grain / grain.std()


def _lattice(affine: Affine, window: Window) -> tuple[Array, Array, Array]:
    """Return the world x, y and z in mm of a window's voxels, each `(I, J, K)`."""
    index = np.ogrid[window]
    steps = [axis.astype(np.float32) for axis in index]
    x, y, z = (
        np.float32(row[0]) * steps[0]
        + np.float32(row[1]) * steps[1]
        + np.float32(row[2]) * steps[2]
        + np.float32(row[3])
        for row in affine[:3]
    )
    return x, y, z


def _window(shape: tuple[int, ...], affine: Affine, centre_mm: Vector, radius_mm: float) -> Window:
    """Return the window of a grid that holds a ball in world mm (empty where it lies outside)."""
    index = np.linalg.solve(affine[:3, :3], centre_mm - affine[:3, 3])
    reach = radius_mm / np.linalg.norm(affine[:3, :3], axis=0)
    low = np.clip(np.floor(index - reach), 0, shape).astype(int)
    high = np.clip(np.ceil(index + reach) + 1, 0, shape).astype(int)
    i, j, k = (slice(int(a), int(max(a, b))) for a, b in zip(low, high, strict=True))
    return i, j, k


def _to_template(body: _Body, affine: Affine, shape: tuple[int, int, int]) -> tuple[Array, Array, Array]:
    """Return the template x, y and z in mm of every voxel: scaled and bent."""
    about_centre = affine.copy()
    about_centre[:3, 3] -= body.centre_mm
    i, j, k = (slice(0, n) for n in shape)
    world = _lattice(about_centre, (i, j, k))
    bent = []
    for component, waves in zip(world, body.waves, strict=True):
        moved = component.copy()
        for *wave, phase in waves:
            angle = sum(np.float32(w) * axis for w, axis in zip(wave, world, strict=True)) + np.float32(phase)
            moved += np.float32(_BEND_MM) * np.sin(angle)
        bent.append(moved / np.float32(body.scale))
    return bent[0], bent[1], bent[2]


@dataclass(frozen=True)
class _Canvas:
    """A grid that a body is painted on: tissue `(I, J, K)` and where each voxel lies in the template."""

    body: _Body
    affine: Affine
    template: tuple[Array, Array, Array]
    tissue: NDArray[np.uint8]

    def radius_squared(self, organ: _Organ, shrink_mm: float = 0.0) -> tuple[Window, Array]:
        """Return a window that holds an ellipsoid, and there the squared radius: 1 on its surface."""
        reach_mm = 1.35 * self.body.scale * max(organ.half_axes_mm) + 2 * _BEND_MM * 3**0.5
        window = _window(self.tissue.shape, self.affine, self.body.to_world(organ.centre_mm), reach_mm)
        squares = [
            ((axis[window] - np.float32(centre)) / np.float32(half_axis - shrink_mm)) ** 2
            for axis, centre, half_axis in zip(
                self.template, organ.centre_mm, organ.half_axes_mm, strict=True
            )
        ]
        return window, squares[0] + squares[1] + squares[2]

    def fill(self, mask: NDArray[np.bool_], tissue: int, window: Window = np.s_[:, :, :]) -> None:
        """Paint a tissue where `mask` holds."""
        self.tissue[window][mask] = tissue


def _paint(body: _Body, shape: tuple[int, int, int], affine: Affine) -> NDArray[np.uint8]:
    """Return the tissue at each voxel's centre, `(I, J, K)`."""
    canvas = _Canvas(body, affine, _to_template(body, affine, shape), np.zeros(shape, np.uint8))
    cavity = _paint_trunk(canvas)
    for organ in body.behind_liver:
        _paint_organ(canvas, organ, cavity)
    _paint_liver(canvas, cavity)
    for organ in body.before_liver:
        _paint_organ(canvas, organ, cavity)
    _paint_spine_and_vessels(canvas)
    for segment in body.vessels:
        _paint_segment(canvas, segment)
    for number, tumour in enumerate(body.tumours):
        _paint_tumour(canvas, tumour, Tissue.TUMOUR + number)
    return canvas.tissue


def _paint_trunk(canvas: _Canvas) -> NDArray[np.bool_]:
    """Paint skin, fat, wall, ribs, lungs and muscles; return the mask of the cavity within the wall."""
    x, y, z = canvas.template
    a, p = (x / np.float32(_HALF_BODY_MM[0])) ** 2, (y / np.float32(_HALF_BODY_MM[1])) ** 2
    level = a * np.sqrt(np.sqrt(a)) + p * np.sqrt(np.sqrt(p))  # exponent 2.5, squarer than an ellipse

    def within(share: float) -> NDArray[np.bool_]:
        return level < np.float32(share**2.5)

    rim = canvas.body.fat_rim
    cavity = within(rim - 0.08)
    canvas.fill(within(1.0), Tissue.SKIN)
    canvas.fill(within(0.982), Tissue.FAT)
    canvas.fill(within(rim), Tissue.MUSCLE)
    slope = np.float32(2 * np.pi / 30) * (z - np.float32(0.45) * y)
    ribs = within(rim - 0.02) & ~within(rim - 0.075) & (np.sin(slope) > 0.55) & (z > y - 60)
    canvas.fill(ribs, Tissue.MARROW)
    canvas.fill(cavity, Tissue.FAT)
    canvas.fill(cavity & (z > np.float32(0.5) * y + np.float32(44)), Tissue.LUNG)
    back = ((np.abs(x) - 32) / 27) ** 2 + ((y + 74) / 17) ** 2 < 1
    psoas = ((np.abs(x) - 29) / 12) ** 2 + ((y + 50) / 14) ** 2 < np.clip((5 - z) / 40, 0, 1)
    canvas.fill(back | psoas, Tissue.MUSCLE)
    return cavity


def _paint_organ(canvas: _Canvas, organ: _Organ, cavity: NDArray[np.bool_]) -> None:
    """Paint an ellipsoid within the cavity, with its contents and their gas where it is hollow."""
    window, squared = canvas.radius_squared(organ)
    canvas.fill((squared < 1) & cavity[window], organ.tissue, window)
    if organ.contents is None:
        return
    window, squared = canvas.radius_squared(organ, shrink_mm=_WALL_MM)
    inside = (squared < 1) & cavity[window]
    canvas.fill(inside, organ.contents, window)
    level_mm = organ.centre_mm[1] + organ.gas_from * organ.half_axes_mm[1]
    canvas.fill(inside & (canvas.template[1][window] > level_mm), Tissue.GAS, window)


def _paint_liver(canvas: _Canvas, cavity: NDArray[np.bool_]) -> None:
    """Paint two lobes that melt into one another, cut by the visceral plane and the abdominal wall."""
    closeness = np.zeros(canvas.tissue.shape, np.float32)
    for lobe in canvas.body.lobes:
        window, squared = canvas.radius_squared(lobe)
        closeness[window] += 1 / np.maximum(squared, np.float32(1e-3)) ** 3
    (a, b, c), reach_mm = _VISCERAL_PLANE
    x, y, z = canvas.template
    ahead = np.float32(a) * x + np.float32(b) * y + np.float32(c) * z < reach_mm
    spine = (x / 32) ** 2 + ((y + 52) / 29) ** 2 < 1
    canvas.fill((closeness > 1) & ahead & cavity & ~spine, Tissue.LIVER)


def _paint_spine_and_vessels(canvas: _Canvas) -> None:
    """Paint vertebrae with discs, canal and processes, the aorta and the inferior vena cava."""
    x, y, z = canvas.template

    def tube(centre: tuple[float, float], half_axes: tuple[float, float]) -> NDArray[np.bool_]:
        return ((x - centre[0]) / half_axes[0]) ** 2 + ((y - centre[1]) / half_axes[1]) ** 2 < 1

    disc = np.mod(z + 8, 34) < 7
    canvas.fill(tube((0, -72), (17, 12)) & ~disc, Tissue.CORTICAL)
    canvas.fill(tube((0, -84), (4, 11)) & ~disc, Tissue.CORTICAL)
    canvas.fill(tube((0, -50), (21, 16)), Tissue.CORTICAL)
    canvas.fill(tube((0, -50), (19, 14)), Tissue.MARROW)
    canvas.fill(tube((0, -50), (21, 16)) & disc, Tissue.DISC)
    canvas.fill(tube((0, -70), (9, 7)), Tissue.CANAL)
    canvas.fill(tube((-9, -26), (10, 10)) | tube((17, -25), (11, 9)), Tissue.BLOOD)


def _paint_segment(canvas: _Canvas, segment: _Segment) -> None:
    """Paint a piece of vessel where there is liver."""
    along = segment.end_mm - segment.start_mm
    reach_mm = float(np.linalg.norm(along)) / 2 + max(segment.radius_start_mm, segment.radius_end_mm)
    middle = (segment.start_mm + segment.end_mm) / 2
    window = _window(canvas.tissue.shape, canvas.affine, middle, reach_mm)
    offset = np.stack(_lattice(canvas.affine, window), axis=-1) - segment.start_mm
    share = np.clip(offset @ along / (along @ along), 0, 1)
    distance = np.linalg.norm(offset - share[..., None] * along, axis=-1)
    radius = segment.radius_start_mm + share * (segment.radius_end_mm - segment.radius_start_mm)
    canvas.fill((distance < radius) & (canvas.tissue[window] == Tissue.LIVER), Tissue.VESSEL, window)


def _paint_tumour(canvas: _Canvas, tumour: _Tumour, value: int) -> None:
    """Paint a bumpy ellipsoid where there is liver."""
    window = _window(canvas.tissue.shape, canvas.affine, tumour.centre_mm, 1.3 * tumour.semi_axes_mm.max())
    offset = np.stack(_lattice(canvas.affine, window), axis=-1) - tumour.centre_mm
    offset = offset @ tumour.axes / tumour.semi_axes_mm
    bumps = sum(np.sin(offset @ wave[:3] + wave[3]) for wave in tumour.waves)  # -2 to 2
    inside = np.linalg.norm(offset, axis=-1) * (1.06 + 0.07 * bumps) < 1
    canvas.fill(inside & (canvas.tissue[window] >= Tissue.LIVER), value, window)


def write_cohort(
    folder: Path,
    *,
    num_cases: int = 20,
    seed: int = 0,
    layout: Literal["msd", "lits"] = "msd",
    progress: bool = True,
) -> None:
    """Write phantoms as MSD Task03 lays them out, or as LiTS; what is there already stays.

    Case n depends on `seed` and n alone. A cohort of another seed or version is replaced. The seed is kept in
    `dataset.json` (MSD) or `phantoms.json` (LiTS), which is written first, so that a run that was cut short
    goes on with the cases that are missing.

    Raises:
        InputError: the folder holds other data in this layout, or cannot be written.
    """
    stamp = {"seed": seed, "version": VERSION}
    index = folder / ("dataset.json" if layout == "msd" else "phantoms.json")
    pairs = [_case_paths(folder, layout, number) for number in range(num_cases)]
    old_files = [path for pattern in _FILES[layout] for path in folder.glob(pattern)]
    known = read_json(index) if index.exists() else {}
    if (index.exists() or old_files) and "phantoms" not in known:
        raise InputError(
            "holds a dataset that is not of phantoms", where=str(folder), mend="Choose an empty folder."
        )
    if known and known["phantoms"] != stamp:
        for path in old_files:
            path.unlink()
    content = {**(_msd_index(num_cases) if layout == "msd" else {}), "phantoms": stamp}
    if known != content:
        write_json(index, content)
    for number in track(range(num_cases), "Phantoms"):
        image_path, label_path = pairs[number]
        if image_path.exists() and label_path.exists():
            continue
        phantom = _make_case(seed, number)
        write_volume(image_path, phantom.image, phantom.affine)
        write_volume(label_path, phantom.label, phantom.affine)


def _make_case(seed: int, number: int) -> Phantom:
    """Make the cohort's case `number` on the scanner and with the tumours that are its turn."""
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
    """Return where a case's image and label lie."""
    name = f"{number:03d}" if layout == "msd" else str(number)
    image, label = (folder / pattern.replace("*", name) for pattern in _FILES[layout])
    return image, label


def _msd_index(num_cases: int) -> dict[str, object]:
    """Return `dataset.json` as the Medical Segmentation Decathlon writes it."""
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
