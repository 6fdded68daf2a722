"""The commands that evaluate masks: `score`, `select`, `compare` and `report`."""

from pathlib import Path
from typing import Annotated

import typer

from medunet.base.errors import InputError
from medunet.cli.options import (
    Address,
    Changes,
    DataRoot,
    Engine,
    RunArgument,
    Workers,
    exit_if_any,
    open_run,
    refuse_options,
    working,
)
from medunet.commands.report import DEFAULT_VOLUMES, run_report
from medunet.commands.report_new import is_mask_folder, report_mask_folder
from medunet.commands.score import reference_dataset, run_score, score_mask_files
from medunet.commands.select import run_select
from medunet.records.config import change_config
from medunet.records.description import Description, load_description
from medunet.records.scores import UNSCORED

By = Annotated[
    list[str] | None,
    typer.Option("--by", help="Also group by this column, such as site or fold; may be repeated."),
]
Join = Annotated[
    Path | None, typer.Option("--join", help="CSV with a column `case` and further columns for --by.")
]


def score(
    reference: Annotated[
        Path,
        typer.Argument(help="Folder of a run; or reference masks: a file, a folder or a manifest.json."),
    ],
    prediction: Annotated[
        Path | None, typer.Argument(help="Predicted masks, a file or folder; not used with a run.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Dataset description of the reference's labels: a name or YAML file.")
    ] = None,
    prediction_dataset: Annotated[
        str | None, typer.Option(help="Dataset description of the prediction's labels, if they differ.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Score only this label or region; may be repeated.")
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="CSV that pairs the files, with the columns case, reference and prediction."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Output folder for the tables.")] = None,
    resample: Annotated[
        bool, typer.Option("--resample", help="Resample predictions on another grid to the reference's grid.")
    ] = False,
    by: By = None,
    join: Join = None,
    with_report: Annotated[
        bool, typer.Option("--report", help="Also write the pages of the report; a run has `medunet report`.")
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Folder of the scans, for the pictures of the report's pages."),
    ] = None,
    workers: Workers = None,
    engine: Engine = "local",
    address: Address = None,
    data_root: DataRoot = None,
    changes: Changes = None,
) -> None:
    """Score masks of a run or of any tool on the reference's grid."""
    if prediction is None:
        given = {
            "--dataset": dataset,
            "--prediction-dataset": prediction_dataset,
            "--pairs": pairs,
            "--out": out,
            "--images": images,
            "--report": with_report or None,
        }
        refuse_options("a run is scored with its own description, into its own folder", given)
        opened = open_run(reference, data_root, changes)
        with working(engine, address):
            scores = run_score(
                opened, targets=target or (), resample=resample, workers=workers, by=by or (), join=join
            )
    else:
        dataset = reference_dataset(reference, dataset, data_root, pairs)
        if dataset is None or out is None:
            raise InputError(
                "scoring masks needs a description of their labels and an output folder",
                where="medunet score",
                hint="Add --dataset NAME and --out FOLDER.",
            )
        if reference.suffix == ".json":
            refuse_options("the manifest names the images", {"--images": images})
        other: Description | None = None
        if prediction_dataset is not None:
            other = load_description(prediction_dataset)
        with working(engine, address):
            scores = score_mask_files(
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
                by=by or (),
                join=join,
                report=with_report,
                images=images,
            )
    exit_if_any([row for row in scores if row.status in UNSCORED])


def select(
    run: RunArgument,
    others: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="Further runs on the same cases and folds, to choose from."),
    ] = None,
    no_ensembles: Annotated[
        bool, typer.Option("--no-ensembles", help="Compare the runs by themselves only.")
    ] = False,
    workers: Workers = None,
    data_root: DataRoot = None,
) -> None:
    """Choose configuration and postprocessing by the cases that the folds hold out; `predict` follows the choice."""
    opened = [open_run(each, data_root) for each in (run, *(others or []))]
    run_select(opened[0], opened[1:], ensembles=not no_ensembles, workers=workers)


def compare(
    out: Annotated[Path, typer.Option("--out", help="Output folder for the tables and the plot.")],
    scores: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Two or more methods: scores.csv files, folders that contain one, or folders of masks."
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Reference masks, a folder or manifest.json, to score methods given as masks."),
    ] = None,
    readers: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Compare readers instead of methods: a folder of label maps of one case, one file per reader.",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Dataset description of the labels of masks or readers: a name or YAML file."),
    ] = None,
    by: By = None,
    join: Join = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Folder of the scans, for pictures of the largest differences."),
    ] = None,
    data_root: DataRoot = None,
) -> None:
    """Compare methods by their scores on the same cases, or the readers of one case."""
    from medunet.commands.compare import compare_scores
    from medunet.commands.compare_readers import compare_reader_maps

    given: dict[str, object] = {"--reference": reference, "--data-root": data_root, "--images": images}
    if readers is None:
        if reference is None:
            refuse_options("score tables already name their labels", {"--dataset": dataset, **given})
        if reference is not None and reference.suffix == ".json":
            refuse_options("the manifest names the images", {"--images": images})
        exit_if_any(
            compare_scores(
                scores or [], out, reference, dataset, data_root, by=by or (), join=join, images=images
            )
        )
        return
    given = {"SCORES": scores or None, **given, "--by": by or None, "--join": join}
    refuse_options("readers are only compared with each other", given)
    if dataset is None:
        raise InputError("label maps need a description", where="--dataset", hint="Add --dataset NAME.")
    compare_reader_maps(readers, out, dataset)


def report(
    run: RunArgument,
    volumes: Annotated[
        str,
        typer.Option(
            "--volumes", help="Cases with volumes to scroll through, worst first: a number, all or none."
        ),
    ] = DEFAULT_VOLUMES,
    by: By = None,
    join: Join = None,
    workers: Workers = None,
    engine: Engine = "local",
    address: Address = None,
    data_root: DataRoot = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="Of a folder of masks: the run or model that predicted them."),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--images",
            help="Of a folder of masks: the scans, folders of scans, or one manifest.json; may be repeated.",
        ),
    ] = None,
) -> None:
    """Write an HTML page for each case and an index with the worst cases first.

    RUN may also be a folder of masks that `medunet predict` wrote: the pages are those of `predict --report`.
    """
    if is_mask_folder(run):
        given = {
            "--volumes": None if volumes == DEFAULT_VOLUMES else volumes,
            "--by": by or None,
            "--join": join,
            "--workers": workers,
        }
        refuse_options("scans without a reference have no scores to sort them by", given)
        report_mask_folder(run, model, images or (), data_root)
        return
    refuse_options("a run knows its scans and models", {"--model": model, "--images": images or None})
    with working(engine, address):
        run_report(open_run(run, data_root), volumes=volumes, workers=workers, by=by or (), join=join)
