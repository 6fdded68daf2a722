"""The main job on an embedded cohort of synthetic abdominal CTs, and whether it went as it should.

The recipe ends after a number of steps, not after a time: a slower computer takes longer and gives no worse answer.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from medunet.base.package_data import package_data_path
from medunet.commands.run import run_all
from medunet.commands.terminal import console
from medunet.phantoms.phantom import write_cohort
from medunet.records.scores import CaseScore
from medunet.runs.run import Run
from medunet.scoring.summary import summarise

FLOORS = {"liver": 0.90, "tumour": 0.60}  # mean Dice over the held-out phantoms
_NUM_CASES = 20


def recipe() -> Path:
    """Return the demo's configuration."""
    return package_data_path("pipelines/demo.yaml")


def make_cohort(folder: Path) -> Path:
    """Write the demo's phantoms into the folder, as far as they are not there; return the folder."""
    write_cohort(folder, num_cases=_NUM_CASES)
    return folder


def run_demo(run: Run) -> list[str]:
    """Do the seven stages on the cohort and hold the scores against the floors.

    Returns the ids of failed cases and the names of targets below their floor.
    """
    failed, scores = run_all(run)
    return [*failed, *hold_against_floors(scores)]


def hold_against_floors(scores: Sequence[CaseScore]) -> list[str]:
    """Say in a line how the mean Dice of each target stands to its floor; return the targets below."""
    means = {row.label: row.metrics["dice"].mean for row in summarise(scores, ["dice"])}
    told = ", ".join(f"{name} {means[name]:.3f} (at least {floor:.2f})" for name, floor in FLOORS.items())
    low = [name for name, floor in FLOORS.items() if not means[name] >= floor]
    if low:
        text = f"[bold red]Demo[/]: mean Dice {escape(told)}: {' and '.join(low)} too low"
    else:
        text = f"[bold green]Demo[/]: mean Dice {escape(told)}: all is well"
    console.print(text, highlight=False, soft_wrap=True)
    return low
