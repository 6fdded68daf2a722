"""Report of scored cases: an index and a page for each case, as offline HTML made from a run's files or any masks."""

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from medunet.base.errors import MedunetError
from medunet.base.files import read_json, write_text
from medunet.base.pool import Lost, Workers, choose_workers, run_parallel
from medunet.base.progress import CaseBar
from medunet.dataset.checks.manifest_checks import read_faults
from medunet.imaging.volumes import mask_ending, read_header
from medunet.records.data_root import file_path
from medunet.records.manifest import Manifest
from medunet.records.mask_journal import read_mask_index
from medunet.records.run_folder import RunFolder
from medunet.reporting.cohort_page import cohort_html
from medunet.reporting.explanations import describe_use, read_cards
from medunet.reporting.job_list import judge_all, list_jobs, list_new_jobs
from medunet.reporting.page_job import (
    PageJob,
    PageOptions,
    PageResult,
    make_page,
    remove_others,
    write_failed_page,
)
from medunet.reporting.report_source import ReportOptions, ReportSource
from medunet.reporting.scores import rank_cases
from medunet.reporting.stale import find_stale
from medunet.reporting.strata_shown import add_columns, add_spacing, groups_of
from medunet.reporting.summaries import summarise_cohort, summarise_groups
from medunet.reporting.viewer import copy_assets

_log = logging.getLogger(__name__)

_BYTES_PER_VOXEL = 16  # peak while a page is made, for targets that fill the scan: label maps, masks, lesions
_BYTES_PER_CHANNEL = 4  # of a voxel
_BYTES_PER_PROCESS = 400_000_000
_LEAST_VOXELS = 2_000_000  # drawing takes as long as reading so many
_TRY_AGAIN = "try again with fewer --workers"


def report_run(
    run: RunFolder,
    data_root: Path,
    *,
    scores: pd.DataFrame,
    lesions: pd.DataFrame | None = None,
    options: ReportOptions | None = None,
) -> Path:
    """Write `report/index.html` and `report/cases/*.html` of a run and return the path of the index.

    A case whose scan or masks cannot be read still gets a page with the reason, and is listed on the index. Masks
    that were resampled for scoring are shown resampled. Masks and cases that changed since scoring are named. Means
    come from scores.json; if it does not match scores.csv, they are computed again and the index says why. Pages that
    were made from the same files, scores and options are kept, so that a stopped call goes on.

    Args:
        run: folder with manifest.json and, if they exist, checks.json, predictions/, scores.json and provenance.json.
        data_root: folder that the manifest's paths are relative to.
        scores: the table of scores.csv (see `medunet.scoring.tables.read_scores`).
        lesions: the table of lesions.csv (`read_lesions`), if lesions were scored.
        options: thresholds, volumes, processes and groups.

    Raises:
        InputError: manifest.json is missing, or one of the run's files cannot be used; a column of `by` is not known.
    """
    manifest = Manifest.read(run.need(run.manifest, "manifest"))
    cases = {case.id: case for case in manifest.cases}
    index = read_mask_index(run.predictions)
    scores = with_failures(scores, index.get("failed", {}))
    predictions = {}
    for case_id in scores["case"].drop_duplicates():
        case = cases.get(case_id)
        ending = mask_ending(next(iter(case.images.values()))) if case else ""
        predictions[case_id] = run.predictions / f"{case_id}{ending}"
    unreferenced = {}
    for case in manifest.used:
        mask = run.predictions / f"{case.id}{mask_ending(next(iter(case.images.values())))}"
        if case.label is None and case.id not in predictions and mask.exists():
            unreferenced[case.id] = mask
    cards = read_cards(run)
    source = ReportSource(
        name=run.root.name,
        report=run.report,
        scores=scores,
        lesions=lesions,
        scores_json=run.root / "scores.json",
        description=manifest.description,
        cases=cases,
        predictions=predictions,
        unreferenced=unreferenced,
        data_root=data_root,
        manifest=manifest,
        predicted_targets=index.get("targets"),
        entries=index.get("cases", {}),
        uses={case: describe_use(case, index.get("cases", {}).get(case, {}), cards) for case in predictions},
        faults=read_faults(run.checks) if run.checks.exists() else None,
        provenance=read_json(run.provenance) if run.provenance.exists() else None,
        stale=find_stale(scores, manifest, data_root, run.predictions),
        has_selection=(run.root / "selection.html").exists(),
        has_events=any((run.root / "folds").rglob("events.out.tfevents.*")),
        is_run=True,
    )
    return write_report(source, options)


