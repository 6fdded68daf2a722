"""What planning decides and prediction needs: fingerprint, plan and model card, as they stand in files.

Spacings are in mm, sizes in voxels, axes in the order of the array `(I, J, K)` after turning to RAS+.
"""

import math
from typing import Any, Literal, Self

from pydantic import Field, model_serializer, model_validator

from medunet.config import InferenceConfig
from medunet.records import Description
from medunet.stored import Stored


class Intensity(Stored):
    """How one channel is normalised before the network sees it."""

    scheme: Literal["ct", "zscore", "zscore_nonzero"]
    clip_low: float | None = None
    clip_high: float | None = None
    mean: float | None = None
    std: float | None = None


class Fingerprint(Stored):
    """What the training cases look like; the plan follows from it."""

    num_cases: int
    spacings_mm: tuple[tuple[float, float, float], ...]  # per case, in RAS+ axis order
    shapes: tuple[tuple[int, int, int], ...]  # per case, in RAS+ axis order, cropped to nonzero
    nonzero_fraction: float  # volume of the nonzero boxes over that of the scans
    intensities: dict[str, dict[str, float]]  # per channel, over the labelled foreground


class Plan(Stored):
    """Every number that preprocessing, network and training need, each with its reason.

    In the file each number stands beside its reason: `"batch_size": {"value": 2, "why": "..."}`.
    """

    schema_: Literal["medunet.plan/1"] = Field("medunet.plan/1", alias="schema")
    dataset: str
    dimensions: Literal[2, 3]
    orientation: str
    spacing_mm: tuple[float, float, float]
    slice_axis: int  # the axis that 2D networks slice: the coarsest
    crop_nonzero: bool
    intensities: dict[str, Intensity]
    median_shape: tuple[int, int, int]  # of the nonzero boxes at the target spacing
    patch_size: tuple[int, ...]
    batch_size: int
    features: tuple[int, ...]  # channels of each stage
    kernel_sizes: tuple[tuple[int, ...], ...]  # per stage and axis
    strides: tuple[tuple[int, ...], ...]  # of each stage's first convolution
    convolutions_per_stage: int
    deep_supervision: int  # number of outputs that the loss sees, finest first
    anisotropic: bool  # augment in-plane only
    memory_gb: float
    estimated_gb: float
    fingerprint: Fingerprint
    why: dict[str, str] = Field(default={}, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "why" in value:
            return value
        plain, why = {}, {}
        for key, item in value.items():
            if isinstance(item, dict) and set(item) == {"value", "why"}:
                plain[key], why[key] = item["value"], item["why"]
            else:
                plain[key] = item
        return {**plain, "why": why}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = []
        per_stage = {"kernel_sizes": self.kernel_sizes, "strides": self.strides}
        num_stages = len(self.features)
        if num_stages < 2:
            faults.append(f"features: a network needs two stages or more, not {num_stages}")
        if min(self.features, default=1) < 1:
            faults.append("features: every stage needs one or more")
        for key, rows in per_stage.items():
            if len(rows) != num_stages:
                faults.append(f"{key}: has {len(rows)} stages but features has {num_stages}")
        for key, rows in {**per_stage, "patch_size": (self.patch_size,)}.items():
            if any(len(row) != self.dimensions for row in rows):
                faults.append(f"{key}: needs {self.dimensions} axes")
            if any(number < 1 for row in rows for number in row):
                faults.append(f"{key}: every number must be 1 or more")
        if any(number % 2 == 0 for row in self.kernel_sizes for number in row):
            faults.append("kernel_sizes: every number must be odd")
        if any(number != 1 for row in self.strides[:1] for number in row):
            faults.append("strides: those of the first stage must be 1")
        if not faults:  # else a divisor may be 0, or belong to no axis
            divisors = [math.prod(steps) for steps in zip(*self.strides, strict=True)]
            if any(size % divisor for size, divisor in zip(self.patch_size, divisors, strict=True)):
                faults.append(
                    f"patch_size: {list(self.patch_size)} is not divisible by the strides' products {divisors}"
                )
        for key in ("batch_size", "convolutions_per_stage", "deep_supervision"):
            if getattr(self, key) < 1:
                faults.append(f"{key}: must be 1 or more")
        if not all(0 < step < math.inf for step in self.spacing_mm):
            faults.append(f"spacing_mm: {list(self.spacing_mm)} must be positive")
        if self.slice_axis not in (0, 1, 2):
            faults.append(f"slice_axis: {self.slice_axis} is none of 0, 1, 2")
        if not self.intensities:
            faults.append("intensities: no channel is named")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @model_serializer(mode="wrap")
    def _to_file(self, handler: Any) -> dict[str, Any]:
        plain = handler(self)
        return {
            key: {"value": item, "why": self.why[key]} if key in self.why else item
            for key, item in plain.items()
        }


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
    weights_sha256: str = ""
