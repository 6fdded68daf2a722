"""Label maps of whole numbers after interpolation or JPEG are recognised, and true maps of many values are not."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree

from medunet.imaging.interpolated import describe_interpolation
from medunet.imaging.volumes import read_label

SHAPE = (44, 36, 30)
GRID = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)


def found_in(labels: np.ndarray, *, is_lossy: bool = False) -> str:
    values = frozenset(np.unique(labels).tolist()) | {0}
    return describe_interpolation(labels, values, is_lossy=is_lossy)


def draw_blobs(seed: int, shape: tuple[int, int] = (80, 96)) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    return (ndimage.gaussian_filter(noise, 8) > 0.01).astype(np.uint8) * 255


def draw_ball() -> np.ndarray:
    return (((GRID - [22, 18, 14]) / [11, 9, 8]) ** 2).sum(axis=-1) < 1


def draw_structures(number: int, seed: int = 0) -> np.ndarray:
    """Return a ball divided into many structures, as an atlas."""
    seeds = np.random.default_rng(seed).uniform(0, 1, (number, 3)) * SHAPE
    nearest = 1 + cKDTree(seeds).query(GRID)[1]
    return np.where((((GRID - [22, 18, 15]) / [20, 16, 14]) ** 2).sum(axis=-1) < 1, nearest, 0)


def as_jpeg(mask: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


@pytest.mark.parametrize("quality", [30, 50, 75, 85, 92, 95, 98])
@pytest.mark.parametrize("seed", range(3))
def test_masks_that_were_jpeg(seed: int, quality: int) -> None:
    """Also after they were saved as PNG, so that only their values tell."""
    two = draw_blobs(seed)
    three = two // 255 * 100
    three[20:60, 30:50] = 200
    for mask in (two, three):
        assert found_in(as_jpeg(mask, quality)[..., None]), np.unique(as_jpeg(mask, quality))


PICTURE_CHANGES = {
    "rotated": lambda image: image.rotate(5, Image.Resampling.BILINEAR),
    "rotated, cubic": lambda image: image.rotate(12, Image.Resampling.BICUBIC),
    "smaller": lambda image: image.resize((60, 50), Image.Resampling.BILINEAR),
    "smaller, mean of areas": lambda image: image.resize((48, 40), Image.Resampling.BOX),
    "larger": lambda image: image.resize((231, 207), Image.Resampling.BILINEAR),
    "larger, Lanczos": lambda image: image.resize((231, 207), Image.Resampling.LANCZOS),
}


@pytest.mark.parametrize("change", PICTURE_CHANGES)
@pytest.mark.parametrize("value", [255, 100, 20])
def test_pictures_that_were_resized_or_rotated(change: str, value: int) -> None:
    mask = Image.fromarray(draw_blobs(3) // 255 * np.uint8(value))
    assert found_in(np.asarray(PICTURE_CHANGES[change](mask))[..., None])


@pytest.mark.parametrize("zoom", [(1.3, 1.3, 2.1), (0.7, 0.7, 0.8), (1, 1, 5), (2, 2, 2)])
@pytest.mark.parametrize("order", [1, 3])
def test_volumes_that_were_resampled(zoom: tuple[float, ...], order: int) -> None:
    for labels in (draw_ball() * 255.0, draw_structures(104).astype(float), draw_structures(4) * 500.0):
        resampled = np.clip(ndimage.zoom(labels, zoom, order=order), 0, labels.max())
        assert found_in(resampled.round().astype(np.int16))
        nearest = ndimage.zoom(labels, zoom, order=0)
        assert found_in(nearest.astype(np.int16)) == ""


@pytest.mark.parametrize("factor", [2, 3, 2.5])
def test_smoothed_masks_that_were_enlarged_by_nearest_neighbour(factor: float) -> None:
    small = Image.fromarray(draw_blobs(3)).resize((48, 40), Image.Resampling.BICUBIC)
    size = (int(48 * factor), int(40 * factor))
    assert found_in(np.asarray(small.resize(size, Image.Resampling.NEAREST))[..., None])
    ball = ndimage.gaussian_filter(draw_ball() * 255.0, 1).round().astype(np.uint8)
    assert found_in(ball.repeat(2, axis=0).repeat(2, axis=1))
    bands = np.repeat([0, *range(10, 120, 10), 0], 4).astype(np.uint8)  # true labels, alike along two axes
    assert found_in(np.broadcast_to(bands[:, None, None], (52, 40, 30))) == ""


def test_smoothed_outlines_and_half_a_voxel() -> None:
    ball = draw_ball() * 255.0
    assert found_in(ndimage.gaussian_filter(ball, 1.5).astype(np.uint8))
    assert found_in(ndimage.shift(ball, (0.5, 0.5, 0), order=1).round().astype(np.uint8))


def test_true_maps_of_many_values() -> None:
    rng = np.random.default_rng(4)
    atlas = draw_structures(104)
    assert found_in(atlas) == ""
    assert found_in(atlas[::3, ::3, ::3]) == ""  # structures of one or two voxels
    assert found_in(draw_structures(2500)) == ""
    assert found_in(np.choose(atlas % 6, [0, 2, 41, 1001, 2035, 77])) == ""  # as FreeSurfer numbers them
    nuclei = np.zeros((200, 180), np.int32)
    rows, columns = np.mgrid[:200, :180]
    for number, (row, column, radius) in enumerate(rng.uniform((4, 4, 2), (196, 176, 5), (994, 3)), start=1):
        nuclei[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = number
    assert found_in(nuclei[..., None]) == ""
    assert found_in(rng.integers(0, 40, SHAPE)) == ""  # no structure at all


def test_thin_structures_and_layers_are_no_ramps() -> None:
    depth = np.zeros((50, 40, 30), np.uint8)
    for number in range(6):
        depth[20 + number :] = number + 1  # six layers of one voxel
    assert found_in(depth) == ""
    vessels = np.zeros((100, 100, 1), np.uint8)
    for number in range(30):
        vessels[3 * number + 2, 10 : 60 + number] = 8 * number + 3
    assert found_in(vessels) == ""
    points = np.zeros((100, 90, 1), np.uint8)
    points[tuple(np.random.default_rng(5).integers(1, 89, (2, 40)))] = np.arange(1, 41)[:, None]
    assert found_in(points) == ""
    wall = ndimage.distance_transform_edt(draw_ball())
    assert found_in((wall > 0).astype(np.uint8) + (wall > 1) + (wall > 4)) == ""  # nested
    assert found_in(np.minimum(wall.astype(np.uint8), 6)) == ""  # six shells of one voxel


def test_a_format_that_changes_values() -> None:
    """One value beside that of a label suffices, but three classes that JPEG has kept are none."""
    mask = np.zeros((16, 24, 1), np.uint8)
    mask[4:9, 5:11] = 255
    assert found_in(mask, is_lossy=True) == ""
    mask[12:, :] = 128
    assert found_in(mask, is_lossy=True) == ""
    mask[4, 5] = 254
    assert found_in(mask, is_lossy=True)
    assert found_in(mask) == ""
    assert found_in(
        (mask > 0).astype(np.uint8) + (mask == 128), is_lossy=True
    )  # 0, 1 and 2, as of a mask of 1


@pytest.mark.real_data
def test_real_label_maps(shared_data: Path) -> None:
    names = ("hippocampus/labelsTr/*.nii.gz", "spine_instances/*/*.nii.gz", "nuclei/labels/*.png")
    paths = [path for name in names for path in sorted(shared_data.glob(name))[::8]]
    paths += sorted(shared_data.glob("ct_abdomen/*labels.nii.gz")) + sorted(
        shared_data.glob("brats/*/*seg.nii.gz")
    )
    assert len(paths) > 40
    assert [path.name for path in paths if found_in(read_label(path).array)] == []
