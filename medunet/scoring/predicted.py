"""What predicted masks hold, by their own description, the index.json beside them, or the reference's description."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from medunet.base.errors import InputError
from medunet.records.description import Description
from medunet.records.label_rules import LabelRules, Others
from medunet.records.mask_journal import read_mask_index
from medunet.records.model_card import ModelCard


@dataclass(frozen=True)
class Predicted:
    """The values of the targets in predicted masks, and the rules by which the masks are read."""

    targets: Mapping[str, tuple[int, ...]]
    rules: LabelRules

    @classmethod
    def by(cls, description: Description, *, is_own: bool) -> Self:
        """Return what masks with a description hold; `is_own` is false if it is the reference's."""
        others: Others = "left out" if is_own else "surplus"
        return cls(description.targets, replace(description.label_rules, others=others))


def read_predicted(folder: Path) -> Predicted | None:
    """Return what the masks in a folder hold according to their index.json; None if it does not say so."""
    plain = read_mask_index(folder)
    if "targets" not in plain:
        return None
    targets = {name: tuple(values) for name, values in plain["targets"].items()}
    parts = {f"{name} {value}": value for name, values in targets.items() for value in values}
    return Predicted(targets, LabelRules(plain.get("labels") or parts, others="left out"))


def read_failures(folder: Path) -> dict[str, str]:
    """Return the reasons of the failed cases in the index.json of a folder of masks."""
    failures: dict[str, str] = read_mask_index(folder).get("failed", {})
    return failures


def choose_targets(description: Description, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the named targets (by default all) with their label values.

    Raises:
        InputError: Targets are not declared; the message names them.
    """
    targets = description.targets
    if unknown := [name for name in names if name not in targets]:
        raise InputError(
            f"{description.name} does not declare {unknown}",
            where="--target",
            hint=f"Choose from {list(targets)}.",
        )
    return {name: targets[name] for name in names or targets}


def require_targets(names: Sequence[str], predicted: Predicted) -> None:
    """Check that the prediction declares the targets that the user named.

    Raises:
        InputError: it does not; the message names them.
    """
    if unknown := [name for name in names if name not in predicted.targets]:
        raise InputError(
            f"the prediction's description does not declare {unknown}",
            where="--target",
            hint=f"It declares {list(predicted.targets)}: give a label the same name in both descriptions.",
        )


def count_weights(
    cases: Sequence[str], entries: Mapping[str, Any], cards: Mapping[int | str, ModelCard]
) -> dict[str, Any]:
    """Count the predicted cases by the weights that predicted them, "best" or "final" (key `weights`).

    With `cards`, also count the cases on which the best weights of their own model were selected (`num_chosen_on`;
    None if a model card before 0.5 does not list its validation cases). `entries` are those of index.json.
    """
    known = {case: entries[case] for case in cases if case in entries}
    counts: dict[str, int] = {}
    num_chosen_on: int | None = 0
    for case, entry in known.items():
        weights = entry.get("weights", "best")
        counts[weights] = counts.get(weights, 0) + 1
        card = cards.get(entry.get("fold"))
        if weights == "best" and card is not None:
            if not card.validation_cases:
                num_chosen_on = None
            elif num_chosen_on is not None:
                num_chosen_on += case in card.validation_cases
    return {"weights": counts, **({"num_chosen_on": num_chosen_on} if cards else {})}


def read_index_cases(folder: Path) -> dict[str, Any]:
    """Return the entries of the cases in the index.json of a folder of masks; empty if there is no index.json."""
    entries: dict[str, Any] = read_mask_index(folder).get("cases", {})
    return entries
