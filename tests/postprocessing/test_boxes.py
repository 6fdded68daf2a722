"""The box that a mask fills: margins, borders, padding."""

import numpy as np
import pytest

from medunet.postprocessing.boxes import apply_in_box, bounding_box


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((9, 7, 5), dtype=bool)
    mask[2:4, 6, 1] = mask[5, 3, 2] = True
    return mask


def test_box_with_its_margin_stays_within_the_volume(mask: np.ndarray) -> None:
    assert bounding_box(mask) == np.s_[2:6, 3:7, 1:3]
    box = bounding_box(mask, (1, 1, 3))
    assert box is not None
    assert mask[box].shape == (6, 5, 5)
    assert np.array_equal(mask[box], mask[1:7, 2:7, 0:5])
    assert bounding_box(np.zeros_like(mask)) is None


def test_operation_sees_the_box_padded_by_its_edge_and_writes_nothing_but_it(mask: np.ndarray) -> None:
    seen = []

    def look(frame: np.ndarray) -> np.ndarray:
        seen.append(frame)
        return np.ones_like(frame)

    result = apply_in_box(mask, look, margin_voxels=(1, 1, 1), pad_voxels=(0, 2, 1))
    assert np.array_equal(seen[0], np.pad(mask[1:7, 2:7, 0:4], ((0, 0), (2, 2), (1, 1)), mode="edge"))
    want = np.zeros_like(mask)
    want[1:7, 2:7, 0:4] = True
    assert np.array_equal(result, want)
    assert not apply_in_box(np.zeros_like(mask), look).any()
    assert len(seen) == 1
