"""What `medunet select` chose on held-out cases (selection.json), and all that it tried."""

from typing import Literal

from pydantic import Field

from medunet.base.record import Record
from medunet.records.config import PostprocessStep


class Member(Record):
    """A trained network: its run, its model folder within that, and its weights."""

    run: str  # relative to the folder of the selection: . or one beside it, such as ../liver_2d
    model: str  # such as folds/0/model
    weights_sha256: str  # of those that predict by default


class Configuration(Record):
    """One run by itself, or several together; its masks of held-out cases are before postprocessing."""

    name: str
    members: tuple[Member, ...]
    masks: str  # folder of them, relative to that of the selection: predictions, or such as ../liver_2d/predictions
    masks_sha256: str
    mean_dice: float | None  # over patients


class Trial(Record):
    """What a configuration or a postprocessing step gained over what it was compared with; undefined is None."""

    tried: str  # name of the configuration, or the step as text
    target: str = Field("", exclude_if=lambda target: not target)  # that the step is of
    against: str  # name of a configuration, or the postprocessing so far
    mean_before: float | None
    mean: float | None
    gain: float | None
    low: float | None  # 95% interval of this gain by itself
    high: float | None
    no_interval: str = Field("", exclude_if=lambda why: not why)
    bound: float | None  # lower one of the gain, for all trials of the round together, at its level
    p: float | None  # one-sided
    p_holm: float | None  # corrected for all trials of the round
    num_patients: int
    num_better: int
    num_worse: int
    is_chosen: bool


class Round(Record):
    """One decision: trials that were compared at one level, and the sentence that says what was chosen and why."""

    about: Literal["configuration", "postprocessing"]
    level: float
    trials: tuple[Trial, ...]
    why: str


class MeanScores(Record):
    """Mean Dice over patients of the first configuration as it is, and of what was chosen."""

    num_cases: int
    num_patients: int
    first: float | None
    chosen: float | None
    gain: float | None
    low: float | None
    high: float | None
    no_interval: str = Field("", exclude_if=lambda why: not why)


class Selection(Record):
    """The configuration and the postprocessing steps that held-out cases chose, with all that was tried."""

    schema_: Literal["medunet.selection/1"] = Field("medunet.selection/1", alias="schema")
    medunet_version: str
    inputs_sha256: str  # of manifest, labels, masks and models
    targets: tuple[str, ...]
    unlabelled: tuple[str, ...] = ()  # held-out cases without a label, which were left out
    configurations: tuple[Configuration, ...]  # from the fewest networks to the most, then as given
    chosen: str
    postprocess: dict[str, tuple[PostprocessStep, ...]] = {}
    rounds: tuple[Round, ...]
    folds: MeanScores  # of the cases that chose
    test: MeanScores | None = None  # of the test cases, which did not

    @property
    def configuration(self) -> Configuration:
        """The chosen configuration."""
        return next(each for each in self.configurations if each.name == self.chosen)

    def steps_of(self, target: str) -> str:
        """Return the steps of a target in a line; "none" if there are none."""
        return ", ".join(map(describe_step, self.postprocess.get(target, ()))) or "none"

    def describe_steps(self) -> str:
        """Return the chosen postprocessing steps in a line; "none" if there are none."""
        return describe_steps(self.postprocess)


def describe_steps(postprocess: dict[str, tuple[PostprocessStep, ...]]) -> str:
    """Return postprocessing steps in a line, such as "liver: keep_largest, closing_mm 2"; "none" without any."""
    texts = [
        f"{name}: {', '.join(map(describe_step, steps))}" for name, steps in postprocess.items() if steps
    ]
    return "; ".join(texts) or "none"


def describe_step(step: PostprocessStep) -> str:
    """Return a step as text, such as "closing_mm 2"."""
    ((key, value),) = step.model_dump().items()
    if value is True:
        return key
    return f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
