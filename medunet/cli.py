"""The command line: parse, call a stage, end with its exit code.

0 all well; 1 faults found or some cases failed; 2 the user's mistake; 3 ours.
"""

import errno
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from medunet import __version__, adhoc, cli_devices, cli_intake, grading, runs, stages
from medunet.cli_options import (
    Changes,
    DataRoot,
    Device,
    Fold,
    Overwrite,
    RunArgument,
    Weights,
    end_with,
    open_run,
    refuse_given,
)
from medunet.config import change_config
from medunet.errors import InputError, MedunetError, is_out_of_memory
from medunet.records import Description, load_description
from medunet.trials import run_tune

app = typer.Typer(
    help="Segmentation of 3D medical volumes: manifest, check, plan, train, predict, score, report.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

for command in (cli_intake.import_dicom, cli_intake.fetch, cli_intake.manifest, cli_intake.check):
    app.command()(command)
app.command()(cli_devices.devices)


@app.command()
def plan(
    run: RunArgument,
    data_root: DataRoot = None,
    device: Device = None,
    changes: Changes = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Show the network's layers, output sizes and parameters.")
    ] = False,
) -> None:
    """Choose spacing, patch, network and batch size, with reasons."""
    opened = open_run(run, data_root, changes, device=device)
    stages.run_plan(opened)
    if summary:
        stages.show_network(opened)


@app.command()
def train(
    run: RunArgument,
    data_root: DataRoot = None,
    fold: Fold = None,
    device: Device = None,
    ram_gb: Annotated[
        float | None,
        typer.Option("--ram-gb", help="Memory for preprocessed cases; else half of what is free."),
    ] = None,
    init_from: Annotated[
        Path | None, typer.Option("--from", help="Model folder whose weights begin the training.")
    ] = None,
    changes: Changes = None,
) -> None:
    """Train a fold; the same command resumes it. Under `torchrun -m medunet.cli` all processes share each batch."""
    given = {
        "training.ram_gb": ram_gb,
        "training.init_from": json.dumps(str(init_from)) if init_from else None,
    }
    extra = [f"{key}={value}" for key, value in given.items() if value is not None]
    stages.run_train(open_run(run, data_root, [*(changes or []), *extra], fold=fold, device=device))


@app.command()
def tune(
    run: RunArgument,
    data_root: DataRoot = None,
    fold: Fold = None,
    device: Device = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="A database server's URL, shared by several machines; else SQLite in the run's folder."
        ),
    ] = None,
    changes: Changes = None,
) -> None:
    """Search for better settings, `tuning.space`, in trials that resume and that end early where they are poor."""
    run_tune(open_run(run, data_root, changes, fold=fold, device=device), storage_url=storage)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A run's folder, or a model folder (folds/0/model).")],
    images: Annotated[
        list[Path] | None, typer.Argument(help="Scans, folders of scans, or one manifest.json.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where masks go; needed with images.")] = None,
    data_root: DataRoot = None,
    fold: Fold = None,
    device: Device = None,
    overwrite: Overwrite = False,
    weights: Weights = None,
) -> None:
    """Predict scans; without images, the run's held-out cases."""
    if not images and (model / "model.json").exists():
        raise InputError("no scans are named", where="medunet predict", mend="Add scans and --out FOLDER.")
    if not images:
        refuse_given("a run's held-out cases are predicted into its own folder", {"--out": out})
        changes = [f"inference.weights={weights}"] if weights else None
        opened = open_run(model, data_root, changes, fold=fold, device=device)
        end_with(stages.run_predict(opened, overwrite=overwrite))
        return
    if out is None:
        raise InputError("masks need a folder", where="--out", mend="Add --out FOLDER.")
    folder = model if (model / "model.json").exists() else model / "folds" / (fold or "0") / "model"
    end_with(
        adhoc.predict_images(
            folder, images, out, data_root, device_name=device or "auto", overwrite=overwrite, weights=weights
        )
    )


