"""The commands that do all stages."""

from pathlib import Path
from typing import Annotated

import typer

from medunet.cli.options import (
    Changes,
    DataRoot,
    Device,
    Fold,
    end_with,
    open_run,
)
from medunet.commands.run import run_all


def run(
    config: Annotated[Path, typer.Argument(help="A YAML configuration, such as pipelines/hippocampus.yaml.")],
    run: Annotated[Path, typer.Option("--run", help="The run's folder, made if need be.")],
    data_root: DataRoot = None,
    fold: Fold = None,
    device: Device = None,
    changes: Changes = None,
) -> None:
    """Do all stages, from manifest to report."""
    opened = open_run(run, data_root, changes, fold=fold, device=device, config_file=config)
    end_with(run_all(opened)[0])


def demo(
    run: Annotated[Path, typer.Option("--run", help="The run's folder, made if need be.")] = Path(
        "runs/demo"
    ),
    device: Device = None,
    changes: Changes = None,
) -> None:
    """Do all stages on synthetic abdominal CTs, made on the spot, and hold the scores against their floors."""
    from medunet.commands.demo import make_cohort, recipe, run_demo

    opened = open_run(run, make_cohort(run / "data"), changes, device=device, config_file=recipe())
    end_with(run_demo(opened))
