"""Patches: the right voxels, forced foreground, borders repeated, the same again from the same seed."""

import numpy as np
import pytest

from medunet.transforms.patches import PreparedCase, find_locations, sample_patch

SHAPE = (20, 14, 9)
TARGETS = {"liver": (1, 2), "tumour": (2,)}


@pytest.fixture
def case() -> PreparedCase:
    """A volume whose voxels hold their own flat index, with one tumour voxel in a liver corner."""
    label = np.zeros(SHAPE, np.uint8)
    label[12:18, 3:9, 2:6] = 1
    label[17, 8, 5] = 2
    image = np.arange(label.size, dtype=np.float32).reshape(1, *SHAPE)
    return PreparedCase("c", image, label, find_locations(label, TARGETS, (0,)))


@pytest.mark.parametrize("size", [(8, 8, 4), (20, 14, 9), (32, 8, 16), (24, 20, 12)])
@pytest.mark.parametrize("foreground", [True, False])
def test_patch_is_a_piece_of_the_volume_or_its_repeated_border(case, size, foreground):
    rng = np.random.default_rng(0)
    for _ in range(10):
        image, label = sample_patch(case, size, rng, foreground=foreground, slice_axis=None)
        assert image.shape == (1, *size)
        assert label.shape == (1, *size)
        places = np.unravel_index(image[0].astype(int), SHAPE)
        assert np.array_equal(label[0], case.label[places])
        for axis, place in enumerate(places):
            steps = np.diff(place, axis=axis)
            assert set(np.unique(steps)) <= {0, 1}
            if size[axis] <= SHAPE[axis]:
                assert (steps == 1).all()


def test_forced_foreground_reaches_every_target_alike(case):
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        _, label = sample_patch(case, (4, 4, 4), rng, foreground=True, slice_axis=None)
        assert label.any()
        hits += (label == 2).any()
    assert hits > 90  # one voxel of 144, yet half of the patches are centred on it


def test_a_case_without_foreground_still_gives_patches():
    label = np.zeros(SHAPE, np.uint8)
    case = PreparedCase("c", np.zeros((1, *SHAPE), np.float32), label, find_locations(label, TARGETS, (0,)))
    assert case.locations == {}
    image, _ = sample_patch(case, (8, 8, 8), np.random.default_rng(0), foreground=True, slice_axis=None)
    assert image.shape == (1, 8, 8, 8)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_cut_across_their_axis(case, axis):
    image, label = sample_patch(case, (6, 6), np.random.default_rng(0), foreground=True, slice_axis=axis)
    assert image.shape == (1, 6, 6)
    assert label.any()
    places = np.unravel_index(image[0].astype(int), SHAPE)
    assert len(np.unique(places[axis])) == 1


def test_the_same_seed_gives_the_same_patch(case):
    patches = [
        sample_patch(case, (8, 8, 4), np.random.default_rng([3, 1, 7]), foreground=False, slice_axis=None)[0]
        for _ in range(2)
    ]
    assert np.array_equal(*patches)


def test_locations_are_bounded_and_lie_in_their_target():
    label = np.ones((30, 30, 30), np.uint8)
    locations = find_locations(label, TARGETS, (0,))
    assert set(locations) == {"liver"}
    assert len(np.unique(locations["liver"])) == 10_000
