"""The model card (model.json): what prediction needs in addition to the weights."""

from typing import Literal

from pydantic import Field

from medunet.base.record import Record
from medunet.records.config import InferenceConfig, WeightsName
from medunet.records.costs import Cost, FasterWay, hash_options
from medunet.records.description import Description
from medunet.records.nnunet_rules import NnunetRules
from medunet.records.plan import Plan

WEIGHTS_FILES: dict[WeightsName, str] = {"best": "weights.safetensors", "final": "weights_final.safetensors"}
TRAIN_IS_VALIDATION = (
    "The model was trained on the cases that it is scored on: the scores say nothing about new scans."
)


class ModelCard(Record):
    """Metadata of a trained model: description, plan, cases, validation scores, and hashes of the weights."""

    schema_: Literal["medunet.model/1"] = Field("medunet.model/1", alias="schema")
    medunet_version: str
    description: Description
    plan: Plan
    fold: int | str
    seed: int | None = Field(None, exclude_if=lambda seed: seed is None)  # of its training; None before 0.9
    inference: InferenceConfig = InferenceConfig()
    training_cases: tuple[str, ...] = ()
    train_is_validation: bool = False
    validation_dice: dict[str, float | None] = {}
    validation_cases: tuple[
        str, ...
    ] = ()  # ids of the cases whose Dice selected the best weights; empty before 0.5
    weights_sha256: str = ""  # of the best weights
    final_weights_sha256: str = ""  # empty before 0.5
    # Endings of each channel's file names in training, where the description has none; empty before 0.7.
    endings: dict[str, tuple[str, ...]] = {}
    # How nnU-Net predicts with a model that was imported from it; None: by medunet's rules.
    nnunet: NnunetRules | None = Field(default=None, exclude_if=lambda rules: rules is None)
    # What faster ways of prediction cost, measured by `medunet calibrate`.
    costs: dict[FasterWay, Cost] = Field(default={}, exclude_if=lambda costs: not costs)

    def sha256_of(self, weights: WeightsName) -> str:
        """Return the SHA-256 of the file with the best or final weights; "" if the model has no such file."""
        return self.weights_sha256 if weights == "best" else self.final_weights_sha256

    def cost_of(self, way: FasterWay, weights: WeightsName, options: InferenceConfig) -> Cost | None:
        """Return what a faster way costs with these weights, beside these options in fp32; None if not measured."""
        cost = self.costs.get(way)
        if cost is None or cost.weights_sha256 != self.sha256_of(weights):
            return None
        return cost if cost.options_sha256 == hash_options(options) else None
