"""The typed configuration of a run: read from YAML, changed by `--set section.key=value`, unknown keys refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from medunet.base.errors import InputError
from medunet.base.record import Record, convert_numbers, read_yaml
from medunet.records.scores import HD95Mode, LesionPreset, Surface

NetworkName = Literal[
    "plain", "residual_m", "residual_l", "residual_xl", "unet_2015", "classroom", "dynunet", "segresnet_ds",
    "swin_unetr", "mednext",
]  # fmt: skip
LossName = Literal[
    "auto", "ce", "bce", "dice", "dice_ce", "dice_bce", "focal", "dice_focal", "tversky", "focal_tversky",
    "hausdorff_dt",
]  # fmt: skip
WeightsName = Literal["best", "final"]
MapName = Literal["agreement", "probabilities"]  # that `medunet predict` writes beside masks
FAST_OVERLAP = 0.25  # of neighbouring windows with --fast
BodyAxis = Literal["left_right", "posterior_anterior", "inferior_superior"]  # of an array in RAS+ orientation
Voxels = Annotated[int, Field(ge=1)]
SpacingMm = Annotated[float, Field(ge=0.0001, le=100)]  # the planner has the least by modality
ToleranceMm = Annotated[float, Field(ge=0)]
Switch = Annotated[  # YAML reads unquoted on and off as true and false
    Literal["auto", "on", "off"],
    BeforeValidator(lambda value: {True: "on", False: "off"}[value] if isinstance(value, bool) else value),
]


class Section(Record):
    """Base class of the sections of the configuration; numbers must be finite."""

    model_config = ConfigDict(allow_inf_nan=False)


class NetworkConfig(Section):
    """Network architecture and its options; "auto" means the value that the network's authors published."""

    name: NetworkName = "plain"
    num_stages: int | None = Field(None, ge=2, le=9)  # None: chosen by the planning rules
    norm: Literal["auto", "instance", "batch", "group", "none"] = "auto"
    upsampling: Literal["auto", "transposed", "interpolate"] = "auto"  # interpolate, then convolve
    dropout: float = Field(0.0, ge=0, lt=1)
    deep_supervision: bool = True  # if the network supports it
    multi_scale_input: bool = False  # each encoder stage also gets the downsampled image


class PlanningConfig(Section):
    """Settings of planning: spacing, patch, network and memory."""

    dimensions: Literal[2, 3] = 3
    network: NetworkConfig = NetworkConfig()
    context_slices: int = Field(
        1, ge=1, le=15
    )  # 2D: odd number of neighbouring slices stacked as input channels (2.5D)
    resize_to: tuple[Voxels, Voxels] | None = (
        None  # 2D: size that every slice is resized to, regardless of its spacing
    )
    memory_gb: float | None = Field(None, gt=0)  # None: measured on the device
    base_features: int | None = Field(None, ge=4)  # None: as published, mostly 32
    max_features: int | None = Field(None, ge=4)  # None: nnU-Net's 320 in 3D and 512 in 2D, for its networks
    convolutions_per_stage: int = Field(2, ge=1, le=6)
    patch_size: tuple[Voxels, ...] | None = None  # None: chosen by the planning rules
    batch_size: int | None = Field(None, ge=1)
    spacing_mm: tuple[SpacingMm, SpacingMm, SpacingMm] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "PlanningConfig":
        faults = []
        base = self.base_features or 0
        if self.max_features is not None and self.max_features < base:
            faults.append(
                f"planning.max_features {self.max_features} is smaller than planning.base_features {base}"
            )
        if self.patch_size is not None and len(self.patch_size) != self.dimensions:
            faults.append(
                f"planning.patch_size has {len(self.patch_size)} axes but planning.dimensions is "
                f"{self.dimensions}"
            )
        if self.context_slices % 2 == 0:
            faults.append(f"planning.context_slices {self.context_slices} is even: it has no middle slice")
        if self.dimensions == 3 and self.context_slices > 1:
            faults.append("planning.context_slices is for planning.dimensions 2")
        if self.dimensions == 3 and self.resize_to is not None:
            faults.append("planning.resize_to is for planning.dimensions 2")
        if faults:
            raise ValueError("; ".join(faults))
        return self


