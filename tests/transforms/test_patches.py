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


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("context_slices", [3, 7])
def test_neighbouring_slices_stand_behind_one_another_channel_by_channel(case, axis, context_slices):
    """The volume holds its own index; a second channel holds it negative. Only the middle slice has a label."""
    two = PreparedCase("c", np.concatenate([case.image, -case.image]), case.label, case.locations)
    rng = np.random.default_rng(0)
    radius = context_slices // 2
    middles = set()
    for foreground in [True] * 10 + [False] * 40:
        image, label = sample_patch(
            two, (6, 5), rng, foreground=foreground, slice_axis=axis, context_slices=context_slices
        )
        assert image.shape == (2 * context_slices, 6, 5)
        assert label.shape == (1, 6, 5)
        assert np.array_equal(image[context_slices:], -image[:context_slices])
        places = np.array(np.unravel_index(image[:context_slices].astype(int), SHAPE))
        middle = places[:, radius]
        assert np.array_equal(label[0], case.label[tuple(middle)])
        (number,) = np.unique(middle[axis])
        wanted = np.clip(number + np.arange(-radius, radius + 1), 0, SHAPE[axis] - 1)
        assert np.array_equal(places[axis], np.broadcast_to(wanted[:, None, None], (context_slices, 6, 5)))
        for other in {0, 1, 2} - {axis}:
            assert (places[other] == middle[other]).all()
        middles.add(int(number))
    assert {0, SHAPE[axis] - 1} <= middles, "border slices are drawn too"


def test_one_slice_of_context_changes_no_draw(case):
    first, second = (
        sample_patch(case, (6, 6), np.random.default_rng(4), foreground=True, slice_axis=2, **extra)
        for extra in ({}, {"context_slices": 1, "valid_margin": (0, 0)})
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("size", [(16, 14, 11), (28, 22, 17), (40, 30, 30)])
@pytest.mark.parametrize("foreground", [True, False])
def test_what_an_unpadded_network_predicts_lies_in_the_volume_and_its_margin_is_mirrored(
    case, size, foreground
):
    margin = (5, 4, 3)
    volume = np.pad(case.image[0], 40, mode="reflect")
    rng = np.random.default_rng(0)
    corners = set()
    for _ in range(100):
        image, label = sample_patch(
            case, size, rng, foreground=foreground, slice_axis=None, valid_margin=margin
        )
        places = np.unravel_index(image[0].astype(int), SHAPE)
        assert np.array_equal(label[0], case.label[places])
        inner = tuple(slice(m, n - m) for m, n in zip(margin, size, strict=True))
        inner_first = [int(place[inner].min()) for place in places]
        if all(n - 2 * m <= length for n, m, length in zip(size, margin, SHAPE, strict=True)):
            box = tuple(
                slice(40 + first - m, 40 + first - m + n)
                for first, m, n in zip(inner_first, margin, size, strict=True)
            )
            assert np.array_equal(image[0], volume[box])
            assert label[0][inner].any() or not foreground
            corners.add(tuple(inner_first))
    if size == (16, 14, 11) and not foreground:
        assert min(corner[0] for corner in corners) == 0
        assert max(corner[0] for corner in corners) == SHAPE[0] - 6


def test_a_case_on_disk_gives_the_same_patches_as_one_in_memory(case, tmp_path):
    blosc2 = pytest.importorskip("blosc2")
    stored = PreparedCase(
        "c",
        blosc2.asarray(case.image, urlpath=str(tmp_path / "image.b2nd")),
        blosc2.asarray(case.label, urlpath=str(tmp_path / "label.b2nd")),
        case.locations,
    )
    for extra in (
        {"size": (8, 24, 4), "slice_axis": None},
        {"size": (8, 30), "slice_axis": 1, "context_slices": 5},
        {"size": (18, 30, 12), "slice_axis": None, "valid_margin": (4, 3, 2)},
    ):
        patches = [
            sample_patch(each, rng=np.random.default_rng(2), foreground=True, **extra)
            for each in (case, stored)
        ]
        for in_memory, on_disk in zip(*patches, strict=True):
            assert isinstance(on_disk, np.ndarray)
            assert np.array_equal(in_memory, on_disk)


def test_a_label_of_255_and_one_to_ignore_are_cut_as_they_are():
    label = np.zeros(SHAPE, np.uint8)
    label[5:9, 5:9, 5] = 255
    label[9:12, 5:9, 5] = 200  # to be ignored: in no target
    locations = find_locations(label, {"cell": (255,)}, (0,))
    assert len(locations["cell"]) == 16
    case = PreparedCase("c", np.zeros((1, *SHAPE), np.float32), label, locations)
    _, patch = sample_patch(case, (8, 8), np.random.default_rng(0), foreground=True, slice_axis=2)
    assert set(np.unique(patch)) == {0, 200, 255}
