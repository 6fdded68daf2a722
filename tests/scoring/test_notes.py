"""Notes in one cell of scores.csv: joined as ever, read back whole whatever their text holds."""

from pathlib import Path

import pandas as pd
import pytest

from medunet.records.scores import CaseScore, Note
from medunet.scoring.notes import BORDER, note_names, note_resampling, note_swap, read_reason, reason_cell
from medunet.scoring.tables import read_scores, write_scores

SWAPPED = note_swap("left", "right", (0.75, 1.0), (0.0, 0.0))
RESAMPLED = note_resampling((2.0, 0.75, 5.0))


def cell_of(*notes: Note) -> str:
    return reason_cell(CaseScore("a", "left", "ok", "area", notes=notes))


def test_a_cell_is_as_earlier_versions_wrote_it() -> None:
    cell = (
        "touches the border of the scan; left and right look swapped: IoU 0.75 and 1.00 with each other's mask, "
        "0.00 and 0.00 with their own; resampled from 2×0.75×5 mm"
    )
    assert cell_of(BORDER, SWAPPED, RESAMPLED) == cell
    assert read_reason(cell, "ok") == ("", (BORDER, SWAPPED, RESAMPLED))
    assert [note.kind for note in (BORDER, SWAPPED, RESAMPLED)] == ["border", "swapped", "resampled"]


@pytest.mark.parametrize("name", ["a; b", "a;", ";a", "; ", ";;", ";; ", " ;;; ; a;b;;"])
def test_semicolons_within_a_note_are_no_joints(name: str) -> None:
    notes = (note_swap(name, "b", (1, 1), (0, 0)), Note("other", name), BORDER, Note("other", name))
    assert read_reason(cell_of(*notes), "ok") == ("", notes)


def test_what_a_person_wrote_is_a_note_too() -> None:
    _, notes = read_reason("touches the border of the scan; seen by JS;fine; ", "missed")
    assert notes == (BORDER, Note("other", "seen by JS;fine"))
    assert read_reason("", "ok") == ("", ())


def test_a_note_on_names_is_known_again() -> None:
    note = note_names("prediction", "tumour is 1 in the file; these look swapped")
    assert read_reason(cell_of(note, SWAPPED), "ok") == ("", (note, SWAPPED))


@pytest.mark.parametrize("status", ["missing", "failed"])
def test_a_reason_is_one_text(status: str) -> None:
    assert read_reason("shapes differ; no integers;", status) == ("shapes differ; no integers;", ())


def test_a_table_gives_reasons_and_notes_back(tmp_path: Path) -> None:
    scores = [
        CaseScore("a", "left", "ok", "area", notes=(BORDER, Note("other", "=1; +2"))),
        CaseScore("b", "left", "failed", "area", reason="shapes differ; no integers"),
        CaseScore("c", "left", "ok", "area", notes=(Note("other", "=1; +2"),)),
    ]
    write_scores(scores, tmp_path, about={}, targets={"left": (1,)})
    table = read_scores(tmp_path / "scores.csv")
    assert table["reason"].tolist() == [score.reason for score in scores]
    assert table["notes"].tolist() == [score.notes for score in scores]
    path = tmp_path / "scores.csv"
    pd.read_csv(path, dtype=str).iloc[[0, 2]].drop(columns="reason").to_csv(path, index=False)
    assert read_scores(path)["notes"].tolist() == [(), ()]