class TrainingConfig(Section):
    """Settings of training."""

    fold: int | Literal["all", "each"] = 0  # each: all folds, one after the other
    seeds: int = Field(1, ge=1, le=100)  # networks of each fold, which differ in their seed
    member: int | None = Field(None, ge=0, exclude=True)  # train this one of them alone; None: all
    epochs: int = Field(1000, ge=1)
    steps_per_epoch: int = Field(250, ge=1)
    max_minutes: float | None = Field(None, gt=0)
    optimizer: Literal["adam", "adamw", "sgd"] = "sgd"  # sgd: Nesterov momentum 0.99
    learning_rate: float = Field(1e-2, gt=0, le=10)
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(3e-5, ge=0)
    gradient_clip: float = Field(12.0, gt=0)
    accumulate: int = Field(1, ge=1)  # batches whose gradients are accumulated for one step
    ema_decay: float | None = Field(None, gt=0, lt=1)  # of the averaged weights (EMA); None: no averaging
    loss: LossName = "auto"  # auto: dice_bce for regions, otherwise dice_ce
    class_weights: dict[str, float] = {}  # by target or "background"; default 1
    foreground_share: float = Field(1 / 3, ge=0, le=1)
    augment: bool = True
    mirror: bool | tuple[BodyAxis, ...] = True  # augmentation; true: every axis that the labels allow
    elastic: bool = False  # augmentation
    brightness_jitter: float = Field(0.0, ge=0, le=5)  # augmentation: largest shift, in standard deviations
    init_from: str | None = Field(None, exclude=True)  # model folder whose weights initialise the network
    freeze_encoder: bool = False
    patience: int | None = Field(None, ge=1)  # epochs without a better Dice; None: no early stop
    validation_cases: int | None = Field(None, ge=1)  # at most; None: as many as fit the validation time
    checkpoint_minutes: float = Field(5.0, ge=0)  # longest time between checkpoints within an epoch
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: Switch = "auto"
    compile: Switch = "auto"
    ram_gb: float | None = Field(None, gt=0)  # for preprocessed cases; None: half of the free memory
    workers: int | None = Field(
        None, ge=0
    )  # of data loading; None: 0 on a CPU, otherwise by the number of cores

    def describe(self) -> str:
        """Return which network is trained, such as "fold 0" or "fold 0, seed 2"."""
        return f"fold {self.fold}" + (f", seed {self.member}" if self.member else "")

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingConfig":
        if low := [name for name, weight in self.class_weights.items() if not weight >= 0]:
            raise ValueError(f"training.class_weights of {low} must be 0 or more")
        if self.member is not None and self.member >= self.seeds:
            raise ValueError(
                f"training.member {self.member} is not one of the training.seeds 0..{self.seeds - 1}"
            )
        return self


