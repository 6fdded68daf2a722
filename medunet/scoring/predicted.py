"""What predicted masks hold, by their own description, the index.json beside them, or the reference's description."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from medunet.base.errors import InputError
from medunet.base.files import read_json_object
from medunet.records.description import Description
from medunet.records.label_rules import LabelRules, Others


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
    plain = _read_index(folder)
    if "targets" not in plain:
        return None
    targets = {name: tuple(values) for name, values in plain["targets"].items()}
    parts = {f"{name} {value}": value for name, values in targets.items() for value in values}
    return Predicted(targets, LabelRules(plain.get("labels") or parts, others="left out"))


def read_failures(folder: Path) -> dict[str, str]:
    """Return the reasons of the failed cases in the index.json of a folder of masks."""
    failures: dict[str, str] = _read_index(folder).get("failed", {})
    return failures


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


def _read_index(folder: Path) -> dict[str, Any]:
    index = folder / "index.json"
    return read_json_object(index) if index.exists() else {}
