"""How label files are read: which values they may hold, and what these become."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Others = Literal["refused", "surplus", "left out"]


@dataclass(frozen=True)
class LabelRules:
    """The rules by which label files are read; those of a dataset are `Description.label_rules`.

    `others` says what undeclared values and segments are. "refused": an error, as in a reference. "surplus": an error
    too, as in a prediction that is read with the reference's description; but segments that its file names are left
    out if every label is among them. "left out": no error, as in a prediction with a description of its own, unless
    no declared label has any voxel.
    """

    labels: Mapping[str, int] | None = None  # value of every declared label; None: any value is allowed
    instances_as: int | None = None  # values above 0 number objects of this label value
    renumber: Mapping[int, int] | None = None  # label value of each stored value, see `Description.renumber`
    others: Others = "refused"
