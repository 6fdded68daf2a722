"""Label maps resampled by the largest share: volumes are kept, thin structures survive, ties go by rule."""

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from medunet.transforms.resampling import resample_labels, share_weights


def ellipsoid(rng: np.random.Generator, shape: tuple[int, ...], radii: tuple[float, float]) -> np.ndarray:
    """A turned ellipsoid at a random place near the middle, as a uint8 label map."""
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    places = np.indices(shape).reshape(3, -1).T - np.array(shape) / 2 - rng.uniform(-3, 3, 3)
    inside = (((places @ turn) / rng.uniform(*radii, 3)) ** 2).sum(1) < 1
    return inside.reshape(shape).astype(np.uint8)


def volume_change(label: np.ndarray, size: tuple[int, ...]) -> float:
    voxel = np.prod(np.divide(label.shape, size))
    return float((resample_labels(label, size) > 0).sum() * voxel / (label > 0).sum() - 1)


def test_volumes_are_kept_over_random_shapes_and_ratios():
    """A tenth of the axes is halved, a tenth doubled, exactly; the others shrink or grow by up to 2.5.

    The mean is -0.1%, its standard error 0.1%.
    """
    rng = np.random.default_rng(0)
    changes = []
    for _ in range(150):
        shape = tuple(2 * rng.integers(22, 28, 3))
        ratios = [
            (2.0, 0.5, float(np.exp(rng.uniform(-0.9, 0.9))))[kind]
            for kind in rng.choice(3, size=3, p=(0.1, 0.1, 0.8))
        ]
        size = tuple(max(1, round(n / ratio)) for n, ratio in zip(shape, ratios, strict=True))
        changes.append(volume_change(ellipsoid(rng, shape, (6, 18)), size))
    assert abs(np.mean(changes)) < 0.01


def test_doubling_keeps_volumes():
    rng = np.random.default_rng(1)
    labels = [ellipsoid(rng, (40, 41, 44), (5, 15)) for _ in range(20)]
    assert abs(np.mean([volume_change(label, (80, 82, 88)) for label in labels])) < 0.01


@pytest.mark.parametrize("steps", [(2, 2, 2), (2, 1, 1), (2, 2, 1)])
def test_what_halving_adds_are_the_ties_alone(steps):
    """By hand: a voxel whose eight (four, two) old ones are label by half or more is label. Half of the ties would
    keep volumes; all of them are given, as nnU-Net does, so that thin structures survive."""
    rng = np.random.default_rng(2)
    kept = []
    for _ in range(20):
        label = ellipsoid(rng, (40, 44, 48), (8, 18))
        size = tuple(n // step for n, step in zip(label.shape, steps, strict=True))
        share = label.reshape(size[0], steps[0], size[1], steps[1], size[2], steps[2]).mean((1, 3, 5))
        assert np.array_equal(resample_labels(label, size), share >= 0.5)
        kept.append(((share > 0.5) + 0.5 * (share == 0.5)).sum() * np.prod(steps) / label.sum() - 1)
    assert abs(np.mean(kept)) < 0.01


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("at", [0, 7, 8, 19])
def test_a_structure_of_one_slice_survives_halving(axis, at):
    """On background, and within another label."""
    for around in (0, 3):
        label = np.full((20, 20, 20), around, np.uint8)
        np.moveaxis(label, axis, 0)[at] = 2
        found = resample_labels(label, tuple(10 if each == axis else 20 for each in range(3)))
        wanted = np.full(found.shape, around, np.uint8)
        np.moveaxis(wanted, axis, 0)[at // 2] = 2
        assert np.array_equal(found, wanted)


def test_ties_go_to_the_rarer_label_and_never_to_background():
    label = np.array([0, 1, 2, 1, 2, 0, 1, 1, 0, 0, 0, 0], np.uint8).reshape(-1, 1, 1)
    assert resample_labels(label, (6, 1, 1)).ravel().tolist() == [1, 2, 2, 1, 0, 0]
    thirds = np.array([0, 1, 2, 0, 0, 1], np.uint8).reshape(1, -1, 1)
    assert resample_labels(thirds, (1, 2, 1)).ravel().tolist() == [2, 0]
    # By equal counts the larger value wins.
    assert resample_labels(np.array([1, 2], np.uint8).reshape(1, 1, -1), (1, 1, 1)).ravel().tolist() == [2]


@pytest.mark.parametrize("size", [(11, 40, 20), (31, 9, 13), (23, 31, 17), (7, 16, 9)])
def test_labels_equal_the_largest_share_of_all_labels_at_once(size):
    """An oracle that holds every label's share of every voxel; of the labels 9 is ignored and 255 an instance's."""
    rng = np.random.default_rng(0)
    values = np.array([0, 1, 2, 9, 255], np.uint8)
    noise = ndimage.gaussian_filter(rng.normal(size=(5, 23, 31, 17)), (0, 2, 2, 2))
    labels = values[noise.argmax(0)]
    weights = [share_weights(n, m).astype(float) for n, m in zip(labels.shape, size, strict=True)]
    masks = (labels == values[:, None, None, None]).astype(float)
    shares = np.einsum("vijk,ai,bj,ck->vabc", masks, *weights, optimize=True)
    found = resample_labels(labels, size)
    top = np.sort(shares, axis=0)
    clear = top[-1] - top[-2] > 1e-4
    assert clear.mean() > 0.8
    assert np.array_equal(found[clear], values[shares.argmax(0)][clear])
    chosen = np.take_along_axis(shares, np.searchsorted(values, found)[None], 0)[0]
    assert (top[-1] - chosen).max() < 1e-4


def test_weights_by_hand():
    np.testing.assert_allclose(share_weights(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]], atol=1e-6)
    np.testing.assert_allclose(share_weights(2, 4), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    for old, new in ((7, 7), (50, 13), (13, 50), (100, 1), (1, 5)):
        np.testing.assert_allclose(share_weights(old, new).sum(1), 1, atol=1e-6)
    assert np.array_equal(share_weights(7, 7), np.eye(7))


@pytest.mark.parametrize("size", [(60, 70, 50), (130, 150, 110)])
def test_three_float_volumes_are_held_at_most(size):
    """Many labels, each filling the whole volume's box: the worst that can be."""
    labels = np.random.default_rng(0).integers(0, 40, (120, 140, 100)).astype(np.uint8)
    volume = 4 * max(labels.size, int(np.prod(size)))
    tracemalloc.start()
    resample_labels(labels, size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3.6 * volume  # beside them, one of bytes for the result and one of truth values
