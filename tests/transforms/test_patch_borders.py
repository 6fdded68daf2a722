"""Patches at the borders of a scan: every voxel is seen, a forced one is held, and beyond them the scan goes on."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from medunet.transforms.augment import SampleParameters, apply_parameters, margin_size
from medunet.transforms.patches import PreparedCase, find_locations, sample_patch

PATCH = (20, 12, 8)
# Below, equal to and above the patch; 25, 15 and 10 are its 1.25-fold, where there was a single position.
SHAPES = [(40, 30, 20), (25, 15, 10), (22, 13, 9), (20, 12, 8), (17, 40, 1), (5, 6, 7)]


def make_case(shape: tuple[int, int, int]) -> PreparedCase:
    """A volume of distinct values whose outermost voxels are foreground."""
    label = np.ones(shape, np.uint8)
    label[tuple(slice(1, -1) for _ in shape)] = 0
    image = np.arange(label.size, dtype=np.float32).reshape(1, *shape)
    return PreparedCase("c", image, label, find_locations(label, {"rim": (1,)}, (0,)))


def middle(array: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """The central part of an array `(C, *size)`."""
    starts = [(n - size) // 2 for n, size in zip(array.shape[1:], sizes, strict=True)]
    return array[(..., *(slice(s, s + n) for s, n in zip(starts, sizes, strict=True)))]


class Watching(np.random.Generator):
    """Notes what `integers` returned: the target, then the forced voxel's place in its list."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.PCG64(seed))
        self.drawn: list[int] = []

    def integers(self, *given, **options):
        value = super().integers(*given, **options)
        self.drawn.append(int(value))
        return value


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("valid_margin", [(), (4, 2, 1)], ids=["padded", "unpadded"])
def test_every_voxel_is_seen_as_often_as_without_augmentation(shape, valid_margin):
    """Nothing that is drawn for an unmoved sample is lost: what it keeps is what an unaugmented draw cuts."""
    case = make_case(shape)
    outputs = tuple(n - 2 * m for n, m in zip(PATCH, valid_margin or (0, 0, 0), strict=True))
    seen = np.zeros(np.prod(shape), bool)
    for seed in range(600):
        augmented, plain = (
            sample_patch(
                case, size, np.random.default_rng(seed), foreground=False, slice_axis=None, patch_size=PATCH,
                valid_margin=valid_margin,
            )
            for size in (margin_size(PATCH), PATCH)
        )  # fmt: skip
        for wide, cut in zip(augmented, plain, strict=True):
            assert wide.shape[1:] == margin_size(PATCH)
            assert np.array_equal(middle(wide, PATCH), cut)
        seen[middle(plain[0], outputs).astype(int)] = True
    # In the largest volume a corner lies in one patch of (21 · 19 · 13).
    for axis, count in enumerate(shape):
        others = tuple({0, 1, 2} - {axis})
        assert seen.reshape(shape).any(others).all(), f"axis {axis} of {count} voxels"
    if all(n <= 1.25 * size for n, size in zip(shape, outputs, strict=True)):
        assert seen.all()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("context_slices", [1, 3])
