"""Methods against each other: three cases worked out by hand, failures counted, unlike tables refused."""

import math

import pandas as pd
import pytest

from medunet.base.errors import InputError
from medunet.scoring.compare import Comparison, compare
from medunet.scoring.paired import PairDifference

NAN, INF = math.nan, math.inf
Row = tuple[str, str, str, float, float]  # case, label, status, Dice, HD95
SIX = ("c1", "c2", "c3", "c4", "c5", "c6")


def table(*rows: Row, surface: str = "area", robust: str = "hd95_mm", **columns: list[float]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["case", "label", "status", "dice", robust])
    return frame.assign(surface=surface, reason="", **columns)


def pair_of(comparison: Comparison, metric: str, label: str = "liver") -> PairDifference:
    (pair,) = [pair for pair in comparison.pairs if (pair.metric, pair.label) == (metric, label)]
    return pair


A = table(
    ("c1", "liver", "ok", 0.9, 2.0),
    ("c2", "liver", "ok", 0.8, 9.0),
    ("c3", "liver", "ok", 0.7, 4.0),
)
B = table(
    ("c3", "liver", "ok", 0.9, 1.0),  # in another order
    ("c1", "liver", "ok", 0.8, 3.0),
    ("c2", "liver", "ok", 0.8, 9.0),
)


def test_differences_by_hand() -> None:
    comparison = compare({"a": A, "b": B})
    assert comparison.methods == ("a", "b")
    assert comparison.main_metrics == ("dice", "hd95_mm")
    dice = pair_of(comparison, "dice")
    assert (dice.first, dice.second, dice.num_cases) == ("a", "b", 3)
    assert (dice.mean_first, dice.mean_second) == (pytest.approx(0.8), pytest.approx(2.5 / 3))
    assert dice.mean_difference == pytest.approx((0.1 + 0.0 - 0.2) / 3)
    assert math.isnan(dice.low)
    assert dice.no_interval == "3 cases, fewer than 10"
    assert (dice.wins, dice.ties, dice.losses) == (1, 1, 1)
    assert dice.differences == {"c1": pytest.approx(0.1), "c2": 0.0, "c3": pytest.approx(-0.2)}
    assert math.isnan(dice.p)  # three cases prove nothing

    hd95 = pair_of(comparison, "hd95_mm")  # less is better: -1, 0 and 3 mm are won, tied and lost
    assert hd95.mean_difference == pytest.approx(2 / 3)
    assert (hd95.wins, hd95.ties, hd95.losses) == (1, 1, 1)


def test_cases_that_one_lacks_are_named_and_count_as_failures() -> None:
    comparison = compare({"a": A, "b": B[B["case"] != "c1"]})
    assert comparison.absent == {"a": (), "b": ("c1",)}
    dice = pair_of(comparison, "dice")
    assert dice.differences["c1"] == pytest.approx(0.9)
    assert dice.mean_second == pytest.approx((0.0 + 0.8 + 0.9) / 3)
    assert (dice.wins, dice.ties, dice.losses) == (1, 1, 1)

    hd95 = pair_of(comparison, "hd95_mm")
    assert hd95.differences["c1"] == -INF
    assert (hd95.wins, hd95.num_cases, hd95.num_infinite) == (1, 3, 1)
    assert (hd95.mean_first, hd95.mean_second) == (6.5, 5.0)  # over c2 and c3


def test_missing_and_failed_cases_count_as_absent_ones_do() -> None:
    failed = B.copy()
    failed.loc[failed["case"] == "c1", ["status", "dice", "hd95_mm"]] = ["failed", NAN, NAN]
    comparison = compare({"a": A, "b": failed})
    assert comparison.absent == {"a": (), "b": ()}
    assert comparison.unscored == {"a": (), "b": ("c1",)}
    without = compare({"a": A, "b": B[B["case"] != "c1"]})
    for metric in ("dice", "hd95_mm"):
        one, other = pair_of(comparison, metric), pair_of(without, metric)
        assert one.differences == other.differences
        assert (one.mean_difference, one.p_holm, one.wins) == pytest.approx(
            (other.mean_difference, other.p_holm, other.wins), nan_ok=True
        )


