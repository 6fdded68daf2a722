"""What predicted masks hold, by their own description, the index.json beside them, or the reference's description."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from medunet.base.errors import InputError
from medunet.base.files import read_json_object
from medunet.imaging.segment_names import Others
from medunet.records.description import Description
from medunet.scoring.reading import Reading


@dataclass(frozen=True)
class Predicted:
    """The values of targets and labels by name in predicted masks."""

    targets: Mapping[str, tuple[int, ...]]
    labels: Mapping[str, int]
    instances_as: int | None = None
    renumber: Mapping[int, int] | None = None  # see `Description.renumber`
    is_own: bool = True  # False: by the reference's description

    @classmethod
    def by(cls, description: Description, *, is_own: bool) -> Self:
        """Return what masks with a description hold; `is_own` is false if it is the reference's."""
        return cls(
            description.targets, description.labels, description.instances_as, description.renumber, is_own
        )

    @property
    def reading(self) -> Reading:
        """How the masks are read."""
        others: Others = "left out" if self.is_own else "surplus"
        return Reading(self.labels, self.instances_as, self.renumber, others)


def read_predicted(folder: Path) -> Predicted | None:
    """Return what the masks in a folder hold according to their index.json; None if it does not say so."""
    plain = _read_index(folder)
    if "targets" not in plain:
        return None
    targets = {name: tuple(values) for name, values in plain["targets"].items()}
    parts = {f"{name} {value}": value for name, values in targets.items() for value in values}
    return Predicted(targets, plain.get("labels") or parts)


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
