"""Components of masks: connectivity, sizes, what is kept."""

import numpy as np
import pytest

from medunet.imaging.components import label_components, largest_component, remove_small_components


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
