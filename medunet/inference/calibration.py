"""What a faster way of prediction costs in Dice: cases predicted in both ways, scored, compared."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medunet import __version__
from medunet.base.packages import versions_of
from medunet.base.processor import read_processor
from medunet.inference.mask_index import read_entries
from medunet.inference.model import Model
from medunet.inference.predict import predict_scans
from medunet.inference.scan import Scan
from medunet.records.config import InferenceConfig
from medunet.records.costs import Cost, TargetCost, hash_options
from medunet.scoring.evaluate import score_pairs
from medunet.scoring.pairs import Pair
from medunet.scoring.predicted import Predicted

DiceTable = dict[tuple[str, str], float]  # by case and target; NaN if undefined


@dataclass(frozen=True)
class LabelledScan:
    """A held-out scan with its label and patient."""

    scan: Scan
    label: Path
    patient: str


@dataclass(frozen=True)
class Way:
    """A way of prediction: the loaded model, the options, and the folder that keeps its masks and scores."""

    model: Model
    options: InferenceConfig
    folder: Path


@dataclass(frozen=True)
class Measured:
    """The Dice and the mean seconds per case of one way."""

    way: Way
    dice: DiceTable
    seconds: float


def measure(way: Way, cases: Sequence[LabelledScan]) -> tuple[Measured | None, dict[str, str]]:
    """Predict and score cases in one way; return nothing but the failed cases with their reasons if any failed.

    Masks that were made in the same way before, and their scores, are used again.
    """
    description = way.model.card.description
    failed = predict_scans(way.model, [case.scan for case in cases], way.folder, way.options)
    if failed:
        return None, failed
    pairs = [Pair(case.scan.case, case.label, way.folder / case.scan.mask_name) for case in cases]
    scores = score_pairs(
        pairs,
        description.targets,
        description.targets,
        rules_reference=description.label_rules,
        rules_prediction=Predicted.by(description, is_own=True).rules,
        ignore_value=description.ignore_value,
        journal=way.folder / "scores.jsonl",
    )
    if failed := {score.case: score.reason for score in scores if score.status in ("missing", "failed")}:
        return None, failed
    entries = read_entries(way.folder, description)
    seconds = [entries[case.scan.case]["seconds"] for case in cases]
    dice = {(score.case, score.label): score.dice for score in scores}
    return Measured(way, dice, sum(seconds) / len(seconds)), {}


def compare(reference: Measured, other: Measured, cases: Sequence[LabelledScan]) -> Cost:
    """Return what a way costs beside fp32 with the model's own options."""
    model, precise = other.way.model, reference.way.model
    pairs = compare_dice(reference.dice, other.dice)
    targets = {}
    for name in model.card.description.targets:
        own = [both for (_, target), both in pairs.items() if target == name]
        targets[name] = TargetCost(
            dice_fp32=_mean([first for first, _ in own]),
            dice=_mean([second for _, second in own]),
            num_cases=len(own),
        )
    differences = {key: second - first for key, (first, second) in pairs.items()}
    worst = min(differences, key=lambda key: differences[key], default=("", ""))
    return Cost(
        targets=targets,
        difference=_mean(list(differences.values())),
        worst_case=worst[0],
        worst_target=worst[1],
        worst_difference=differences.get(worst),
        num_cases=len(cases),
        num_patients=len({case.patient for case in cases}),
        seconds_fp32=reference.seconds,
        seconds=other.seconds,
        backend_fp32=precise.backend.name,
        backend=model.backend.name,
        device=model.backend.device.type,
        processor=read_processor().describe(),
        versions={"medunet": __version__} | versions_of(["torch", "openvino", "nncf"]),
        weights_sha256=model.weights_sha256,
        options_sha256=hash_options(reference.way.options),
        quantised_sha256=model.quantised_sha256,
    )


def compare_dice(reference: DiceTable, other: DiceTable) -> dict[tuple[str, str], tuple[float, float]]:
    """Return both Dice of each case and target where one of them is defined; an undefined one counts as 1.

    Only the Dice of an empty mask and an empty reference is undefined.
    """
    defined = {
        key: (reference[key], other[key])
        for key in reference
        if not (math.isnan(reference[key]) and math.isnan(other[key]))
    }
    return {key: (_or_one(first), _or_one(second)) for key, (first, second) in defined.items()}


def _or_one(dice: float) -> float:
    return 1.0 if math.isnan(dice) else dice


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
