"""The commands `run` and `demo`, which run all stages."""

from pathlib import Path
from typing import Annotated

import typer

from medunet.cli.options import (
    Changes,
    DataRoot,
    Device,
    Fold,
    exit_if_any,
    open_run,
)
from medunet.commands.run import run_all


def run(
    config: Annotated[Path, typer.Argument(help="A YAML configuration, such as pipelines/hippocampus.yaml.")],
    run: Annotated[Path, typer.Option("--run", help="Folder of the run; created if missing.")],
    data_root: DataRoot = None,
    fold: Fold = None,
    device: Device = None,
    changes: Changes = None,
) -> None:
    """Run all stages, from manifest to report."""
    opened = open_run(run, data_root, changes, fold=fold, device=device, config_file=config)
    exit_if_any(run_all(opened)[0])


def demo(
    run: Annotated[Path, typer.Option("--run", help="Folder of the run; created if missing.")] = Path(
        "runs/demo"
    ),
    device: Device = None,
    changes: Changes = None,
) -> None:
    """Run all stages on synthetic abdominal CTs and check that the mean Dice reaches a minimum."""
    from medunet.commands.demo import config_path, make_cohort, run_demo

    opened = open_run(run, make_cohort(run / "data"), changes, device=device, config_file=config_path())
    exit_if_any(run_demo(opened))
