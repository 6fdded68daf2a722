"""What pages say of conventions, and the remarks of the scores that head a case's page."""

import math

import pandas as pd
import pytest
from tiny_run import DESCRIPTION

from medunet.reporting.case_page import Links, case_html
from medunet.reporting.scores import Unit
from medunet.reporting.sentences import conventions, score_notes

BORDER = "touches the border of the scan"
SWAPPED = (
    "liver and tumour look swapped: IoU 0.90 and 0.85 with each other's mask, 0.05 and 0.10 with their own"
)


def table(
    *reasons: str, surface: str = "area", distance: str = "hd95_mm", status: str = "ok"
) -> pd.DataFrame:
    """Return a case's rows of the score table, one for each reason."""
    labels = ["liver", "tumour"][: len(reasons)]
    rows = pd.DataFrame({"case": "one", "label": labels, "status": status, "surface": surface, "dice": 0.1})
    return rows.assign(**{"hd_mm": 3.0, distance: 2.0, "reason": list(reasons)})


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
    assert expected in conventions(table("", surface=surface), unit)


def test_the_percentile_says_how_both_directions_are_joined() -> None:
    largest = conventions(table(""), "mm")
    assert "HD95 is percentile 95 of the distances, the larger of the two directions." in largest
    pooled = conventions(table("", distance="hd90_pooled_mm"), "mm")
    assert (
        "HD90 pooled is percentile 90 of the distances of both directions together. – is undefined" in pooled
    )
    assert "larger" not in pooled
    assert "percentile" not in conventions(table("", distance="assd_mm"), "mm")


def test_remarks_stand_once_and_swaps_first() -> None:
    rows = table(f"{BORDER}; resampled from 1×1×5 mm", f"{SWAPPED}; resampled from 1×1×5 mm; another remark")
    notes = score_notes(rows)
    assert [(note.severity, note.heading) for note in notes] == [
        ("error", "Check the labels"),
        ("warning", "Another grid"),
        ("warning", "Scores"),
    ]
    assert notes[0].text == SWAPPED
    assert notes[1].text == "the prediction was resampled from 1×1×5 mm to the reference's grid to be scored"
    assert score_notes(table(BORDER, "")) == []
    assert score_notes(table("the prediction's shape differs", status="failed")) == []


def test_a_page_is_headed_by_its_remarks() -> None:
    rows = table(f"{SWAPPED}; resampled from 1×1×5 mm", f"{BORDER}; {SWAPPED}; resampled from 1×1×5 mm")
    rows = rows.assign(reference_ml=1.0, predicted_ml=math.nan)
    html = case_html("one", rows, DESCRIPTION, "no scan", Links(None, None))
    head, scores = html[html.index("<h1>") :].split("<h2>Scores</h2>")
    assert '<p class="verdict bad">Labels look swapped: liver, tumour. Lowest Dice 0.100 (liver)</p>' in head
    assert head.count("look swapped: IoU") == head.count("resampled from") == 1
    assert '<li class="error"><b>Check the labels</b>: liver and tumour look swapped: IoU 0.90' in head
    assert "border" not in head
    assert f'<span class="second">{BORDER}</span>' in scores
    assert "look swapped" not in scores  # once is enough
    assert "resampled" not in scores
