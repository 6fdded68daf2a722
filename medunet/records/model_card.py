"""model.json: what prediction needs to know beside the weights."""

from typing import Literal

from pydantic import Field

from medunet.base.stored import Stored
from medunet.records.config import InferenceConfig, WeightsName
from medunet.records.description import Description
from medunet.records.plan import Plan

WEIGHTS_FILES: dict[WeightsName, str] = {"best": "weights.safetensors", "final": "weights_final.safetensors"}


class ModelCard(Stored):
    """model.json: what prediction needs to know beside the weights."""

    schema_: Literal["medunet.model/1"] = Field("medunet.model/1", alias="schema")
    medunet_version: str
    description: Description
    plan: Plan
    fold: int | str
    inference: InferenceConfig = InferenceConfig()
    training_cases: tuple[str, ...] = ()
    train_is_validation: bool = False
    validation_dice: dict[str, float | None] = {}
    validation_cases: tuple[
        str, ...
    ] = ()  # ids of those whose Dice chose the best weights; before 0.5: not kept
    weights_sha256: str = ""  # of the best
    final_weights_sha256: str = ""  # before 0.5: none

    def sha256_of(self, weights: WeightsName) -> str:
        """Return the hash of the file of the best or the final weights; "" where the model has none."""
        return self.weights_sha256 if weights == "best" else self.final_weights_sha256