def test_infinite_distances_and_empty_masks() -> None:
    first = table(
        ("both_miss", "liver", "missed", 0.0, INF),
        ("first_misses", "liver", "missed", 0.0, INF),
        ("second_misses", "liver", "ok", 0.5, 7.0),
        ("both_right", "liver", "both_empty", NAN, NAN),
        ("first_right", "liver", "both_empty", NAN, NAN),
        ("both_wrong", "liver", "false_positive", 0.0, INF),
    )
    second = table(
        ("both_miss", "liver", "missed", 0.0, INF),
        ("first_misses", "liver", "ok", 0.6, 5.0),
        ("second_misses", "liver", "missed", 0.0, INF),
        ("both_right", "liver", "both_empty", NAN, NAN),
        ("first_right", "liver", "false_positive", 0.0, INF),
        ("both_wrong", "liver", "false_positive", 0.0, INF),
    )
    comparison = compare({"a": first, "b": second})
    dice = pair_of(comparison, "dice")
    assert (dice.num_cases, dice.num_undefined, dice.num_infinite) == (5, 1, 0)
    assert dice.mean_first == pytest.approx((0 + 0 + 0.5 + 1 + 0) / 5)  # rightly nothing counts 1
    assert dice.mean_second == pytest.approx((0 + 0.6 + 0 + 0 + 0) / 5)
    assert (dice.wins, dice.ties, dice.losses) == (2, 2, 1)

    hd95 = pair_of(comparison, "hd95_mm")
    assert (hd95.num_cases, hd95.num_undefined, hd95.num_infinite) == (5, 1, 5)
    assert (hd95.wins, hd95.ties, hd95.losses) == (2, 2, 1)
    assert math.isnan(hd95.mean_difference)
    assert math.isnan(hd95.low)
    assert hd95.differences == {
        **{"both_miss": 0.0, "first_misses": INF, "second_misses": -INF},
        **{"first_right": -INF, "both_wrong": 0.0},
    }


def test_p_values_are_corrected_for_labels_and_pairs_of_one_metric() -> None:
    def method(lead: float) -> pd.DataFrame:
        rows = [
            (case, label, "ok", 0.5 + lead * (number + 1), 5.0)
            for label in ("liver", "tumour")
            for number, case in enumerate(SIX)
        ]
        return table(*rows)

    comparison = compare({"a": method(0.02), "b": method(0.01)})
    for label in ("liver", "tumour"):
        pair = pair_of(comparison, "dice", label)
        assert pair.wins == 6
        assert pair.p == pytest.approx(2 / 64)
        assert pair.p_holm == pytest.approx(4 / 64)  # two labels
        assert pair_of(comparison, "hd95_mm", label).p == 1.0  # nothing but ties
    three = compare({"a": method(0.03), "b": method(0.02), "c": method(0.01)})
    dice = [pair for pair in three.pairs if pair.metric == "dice"]
    assert [(pair.first, pair.second) for pair in dice[:3]] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert {round(pair.p_holm, 9) for pair in dice} == {round(6 * 2 / 64, 9)}


def test_volumes_are_compared_by_how_far_they_are_off() -> None:
    first = A.assign(difference_ml=[-2.0, -1.0, 0.0], reference_ml=[5.0, 6.0, 7.0])
    second = A.assign(difference_ml=[1.0, 1.0, 3.0], reference_ml=[5.0, 6.0, 7.0])
    comparison = compare({"a": first, "b": second})
    volume = pair_of(comparison, "absolute_difference_ml")  # 2 against 1, 1 against 1, 0 against 3
    assert (volume.wins, volume.ties, volume.losses) == (1, 1, 1)
    assert volume.mean_difference == pytest.approx((1 + 0 - 3) / 3)
    assert "reference_ml" not in {pair.metric for pair in comparison.pairs}


def test_rankings_by_hand() -> None:
    third = A.assign(dice=[0.1, 0.2, 0.3], hd95_mm=[20.0, 30.0, INF])
    comparison = compare({"a": A, "b": B, "c": third})
    ranks = {
        (ranking.metric, ranking.scheme): ranking.stability.ranks
        for ranking in comparison.rankings
        if ranking.label == "liver"
    }
    assert ranks == {
        ("dice", "mean_then_rank"): (2, 1, 3),  # 0.8, 0.833, 0.2
        ("dice", "rank_then_mean"): (1, 1, 3),  # 1, 1.5 and 2 against 2, 1.5 and 1
        ("hd95_mm", "mean_then_rank"): (2, 1, 3),  # 5 and 4.33 mm; one is infinite
        ("hd95_mm", "rank_then_mean"): (1, 1, 3),
    }
    dice = comparison.rankings[0].stability
    assert dice.shares[2] == (0.0, 0.0, 1.0)  # the last in every resample
    assert comparison.letters == {"a": "A", "b": "B", "c": "C"}


