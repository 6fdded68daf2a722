"""Labels that a prediction has swapped: a warning with its numbers, and none where there is no swap."""

from pathlib import Path

import numpy as np
import pytest

from medunet.imaging.volumes import read_label
from medunet.records.scores import Note
from medunet.scoring.labels import score_labels
from medunet.scoring.notes import BORDER
from medunet.scoring.swaps import find_swaps

TARGETS = {"left": (1,), "right": (2,)}
WARNING = Note(
    "swapped",
    "left and right look swapped: IoU 0.75 and 1.00 with each other's mask, 0.00 and 0.00 with their own",
)


@pytest.fixture
def reference() -> np.ndarray:
    """Two boxes of 4 × 2 × 3 = 24 voxels."""
    labels = np.zeros((11, 4, 5), dtype=np.uint8)
    labels[1:5, 1:3, 1:4], labels[6:10, 1:3, 1:4] = 1, 2
    return labels


@pytest.fixture
def swapped() -> np.ndarray:
    """The left box as 2, a slice of 6 voxels short: 18 / 24 = 0.75; the right one whole, as 1."""
    labels = np.zeros((11, 4, 5), dtype=np.uint8)
    labels[1:4, 1:3, 1:4], labels[6:10, 1:3, 1:4] = 2, 1
    return labels


def test_both_targets_of_a_swap_are_warned_of(reference: np.ndarray, swapped: np.ndarray) -> None:
    both = {"left": (WARNING,), "right": (WARNING,)}
    assert find_swaps(reference, swapped, TARGETS, TARGETS) == both
    assert find_swaps(np.asfortranarray(reference), swapped.astype(np.int32), TARGETS, TARGETS) == both
    scores = score_labels(reference, swapped, (1.0, 2.0, 3.0), TARGETS, TARGETS, "a")
    assert [(score.dice, score.notes) for score in scores] == [(0.0, (WARNING,))] * 2
    cut = score_labels(reference[1:], swapped[1:], (1.0, 2.0, 3.0), TARGETS, TARGETS, "a")
    assert [score.notes for score in cut] == [(BORDER, WARNING)] * 2


def test_values_are_joined_by_name(reference: np.ndarray, swapped: np.ndarray) -> None:
    numbers = np.choose(swapped, [0, 700, 40_000]).astype(np.int32)  # 1 is written as 700, 2 as 40000
    named_alike = {"left": (40_000,), "right": (700,)}
    assert find_swaps(reference, numbers, TARGETS, named_alike) == {}
    assert set(find_swaps(reference, numbers, TARGETS, {"left": (700,), "right": (40_000,)})) == set(TARGETS)


def test_targets_of_several_values(reference: np.ndarray, swapped: np.ndarray) -> None:
    parts = reference.copy()
    parts[1:5, 1:3, 3] = 9  # a part of the left one
    assert find_swaps(parts, swapped, {"left": (1, 9), "right": (2,)}, TARGETS)["left"] == (WARNING,)


def test_one_direction_is_no_swap(reference: np.ndarray) -> None:
    # Left overlaps right's mask by 24 / 48, right none of left's.
    both_as_right = np.where(reference > 0, 2, 0)
    assert find_swaps(reference, both_as_right, TARGETS, TARGETS) == {}
    assert find_swaps(reference, reference, TARGETS, TARGETS) == {}
    assert find_swaps(reference, np.zeros_like(reference), TARGETS, TARGETS) == {}


def test_regions_are_not_compared(reference: np.ndarray, swapped: np.ndarray) -> None:
    regions = {"whole": (1, 2), "core": (2,)}
    assert find_swaps(reference, swapped, regions, regions) == {}
    nested = {"whole": (1, 2, 3), **TARGETS}
    assert set(find_swaps(reference, swapped, nested, nested)) == set(TARGETS)


def test_ignored_voxels_count_for_nothing(reference: np.ndarray, swapped: np.ndarray) -> None:
    hidden = reference.copy()
    hidden[4] = 255  # the slice of the left box that the prediction lacks: 18 / 18
    found = find_swaps(hidden, swapped, TARGETS, TARGETS, ignore_value=255)
    assert found["left"][0].text.startswith("left and right look swapped: IoU 1.00 and 1.00")


@pytest.mark.real_data
def test_the_swapped_vertebrae_of_the_spine(shared_data: Path) -> None:
    folder = shared_data / "spine_instances/semantic"
    reference, prediction = (read_label(folder / f"{name}.nii.gz") for name in ("ref", "pred"))
    values = sorted(set(np.unique(reference.array)) & set(np.unique(prediction.array)) - {0})
    targets = {str(value): (int(value),) for value in values}
    scores = score_labels(reference.array, prediction.array, reference.spacing_mm, targets, targets, "spine")
    swapped = {score.label: note for score in scores for note in score.notes if note.kind == "swapped"}
    assert set(swapped) == {"60", "61"}
    assert all(note.text.startswith("60 and 61 look swapped") for note in swapped.values())
