"""The plan (plan.json): all settings of preprocessing, network and training, and the fingerprint they follow from.

Spacings are in mm, sizes in voxels, axes in the order of the array `(I, J, K)` in RAS+ orientation.
"""

import math
from typing import Any, Literal, Self

from pydantic import Field, model_serializer, model_validator

from medunet.base.record import Record
from medunet.records.config import NetworkConfig
from medunet.records.description import Description
from medunet.records.unpadded import UNPADDED_NETWORKS, unpadded_margin, unpadded_size

_WHOLE = 0.9999  # of a scan


class Intensity(Record):
    """Intensity normalisation of one channel."""

    scheme: Literal["ct", "zscore", "zscore_nonzero"]
    clip_low: float | None = None
    clip_high: float | None = None
    mean: float | None = None
    std: float | None = None


class Shown(Record):
    """What the training scans show at most, with which new scans are compared."""

    field_of_view_mm: tuple[float, float, float]  # the largest of all scans, in RAS+ axis order
    darkest: dict[str, float]  # per channel, the 0.5 percentile of a scan's voxels, the median over the scans


class Fingerprint(Record):
    """Properties of the training cases that planning uses: spacings, shapes and foreground intensities."""

    num_cases: int
    spacings_mm: tuple[tuple[float, float, float], ...]  # per case, in RAS+ axis order
    shapes: tuple[tuple[int, int, int], ...]  # per case, in RAS+ axis order, cropped to nonzero
    nonzero_fraction: float  # volume of the nonzero bounding boxes divided by that of the scans
    intensities: dict[str, dict[str, float]]  # per channel, statistics over the labelled foreground
    shown: Shown | None = Field(None, exclude_if=lambda shown: shown is None)  # None in plans up to 0.8

    @property
    def field_of_view_mm(self) -> tuple[float, float, float] | None:
        """The largest field of view of the training scans along each axis of the body; None if it is not known.

        In older plans it is known where the boxes of the nonzero voxels are the whole scans.
        """
        if self.shown is not None:
            return self.shown.field_of_view_mm
        if self.nonzero_fraction < _WHOLE or not self.shapes:
            return None
        sizes = [
            [size * mm for size, mm in zip(shape, spacing, strict=True)]
            for shape, spacing in zip(self.shapes, self.spacings_mm, strict=True)
        ]
        i, j, k = (max(axis) for axis in zip(*sizes, strict=True))
        return i, j, k

    @property
    def darkest(self) -> dict[str, float]:
        """See `Shown.darkest`; empty if it is not known."""
        return {} if self.shown is None else self.shown.darkest

    def is_of_same_data(self, earlier: "Fingerprint") -> bool:
        """Return whether an earlier fingerprint, maybe of an earlier version, was made of the same data."""
        if earlier.shown is None:
            return self.model_copy(update={"shown": None}) == earlier
        return self == earlier


class Plan(Record):
    """All settings of preprocessing, network and training, each with its reason.

    The file stores each value with its reason: `"batch_size": {"value": 2, "why": "..."}`.
    """

    schema_: Literal["medunet.plan/1"] = Field("medunet.plan/1", alias="schema")
    dataset: str
    dimensions: Literal[2, 3]
    network: NetworkConfig  # without "auto"
    orientation: str
    spacing_mm: tuple[float, float, float]
    slice_axis: int  # the axis across which 2D networks slice: the one with the largest spacing
    context_slices: int = 1  # 2D: odd number of neighbouring slices stacked as input channels
    # Masks of an earlier stage that the network of a cascade gets as further input channels.
    mask_inputs: int = Field(default=0, exclude_if=lambda count: not count)
    resize_to: tuple[int, int] | None = None  # 2D: every slice is resized to this size
    # What resampling preserves: the extent of the scan or, in plans up to 0.4.0, the centre of its first voxel.
    grid: Literal["extent", "first_voxel"] = "first_voxel"
    crop_nonzero: bool
    intensities: dict[str, Intensity]
    median_shape: tuple[int, int, int]  # of the nonzero bounding boxes at the target spacing
    patch_size: tuple[int, ...]
    batch_size: int
    features: tuple[int, ...]  # channels of each stage
    kernel_sizes: tuple[tuple[int, ...], ...]  # per stage and axis
    strides: tuple[tuple[int, ...], ...]  # of each stage's first convolution
    convolutions_per_stage: int  # in a residual network: per decoder stage
    encoder_blocks: tuple[int, ...] = ()  # residual blocks of each stage; empty for a plain network
    deep_supervision: int  # number of outputs used by the loss, finest first
    anisotropic: bool  # augment in-plane only
    memory_gb: float
    estimated_gb: float
    fingerprint: Fingerprint
    why: dict[str, str] = Field(default={}, exclude=True)

    @property
    def hash_input(self) -> dict[str, Any]:
        """The plan as a dictionary for hashes.

        A plan up to 0.4.0 is returned as it was then, so that its training runs can be resumed.
        """
        plain = self.to_dict()
        if self.grid == "first_voxel":
            del plain["grid"]
        return plain

    @property
    def padded(self) -> bool:
        """Whether convolutions are padded, so that the output has the size of the input."""
        return self.network.name not in UNPADDED_NETWORKS

    @property
    def valid_margin(self) -> tuple[int, ...]:
        """Voxels per axis that unpadded convolutions cut off on each side of a patch; zeros with padding."""
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
            faults.append("features: every stage needs 1 or more")
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
        if not faults:  # otherwise a divisor may be 0 or an axis missing
            faults += self._patch_faults()
        if "auto" in (self.network.norm, self.network.upsampling):
            faults.append("network: norm and upsampling must be named, not auto")
        for key in ("batch_size", "convolutions_per_stage", "deep_supervision"):
            if getattr(self, key) < 1:
                faults.append(f"{key}: must be 1 or more")
        if not all(0 < step < math.inf for step in self.spacing_mm):
            faults.append(f"spacing_mm: {list(self.spacing_mm)} must be positive")
        if self.slice_axis not in (0, 1, 2):
            faults.append(f"slice_axis: {self.slice_axis} is not 0, 1 or 2")
        if not self.intensities:
            faults.append("intensities: there is no channel")
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
        return [f"patch_size: {patch} is not valid for the unpadded network; the nearest valid are {nearest}"]

    @model_serializer(mode="wrap")
    def _to_file(self, handler: Any) -> dict[str, Any]:
        plain = handler(self)
        return {
            key: {"value": item, "why": self.why[key]} if key in self.why else item
            for key, item in plain.items()
        }


def count_inputs(description: Description, context_slices: int) -> int:
    """Return the channels of a network's input: every image channel in every slice of context."""
    return len(description.channels) * context_slices


def plan_inputs(plan: Plan, description: Description) -> int:
    """Return the channels of the input of a plan's network: those of the image, and masks of an earlier stage."""
    return count_inputs(description, plan.context_slices) + plan.mask_inputs


def count_outputs(description: Description) -> int:
    """Return the channels of a network's output: one for each region, or background and one for each label."""
    return len(description.targets) + (0 if description.regions else 1)
