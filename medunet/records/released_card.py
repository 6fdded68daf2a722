"""A model card for others: the ids of cases, and what is listed case by case, are taken out or summed up."""

import numpy as np

from medunet.records.costs import Cost
from medunet.records.model_card import ModelCard
from medunet.records.plan import Fingerprint, Shown


def release_card(card: ModelCard, *, used_sha256: str, released_sha256: str) -> ModelCard:
    """Return the card of a model that is given away with one set of weights, stored as `weights.safetensors`.

    The plan's fingerprint keeps the smallest and the largest spacing and size of the training scans. Of the costs of
    faster ways those of `fast` are kept, without the worst case, if they were measured with the weights in use.

    Args:
        used_sha256: of the weights in use before.
        released_sha256: of the file that is given away.
    """
    fast = card.costs.get("fast")
    costs = {}
    if fast is not None and fast.weights_sha256 == used_sha256:
        costs["fast"] = _without_worst(fast).model_copy(update={"weights_sha256": released_sha256})
    return card.model_copy(
        update={
            "plan": card.plan.model_copy(update={"fingerprint": sum_up(card.plan.fingerprint)}),
            "inference": card.inference.model_copy(update={"weights": "best"}),
            "training_cases": (),
            "validation_cases": (),
            "validation_dice": {},
            "weights_sha256": released_sha256,
            "final_weights_sha256": "",
            "costs": costs,
        }
    )


def sum_up(fingerprint: Fingerprint) -> Fingerprint:
    """Return a fingerprint that lists no case: the smallest and the largest spacing and shape along each axis."""
    shown, field_mm = fingerprint.shown, fingerprint.field_of_view_mm
    if shown is None and field_mm is not None:
        shown = Shown(field_of_view_mm=field_mm, darkest={})
    spacings, shapes = np.array(fingerprint.spacings_mm), np.array(fingerprint.shapes)
    return fingerprint.model_copy(
        update={
            "spacings_mm": tuple(tuple(row) for row in _ends(spacings)),
            "shapes": tuple(tuple(row) for row in _ends(shapes)),
            "shown": shown,
        }
    )


def _ends(rows: np.ndarray) -> list[list[float]]:
    return [rows.min(axis=0).tolist(), rows.max(axis=0).tolist()] if rows.size else []


def _without_worst(cost: Cost) -> Cost:
    return cost.model_copy(update={"worst_case": "", "worst_target": "", "worst_difference": None})
