"""One typed run configuration: YAML in, unknown keys refused, `--set section.key=value` on top."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, model_validator

from medunet.errors import InputError
from medunet.files import write_text
from medunet.records import Surface
from medunet.stored import Stored, number_aware, read_yaml

Voxels = Annotated[int, Field(ge=1)]
SpacingMm = Annotated[float, Field(ge=0.1, le=100)]
ToleranceMm = Annotated[float, Field(ge=0)]


class Section(Stored):
    """A part of the configuration: numbers must be finite."""

    model_config = ConfigDict(allow_inf_nan=False)


class PlanningConfig(Section):
    """How the plan is made."""

    dimensions: Literal[2, 3] = 3
    memory_gb: float | None = Field(None, gt=0)  # None: measured on the device
    base_features: int = Field(32, ge=4)
    max_features: int | None = Field(None, ge=4)  # None: 320 in 3D, 512 in 2D
    convolutions_per_stage: int = Field(2, ge=1, le=6)
    patch_size: tuple[Voxels, ...] | None = None  # None: by the rules
    batch_size: int | None = Field(None, ge=1)
    spacing_mm: tuple[SpacingMm, SpacingMm, SpacingMm] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "PlanningConfig":
        faults = []
        if self.max_features is not None and self.max_features < self.base_features:
            faults.append(
                f"planning.max_features {self.max_features} is smaller than planning.base_features "
                f"{self.base_features}"
            )
        if self.patch_size is not None and len(self.patch_size) != self.dimensions:
            faults.append(
                f"planning.patch_size has {len(self.patch_size)} axes but planning.dimensions is "
                f"{self.dimensions}"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self


class TrainingConfig(Section):
    """How a fold is trained."""

    fold: int | Literal["all"] = 0
    epochs: int = Field(1000, ge=1)
    steps_per_epoch: int = Field(250, ge=1)
    max_minutes: float | None = Field(None, gt=0)
    optimizer: Literal["adamw", "sgd"] = "sgd"
    learning_rate: float = Field(1e-2, gt=0, le=10)
    weight_decay: float = Field(3e-5, ge=0)
    gradient_clip: float = Field(12.0, gt=0)
    foreground_share: float = Field(1 / 3, ge=0, le=1)
    augment: bool = True
    mirror: bool = True  # as part of augmentation, along every axis that the labels allow
    loss: Literal["auto", "dice_ce", "dice_bce"] = "auto"  # auto: dice_bce for regions
    patience: int | None = Field(None, ge=1)  # validations without a better Dice; None: no early stop
    validation_cases: int | None = Field(None, ge=1)  # whole volumes a validation; None: all
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"


class PostprocessConfig(Section):
    """What is tidied in one target's predicted mask."""

    keep_largest: bool = False
    min_volume_ml: float = Field(0.0, ge=0)


class InferenceConfig(Section):
    """How whole scans are predicted."""

    overlap: float = Field(0.5, ge=0, lt=1)
    postprocess: dict[str, PostprocessConfig] = {}


class ScoringConfig(Section):
    """Which scores are computed."""

    surface: Surface = "voxel"
    percentile: float = Field(95.0, gt=0, le=100)
    tolerances_mm: tuple[ToleranceMm, ...] = (1.0, 2.0)


class Config(Section):
    """A whole run. Paths to data are never stored: they come from `--data-root`."""

    dataset: str
    seed: int = Field(0, ge=0, lt=2**32)
    folds_file: str | None = None  # fixed splits: {"folds": [[case id, ...], ...]}
    exclude: dict[str, str] = {}  # case id -> reason
    device: str = Field("auto", exclude=True)  # where to compute; never stored
    planning: PlanningConfig = PlanningConfig()
    training: TrainingConfig = TrainingConfig()
    inference: InferenceConfig = InferenceConfig()
    scoring: ScoringConfig = ScoringConfig()

    def write(self, path: Path) -> None:
        """Write the configuration as YAML, whole or not at all."""
        write_text(path, yaml.safe_dump(self.plain(), sort_keys=False))


def load_config(path: Path, changes: Sequence[str] = ()) -> Config:
    """Read a YAML configuration and apply changes such as `training.max_minutes=8`.

    Raises:
        InputError: a file, key or value that cannot be used; names each.
    """
    return change_config(read_yaml(path), changes, str(path))


def change_config(plain: Any, changes: Sequence[str], where: str) -> Config:
    """Return the configuration with `section.key=value` changes made, values read as YAML.

    Raises:
        InputError: `plain` is no mapping, or a key or value cannot be used; names each.
    """
    if not isinstance(plain, dict):
        raise InputError("holds no keys", where=where, mend="Give at least `dataset: NAME`.")
    sections = [key for key, field in Config.model_fields.items() if isinstance(field.default, Section)]
    if empty := [key for key in sections if key in plain and not isinstance(plain[key], dict)]:
        raise InputError(
            f"holds no keys below {', '.join(empty)}",
            where=where,
            mend="Give each its keys or remove its line.",
        )
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise InputError(f"--set {change} has no '='", mend="Write --set section.key=value.")
        try:
            value = number_aware(yaml.safe_load(text))
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that there is not
            raise InputError(f"--set {key}: '{text}' is not a YAML value") from error
        *above, last = key.split(".")
        target = plain
        for section in above:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise InputError(f"--set {key}: '{section}' is a value, not a section", where=where)
        target[last] = value
    return Config.parse(plain, where)
