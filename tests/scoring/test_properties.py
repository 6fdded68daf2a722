"""What holds of any two masks: swapped, mirrored, turned, padded, stored or scaled otherwise, in both conventions."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from medunet.records.scores import HD95Mode, Surface
from medunet.scoring.masks import MaskScore, score_masks

DISTANCES = ("hd_mm", "hd95_mm", "assd_mm", "masd_mm")
OVERLAPS = ("dice", "iou", "precision", "recall", "f1", "f2")
WITH_BACKGROUND = ("specificity", "accuracy", "balanced_accuracy", "mcc", "kappa")
VOLUMES = ("reference_ml", "predicted_ml", "difference_ml", "relative_difference")
SPACINGS_MM = (0.5, 0.8, 1.0, 3.0, 5.0)

some = settings(max_examples=50, deadline=None)


@dataclass(frozen=True)
class Drawn:
    """Two masks of one grid, empty ones among them, and how to score them."""

    reference: NDArray[np.bool_]
    prediction: NDArray[np.bool_]
    spacing_mm: tuple[float, ...]
    surface: Surface
    hd95: HD95Mode
    percentile: float = 95.0
    tolerances_mm: tuple[float, ...] = (1.0, 2.0)

    def score(self) -> MaskScore:
        return score_masks(
            self.reference,
            self.prediction,
            self.spacing_mm,
            surface=self.surface,
            hd95=self.hd95,
            percentile=self.percentile,
            tolerances_mm=self.tolerances_mm,
        )

    def change(self, how: Callable[[NDArray[np.bool_]], NDArray[np.bool_]]) -> "Drawn":
        return replace(self, reference=how(self.reference), prediction=how(self.prediction))


@st.composite
def drawn_pairs(draw: st.DrawFn) -> Drawn:
    # A grid of a single slice would be scored in 2D, and padding makes it another: two slices or more.
    shape = tuple(draw(st.lists(st.integers(2, 6), min_size=2, max_size=3)))
    reference, prediction = draw(arrays(np.bool_, (2, *shape)))
    spacing_mm = tuple(draw(st.sampled_from(SPACINGS_MM)) for _ in shape)
    surface: Surface = draw(st.sampled_from(("area", "voxel")))
    hd95: HD95Mode = draw(st.sampled_from(("max", "pooled")))
    return Drawn(reference, prediction, spacing_mm, surface, hd95)


def assert_equal(got: MaskScore, want: MaskScore, names: tuple[str, ...]) -> None:
    assert got.status == want.status
    for name in (*DISTANCES, *OVERLAPS, *names):
        close = pytest.approx(getattr(want, name), rel=1e-9, abs=1e-9, nan_ok=True)
        assert getattr(got, name) == close, name
    assert list(got.nsd.values()) == pytest.approx(list(want.nsd.values()), rel=1e-9, abs=1e-9, nan_ok=True)


@some
@given(drawn_pairs())
def test_swapped_masks(pair: Drawn) -> None:
    want = pair.score()
    got = replace(pair, reference=pair.prediction, prediction=pair.reference).score()
    swapped = {"missed": "false_positive", "false_positive": "missed"}
    assert got.status == swapped.get(want.status, want.status)
    for name in (*DISTANCES, "dice", "iou", "f1", "accuracy", "mcc", "kappa", "tp", "tn"):
        assert getattr(got, name) == pytest.approx(getattr(want, name), rel=1e-9, abs=1e-9, nan_ok=True), name
    for name, other in (("precision", "recall"), ("reference_ml", "predicted_ml"), ("fp", "fn")):
        assert getattr(got, name) == pytest.approx(getattr(want, other), nan_ok=True), name
        assert getattr(got, other) == pytest.approx(getattr(want, name), nan_ok=True), other
    assert got.difference_ml == pytest.approx(-want.difference_ml, nan_ok=True)
    assert got.nsd == pytest.approx(want.nsd, rel=1e-9, abs=1e-9, nan_ok=True)


@some
@given(drawn_pairs(), st.data())
def test_mirrored(pair: Drawn, data: st.DataObject) -> None:
    steps = tuple(slice(None, None, data.draw(st.sampled_from((1, -1)))) for _ in pair.spacing_mm)
    assert_equal(pair.change(lambda mask: mask[steps]).score(), pair.score(), (*WITH_BACKGROUND, *VOLUMES))


@some
@given(drawn_pairs(), st.data())
def test_axes_in_another_order(pair: Drawn, data: st.DataObject) -> None:
    axes = tuple(data.draw(st.permutations(range(len(pair.spacing_mm)))))
    turned = replace(
        pair.change(lambda mask: mask.transpose(axes)),
        spacing_mm=tuple(pair.spacing_mm[axis] for axis in axes),
    )
    assert_equal(turned.score(), pair.score(), (*WITH_BACKGROUND, *VOLUMES))
    # The same, but with each mask laid out anew: transposing alone leaves the memory as it is.
    copied = turned.change(np.ascontiguousarray)
    assert_equal(copied.score(), pair.score(), (*WITH_BACKGROUND, *VOLUMES))


@some
@given(drawn_pairs(), st.data())
def test_padded_with_background(pair: Drawn, data: st.DataObject) -> None:
    widths = [data.draw(st.tuples(st.integers(0, 3), st.integers(0, 9))) for _ in pair.spacing_mm]
    padded = pair.change(lambda mask: np.pad(mask, widths))
    assert_equal(padded.score(), pair.score(), VOLUMES)


@some
@given(drawn_pairs(), st.sampled_from((("F", "F"), ("F", "C"), ("C", "F"))))
def test_stored_in_another_order(pair: Drawn, orders: tuple[str, str]) -> None:
    stored = replace(
        pair,
        reference=np.array(pair.reference, order=orders[0]),  # type: ignore[call-overload]
        prediction=np.array(pair.prediction, order=orders[1]),  # type: ignore[call-overload]
    )
    assert_equal(stored.score(), pair.score(), (*WITH_BACKGROUND, *VOLUMES))


@some
@given(drawn_pairs(), st.sampled_from((0.1, 0.5, 2.0, 3.7)))
def test_scales_with_spacing(pair: Drawn, factor: float) -> None:
    want = pair.score()
    got = replace(
        pair,
        spacing_mm=tuple(factor * step for step in pair.spacing_mm),
        tolerances_mm=tuple(factor * tolerance for tolerance in pair.tolerances_mm),
    ).score()
    scaled = replace(
        want,
        **{name: factor * getattr(want, name) for name in DISTANCES},
        **{name: factor**3 * getattr(want, name) for name in VOLUMES if name.endswith("_ml")},
    )
    assert_equal(got, scaled, (*WITH_BACKGROUND, *VOLUMES))


@some
@given(drawn_pairs(), st.floats(1.0, 99.0))
def test_order_of_the_scores(pair: Drawn, percentile: float) -> None:
    low, high, full = (replace(pair, percentile=p).score() for p in (percentile, 99.5, 100.0))
    if low.status != "ok":
        return
    slack_mm = 1e-9
    assert 0 <= low.hd95_mm <= high.hd95_mm + slack_mm
    assert high.hd95_mm <= full.hd95_mm + slack_mm
    assert full.hd95_mm == pytest.approx(full.hd_mm, abs=1e-9)
    assert max(full.assd_mm, full.masd_mm) <= full.hd_mm + slack_mm
    assert 0 <= full.nsd[1.0] <= full.nsd[2.0] <= 1
    assert replace(pair, tolerances_mm=(full.hd_mm,)).score().nsd[full.hd_mm] == pytest.approx(1)
    same = replace(pair, prediction=pair.reference).score()
    assert [getattr(same, name) for name in DISTANCES] == [0.0] * 4
    assert same.dice == same.nsd[1.0] == 1.0