def write_report(source: ReportSource, options: ReportOptions | None = None) -> Path:
    """Write a report's index and the pages of its cases, in several processes; return the path of the index."""
    options = options or ReportOptions()
    for warning in source.stale.warnings:
        _log.warning(warning)
    summary = summarise_cohort(source.scores, source.scores_json)
    if summary.remark:
        _log.warning(summary.remark)
    wanted = dict.fromkeys([*summary.about.get("by", ()), *options.by])
    by = [name for name in wanted if name in source.scores or name in options.by]
    table = add_columns(source.scores, source.manifest, by, options.join)
    ranked = rank_cases(source.scores, judge_all(source, options.settings))
    jobs = [*list_jobs(source, ranked, options), *list_new_jobs(source, ranked, options)]
    common = PageOptions(
        source.report, source.data_root, source.predicted_targets, options.settings, source.no_scan
    )
    if any(job.with_viewer for job in jobs):
        copy_assets(source.report)
    results = _make_pages(jobs, common, options.workers or _choose_workers(source, ranked))
    table = add_spacing(table, {case: results[case].spacing_mm for case in ranked})
    groups = groups_of(table, by)
    summary = replace(summary, strata=summarise_groups(table, groups))
    page = source.report / "index.html"
    summaries = {case: results[case].summary for case in ranked}
    unreferenced = {case: result.summary for case, result in results.items() if case not in summaries}
    write_text(
        page, cohort_html(replace(source, scores=table), summary, summaries, by=groups, new=unreferenced)
    )
    remove_others(source.report, [job.parts.page for job in jobs])
    return page


def with_failures(scores: pd.DataFrame, unpredicted: Mapping[str, str]) -> pd.DataFrame:
    """Return the scores with the error of a failed prediction as the reason why it is missing."""
    reasons = [
        f"the prediction failed: {unpredicted[case]}"
        if status == "missing" and case in unpredicted
        else reason
        for case, status, reason in zip(scores["case"], scores["status"], scores["reason"], strict=True)
    ]
    return scores.assign(reason=reasons)


def _make_pages(
    jobs: Sequence[PageJob], common: PageOptions, workers: Workers | int
) -> dict[str, PageResult]:
    """Make the pages and return their results by case; a case whose process was killed has a page that says so."""
    results: dict[str, PageResult] = {}
    make = partial(make_page, options=common)
    with (
        CaseBar("Report", len(jobs)) as bar,
        closing(run_parallel(make, jobs, workers)) as done,
    ):
        for index, result in done:
            job = jobs[index]
            if isinstance(result, Lost):
                reason = f"{result.why}: {_TRY_AGAIN}"
                _log.warning(f"{job.parts.case_id}: {reason}.")
                result = write_failed_page(job, common, reason)
            results[job.parts.case_id] = result
            bar.advance()
            bar.begin(job.parts.case_id)
    return results


def _choose_workers(source: ReportSource, ranked: Sequence[str]) -> Workers:
    """Choose the number of processes by cores, memory and the largest reference by its file's size."""
    sizes: dict[Path, int] = {}
    num_voxels = _LEAST_VOXELS
    try:
        for case in [source.cases[case_id] for case_id in ranked if case_id in source.cases]:
            if case.label is not None and not source.no_scan:
                path = file_path(case.label, source.data_root, f"case {case.id}")
                sizes[path] = path.stat().st_size if path.exists() else 0
        if sizes:
            shape = read_header(max(sizes, key=lambda path: sizes[path]), label=True).shape
            num_voxels = max(num_voxels, math.prod(shape))
    except (MedunetError, OSError, ValueError):
        num_voxels = _LEAST_VOXELS  # what is wrong is on the page of the case
    return choose_workers(
        len(ranked),
        num_voxels,
        bytes_per_voxel=_BYTES_PER_VOXEL + _BYTES_PER_CHANNEL * len(source.description.channels),
        bytes_per_process=_BYTES_PER_PROCESS,
    )
