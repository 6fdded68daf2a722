"""`medunet demo`: run all stages on synthetic abdominal CTs and check that the mean Dice reaches a minimum.

Training is limited by steps, not by time: a slower computer takes longer but gets the same result.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from medunet.base.package_data import package_data_path
from medunet.commands.run import run_all
from medunet.commands.terminal import console, print_report
from medunet.phantoms.phantom import write_cohort
from medunet.records.scores import CaseScore
from medunet.runs.run import Run
from medunet.scoring.summary import summarise

MINIMUM_DICE = {"liver": 0.90, "tumour": 0.60}  # mean Dice over the held-out phantoms
_NUM_CASES = 20


def config_path() -> Path:
    """Return the path of the demo's configuration file."""
    return package_data_path("pipelines/demo.yaml")


def make_cohort(folder: Path) -> Path:
    """Write the phantoms of the demo that are missing in a folder, and return the folder."""
    write_cohort(folder, num_cases=_NUM_CASES)
    return folder


def run_demo(run: Run) -> list[str]:
    """Run all stages on the phantoms and compare the mean Dice of each target with its minimum.

    Returns the ids of failed cases and the names of targets below their minimum.
    """
    failed, scores = run_all(run)
    low = check_minimum_dice(scores)
    print_report(run.folder.report / "index.html")
    return [*failed, *low]


def check_minimum_dice(scores: Sequence[CaseScore]) -> list[str]:
    """Print the mean Dice of each target next to its minimum, and return the targets below their minimum."""
    means = {row.label: row.metrics["dice"].mean for row in summarise(scores, ["dice"])}
    shown = ", ".join(
        f"{name} {means[name]:.3f} (at least {least:.2f})" for name, least in MINIMUM_DICE.items()
    )
    low = [name for name, least in MINIMUM_DICE.items() if not means[name] >= least]
    if low:
        text = f"[bold red]Demo[/]: mean Dice {escape(shown)}: {' and '.join(low)} too low"
    else:
        text = f"[bold green]Demo[/]: mean Dice {escape(shown)}: passed"
    console.print(text, highlight=False, soft_wrap=True)
    return low
