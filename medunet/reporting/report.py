"""Report of a run: an index and a page for each scored case, as offline HTML made from the run's files."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from medunet.base.errors import MedunetError
from medunet.base.files import read_json, write_text
from medunet.base.progress import track
from medunet.dataset.checks.manifest_checks import read_faults
from medunet.imaging.volumes import mask_ending
from medunet.records.config import load_config
from medunet.records.manifest import Case, Manifest
from medunet.records.run_folder import RunFolder
from medunet.reporting.case_page import case_page
from medunet.reporting.case_parts import CaseParts, Links
from medunet.reporting.cohort_page import CasePage, cohort_html
from medunet.reporting.explanations import describe_use, read_cards
from medunet.reporting.page import page_names
from medunet.reporting.scans import Scan, load_scan
from medunet.reporting.scores import is_resampled, rank_cases
from medunet.reporting.stale import find_stale
from medunet.reporting.summaries import summarise_cohort
from medunet.reporting.viewer import copy_assets

_log = logging.getLogger(__name__)


def report_run(
    run: RunFolder, data_root: Path, *, scores: pd.DataFrame, lesions: pd.DataFrame | None = None
) -> Path:
    """Write `report/index.html` and `report/cases/*.html` of a run and return the path of the index.

    A case whose scan or masks cannot be read still gets a page with the reason, and is listed on the index. Masks
    that were resampled for scoring are shown resampled. Masks and cases that changed since scoring are named. Means
    come from scores.json; if it does not match scores.csv, they are computed again and the index says why.

    Args:
        run: folder with manifest.json and, if they exist, checks.json, predictions/, scores.json and provenance.json.
        data_root: folder that the manifest's paths are relative to.
        scores: the table of scores.csv (see `medunet.scoring.tables.read_scores`).
        lesions: the table of lesions.csv (`read_lesions`), if lesions were scored.

    Raises:
        InputError: manifest.json is missing, or one of the run's files cannot be used.
    """
    manifest = Manifest.read(run.need(run.manifest, "manifest"))
    cases = {case.id: case for case in manifest.cases}
    faults = read_faults(run.checks) if run.checks.exists() else None
    index_file = run.predictions / "index.json"
    index = read_json(index_file) if index_file.exists() else {}
    entries, predicted_targets = index.get("cases", {}), index.get("targets")
    scores = _with_failed_predictions(scores, index.get("failed", {}))
    stale = find_stale(scores, manifest, data_root, run.predictions)
    for warning in stale.warnings:
        _log.warning(warning)
    provenance = read_json(run.provenance) if run.provenance.exists() else None
    settings = load_config(run.config).report if run.config.exists() else None
    cards = read_cards(run)
    copy_assets(run.report)
    ranked = rank_cases(scores)
    names = page_names(ranked)
    pages: dict[str, CasePage] = {}
    for rank, case_id in enumerate(track(ranked, "Report")):
        rows = scores[scores["case"] == case_id]
        case = cases.get(case_id)
        ending = mask_ending(next(iter(case.images.values()))) if case else ""
        prediction = run.predictions / f"{case_id}{ending}"
        scan = _load(case, manifest, data_root, prediction, predicted_targets, resample=is_resampled(rows))
        parts = CaseParts(
            case_id=case_id,
            page=names[case_id],
            description=manifest.description,
            rows=rows,
            lesions=None if lesions is None else lesions[lesions["case"] == case_id],
            links=Links(
                worse=names[ranked[rank - 1]] if rank else None,
                better=names[ranked[rank + 1]] if rank + 1 < len(ranked) else None,
            ),
            fold=case.fold if case else None,
            faults=tuple(fault for fault in faults or () if fault.case == case_id),
            accepted=tuple(entry for entry in manifest.accepted if entry.case == case_id),
            entry=entries.get(case_id, {}),
            provenance=provenance or {},
            stale=tuple(stale.of(case_id)),
            use=describe_use(case_id, entries.get(case_id, {}), cards),
        )
        html, shown = case_page(parts, scan, settings)
        write_text(run.report / "cases" / names[case_id], html)
        pages[case_id] = CasePage(
            name=names[case_id],
            thumbnail=shown.thumbnail,
            trouble=shown.trouble,
        )
    page = run.report / "index.html"
    summary = summarise_cohort(scores, run.root / "scores.json")
    if summary.remark:
        _log.warning(summary.remark)
    html = cohort_html(
        run.root.name,
        scores,
        manifest,
        pages,
        lesions=lesions,
        summary=summary,
        faults=faults,
        provenance=provenance,
        stale=stale.warnings,
        has_selection=(run.root / "selection.html").exists(),
    )
    write_text(page, html)
    for old in set((run.report / "cases").glob("*.html")) - {
        run.report / "cases" / name for name in names.values()
    }:
        old.unlink()
    return page


def _load(
    case: Case | None,
    manifest: Manifest,
    data_root: Path,
    prediction: Path,
    predicted_targets: Mapping[str, Sequence[int]] | None,
    *,
    resample: bool,
) -> Scan | str:
    """Return a case's volumes, or the reason why they cannot be shown."""
    if case is None:
        return "the case is not in manifest.json, so its scan is unknown"
    try:
        return load_scan(
            case, manifest.description, data_root, prediction, predicted_targets, resample=resample
        )
    except MedunetError as error:
        return str(error)
    except (OSError, MemoryError) as error:  # the message may contain a local path
        return f"the scan cannot be read ({type(error).__name__})"


def _with_failed_predictions(scores: pd.DataFrame, unpredicted: Mapping[str, str]) -> pd.DataFrame:
    """Return the scores with the error of a failed prediction as the reason why it is missing."""
    reasons = [
        f"the prediction failed: {unpredicted[case]}"
        if status == "missing" and case in unpredicted
        else reason
        for case, status, reason in zip(scores["case"], scores["status"], scores["reason"], strict=True)
    ]
    return scores.assign(reason=reasons)
