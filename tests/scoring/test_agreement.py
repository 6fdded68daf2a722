"""Readers of one case: pairs and kappa by hand, empty masks, and what does not matter."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from medunet.base.errors import InputError
from medunet.scoring.agreement import compare_readers, fleiss_kappa

SPACING_MM = (1.0, 2.0, 3.0)
TARGETS = {"whole": (1, 2), "core": (2,)}


def read(*voxels: tuple[int, int, int], value: int = 1) -> NDArray[np.uint8]:
    labels = np.zeros((3, 4, 5), dtype=np.uint8)
    for voxel in voxels:
        labels[voxel] = value
    return labels


def test_kappa_by_hand() -> None:
    # Four voxels of which 0, 0, 1 and 3 of three readers say inside: a third of all votes, by chance 1/9 + 4/9 of the
    # pairs agree. In truth all, all, one in three and all: 5/6. (5/6 - 5/9) / (1 - 5/9) = 5/8.
    assert fleiss_kappa([2, 1, 0, 1]) == pytest.approx(5 / 8)
    assert fleiss_kappa([7, 0, 0, 2]) == pytest.approx(1)
    # Two readers who are always of two minds: P = 0, by chance 1/2.
    assert fleiss_kappa([0, 4, 0]) == pytest.approx(-1)


@pytest.mark.parametrize("votes", [[9, 0, 0, 0], [0, 0, 0, 9], [0, 0, 0, 0]])
def test_kappa_of_one_vote_alone_is_undefined(votes: list[int]) -> None:
    assert math.isnan(fleiss_kappa(votes))


def test_kappa_of_two_readers_is_scotts_pi() -> None:
    # Both inside 2, both outside 5, of two minds 3: P = 0.7; inside 7 of 20 votes, by chance 0.1225 + 0.4225 = 0.545.
    assert fleiss_kappa([5, 3, 2]) == pytest.approx((0.7 - 0.545) / (1 - 0.545))


def test_three_readers_by_hand() -> None:
    maps = {"a": read((1, 1, 1), (1, 2, 1)), "b": read((1, 1, 1), (1, 2, 1)), "c": read((1, 1, 1))}
    pairs, agreements = compare_readers(maps, SPACING_MM, {"whole": (1, 2)}, surface="voxel")
    found = {(pair.first, pair.second): (pair.dice, pair.hd95_mm) for pair in pairs}
    # The second voxel of `a` lies 2 mm from the one of `c`: its own distances are 0 and 2 mm, their 95% 1.9 mm.
    apart = (pytest.approx(2 / 3), pytest.approx(1.9))
    assert found == {("a", "b"): (1.0, 0.0), ("a", "c"): apart, ("b", "c"): apart}
    assert {pair.surface for pair in pairs} == {"voxel"}

    (whole,) = agreements
    # Of 60 voxels one has two votes and one three: P = (58 + 1/3 + 1) / 60, inside 1 of 36 votes. In the box of two
    # voxels P = (1/3 + 1) / 2 and inside 5 of 6: chance 26/36 is better.
    chance = (1 / 36) ** 2 + (35 / 36) ** 2
    assert whole.kappa == pytest.approx((89 / 90 - chance) / (1 - chance))
    assert whole.kappa_in_box == pytest.approx((24 / 36 - 26 / 36) / (10 / 36))
    assert (whole.num_readers, whole.num_outlined) == (3, 3)
    assert whole.mean_dice == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert whole.lowest_dice == pytest.approx(2 / 3)
    assert whole.dice_by_reader == pytest.approx({"a": 5 / 6, "b": 5 / 6, "c": 2 / 3})


def test_targets_are_regions_and_empty_masks_are_missed() -> None:
    maps = {"a": read((0, 0, 0), value=2), "b": read((0, 0, 0), value=1), "c": read()}
    pairs, (whole, core) = compare_readers(maps, SPACING_MM, TARGETS)
    found = {(pair.target, pair.first, pair.second): pair for pair in pairs}
    assert found["whole", "a", "b"].dice == 1.0
    assert found["core", "a", "b"].status == "missed"
    assert found["core", "a", "b"].dice == 0.0
    assert math.isinf(found["core", "a", "b"].hd95_mm)
    assert found["core", "b", "c"].status == "both_empty"
    assert math.isnan(found["core", "b", "c"].dice)
    assert (whole.num_outlined, core.num_outlined) == (2, 1)
    assert core.mean_dice == 0.0  # of a with b and with c; b with c is undefined
    assert core.dice_by_reader == {"a": 0.0, "b": 0.0, "c": 0.0}


def test_a_target_that_nobody_saw_is_undefined() -> None:
    maps = {"a": read((0, 0, 0)), "b": read((0, 0, 1)), "c": read()}
    _, (_, core) = compare_readers(maps, SPACING_MM, TARGETS)
    assert core.num_outlined == 0
    values = (core.kappa, core.kappa_in_box, core.mean_dice, core.lowest_dice)
    assert all(math.isnan(value) for value in values)


def test_the_readers_order_and_the_arrays_order_do_not_matter() -> None:
    generator = np.random.default_rng(4)
    maps = {name: generator.integers(0, 3, (6, 7, 4)).astype(np.uint8) for name in "abcd"}
    pairs, agreements = compare_readers(maps, SPACING_MM, TARGETS)
    assert len(pairs) == 2 * 6
    turned = {name: np.asfortranarray(maps[name]) for name in "dbca"}
    others, again = compare_readers(turned, SPACING_MM, TARGETS)
    by_readers = {(pair.target, *sorted((pair.first, pair.second))): pair for pair in others}
    for pair in pairs:  # their readers are sorted
        other = by_readers[pair.target, pair.first, pair.second]
        assert (pair.dice, pair.hd95_mm) == pytest.approx((other.dice, other.hd95_mm))
    for one, other in zip(agreements, again, strict=True):
        assert (one.kappa, one.mean_dice) == pytest.approx((other.kappa, other.mean_dice))


def test_kappa_grows_with_the_field_of_view_but_not_within_the_box() -> None:
    maps = {"a": read((1, 1, 1), (1, 2, 1)), "b": read((1, 2, 1), (1, 3, 1))}
    _, (small,) = compare_readers(maps, SPACING_MM, {"whole": (1,)})
    wide = {name: np.pad(labels, ((2, 0), (5, 3), (0, 9))) for name, labels in maps.items()}
    _, (large,) = compare_readers(wide, SPACING_MM, {"whole": (1,)})
    assert large.kappa > small.kappa
    assert large.kappa_in_box == small.kappa_in_box


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match=r"1 label map\(s\): two or more are needed"):
        compare_readers({"a": read()}, SPACING_MM, TARGETS)
    with pytest.raises(InputError, match="shapes differ"):
        compare_readers({"a": read(), "b": read()[1:]}, SPACING_MM, TARGETS)
