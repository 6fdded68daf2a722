"""Lesions told apart and matched, in rows of voxels whose answer is counted by hand."""

from dataclasses import replace

import numpy as np
import pytest

from medunet.scoring.lesion_presets import PRESETS, LesionRules, Match, find_lesions, match_lesions

LITS, LITS_HALF, PANOPTIC = PRESETS["lits"], PRESETS["lits_half"], PRESETS["panoptic"]
TOUCH = LesionRules(connectivity=26, matching="touch")


def row(text: str) -> np.ndarray:
    """Return a row of voxels along the last axis: `#` is inside."""
    return np.array([mark == "#" for mark in text]).reshape(1, 1, -1)


def matches_of(reference: str, prediction: str, rules: LesionRules) -> list[Match]:
    return match_lesions(find_lesions(row(reference), row(prediction), rules), rules)


def test_connectivity_of_lesions() -> None:
    diagonal = np.zeros((2, 3, 4), dtype=bool)
    diagonal[0, 0, 0] = diagonal[1, 1, 1] = True  # they share a corner
    diagonal[0, 2, 3] = diagonal[1, 2, 2] = True  # and these an edge, as do (1, 1, 1) and (1, 2, 2)
    assert find_lesions(diagonal, diagonal, LITS).reference_sizes.tolist() == [1, 1, 1, 1]
    assert find_lesions(diagonal, diagonal, PANOPTIC).reference_sizes.tolist() == [4]
    edges = find_lesions(diagonal, diagonal, replace(PANOPTIC, connectivity=18))
    assert edges.prediction_sizes.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("num_dilations", "gap", "num_lesions"), [(1, 2, 1), (1, 3, 2), (3, 6, 1), (3, 7, 2)]
)
def test_dilation_merges_what_it_brings_together(num_dilations: int, gap: int, num_lesions: int) -> None:
    # Each side grows by so many voxels: up to twice as many between them are filled, one more keeps them apart.
    reference = row("##" + "." * gap + "###")
    maps = find_lesions(reference, reference, replace(TOUCH, num_dilations=num_dilations))
    assert maps.reference.max() == num_lesions
    assert maps.reference_sizes.tolist() == ([5] if num_lesions == 1 else [2, 3])
    assert np.array_equal(maps.reference > 0, reference)  # the dilation itself is cut away
    assert maps.prediction_sizes.tolist() == [2, 3]  # predictions are never merged


def test_dilation_runs_over_faces_and_edges() -> None:
    # Four steps apart along both axes of a plane, one dilation each leaves one voxel between their squares' corners;
    # three steps apart the corners touch. Along all three axes the dilated shapes have no corners: three steps apart
    # they stay two.
    for offset, num_lesions in (((4, 4, 0), 2), ((3, 3, 0), 1), ((3, 3, 3), 2), ((2, 2, 2), 1)):
        reference = np.zeros((5, 6, 7), dtype=bool)
        reference[0, 0, 0] = reference[offset] = True
        maps = find_lesions(reference, reference, replace(TOUCH, num_dilations=1))
        assert maps.reference.max() == num_lesions, offset


def test_touch_takes_every_component_and_shares_it() -> None:
    # The first component shares a voxel with both lesions; the second lies beside lesion 2, the third apart.
    found = matches_of("####..##.......", "...####.#..#...", TOUCH)
    assert found == [Match((1,), (1,)), Match((2,), (1,))]
    reaching = replace(TOUCH, num_dilations=1)
    # With one dilation the lesions are one, and the second component touches it too.
    assert matches_of("####..##.......", "...####.#..#...", reaching) == [Match((1,), (1, 2))]


def test_groups_take_lesions_and_components_together() -> None:
    # one component over two lesions: 8 of 10 voxels
    for rules in (LITS, LITS_HALF):
        assert matches_of("####..####", "##########", rules) == [Match((1, 2), (1,))]
    # two components in one lesion: 9 of 10
    for rules in (LITS, LITS_HALF):
        assert matches_of("##########", "####.#####", rules) == [Match((1,), (1, 2))]


def test_groups_send_a_component_where_it_shares_most() -> None:
    # Lesion 1 shares 2 voxels with component 1 alone; lesion 2 shares 3 with it and 6 with component 2. Component 1
    # goes to lesion 2, and lesion 1 is left without any.
    reference, prediction = "####.##########.", "..######.######."
    assert matches_of(reference, prediction, LITS) == [Match((2,), (1, 2))]
    # IoU of the group: 9 shared of 10 + 12 - 9 = 13
    assert matches_of(reference, prediction, replace(LITS, min_iou=9 / 13 - 1e-9)) == [Match((2,), (1, 2))]
    assert matches_of(reference, prediction, replace(LITS, min_iou=9 / 13 + 1e-9)) == []


def test_equal_shares_go_to_the_first() -> None:
    # Component 1 shares 3 voxels with lesion 1, component 2 shares 1 with lesion 1 and 2 with lesion 2, component 3
    # shares 2 with lesion 2, whose best component is the first of the two.
    reference, prediction = "#####..#####", "###.#####.##"
    assert matches_of(reference, prediction, LITS) == [Match((1,), (1,)), Match((2,), (2, 3))]


@pytest.mark.parametrize(
    ("reference", "prediction", "iou"),
    [("###.", ".###", 2 / 4), ("####.", ".####", 3 / 5), ("##..", ".###", 1 / 4)],
)
def test_a_threshold_is_to_be_exceeded(reference: str, prediction: str, iou: float) -> None:
    pair = [Match((1,), (1,))]
    for rules in (LITS_HALF, PANOPTIC):
        assert matches_of(reference, prediction, rules) == (pair if iou > 0.5 else [])
    for matching in ("iou", "one_to_one"):
        assert matches_of(reference, prediction, replace(PANOPTIC, matching=matching, min_iou=iou)) == []
        below = replace(PANOPTIC, matching=matching, min_iou=iou * 0.99)
        assert matches_of(reference, prediction, below) == pair
    assert matches_of(reference, prediction, LITS) == pair


def test_one_to_one_takes_the_best_pair_first() -> None:
    # Component 1 shares 2 of 9 voxels with lesion 1 and 4 of 7 with lesion 2: it goes to lesion 2, and lesion 1,
    # which shares no voxel with component 2, has none.
    reference, prediction = "####.####.#", "..#######.#"
    anything = replace(PANOPTIC, min_iou=0.0)
    assert matches_of(reference, prediction, anything) == [Match((3,), (2,)), Match((2,), (1,))]
    # Panoptic: only IoU 1 of lesion 3 and 4/7 of lesion 2 lie above 0.5.
    assert matches_of(reference, prediction, PANOPTIC) == [Match((3,), (2,)), Match((2,), (1,))]
    # One component in the place of two lesions can be the match of one alone, here of neither: 4 of 10 each.
    assert matches_of("####..####", "##########", PANOPTIC) == []


def test_nothing_matches_nothing() -> None:
    for rules in PRESETS.values():
        for reference, prediction in (("....", "...."), ("##..", "...."), ("....", "..##")):
            maps = find_lesions(row(reference), row(prediction), rules)
            assert maps.reference_sizes.size == reference.count("##")
            assert maps.prediction_sizes.size == prediction.count("##")
            assert match_lesions(maps, rules) == []
