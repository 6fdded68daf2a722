"""Painting of a synthetic body: the tissue class at the centre of each voxel of a grid."""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medunet.imaging.geometry import Affine
from medunet.phantoms.body import Array, Body, Organ, Segment, Tissue, Tumour, Vector

Window = tuple[slice, slice, slice]

_COARSE_STEP_MM = 4.0  # of the grid used to place tumours and vessels
_FIELD_OF_VIEW_MM = np.array([298.0, 218.0, 164.0])  # of the template, along R, A, S
_HALF_BODY_MM = (138.0, 96.0)  # of the template, along R and A
_BEND_MM = 2.5  # amplitude of each of the waves that deform the body
_WALL_MM = 2.5  # of hollow organs
_VISCERAL_PLANE = ((-0.62, -0.35, -0.70), 20.0)  # normal, and extent of the liver along it in mm
_OBLIQUE_AXIS = np.array([0.45, 0.2, 0.87])  # rotation axis of oblique grids (gantry tilt and patient pose)


def scan_grid(
    body: Body, spacing_mm: tuple[float, float, float], orientation: str, oblique_degrees: float
) -> tuple[tuple[int, int, int], Affine]:
    """Return shape and affine of a grid that covers the field of view and is centred on the body."""
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


def paint(body: Body, shape: tuple[int, int, int], affine: Affine) -> NDArray[np.uint8]:
    """Return the tissue class at each voxel's centre, `(I, J, K)`."""
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


def find_liver(body: Body) -> tuple[Vector, Vector]:
    """Return points of the liver on a coarse grid in world mm, `(n, 3)`, and their depths in mm, `(n,)`."""
    shape, affine = scan_grid(body, (_COARSE_STEP_MM,) * 3, "RAS", 0.0)
    inside = np.pad(paint(body, shape, affine) == Tissue.LIVER, 1)
    depth_mm = ndimage.distance_transform_edt(inside, sampling=_COARSE_STEP_MM)[1:-1, 1:-1, 1:-1]
    liver_mm = nib.affines.apply_affine(affine, np.argwhere(depth_mm > 0))
    return liver_mm, depth_mm[depth_mm > 0]


@dataclass(frozen=True)
class _Canvas:
    """A grid on which a body is painted: tissue classes `(I, J, K)` and template coordinates of each voxel."""

    body: Body
    affine: Affine
    template: tuple[Array, Array, Array]
    tissue: NDArray[np.uint8]

    def radius_squared(self, organ: Organ, shrink_mm: float = 0.0) -> tuple[Window, Array]:
        """Return a window that contains an ellipsoid, and the squared radius in it (1 on the surface)."""
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
        """Set the tissue class of the voxels in `mask`."""
        self.tissue[window][mask] = tissue


def _paint_trunk(canvas: _Canvas) -> NDArray[np.bool_]:
    """Paint skin, fat, body wall, ribs, lungs and muscles; return the mask of the body cavity."""
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


def _paint_organ(canvas: _Canvas, organ: Organ, cavity: NDArray[np.bool_]) -> None:
    """Paint an organ within the body cavity, with contents and gas if it is hollow."""
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
    """Paint the two liver lobes, joined smoothly, and limited by the visceral plane and the abdominal wall."""
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


def _paint_segment(canvas: _Canvas, segment: Segment) -> None:
    """Paint a vessel segment within the liver."""
    along = segment.end_mm - segment.start_mm
    reach_mm = float(np.linalg.norm(along)) / 2 + max(segment.radius_start_mm, segment.radius_end_mm)
    middle = (segment.start_mm + segment.end_mm) / 2
    window = _window(canvas.tissue.shape, canvas.affine, middle, reach_mm)
    offset = np.stack(_world_points(canvas.affine, window), axis=-1) - segment.start_mm
    share = np.clip(offset @ along / (along @ along), 0, 1)
    distance = np.linalg.norm(offset - share[..., None] * along, axis=-1)
    radius = segment.radius_start_mm + share * (segment.radius_end_mm - segment.radius_start_mm)
    canvas.fill((distance < radius) & (canvas.tissue[window] == Tissue.LIVER), Tissue.VESSEL, window)


def _paint_tumour(canvas: _Canvas, tumour: Tumour, value: int) -> None:
    """Paint a tumour, an ellipsoid with bumps, within the liver."""
    window = _window(canvas.tissue.shape, canvas.affine, tumour.centre_mm, 1.3 * tumour.semi_axes_mm.max())
    offset = np.stack(_world_points(canvas.affine, window), axis=-1) - tumour.centre_mm
    offset = offset @ tumour.axes / tumour.semi_axes_mm
    bumps = sum(np.sin(offset @ wave[:3] + wave[3]) for wave in tumour.waves)  # -2 to 2
    inside = np.linalg.norm(offset, axis=-1) * (1.06 + 0.07 * bumps) < 1
    canvas.fill(inside & (canvas.tissue[window] >= Tissue.LIVER), value, window)


def _to_template(body: Body, affine: Affine, shape: tuple[int, int, int]) -> tuple[Array, Array, Array]:
    """Return the template coordinates x, y and z in mm of every voxel, with scaling and deformation."""
    about_centre = affine.copy()
    about_centre[:3, 3] -= body.centre_mm
    i, j, k = (slice(0, n) for n in shape)
    world = _world_points(about_centre, (i, j, k))
    bent = []
    for component, waves in zip(world, body.waves, strict=True):
        moved = component.copy()
        for *wave, phase in waves:
            angle = sum(np.float32(w) * axis for w, axis in zip(wave, world, strict=True)) + np.float32(phase)
            moved += np.float32(_BEND_MM) * np.sin(angle)
        bent.append(moved / np.float32(body.scale))
    return bent[0], bent[1], bent[2]


def _world_points(affine: Affine, window: Window) -> tuple[Array, Array, Array]:
    """Return the world coordinates x, y and z in mm of a window's voxels, each `(I, J, K)`."""
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
    """Return the window of a grid that contains a ball in world mm; it is empty if the ball is outside."""
    index = np.linalg.solve(affine[:3, :3], centre_mm - affine[:3, 3])
    reach = radius_mm / np.linalg.norm(affine[:3, :3], axis=0)
    low = np.clip(np.floor(index - reach), 0, shape).astype(int)
    high = np.clip(np.ceil(index + reach) + 1, 0, shape).astype(int)
    i, j, k = (slice(int(a), int(max(a, b))) for a, b in zip(low, high, strict=True))
    return i, j, k