def test_labels_that_one_has_alone_are_named() -> None:
    more = pd.concat([A, table(("c1", "tumour", "ok", 0.4, 8.0))])
    comparison = compare({"a": more, "b": B})
    assert comparison.labels == ("liver",)
    assert comparison.left_out == {"tumour": ("a",)}


def test_lesions_are_compared_where_they_were_asked_for() -> None:
    rows: list[Row] = [("c1", "liver", "ok", 0.9, 1.0), ("c1", "tumour", "ok", 0.9, 1.0)]
    lesions = {"lesion_f1": [NAN, 0.5], "lesion_hd95_mm": [NAN, INF]}
    first = table(*rows, **lesions)
    second = table(*rows[1:], **{name: values[1:] for name, values in lesions.items()})
    comparison = compare({"a": first, "b": pd.concat([table(("c2", "liver", "missing", NAN, NAN)), second])})
    compared = {(pair.label, pair.metric) for pair in comparison.pairs}
    assert ("tumour", "lesion_f1") in compared
    assert ("tumour", "lesion_hd95_mm") in compared
    assert not {("liver", "lesion_f1"), ("liver", "lesion_hd95_mm")} & compared
    assert ("liver", "dice") in compared


def test_cldice_is_compared_where_it_was_asked_for() -> None:
    scored = [(case, label, "ok", 0.9, 1.0) for case, label in (("c1", "liver"), ("c1", "vessel"))]
    missing = [("c2", label, "missing", NAN, NAN) for label in ("liver", "vessel")]
    first, second = (table(*scored, *missing, cldice=[NAN, value, NAN, NAN]) for value in (0.8, 0.6))
    comparison = compare({"a": first, "b": second})
    vessel = pair_of(comparison, "cldice", "vessel")
    assert (vessel.wins, vessel.ties, vessel.losses) == (1, 1, 0)  # both lack c2
    assert ("liver", "cldice") not in {(pair.label, pair.metric) for pair in comparison.pairs}


def test_unlike_tables_are_refused_with_all_faults() -> None:
    other = table(
        ("c1", "liver", "ok", 0.5, 3.0), ("c1", "liver", "ok", 0.5, 3.0), surface="voxel", robust="hd90_mm"
    )
    with pytest.raises(InputError) as caught:
        compare({"a": A, "b": other})
    text = str(caught.value)
    assert "b: more than one row with the same label for c1" in text
    assert "the surface differs (area in a; voxel in b)" in text
    assert "the robust Hausdorff distance differs (hd95_mm in a; hd90_mm in b)" in text
    assert "Score all methods against the same references" in text
    with pytest.raises(InputError, match="hd95_mm in a; hd95_pooled_mm in b"):
        compare({"a": A, "b": A.rename(columns={"hd95_mm": "hd95_pooled_mm"})})


def test_what_leaves_nothing_to_compare_is_refused() -> None:
    with pytest.raises(InputError, match="two or more are needed to compare"):
        compare({"a": A})
    with pytest.raises(InputError, match="no label is common"):
        compare({"a": A, "b": B.assign(label="spleen")})
    with pytest.raises(InputError, match="b: it has no scores"):
        compare({"a": A, "b": B[:0]})


def test_tables_without_a_common_metric_are_refused() -> None:
    bare = B.drop(columns=["dice", "hd95_mm"])
    with pytest.raises(InputError, match=r"robust Hausdorff distance differs \(hd95_mm in a; none in b\)"):
        compare({"a": A, "b": bare.assign(nsd_1mm=0.5)})
    with pytest.raises(
        InputError, match=r"no metric is common to all \(dice in a; nsd_1mm, lesion_f1 in b\)"
    ):
        compare({"a": A.drop(columns="hd95_mm"), "b": bare.assign(nsd_1mm=0.5, lesion_f1=0.5)})
    blank = bare.assign(cldice=NAN)  # a column, but nobody was asked for it
    with pytest.raises(InputError, match=r"\(none in a; none in b\)"):
        compare({"a": blank, "b": blank})


def test_other_references_are_refused() -> None:
    first, second = A.assign(reference_ml=[5.0, 6.0, 7.0]), A.assign(reference_ml=[5.0, 6.3, 7.0])
    with pytest.raises(InputError, match="c2 was scored against references of different volume"):
        compare({"a": first, "b": second})
    compare({"a": first, "b": A.assign(reference_ml=[5.0, NAN, 7.0])})  # unknown is no difference


def test_tables_are_not_changed() -> None:
    before = A.copy()
    compare({"a": A, "b": B[:2]})
    pd.testing.assert_frame_equal(before, A)
