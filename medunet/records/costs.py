"""What a faster way of prediction costs in Dice: measured on a fold's validation cases, kept in the model card."""

from typing import Literal

from medunet.base.files import hash_value
from medunet.base.record import Record
from medunet.base.words import two_digits
from medunet.records.config import InferenceConfig

FasterWay = Literal["int8", "fast"]


class TargetCost(Record):
    """Mean Dice of one target in fp32 with the model's own options, and in the faster way; None if undefined.

    The Dice of an empty mask and an empty reference is undefined; it counts as 1 if the other way's is defined, and
    otherwise the case is left out.
    """

    dice_fp32: float | None
    dice: float | None
    num_cases: int


class Cost(Record):
    """Dice and time of a faster way of prediction, beside fp32 with the same weights and the model's own options."""

    targets: dict[str, TargetCost]
    difference: float | None  # of Dice, mean over cases and targets
    worst_case: str  # with the largest loss of Dice in one target
    worst_target: str
    worst_difference: float | None
    num_cases: int
    num_patients: int
    seconds_fp32: float  # per case, reading and writing included
    seconds: float
    backend_fp32: str
    backend: str
    device: str
    processor: str
    versions: dict[str, str]
    weights_sha256: str
    options_sha256: str  # see `hash_options`
    quantised_sha256: str = ""  # of the int8 network

    def describe(self) -> str:
        """Return the cost as a sentence."""
        means = ", ".join(
            f"{name} {_dice(cost.dice)} instead of {_dice(cost.dice_fp32)}"
            for name, cost in self.targets.items()
        )
        worst = ""
        if self.worst_difference is not None:
            worst = (
                f", at most by {_signed(self.worst_difference)} ({self.worst_target} of {self.worst_case})"
            )
        return (
            f"mean Dice differs by {_signed(self.difference)} in {self.num_cases} held-out cases of "
            f"{self.num_patients} patients{worst}: {means}; {two_digits(self.seconds)} s a case instead of "
            f"{two_digits(self.seconds_fp32)} ({self.processor})"
        )


def hash_options(options: InferenceConfig) -> str:
    """Return a hash of the options of inference, the choice of weights and of other runs left out."""
    return hash_value(options.model_copy(update={"weights": None, "members": ()}).to_dict())


def _dice(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}".replace("-", "−")
