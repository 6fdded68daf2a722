"""Synthetic gliomas: location, shape, mass effect and tissues."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medunet.phantoms.fields import Array, Point, Points, SmoothField, draw_field
from medunet.phantoms.head import Canvas, Tissue, hemisphere_depth

Kind = Literal["ring", "patchy", "diffuse"]

MAX_FOCI = 3
_FADING_MM = 10.0  # oedema reaches full intensity at about half this depth


@dataclass(frozen=True)
class Focus:
    """One focus of a glioma, in template mm.

    A "ring" has an enhancing rim around necrosis, a "patchy" one has enhancing nodules in solid tumour, and a
    "diffuse" one does not enhance. Each is surrounded by oedema.
    """

    kind: Kind
    centre_mm: Point
    radius_mm: float  # of the core
    stretch: Point  # of the core, along x, y and z
    oedema_mm: float  # extent of the oedema beyond the core
    rim_mm: float
    lobes: SmoothField
    bumps: SmoothField
    spread: SmoothField  # of the oedema
    uptake: SmoothField  # of contrast agent


def draw_glioma(rng: np.random.Generator, kind: Kind, num_foci: int) -> tuple[Focus, ...]:
    """Draw a random glioma in one hemisphere; further foci are smaller and 25 to 50 mm away from the first."""
    if not 1 <= num_foci <= MAX_FOCI:
        raise ValueError(f"num_foci is {num_foci}; choose 1 to {MAX_FOCI}")
    side = -1.0 if rng.random() < 0.5 else 1.0
    foci: list[Focus] = []
    for number in range(num_foci):
        is_first = number == 0
        radius_mm = rng.uniform(10, 21) if is_first else rng.uniform(5, 9)
        a, b, c = rng.uniform(0.85, 1.2, 3).tolist()
        foci.append(
            Focus(
                kind=kind,
                centre_mm=_find_centre(rng, side, radius_mm, foci),
                radius_mm=radius_mm,
                stretch=(a, b, c),
                oedema_mm=rng.uniform(6, 16) if is_first and kind != "diffuse" else rng.uniform(3, 8),
                rim_mm=min(rng.uniform(2.5, 5.5), 0.45 * radius_mm),
                lobes=draw_field(rng, 0.75 * radius_mm),
                bumps=draw_field(rng, 4.0),
                spread=draw_field(rng, 9.0),
                uptake=draw_field(rng, 5.0),
            )
        )
    return tuple(foci)


def displace_tissue(foci: tuple[Focus, ...], points: Points) -> Points:
    """Return the original position of the tissue at each point, before the mass effect displaced it outwards."""
    for focus in foci:
        offsets, distance = _offsets(focus, points)
        reach_mm = 0.9 * focus.radius_mm + 6
        pull = 0.45 * np.exp(-0.5 * (distance / reach_mm) ** 2)
        x, y, z = (axis - pull * offset for axis, offset in zip(points, offsets, strict=True))
        points = x, y, z
    return points


def paint_glioma(foci: tuple[Focus, ...], canvas: Canvas, points: Points) -> None:
    """Paint oedema, mainly in white matter, and then the tumour cores over all other tissues."""
    within = np.clip(canvas.depth_mm - 1.5, 0, 1)
    grey = canvas.shares[Tissue.GREY].copy()
    fluid = canvas.shares[Tissue.CSF] + canvas.shares[Tissue.VESSEL]
    cores = [_core_depth(focus, points) for focus in foci]
    for focus, core in zip(foci, cores, strict=True):
        x = points[0] if focus.centre_mm[0] < 0 else -points[0]
        across_mm = np.maximum(x, 0)  # the midline fissure limits oedema
        reach_mm = focus.oedema_mm * (1 + 0.4 * focus.spread.at(points))
        oedema = core + reach_mm - 0.8 * focus.oedema_mm * grey - across_mm
        fading = np.clip(0.55 + oedema / _FADING_MM, 0, 1)
        canvas.paint(Tissue.OEDEMA, oedema, fading * np.clip(1 - 1.5 * fluid, 0, 1) * within)
    for focus, core in zip(foci, cores, strict=True):
        uptake = focus.uptake.at(points)
        canvas.paint(Tissue.NECROSIS if focus.kind == "ring" else Tissue.SOLID, core, within)
        if focus.kind == "ring":
            rim = focus.rim_mm * (1 + 0.55 * uptake)
            canvas.paint(Tissue.ENHANCING, np.minimum(core, rim - core), within)
        elif focus.kind == "patchy":
            nodules = 3.0 * (uptake - 0.3)
            canvas.paint(Tissue.ENHANCING, np.minimum(core - 0.5, nodules), within)


def _find_centre(rng: np.random.Generator, side: float, radius_mm: float, others: list[Focus]) -> Point:
    """Draw a centre within a hemisphere with room for most of a core, away from the other foci."""
    while True:
        x, y, z = rng.uniform((10, -62, -14), (56, 60, 58)).tolist()
        depth_mm = hemisphere_depth((np.array(x), np.array(y), np.array(z))).item()
        place = side * x, y, z
        apart_mm = [math.dist(place, other.centre_mm) for other in others]
        has_room = depth_mm > 0.75 * radius_mm + 3 and all(mm > 25 for mm in apart_mm)
        if has_room and all(mm < 50 for mm in apart_mm[:1]):
            return place


def _offsets(focus: Focus, points: Points) -> tuple[Points, Array]:
    """Return each point's offset from the centre, and its distance corrected for the core's stretch."""
    x, y, z = (axis - centre for axis, centre in zip(points, focus.centre_mm, strict=True))
    a, b, c = (stretch for stretch in focus.stretch)
    return (x, y, z), np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)


def _core_depth(focus: Focus, points: Points) -> Array:
    _, distance = _offsets(focus, points)
    lobes = 0.16 * focus.radius_mm * focus.lobes.at(points)
    return focus.radius_mm + lobes + 0.7 * focus.bumps.at(points) - distance
