"""What pages say of conventions, and the remarks of the scores that head a case's page."""

import math

import pandas as pd
import pytest
from tiny_run import DESCRIPTION

from medunet.records.scores import Note
from medunet.reporting.case_page import case_page
from medunet.reporting.case_parts import CaseParts
from medunet.reporting.explanations import (
    describe_conventions,
    describe_faster_ways,
    describe_use,
    score_remarks,
)
from medunet.reporting.scores import Unit
from medunet.scoring.notes import BORDER, note_resampling, note_swap

SWAPPED = note_swap("liver", "tumour", (0.9, 0.85), (0.05, 0.1))
RESAMPLED = note_resampling((1.0, 1.0, 5.0))
OTHER = Note("other", "another remark")


class FakeCard:
    """What of a model card says which cases a model knows."""

    training_cases = ("trained_on",)
    validation_cases = ("chosen_on",)

    def sha256_of(self, weights: str) -> str:
        return "0123"


def table(*notes: tuple[Note, ...], surface: str = "area", distance: str = "hd95_mm") -> pd.DataFrame:
    """Return a case's rows of the score table, one for each target's notes."""
    labels = ["liver", "tumour"][: len(notes)]
    rows = pd.DataFrame({"case": "one", "label": labels, "status": "ok", "surface": surface, "dice": 0.1})
    return rows.assign(**{"hd_mm": 3.0, distance: 2.0, "reason": "", "notes": list(notes)})


@pytest.mark.parametrize(
    ("surface", "unit", "expected"),
    [
        ("area", "mm", "in mm (surface “area”: between surfaces weighted by area), volumes in ml"),
        ("voxel", "mm", "in mm (surface “voxel”: between surface voxels), volumes in ml"),
        ("area", "px", "(surface “area”: between outlines weighted by length), areas in pixels"),
        ("voxel", "px", "(surface “voxel”: between the pixels of outlines), areas in pixels"),
        ("", "mm", "in mm (surface convention not recorded), volumes in ml"),
    ],
)
def test_the_surface_is_named(surface: str, unit: Unit, expected: str) -> None:
    assert expected in describe_conventions(table((), surface=surface), unit)


def test_the_percentile_says_how_both_directions_are_joined() -> None:
    largest = describe_conventions(table(()), "mm")
    assert "HD95 is percentile 95 of the distances, the larger of the two directions." in largest
    pooled = describe_conventions(table((), distance="hd90_pooled_mm"), "mm")
    assert (
        "HD90 pooled is percentile 90 of the distances of both directions together. – is undefined" in pooled
    )
    assert "larger" not in pooled
    assert "percentile" not in describe_conventions(table((), distance="assd_mm"), "mm")


def test_remarks_stand_once_and_swaps_first() -> None:
    rows = table((BORDER, RESAMPLED), (SWAPPED, RESAMPLED, OTHER))
    remarks = score_remarks(rows)
    assert [(remark.severity, remark.heading) for remark in remarks] == [
        ("error", "Check the labels"),
        ("warning", "Different grid"),
        ("warning", "Scores"),
    ]
    assert remarks[0].text == SWAPPED.text
    assert remarks[1].text == "the prediction was resampled from 1×1×5 mm to the reference's grid for scoring"
    assert score_remarks(table((BORDER,), ())) == []


def test_a_page_is_headed_by_its_remarks() -> None:
    rows = table((SWAPPED, RESAMPLED), (BORDER, SWAPPED, RESAMPLED))
    rows = rows.assign(reference_ml=1.0, predicted_ml=math.nan)
    parts = CaseParts(case_id="one", page="one.html", description=DESCRIPTION, rows=rows)
    html, summary = case_page(parts, "no scan")
    head, scores = html[html.index("<h1") :].split("<h2>Targets</h2>")
    assert summary.severity == "review"
    assert summary.reasons[0] == "labels look swapped: liver, tumour"
    assert "<li>Labels look swapped: liver, tumour</li>" in head
    assert head.count("look swapped: IoU") == head.count("resampled from") == 1
    assert '<li class="error"><b>Check the labels</b>: liver and tumour look swapped: IoU 0.90' in head
    assert "<li>Cut by the border of the scan: tumour</li>" in head
    assert f'<span class="second">{BORDER.text}</span>' in scores
    assert "look swapped" not in scores  # once is enough
    assert "resampled" not in scores


def test_masks_of_faster_ways_say_so():
    windows = {"overlap": 0.5, "mirror": [], "shifts": 1}
    assert describe_faster_ways({}) == []
    assert describe_faster_ways({"precision": "fp32", "window_options": windows}) == []
    assert (
        describe_faster_ways(
            {"precision": "bf16", "window_options": {**windows, "overlap": 0.25, "shifts": 8}}
        )
        == []
    )
    int8, fast = describe_faster_ways({"precision": "int8", "window_options": {**windows, "overlap": 0.25}})
    assert int8.startswith("Predicted by the int8 network.")
    assert fast.startswith("Predicted as by --fast: windows overlap by 0.25 of the patch")


def test_a_case_that_the_model_knows_says_so():
    card = FakeCard()
    entry = {"fold": 0, "weights": "best", "model_sha256": "0123"}
    assert describe_use("trained_on", entry, {"0": card}).startswith("the model was trained on this case")
    assert "optimistic" in describe_use("chosen_on", entry, {"0": card})
    assert describe_use("unseen", entry, {"0": card}) == ""
    assert describe_use("chosen_on", {**entry, "weights": "final"}, {"0": card}) == ""
    assert describe_use("chosen_on", {**entry, "model_sha256": "of another training"}, {"0": card}) == ""
    assert describe_use("chosen_on", {**entry, "fold": 1}, {"0": card}) == ""
