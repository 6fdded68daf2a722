"""The commands from masks to scores, comparisons and pages."""

from pathlib import Path
from typing import Annotated

import typer

from medunet.base.errors import InputError
from medunet.cli.options import (
    Changes,
    DataRoot,
    RunArgument,
    end_with,
    open_run,
    refuse_given,
)
from medunet.commands.report import run_report
from medunet.commands.score import dataset_of, run_score, score_masks_of
from medunet.records.config import change_config
from medunet.records.description import Description, load_description
from medunet.records.scores import UNSCORED


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
        scores = run_score(opened, targets=target or (), resample=resample, workers=workers)
    else:
        dataset = dataset_of(reference, dataset, data_root, pairs)
        if dataset is None or out is None:
            raise InputError(
                "scoring masks needs to know what their labels mean and where the tables go",
                where="medunet score",
                hint="Add --dataset NAME and --out FOLDER.",
            )
        other: Description | None = None
        if prediction_dataset is not None:
            other = load_description(prediction_dataset)
        scores = score_masks_of(
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
    end_with([row for row in scores if row.status in UNSCORED])


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
    from medunet.commands.compare import compare_scores
    from medunet.commands.compare_readers import compare_reader_maps

    given = {"--reference": reference, "--data-root": data_root}
    if readers is None:
        if reference is None:
            refuse_given("scores name their labels themselves", {"--dataset": dataset, **given})
        end_with(compare_scores(scores or [], out, reference, dataset, data_root))
        return
    refuse_given("readers are compared among themselves", {"SCORES": scores or None, **given})
    if dataset is None:
        raise InputError("label maps need a description", where="--dataset", hint="Add --dataset NAME.")
    compare_reader_maps(readers, out, dataset)


def report(run: RunArgument, data_root: DataRoot = None) -> None:
    """Write a page per case and an index, worst cases first."""
    run_report(open_run(run, data_root))