@app.command()
def score(
    reference: Annotated[
        Path, typer.Argument(help="A run's folder; or a reference mask, a folder of masks, a manifest.json.")
    ],
    prediction: Annotated[Path | None, typer.Argument(help="A mask or folder of masks.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Description of the reference's labels.")] = None,
    prediction_dataset: Annotated[
        str | None, typer.Option(help="Description of the prediction's labels, where they differ.")
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help="Score these labels or regions only.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="CSV: case,reference,prediction.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where the tables go.")] = None,
    resample: Annotated[
        bool, typer.Option("--resample", help="Bring predictions on another grid to the reference's.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; else as many as cores and memory allow.")
    ] = None,
    data_root: DataRoot = None,
    changes: Changes = None,
) -> None:
    """Score masks, of a run or of any tool, on the reference's own grid."""
    if prediction is None:
        given = {
            "--dataset": dataset,
            "--prediction-dataset": prediction_dataset,
            "--pairs": pairs,
            "--out": out,
        }
        refuse_given("a run is scored as it is described, into its own folder", given)
        opened = open_run(reference, data_root, changes)
        scores = stages.run_score(opened, targets=target or (), resample=resample, workers=workers)
    else:
        dataset = grading.dataset_of(reference, dataset, data_root, pairs)
        if dataset is None or out is None:
            raise InputError(
                "scoring masks needs to know what their labels mean and where the tables go",
                where="medunet score",
                mend="Add --dataset NAME and --out FOLDER.",
            )
        other: Description | None = None
        if prediction_dataset is not None:
            other = load_description(prediction_dataset, runs.descriptions_folder())
        scores = adhoc.score_masks_of(
            reference,
            prediction,
            out,
            change_config({"dataset": dataset}, changes or [], "--set"),
            prediction_description=other,
            targets=target or (),
            pairs_csv=pairs,
            data_root=data_root,
            resample=resample,
            workers=workers,
        )
    end_with([row for row in scores if row.status in ("missing", "failed")])


@app.command()
def compare(
    out: Annotated[Path, typer.Option("--out", help="Where the tables and the plot go.")],
    scores: Annotated[
        list[Path] | None,
        typer.Argument(help="scores.csv of two or more methods, folders that hold one, or folders of masks."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Reference masks, a folder or manifest.json, for methods without scores.csv."),
    ] = None,
    readers: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Instead: label maps of one case, a file per reader."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Description of the reference's or the readers' labels.")
    ] = None,
    data_root: DataRoot = None,
) -> None:
    """Compare methods by their scores on the same cases, or the readers of one case."""
    from medunet import comparing

    given = {"--reference": reference, "--data-root": data_root}
    if readers is None:
        if reference is None:
            refuse_given("scores name their labels themselves", {"--dataset": dataset, **given})
        end_with(comparing.compare_scores(scores or [], out, reference, dataset, data_root))
        return
    refuse_given("readers are compared among themselves", {"SCORES": scores or None, **given})
    if dataset is None:
        raise InputError("label maps need a description", where="--dataset", mend="Add --dataset NAME.")
    comparing.compare_reader_maps(readers, out, dataset)


@app.command()
def report(run: RunArgument, data_root: DataRoot = None) -> None:
    """Write a page per case and an index, worst cases first."""
    stages.run_report(open_run(run, data_root))


@app.command()
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
    end_with(stages.run_all(opened)[0])


@app.command()
def demo(
    run: Annotated[Path, typer.Option("--run", help="The run's folder, made if need be.")] = Path(
        "runs/demo"
    ),
    device: Device = None,
    changes: Changes = None,
) -> None:
    """Do all stages on synthetic abdominal CTs, made on the spot, and hold the scores against their floors."""
    from medunet.demo import make_cohort, recipe, run_demo

    opened = open_run(run, make_cohort(run / "data"), changes, device=device, config_file=recipe())
    end_with(run_demo(opened))


def _version(value: bool) -> None:
    if value:
        typer.echo(f"medunet {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Options of every command; `--debug` is read by `main`, wherever it stands."""


def guard(call: Callable[[], object]) -> None:
    """Call a function; a user's mistake becomes one message and its exit code, with a traceback on `--debug`.

    For the command line and the pipeline scripts, whose `sys.argv` it reads. A list of failed cases that the
    function returns ends with exit code 1.
    """
    debug = "--debug" in sys.argv
    errors = Console(stderr=True)
    try:
        if call():
            sys.exit(1)
    except MedunetError as error:
        if debug:
            traceback.print_exc()
        errors.print(f"[bold red]Error[/]: {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        errors.print("Stopped. The same command goes on from here.")
        sys.exit(130)
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            errors.print("[bold red]Error[/]: the disk is full. Free some space; the same command goes on.")
            sys.exit(2)
        if is_out_of_memory(error):
            mend = "Free some, or use fewer --workers or smaller planning.patch_size and planning.batch_size."
            errors.print(f"[bold red]Error[/]: memory ran out. {mend}", highlight=False, soft_wrap=True)
            sys.exit(2)
        text = f"({type(error).__name__}): {escape(str(error))}"
        errors.print(f"[bold red]Internal error[/] {text}\nAdd --debug for the traceback.", soft_wrap=True)
        sys.exit(3)


def main() -> None:
    """Entry point of the `medunet` command."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    guard(lambda: app(arguments))


if __name__ == "__main__":
    main()
