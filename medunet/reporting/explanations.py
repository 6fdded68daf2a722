"""Texts on report pages that explain how scores were computed, and remarks on them."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from medunet.base.errors import MedunetError
from medunet.records.config import FAST_OVERLAP
from medunet.records.model_card import TRAIN_IS_VALIDATION, ModelCard
from medunet.records.run_folder import RunFolder
from medunet.records.scores import UNSCORED, Note
from medunet.reporting.scores import Unit, measures
from medunet.scoring.columns import percentile_of

_log = logging.getLogger(__name__)
_SURFACES = {
    "mm": {"area": "between surfaces weighted by area", "voxel": "between surface voxels"},
    "px": {"area": "between outlines weighted by length", "voxel": "between the pixels of outlines"},
}


@dataclass(frozen=True)
class Remark:
    """A remark at the top of a case's page; with severity error, the scores may be wrong."""

    severity: Literal["error", "warning"]
    heading: str
    text: str


def describe_conventions(scores: pd.DataFrame, unit: Unit) -> str:
    """Describe how the scores of a table were measured and how to read them."""
    found = sorted(set(scores["surface"]) - {""})
    how = "; ".join(f"surface “{mode}”: {_SURFACES[unit].get(mode, mode)}" for mode in found)
    lengths, sizes = ("mm", "volumes in ml")
    if unit == "px":
        lengths, sizes = ("pixels, since a picture has no spacing", "areas in pixels")
    percentiles = [_describe_percentile(measure.column) for measure in measures(scores, unit)]
    return " ".join(
        [
            "Scores are computed on the scan's own grid against the original reference.",
            f"Distances are in {lengths} ({how or 'surface convention not recorded'}), {sizes}.",
            *filter(None, percentiles),
            "– is undefined: nothing to compare. ∞ is a distance to an empty mask.",
        ]
    )


def training_warning(provenance: Mapping[str, Any] | None) -> str:
    """Return a warning if the model was trained on the scored cases, otherwise ""."""
    if not (provenance or {}).get("score", {}).get("train_is_validation"):
        return ""
    return TRAIN_IS_VALIDATION


def describe_faster_ways(entry: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each way in which a mask was predicted faster than in fp32 with averaging.

    `entry` is that of the case in index.json.
    """
    cost = "What this costs in Dice is in the model card after `medunet calibrate`."
    sentences = []
    if entry.get("precision") == "int8":
        sentences.append(f"Predicted by the int8 network. {cost}")
    windows = entry.get("window_options", {})
    if windows and windows == {"overlap": min(windows["overlap"], FAST_OVERLAP), "mirror": [], "shifts": 1}:
        steps = f"windows overlap by {windows['overlap']:g} of the patch, nothing is averaged"
        sentences.append(f"Predicted as by --fast: {steps}. {cost}")
    return sentences


def describe_weights(about: Mapping[str, Any]) -> str:
    """Describe which weights predicted, and on how many scored cases they were chosen; "" if unknown.

    `about` is the entry of scores.json.
    """
    counts: Mapping[str, int] = about.get("weights", {})
    if not counts:
        return ""
    names = " and ".join(
        f"the {name} weights" + (f" ({count} cases)" if len(counts) > 1 else "")
        for name, count in sorted(counts.items())
    )
    text = f"Predicted with {names} of the training."
    if "best" not in counts or "num_chosen_on" not in about:
        return text
    chosen = about["num_chosen_on"]
    if chosen is None:
        return f"{text} The cases that the best were chosen on were not recorded: they may be among the scored ones."
    part = f"{chosen} of the {sum(counts.values())} scored cases" if chosen else "none of the scored cases"
    return f"{text} The best were chosen on {part}{': the scores of these are optimistic' if chosen else ''}."


def read_cards(run: RunFolder) -> dict[str, ModelCard]:
    """Return the model cards of a run's trained folds, by fold; a card that cannot be read is left out."""
    cards = {}
    for path in sorted((run.root / "folds").glob("*/model/model.json")):
        try:
            cards[path.parents[1].name] = ModelCard.read(path)
        except MedunetError:
            _log.warning(f"fold {path.parents[1].name}: model.json cannot be read, so its cases are unknown")
    return cards


def describe_use(case: str, entry: Mapping[str, Any], cards: Mapping[str, ModelCard]) -> str:
    """Return how a case was used for the model that predicted it: trained on it, or weights chosen on it; else "".

    `entry` is that of the case in index.json, `cards` are those of `read_cards`.
    """
    card = cards.get(str(entry.get("fold", "")))
    if card is None or card.sha256_of(entry.get("weights", "best")) != entry.get("model_sha256"):
        return ""
    if case in card.training_cases:
        return "the model was trained on this case: its scores say nothing about new scans"
    if entry.get("weights", "best") == "best" and case in card.validation_cases:
        return "the best weights were chosen on this case among others: its scores are optimistic"
    return ""


def score_remarks(rows: pd.DataFrame) -> list[Remark]:
    """Return remarks for the notes on a case's scores, without duplicates, swapped labels first.

    `rows` are the rows of the case. Notes on masks at the border are left out: the page has its own warnings.
    """
    notes = dict.fromkeys(note for own in rows["notes"] for note in own if note.kind != "border")
    return sorted(map(_remark, notes), key=lambda remark: remark.severity != "error")


def row_reason(row: pd.Series) -> str:
    """Return the remark in a row of the table: why it was not scored, or its notes on the border."""
    if row["status"] in UNSCORED:
        return row["reason"]
    return "; ".join(note.text for note in row["notes"] if note.kind == "border")


def _remark(note: Note) -> Remark:
    if note.kind == "swapped":
        return Remark("error", "Check the labels", note.text)
    if note.kind == "resampled":
        return Remark(
            "warning", "Different grid", f"the prediction was {note.text} to the reference's grid for scoring"
        )
    return Remark("warning", "Labels by name" if note.kind == "names" else "Scores", note.text)


def _describe_percentile(column: str) -> str:
    """Describe a column such as hd95_mm or hd95_pooled_mm; "" for any other column."""
    robust = percentile_of(column)
    if robust is None:
        return ""
    number, is_pooled = robust
    if is_pooled:
        return f"HD{number} pooled is percentile {number} of the distances of both directions together."
    return f"HD{number} is percentile {number} of the distances, the larger of the two directions."
