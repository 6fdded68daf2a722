"""`medunet report`: write an HTML page for each case and an index; also for masks of any tool."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medunet.base.errors import InputError
from medunet.commands.alone import alone
from medunet.commands.terminal import print_report
from medunet.records.config import WITH_VOLUMES, ReportConfig
from medunet.records.data_root import resolve_data_root
from medunet.records.description import Description
from medunet.records.manifest import Manifest
from medunet.runs.run import Run

if TYPE_CHECKING:
    from medunet.scoring.pairs import Pair

DEFAULT_VOLUMES = str(WITH_VOLUMES)
_NO_IMAGES = "no images are known: name their folder with --images, or score against a manifest.json"


@alone("report")
def run_report(
    run: Run,
    *,
    volumes: str = DEFAULT_VOLUMES,
    workers: int | None = None,
    by: Sequence[str] = (),
    join: Path | None = None,
) -> Path:
    """Write the pages of the report and return the path of the index.

    `volumes` is how many pages, the worst first, have volumes to scroll through: a number, "all" or "none". For `by`
    and `join`, see `medunet.scoring.strata.choose_strata`.

    Raises:
        InputError: A stage before is missing, or an option cannot be used.
    """
    from medunet.reporting.report import report_run
    from medunet.reporting.report_source import ReportOptions
    from medunet.scoring.tables import read_lesions, read_scores

    options = ReportOptions(
        run.config.report,
        parse_volumes(volumes),
        workers,
        tuple(by),
        join,
        lesion_rules=run.config.scoring.lesions,
    )
    scores = read_scores(run.folder.need(run.folder.scores, "score"))
    lesions = run.folder.root / "lesions.csv"
    index = report_run(
        run.folder,
        run.data_root,
        scores=scores,
        lesions=read_lesions(lesions) if lesions.exists() else None,
        options=options,
    )
    print_report(index)
    return index


def report_masks(
    out: Path,
    pairs: "Sequence[Pair]",
    description: Description,
    settings: ReportConfig,
    *,
    listed: Manifest | None = None,
    data_root: Path | None = None,
    images: Path | None = None,
    predicted_targets: Mapping[str, Sequence[int]] | None = None,
    reasons: Mapping[str, str] | None = None,
    workers: int | None = None,
) -> Path:
    """Write the pages of scored masks of any tool to `out`/report, and return the path of the index.

    The scores are those in `out`. The images are those of the manifest `listed` below `data_root`, or those named as
    the cases in the folder `images`; without either, the pages have no pictures.

    Args:
        out: folder of scores.csv.
        pairs: the masks.
        description: of the reference.
        settings: thresholds of the verdicts.
        listed: manifest of the references.
        data_root: folder that its paths are relative to.
        images: folder of images.
        predicted_targets: label values of the predictions by target, if they differ from the description's.
        reasons: why predictions are missing, by case.
        workers: number of processes.

    Raises:
        InputError: There are no images where they should be.
    """
    from medunet.commands.mask_cases import cases_of_pairs
    from medunet.reporting.report import with_failures, write_report
    from medunet.reporting.report_source import ReportOptions, ReportSource
    from medunet.scoring.tables import read_lesions, read_scores

    if listed is not None:
        root, cases = resolve_data_root(data_root), {case.id: case for case in listed.cases}
    else:
        root, cases = cases_of_pairs(pairs, description, images)
    lesions = out / "lesions.csv"
    source = ReportSource(
        name=out.name,
        report=out / "report",
        scores=with_failures(read_scores(out / "scores.csv"), reasons or {}),
        lesions=read_lesions(lesions) if lesions.exists() else None,
        scores_json=out / "scores.json",
        description=description,
        cases=cases,
        predictions={pair.case: pair.prediction for pair in pairs},
        data_root=root,
        manifest=listed,
        predicted_targets=predicted_targets,
        no_scan=_NO_IMAGES if listed is None and images is None else "",
    )
    index = write_report(source, ReportOptions(settings, workers=workers))
    print_report(index)
    return index


def parse_volumes(text: str) -> int | None:
    """Return how many pages have volumes: None for all.

    Raises:
        InputError: The text is neither a number nor "all" or "none".
    """
    if text == "all":
        return None
    if text == "none":
        return 0
    if not text.isdecimal():
        raise InputError(
            f"'{text}' is no number", where="--volumes", hint="Write all, none or a number of cases."
        )
    return int(text)