class PostprocessStep(Section):
    """One postprocessing step of a target's predicted mask: exactly one key, such as `{closing_mm: 2}`."""

    keep_largest: Literal[True] | None = None
    min_volume_ml: float | None = Field(None, gt=0)
    fill_holes: Literal[True] | None = None
    opening_mm: float | None = Field(None, gt=0, le=100)
    closing_mm: float | None = Field(None, gt=0, le=100)
    dilation_mm: float | None = Field(None, gt=0, le=100)
    erosion_mm: float | None = Field(None, gt=0, le=100)
    median_mm: float | None = Field(None, gt=0, le=100)
    gaussian_mm: float | None = Field(None, gt=0, le=100)
    inside: str | None = None  # restrict the mask to this other target

    @model_validator(mode="after")
    def _one_key(self) -> "PostprocessStep":
        if len(given := sorted(self.model_dump())) != 1:
            raise ValueError(f"a postprocessing step has exactly one key, not {given}")
        return self

    @model_serializer(mode="wrap")
    def _given_key_alone(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


class InferenceConfig(Section):
    """Settings of the prediction of whole scans."""

    weights: WeightsName | None = None  # None: best if training.patience is set, otherwise final
    overlap: float = Field(0.5, ge=0, lt=1)
    mirror: tuple[BodyAxis, ...] = ()  # test-time mirroring: average over the scan and its mirror images
    shifts: int = Field(1, ge=1, le=64)  # average over this many sub-stride shifts of the scan
    postprocess: dict[str, tuple[PostprocessStep, ...]] = {}  # by target, steps in order
    # Folders of other runs, relative to this one's, whose networks are averaged with its own.
    members: tuple[str, ...] = Field((), exclude_if=lambda members: not members)

    @property
    def averages(self) -> bool:
        """Whether predictions are averaged over mirror images or shifts."""
        return bool(self.mirror) or self.shifts > 1

    def fast(self) -> "InferenceConfig":
        """Return the options of `medunet predict --fast`: larger steps of the window, no averaging."""
        overlap = min(self.overlap, FAST_OVERLAP)
        return self.model_copy(update={"overlap": overlap, "mirror": (), "shifts": 1})


class TuningRange(Section):
    """A range of numbers to search, on a linear or logarithmic scale."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "TuningRange":
        whole = self.low.is_integer() and self.high.is_integer()
        if not self.low < self.high or (self.log and self.low <= 0) or (self.integer and not whole):
            raise ValueError(
                "a range needs low < high, low > 0 where log is set, and whole numbers where integer is set: "
                f"{self.low:g}..{self.high:g}"
            )
        return self


Choices = Annotated[
    Annotated[list[Any], Tag("list")] | Annotated[TuningRange, Tag("range")],
    Discriminator(lambda choices: "list" if isinstance(choices, list) else "range"),
]


class TuningConfig(Section):
    """Settings of `medunet tune`: sampler, trials, and the search space of configuration keys."""

    sampler: Literal["tpe", "random", "grid"] = "tpe"
    trials: int = Field(20, ge=1)
    space: dict[str, Choices] = {}  # by configuration key: a list of values or a range
    prune: bool = True  # stop a trial whose Dice is below the median of the others at the same epoch


class ScoringConfig(Section):
    """Settings of scoring: conventions of the surface metrics, lesions, tubular targets."""

    surface: Surface = "area"
    hd95: HD95Mode = "max"
    percentile: float = Field(95.0, gt=0, le=100)
    tolerances_mm: tuple[ToleranceMm, ...] = (1.0, 2.0)
    lesions: dict[str, LesionPreset] = {}  # target -> rules for matching its lesions
    tubes: tuple[str, ...] = ()  # tubular targets such as vessels, scored by clDice


WITH_VOLUMES = 100  # the worst cases, whose pages in a report have volumes to scroll through


class ReportConfig(Section):
    """Settings of the report: the thresholds that the page of a case is judged by; null: not judged."""

    min_dice: float | None = Field(0.7, ge=0, le=1)
    target_min_dice: dict[str, float] = {}  # by target, instead of min_dice
    max_hd95_mm: float | None = Field(20.0, gt=0)  # of the robust Hausdorff distance; not in 2D pictures
    max_volume_error: float | None = Field(0.5, gt=0)  # difference relative to the reference's volume
    min_agreement: float | None = Field(0.7, ge=0, le=1)  # of an ensemble's networks, without a reference
    may_be_cut: (
        Literal["all"] | tuple[str, ...]
    ) = ()  # targets that may reach the border of a scan, such as an aorta

    @model_validator(mode="after")
    def _consistent(self) -> "ReportConfig":
        if wrong := [name for name, dice in self.target_min_dice.items() if not 0 <= dice <= 1]:
            raise ValueError(f"report.target_min_dice of {wrong} must be between 0 and 1")
        return self


class Config(Section):
    """The configuration of a run. Paths to the data are never stored: they come from `--data-root`."""

    dataset: str
    seed: int = Field(0, ge=0, lt=2**32)
    folds_file: str | None = None  # fixed folds: {"folds": [[case id, ...], ...]}
    holdout: float | None = Field(None, gt=0, lt=1)  # instead of folds: fraction held out as fold 0
    test_share: float | None = Field(None, gt=0, lt=1)  # fraction of the patients drawn as test set
    test_file: str | None = None  # fixed test list of case ids or patients
    stratify: bool = False  # balance label volumes and sites between folds and test set; reads every label
    exclude: dict[str, str] = {}  # case id -> reason
    device: str = Field("auto", exclude=True)  # where to compute; never stored
    planning: PlanningConfig = PlanningConfig()
    training: TrainingConfig = TrainingConfig()
    inference: InferenceConfig = InferenceConfig()
    scoring: ScoringConfig = ScoringConfig()
    report: ReportConfig = ReportConfig()
    tuning: TuningConfig = TuningConfig()

    @property
    def training_seed(self) -> int:
        """The seed of the network that is trained: the run's seed plus the number of the fold's network."""
        return (self.seed + (self.training.member or 0)) % 2**32

    def to_text(self) -> str:
        """Return the content of the configuration's YAML file."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


def load_config(path: Path, changes: Sequence[str] = ()) -> Config:
    """Read a YAML configuration and apply changes such as `training.max_minutes=8`.

    Raises:
        InputError: The file, a key or a value cannot be used; the message names each.
    """
    return change_config(read_yaml(path), changes, str(path))


def change_config(plain: Any, changes: Sequence[str], where: str) -> Config:
    """Return the configuration from plain data with `section.key=value` changes; values are parsed as YAML.

    Raises:
        InputError: `plain` is not a mapping, or a key or value cannot be used; the message names each.
    """
    if not isinstance(plain, dict):
        raise InputError("has no keys", where=where, hint="Give at least `dataset: NAME`.")
    sections = [key for key, field in Config.model_fields.items() if isinstance(field.default, Section)]
    if empty := [key for key in sections if key in plain and not isinstance(plain[key], dict)]:
        raise InputError(
            f"has no keys below {', '.join(empty)}",
            where=where,
            hint="Add the keys of each section or remove its line.",
        )
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise InputError(f"--set {change} has no '='", hint="Write --set section.key=value.")
        try:
            value = convert_numbers(yaml.safe_load(text))
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
            raise InputError(f"--set {key}: '{text}' is not a valid YAML value") from error
        *above, last = key.split(".")
        target = plain
        for section in above:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise InputError(f"--set {key}: '{section}' is a value, not a section", where=where)
        target[last] = value
    return Config.parse(plain, where)