def test_every_pixel_of_every_slice_is_seen_with_augmentation(axis, context_slices):
    shape, size = (11, 13, 12), (9, 10)
    case = make_case(shape)
    rng = np.random.default_rng(0)
    seen = np.zeros(np.prod(shape), bool)
    for _ in range(1500):
        image, _ = sample_patch(
            case, margin_size(size), rng, foreground=False, slice_axis=axis, patch_size=size,
            context_slices=context_slices,
        )  # fmt: skip
        assert image.shape == (context_slices, *margin_size(size))
        seen[middle(image, size)[context_slices // 2].astype(int)] = True
    assert seen.all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("valid_margin", [(), (4, 2, 1)], ids=["padded", "unpadded"])
def test_the_forced_voxel_lies_in_the_box_that_counts(shape, valid_margin):
    case = make_case(shape)
    outputs = tuple(n - 2 * m for n, m in zip(PATCH, valid_margin or (0, 0, 0), strict=True))
    for seed in range(1000):
        rng = Watching(seed)
        image, label = sample_patch(
            case, margin_size(PATCH), rng, foreground=True, slice_axis=None, patch_size=PATCH,
            valid_margin=valid_margin,
        )  # fmt: skip
        forced = case.locations["rim"][rng.drawn[1]]
        box = middle(image, outputs)[0]
        assert (box == forced).any()
        assert middle(label, outputs).any()
        for axis, (n, length) in enumerate(zip(outputs, shape, strict=True)):
            places = np.unique(np.unravel_index(box.astype(int), shape)[axis])
            assert len(places) == min(n, length), "the box leaves the volume"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_forced_pixel_lies_in_the_patch_of_its_slice(axis):
    case, size = make_case((14, 11, 12)), (10, 9)
    for seed in range(1000):
        rng = Watching(seed)
        image, _ = sample_patch(
            case, margin_size(size), rng, foreground=True, slice_axis=axis, patch_size=size
        )
        assert (middle(image, size) == case.locations["rim"][rng.drawn[1]]).any()


def test_a_short_volume_is_centred_unless_a_forced_voxel_moves_it():
    case = make_case((5, 6, 7))
    firsts = {
        foreground: {
            int((image[0, :, 5, 3] < image[0, 19, 5, 3]).sum())
            for image, _ in (
                sample_patch(case, PATCH, np.random.default_rng(seed), foreground=foreground, slice_axis=None)
                for seed in range(100)
            )
        }
        for foreground in (False, True)
    }
    assert len(firsts[False]) == 1
    assert len(firsts[True]) > 3


MOVES = {
    "turned and larger": SampleParameters(
        matrix=1.4 * Rotation.from_euler("xyz", (20, -25, 30), degrees=True).as_matrix()
    ),
    "in plane, mirrored": SampleParameters(
        matrix=Rotation.from_euler("z", 70, degrees=True).as_matrix(), mirrored=(0, 2)
    ),
    "elastic": SampleParameters(
        control_points_mm=np.random.default_rng(1).normal(0, 1, (3, 7, 6, 7)).astype(np.float32)
    ),
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("valid_margin", [(), (3, 2, 1)], ids=["padded", "unpadded"])
def test_a_moved_patch_sees_the_scan_go_on_beyond_its_border(move, valid_margin):
    """Warping what was cut at the border equals warping what is cut from a scan that was padded before."""
    shape, patch, wide = (16, 9, 12), (12, 8, 10), margin_size((12, 8, 10))
    margins, reach = valid_margin or (0, 0, 0), 20
    case = make_case(shape)
    padded = [
        np.pad(volume, reach, mode="reflect" if valid_margin else "edge")
        for volume in (case.image[0], case.label)
    ]

    def moved(image: np.ndarray, label: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        batch = torch.from_numpy(image)[None], torch.from_numpy(label)[None]
        return apply_parameters(*batch, [MOVES[move]], patch, (1.0, 1.0, 1.0))

    num_at_border = 0
    for seed in range(20):
        image, label = sample_patch(
            case, wide, np.random.default_rng(seed), foreground=seed % 2 == 0, slice_axis=None, patch_size=patch,
            valid_margin=valid_margin,
        )  # fmt: skip
        box = middle(image, tuple(n - 2 * m for n, m in zip(patch, margins, strict=True)))
        corner = np.unravel_index(int(box[0, 0, 0, 0]), shape)
        num_at_border += 0 in corner
        place = tuple(
            slice(reach + at - m - (n - kept) // 2, reach + at - m - (n - kept) // 2 + n)
            for at, m, n, kept in zip(corner, margins, wide, patch, strict=True)
        )
        wanted = moved(*(volume[place][None] for volume in padded))
        assert all(torch.equal(a, b) for a, b in zip(wanted, moved(image, label), strict=True))
    assert num_at_border > 3
