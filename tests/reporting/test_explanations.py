"""What pages say of conventions, and the remarks of the scores that head a case's page."""

import math

import pandas as pd
import pytest
from tiny_run import DESCRIPTION

from medunet.records.scores import Note
from medunet.reporting.case_page import Links, case_html
from medunet.reporting.explanations import describe_conventions, describe_faster_ways, score_remarks
from medunet.reporting.scores import Unit
from medunet.scoring.notes import BORDER, note_resampling, note_swap

SWAPPED = note_swap("liver", "tumour", (0.9, 0.85), (0.05, 0.1))
RESAMPLED = note_resampling((1.0, 1.0, 5.0))
OTHER = Note("other", "another remark")


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
    html = case_html("one", rows, DESCRIPTION, "no scan", Links(None, None))
    head, scores = html[html.index("<h1>") :].split("<h2>Scores</h2>")
    assert '<p class="verdict bad">Labels look swapped: liver, tumour. Lowest Dice 0.100 (liver)</p>' in head
    assert head.count("look swapped: IoU") == head.count("resampled from") == 1
    assert '<li class="error"><b>Check the labels</b>: liver and tumour look swapped: IoU 0.90' in head
    assert "border" not in head
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
