"""Notes on a case's scores, such as labels that look swapped, and how the column `reason` of scores.csv stores them.

For a missing or failed case, the column holds why it was not scored; for any other case, its notes. A cell only
holds text, so the kind of a note is recognised by its wording when the file is read.
"""

import re
from collections.abc import Iterable, Sequence

from medunet.records.scores import UNSCORED, CaseScore, Note, NoteKind

BORDER = Note("border", "touches the border of the scan")

_JOINT = "; "
_BORDER_START, _SWAPPED_WORDS, _RESAMPLED_START = "touches the border", "look swapped", "resampled from"
_NAMES_START = "names in the "


def note_swap(one: str, other: str, crossed: Sequence[float], own: Sequence[float]) -> Note:
    """Return the note on two targets that look swapped, with their IoUs with each other's mask and with their own."""
    text = (
        f"{one} and {other} {_SWAPPED_WORDS}: IoU {crossed[0]:.2f} and {crossed[1]:.2f} with each other's mask, "
        f"{own[0]:.2f} and {own[1]:.2f} with their own"
    )
    return Note("swapped", text)


def note_resampling(spacing_mm: Iterable[float]) -> Note:
    """Return the note on a prediction that was resampled to the reference's grid from this spacing in mm."""
    spacing = "×".join(f"{step:.4g}" for step in spacing_mm)
    return Note("resampled", f"{_RESAMPLED_START} {spacing} mm")


def note_names(role: str, text: str) -> Note:
    """Return the note on names in a file that contradict the description; `role` is reference or prediction."""
    return Note("names", f"{_NAMES_START}{role}: {text}")


def reason_cell(score: CaseScore) -> str:
    """Return the cell of a score in the column `reason`; semicolons within a note are doubled."""
    return score.reason or _JOINT.join(note.text.replace(";", ";;") for note in score.notes)


def read_reason(cell: str, status: str) -> tuple[str, tuple[Note, ...]]:
    """Split a cell of the column `reason` into the reason of a missing or failed case, and the notes of any other."""
    if status in UNSCORED:
        return cell, ()
    parts = re.sub(r";;|; ", lambda match: ";" if match[0] == ";;" else "\0", cell).split("\0")
    return "", tuple(Note(_kind_of(text), text) for text in parts if text)


def _kind_of(text: str) -> NoteKind:
    if text.startswith(_BORDER_START):
        return "border"
    if text.startswith(_NAMES_START):
        return "names"
    if _SWAPPED_WORDS in text:
        return "swapped"
    return "resampled" if text.startswith(_RESAMPLED_START) else "other"
