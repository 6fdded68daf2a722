"""Components of masks: connectivity, sizes, what is kept."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from medunet.imaging import components
from medunet.imaging.components import (
    find_components,
    label_components,
    largest_component,
    remove_small_components,
)


@pytest.fixture
def touching() -> np.ndarray:
    """A voxel, its neighbours across a face, an edge and a corner in turn, and one far away."""
    mask = np.zeros((7, 6, 5), dtype=bool)
    mask[0, 0, 0] = mask[1, 0, 0] = True  # face
    mask[2, 1, 0] = True  # edge of the second
    mask[3, 2, 1] = True  # corner of the third
    mask[6, 5, 4] = True
    return mask


@pytest.mark.parametrize(("connectivity", "sizes"), [(6, [2, 1, 1, 1]), (18, [3, 1, 1]), (26, [4, 1])])
def test_connectivity(touching: np.ndarray, connectivity: int, sizes: list[int]) -> None:
    labels, got = label_components(touching, connectivity)  # type: ignore[arg-type]
    assert got.tolist() == sizes
    assert np.array_equal(labels > 0, touching)
    assert [int((labels == number + 1).sum()) for number in range(len(sizes))] == sizes


def test_largest_component_and_ties(touching: np.ndarray) -> None:
    before = touching.copy()
    kept = largest_component(touching)
    assert kept.sum() == 4
    assert not kept[6, 5, 4]
    pair = np.zeros((3, 4, 9), dtype=bool)
    pair[1, 1, 1] = pair[1, 1, 7] = True
    assert largest_component(pair)[1, 1, 1]
    assert largest_component(pair).sum() == 1
    assert np.array_equal(touching, before)


def test_small_components_go_and_exactly_large_enough_ones_stay(touching: np.ndarray) -> None:
    assert remove_small_components(touching, 4).sum() == 4
    assert remove_small_components(touching, 5).sum() == 0
    assert np.array_equal(remove_small_components(touching, 1), touching)


def test_empty_mask_and_fortran_order(touching: np.ndarray) -> None:
    empty = np.zeros((3, 4, 5), dtype=bool)
    assert label_components(empty)[1].size == 0
    assert not largest_component(empty).any()
    assert not remove_small_components(empty, 1).any()
    assert np.array_equal(largest_component(np.asfortranarray(touching)), largest_component(touching))


def number_components(mask: np.ndarray, connectivity: int) -> tuple[np.ndarray, np.ndarray]:
    """SciPy's map of component numbers, and their sizes."""
    labels, _ = ndimage.label(mask, ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity]))
    return labels, np.bincount(labels.ravel())[1:]


@given(
    arrays(bool, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=8)),
    st.sampled_from([6, 18, 26]),
    st.sampled_from([lambda mask: mask, np.asfortranarray, lambda mask: np.pad(mask, 1)[1:-1, 1:-1, 1:-1]]),
    st.sampled_from([1, 40, 1 << 22]),
)
@settings(max_examples=80, deadline=None)
def test_runs_equal_scipys_components(mask, connectivity, lay_out, slab_voxels) -> None:
    labels, sizes = number_components(mask, connectivity)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "_SLAB_VOXELS", slab_voxels)
        found = find_components(lay_out(mask), connectivity)
        assert sorted(found.sizes) == sorted(sizes)
        if sizes.size:
            assert np.array_equal(found.select(found.largest()), labels == 1 + np.argmax(sizes))
        for least in (1, 2, 5):
            small = np.concatenate([[False], sizes >= least])[labels]
            assert np.array_equal(remove_small_components(lay_out(mask), least, connectivity), small)
        other = np.random.default_rng(mask.sum()).random(mask.shape) < 0.1
        touched = found.select(found.touching(lay_out(other)))
        assert np.array_equal(touched, np.isin(labels, np.unique(labels[other & mask])) & mask)
        assert [each.tolist() for each in label_components(mask, connectivity)] == [
            labels.tolist(),
            sizes.tolist(),
        ]


def test_a_long_body_takes_little_more_memory_than_its_masks() -> None:
    mask = np.zeros((60, 200, 300), bool)
    mask[5:55, 20:180] = True
    mask[::9, ::7, ::50] = True
    tracemalloc.start()
    kept = largest_component(mask)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    labels, sizes = number_components(mask, 26)
    assert np.array_equal(kept, labels == 1 + np.argmax(sizes))
    assert peak < 4 * mask.nbytes  # a map of numbers and its counting take 12 times as much


def test_maps_of_components_are_as_narrow_as_their_number_allows() -> None:
    apart = np.zeros((82, 82, 82), bool)
    apart[::2, ::2, ::2] = True  # 68,921 components
    labels, sizes = label_components(apart)
    assert labels.dtype == np.int32
    assert sizes.size == int(labels.max()) == 41**3
    few, sizes = label_components(apart[:40])
    assert few.dtype == np.uint16
    assert sizes.size == int(few.max()) == 20 * 41**2
    assert (few == ndimage.label(apart[:40], np.ones((3, 3, 3)))[0]).all()
