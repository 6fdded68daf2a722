"""Synthetic patient: tissues, organs, vessels and tumours of the upper abdomen, independent of the scan.

Organs are smooth shapes in a template (RAS+ mm relative to the body's centre, a small adult), which each patient
scales and deforms smoothly. Vessels and tumours are drawn in patient coordinates, so that their sizes are exact.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Vector = NDArray[np.float64]

MAX_TUMOURS = 8


class Tissue(IntEnum):
    """Tissue classes of the body; LIVER and above belong to the liver, TUMOUR and above to tumours."""

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


# Mean HU in the portal-venous phase; those of liver and tumours are drawn for each patient.
_MEAN_HU = {
    Tissue.AIR: -1000, Tissue.SKIN: 15, Tissue.FAT: -100, Tissue.MUSCLE: 60, Tissue.LUNG: -840,
    Tissue.CORTICAL: 380, Tissue.MARROW: 190, Tissue.DISC: 85, Tissue.CANAL: 30, Tissue.BLOOD: 160,
    Tissue.HEART: 145, Tissue.SPLEEN: 122, Tissue.KIDNEY: 180, Tissue.SINUS: 5, Tissue.PANCREAS: 92,
    Tissue.GUT_WALL: 78, Tissue.CHYME: 58, Tissue.FLUID: 25, Tissue.GAS: -930, Tissue.BILE: 14,
    Tissue.VESSEL: 160,
}  # fmt: skip


@dataclass(frozen=True)
class Organ:
    """An ellipsoid in template mm; a hollow organ has a wall of `tissue` around its contents, with gas on top."""

    tissue: Tissue
    centre_mm: tuple[float, float, float]
    half_axes_mm: tuple[float, float, float]
    contents: Tissue | None = None
    gas_from: float = 1.0  # height of the gas above the centre, as a fraction of the semi-axis along A


# In the order of painting: later ones cover earlier ones.
_LOBES = (
    Organ(Tissue.LIVER, (54, 2, 4), (66, 74, 68)),
    Organ(Tissue.LIVER, (-8, 40, 26), (70, 32, 34)),
)
_BEHIND_LIVER = (
    Organ(Tissue.HEART, (-14, 28, 88), (46, 40, 34)),
    Organ(Tissue.SPLEEN, (-84, -28, 18), (27, 42, 46)),
    Organ(Tissue.PANCREAS, (-22, 4, -22), (46, 11, 12)),
    Organ(Tissue.PANCREAS, (22, 4, -34), (15, 14, 20)),
    Organ(Tissue.GUT_WALL, (-58, 22, 14), (38, 36, 46), Tissue.CHYME, 0.35),
    Organ(Tissue.GUT_WALL, (-20, 40, -22), (28, 18, 18), Tissue.CHYME, 0.9),
    Organ(Tissue.GUT_WALL, (26, 12, -52), (16, 15, 26), Tissue.FLUID),
    Organ(Tissue.GUT_WALL, (74, 22, -72), (24, 22, 24), Tissue.CHYME, 0.1),
    Organ(Tissue.GUT_WALL, (24, 56, -66), (34, 16, 17), Tissue.CHYME, 0.0),
    Organ(Tissue.GUT_WALL, (-34, 56, -58), (34, 16, 17), Tissue.CHYME, 0.2),
    Organ(Tissue.GUT_WALL, (-26, 20, -66), (22, 18, 16), Tissue.FLUID),
    Organ(Tissue.GUT_WALL, (-62, 14, -62), (20, 22, 18), Tissue.CHYME),
    Organ(Tissue.GUT_WALL, (-94, 2, -48), (16, 18, 34), Tissue.CHYME, 0.0),
)
_BEFORE_LIVER = (
    Organ(Tissue.KIDNEY, (56, -48, -50), (22, 20, 42)),
    Organ(Tissue.SINUS, (47, -44, -50), (9, 8, 20)),
    Organ(Tissue.KIDNEY, (-58, -48, -38), (22, 20, 44)),
    Organ(Tissue.SINUS, (-49, -44, -38), (9, 8, 20)),
    Organ(Tissue.GUT_WALL, (44, 34, -34), (14, 17, 25), Tissue.BILE),
)
_PORTA, _VENOUS_OUTLET = (26.0, -4.0, -8.0), (18.0, -26.0, 44.0)


@dataclass(frozen=True)
class Tumour:
    """An irregular ellipsoid in world mm."""

    centre_mm: Vector  # (3,)
    semi_axes_mm: Vector  # (3,)
    axes: Vector  # (3, 3), columns are unit vectors
    waves: Vector  # (2, 4): wave vector in units of the semi-axes, and phase, of the surface's bumps


@dataclass(frozen=True)
class Segment:
    """A segment of a vessel in world mm: a cone with round ends."""

    start_mm: Vector
    end_mm: Vector
    radius_start_mm: float
    radius_end_mm: float


@dataclass(frozen=True)
class Body:
    """The random parameters of one patient, independent of the scan."""

    centre_mm: Vector  # scanner coordinates of the template's origin
    scale: float  # patient mm per template mm
    waves: Vector  # (3 components, 2 waves, 4): wave vector in rad/mm, and phase
    lobes: tuple[Organ, ...]  # of the liver, joined smoothly
    behind_liver: tuple[Organ, ...]
    before_liver: tuple[Organ, ...]
    fat_rim: float  # fraction of the body's radius at which the subcutaneous fat ends
    mean_hu: Array  # by tissue
    noise_hu: float
    vessels: tuple[Segment, ...] = ()
    tumours: tuple[Tumour, ...] = ()

    def to_world(self, template_mm: tuple[float, ...]) -> Vector:
        """Return the scanner coordinates of a template point, ignoring the deformation."""
        return self.centre_mm + self.scale * np.array(template_mm)


def draw_body(seed: int) -> Body:
    """Draw a random patient without liver vessels and tumours, which `fill_liver` adds."""
    build, hu, *_ = _generators(seed)
    waves = np.empty((3, 2, 4))
    waves[..., :3] = _unit_vectors(build, (3, 2)) * (2 * np.pi / build.uniform(110, 190, (3, 2, 1)))
    waves[..., 3] = build.uniform(0, 2 * np.pi, (3, 2))
    mean_hu = np.zeros(Tissue.TUMOUR + MAX_TUMOURS, dtype=np.float32)
    for name, value in _MEAN_HU.items():
        mean_hu[name] = value + (0 if name is Tissue.AIR else hu.uniform(-5, 5))
    mean_hu[Tissue.LIVER] = 110 + np.clip(hu.normal(0, 5), -10, 10)
    mean_hu[Tissue.TUMOUR :] = 65 + np.clip(hu.normal(0, 7, MAX_TUMOURS), -15, 15)
    return Body(
        centre_mm=build.uniform((-15, -15, -600), (15, 15, 100)),
        scale=float(build.uniform(0.86, 0.98)),
        waves=waves,
        lobes=_jitter_organs(build, _LOBES),
        behind_liver=_jitter_organs(build, _BEHIND_LIVER),
        before_liver=_jitter_organs(build, _BEFORE_LIVER),
        fat_rim=float(build.uniform(0.87, 0.94)),
        mean_hu=mean_hu,
        noise_hu=float(hu.uniform(16, 18)),
    )


def fill_liver(body: Body, seed: int, num_tumours: int, liver_mm: Vector, depth_mm: Vector) -> Body:
    """Add vessels and tumours to the liver; a further tumour does not change the other ones.

    Args:
        body: A body from `draw_body`.
        seed: The seed of the body.
        num_tumours: 0 to `MAX_TUMOURS`.
        liver_mm: Points of the liver in world mm, `(n, 3)`.
        depth_mm: Depth of each point below the liver's surface, `(n,)`.
    """
    _, _, vessel, *tumours = _generators(seed)
    deep_mm = liver_mm[depth_mm > 6]
    trees = [_grow_vessels(vessel, body.to_world(root), deep_mm) for root in (_PORTA, _VENOUS_OUTLET)]
    placed: list[Tumour] = []
    for number, rng in enumerate(tumours[:num_tumours]):
        placed.append(_place_tumour(rng, liver_mm, depth_mm, placed, largest=number == 0))
    return replace(body, vessels=tuple(trees[0] + trees[1]), tumours=tuple(placed))


def _generators(seed: int) -> list[np.random.Generator]:
    """Return a random generator for each part of a body: build, HU, vessels, and every tumour."""
    return np.random.default_rng([seed, 0]).spawn(3 + MAX_TUMOURS)


def _jitter_organs(rng: np.random.Generator, organs: tuple[Organ, ...]) -> tuple[Organ, ...]:
    """Shift each organ by up to 4 mm and scale its axes by up to 8%."""
    varied = []
    for organ in organs:
        x, y, z = np.array(organ.centre_mm) + rng.uniform(-4, 4, 3)
        a, b, c = np.array(organ.half_axes_mm) * rng.uniform(0.92, 1.08, 3)
        varied.append(replace(organ, centre_mm=(x, y, z), half_axes_mm=(a, b, c)))
    return tuple(varied)


def _unit_vectors(rng: np.random.Generator, shape: tuple[int, ...]) -> Vector:
    vectors = rng.normal(size=(*shape, 3))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _grow_vessels(rng: np.random.Generator, root: Vector, points: Vector) -> list[Segment]:
    """Grow a vessel tree from `root` (3,) to 16 of `points` (n, 3), each joined to the nearest branch by a bend."""
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
            segments.append(Segment(first, last, radius_mm(first), radius_mm(last)))
            nodes.append(last)
    return segments


def _place_tumour(
    rng: np.random.Generator, points: Vector, depth_mm: Vector, others: list[Tumour], *, largest: bool
) -> Tumour:
    """Place a tumour where the liver (`points` (n, 3), `depth_mm` (n,)) has room for it, away from `others`."""
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
            return Tumour(points[free[0]], semi_axes, axes, waves)
        semi_axes, gap_mm = np.maximum(semi_axes * 0.9, 5.0), gap_mm * 0.9
