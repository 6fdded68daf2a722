"""What planning decides and prediction needs: fingerprint, plan and model card, as they stand in files.

Spacings are in mm, sizes in voxels, axes in the order of the array `(I, J, K)` after turning to RAS+.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_serializer, model_validator

from medunet.config import InferenceConfig, NetworkConfig, WeightsName
from medunet.records import Description
from medunet.stored import Stored

WEIGHTS_FILES: dict[WeightsName, str] = {"best": "weights.safetensors", "final": "weights_final.safetensors"}
UNPADDED_NETWORKS = ("unet_2015",)


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
    network: NetworkConfig  # nothing is "auto" any more
    orientation: str
    spacing_mm: tuple[float, float, float]
    slice_axis: int  # the axis that 2D networks slice: the coarsest
    context_slices: int = 1  # 2D: odd number of neighbouring slices seen as channels
    resize_to: tuple[int, int] | None = None  # 2D: every slice is resized to this size
    # What stays in place where a scan is resampled: both its ends or, in plans up to 0.4.0, its first voxel's centre.
    grid: Literal["extent", "first_voxel"] = "first_voxel"
    crop_nonzero: bool
    intensities: dict[str, Intensity]
    median_shape: tuple[int, int, int]  # of the nonzero boxes at the target spacing
    patch_size: tuple[int, ...]
    batch_size: int
    features: tuple[int, ...]  # channels of each stage
    kernel_sizes: tuple[tuple[int, ...], ...]  # per stage and axis
    strides: tuple[tuple[int, ...], ...]  # of each stage's first convolution
    convolutions_per_stage: int  # of a residual network: of each decoder stage
    encoder_blocks: tuple[int, ...] = ()  # residual blocks of each stage; none in a plain network
    deep_supervision: int  # number of outputs that the loss sees, finest first
    anisotropic: bool  # augment in-plane only
    memory_gb: float
    estimated_gb: float
    fingerprint: Fingerprint
    why: dict[str, str] = Field(default={}, exclude=True)

    @property
    def settled(self) -> dict[str, Any]:
        """What a training goes by, for hashes; of a plan up to 0.4.0 as it was then, so that its trainings go on."""
        plain = self.plain()
        if self.grid == "first_voxel":
            del plain["grid"]
        return plain

    @property
    def padded(self) -> bool:
        """Whether convolutions are padded, so that the output has the size of the input."""
        return self.network.name not in UNPADDED_NETWORKS

    @property
    def valid_margin(self) -> tuple[int, ...]:
        """Voxels that the network loses on each side of a patch, per axis; zeros where it is padded."""
        if self.padded:
            return (0,) * self.dimensions
        return unpadded_margin(self.kernel_sizes, self.strides, self.convolutions_per_stage)

    @property
    def output_size(self) -> tuple[int, ...]:
        """Size of the network's output for an input of the patch size."""
        return tuple(
            size - 2 * margin for size, margin in zip(self.patch_size, self.valid_margin, strict=True)
        )

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
        if self.encoder_blocks and len(self.encoder_blocks) != num_stages:
            faults.append(
                f"encoder_blocks: has {len(self.encoder_blocks)} stages but features has {num_stages}"
            )
        if not faults:  # else a divisor may be 0, or belong to no axis
            faults += self._patch_faults()
        if "auto" in (self.network.norm, self.network.upsampling):
            faults.append("network: norm and upsampling must be named, not auto")
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

    def _patch_faults(self) -> list[str]:
        patch = list(self.patch_size)
        if self.padded:
            divisors = [math.prod(steps) for steps in zip(*self.strides, strict=True)]
            if any(size % divisor for size, divisor in zip(patch, divisors, strict=True)):
                return [f"patch_size: {patch} is not divisible by the strides' products {divisors}"]
            return []
        smaller, larger = (
            unpadded_size(patch, self.kernel_sizes, self.strides, self.convolutions_per_stage, up=up)
            for up in (False, True)
        )
        if list(larger) == patch:
            return []
        nearest = " or ".join(str(list(size)) for size in dict.fromkeys((smaller, larger)))
        return [f"patch_size: {patch} does not fit the unpadded network; the nearest that fit are {nearest}"]

    @model_serializer(mode="wrap")
    def _to_file(self, handler: Any) -> dict[str, Any]:
        plain = handler(self)
        return {
            key: {"value": item, "why": self.why[key]} if key in self.why else item
            for key, item in plain.items()
        }


def unpadded_margin(
    kernel_sizes: Sequence[Sequence[int]], strides: Sequence[Sequence[int]], convolutions: int
) -> tuple[int, ...]:
    """Return how many voxels a U-Net of unpadded convolutions loses on each side of its input, per axis.

    A convolution of size k takes (k - 1) / 2 voxels of its stage; each stage but the coarsest is passed twice.
    """
    margins = []
    for kernels, steps in zip(zip(*kernel_sizes, strict=True), zip(*strides, strict=True), strict=True):
        scale, margin = 1, 0
        for stage, (kernel, step) in enumerate(zip(kernels, steps, strict=True)):
            scale *= step
            passes = 1 if stage == len(kernels) - 1 else 2
            margin += passes * convolutions * (kernel - 1) // 2 * scale
        margins.append(margin)
    return tuple(margins)


def unpadded_size(
    size: Sequence[int],
    kernel_sizes: Sequence[Sequence[int]],
    strides: Sequence[Sequence[int]],
    convolutions: int,
    *,
    up: bool,
) -> tuple[int, ...]:
    """Return the size next to `size`, itself included, that an unpadded U-Net can take: larger if `up`, else smaller.

    Every stage must halve evenly and the output keep a voxel; where no smaller size does, the smallest is returned.
    """
    margins = unpadded_margin(kernel_sizes, strides, convolutions)
    fitting = []
    for wanted, margin, kernels, steps in zip(
        size,
        margins,
        zip(*kernel_sizes, strict=True),
        zip(*strides, strict=True),
        strict=True,
    ):
        losses = [convolutions * (kernel - 1) for kernel in kernels]
        even = 0  # a size that halves evenly at every stage; others differ from it by the strides' product
        for loss, step in zip(losses[-2::-1], steps[:0:-1], strict=True):
            even = even * step + loss
        product = math.prod(steps)
        smallest = even + -(-(2 * margin + 1 - even) // product) * product
        missing = max(0, wanted - smallest)
        fitting.append(smallest + product * (-(-missing // product) if up else missing // product))
    return tuple(fitting)


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
