"""A run that is planned and not trained."""

from collections.abc import Sequence
from pathlib import Path

from medunet.commands.check import run_check
from medunet.commands.manifest import run_manifest
from medunet.commands.plan import run_plan
from medunet.runs.run import Run, open_run


def begin_run(root: Path, data_root: Path, changes: Sequence[str], *, dataset: str = "phantoms") -> Run:
    """Open a run below `root` and do its stages up to the plan."""
    run = open_run(root, data_root, dataset=dataset, changes=changes)
    run_manifest(run)
    run_check(run)
    run_plan(run)
    return run
