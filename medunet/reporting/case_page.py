"""Report page of one case: verdict, worst error, viewer, errors, lesions, targets, volumes and provenance."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medunet.drawing.palette import colour_targets
from medunet.records.config import ReportConfig
from medunet.records.finding import Finding
from medunet.reporting.borders import find_cut
from medunet.reporting.case_parts import CaseParts, CaseSummary
from medunet.reporting.classes import (
    MANY,
    group_classes,
    group_volumes,
    measure_agreement,
    measure_volumes,
)
from medunet.reporting.disagreement_shown import show_disagreement
from medunet.reporting.errors_shown import ShownError, Stills, find_case_errors, noun_of, show_errors
from medunet.reporting.explanations import describe_conventions
from medunet.reporting.found_lesions import FoundTable, choose_rules, find_lesions
from medunet.reporting.lesions import describe_rules, tabulate_case
from medunet.reporting.notices import collect_notices
from medunet.reporting.page import flat_items, render
from medunet.reporting.scans import Scan
from medunet.reporting.scores import SIZE_UNITS, measures
from medunet.reporting.verdict import Verdict, describe_thresholds, find_asking, judge_case, judge_new
from medunet.reporting.viewer import VIEWER_SCRIPTS, VIEWER_STYLES, Viewer, make_viewer

_MAX_KEY_ROWS = 6  # targets up to which the verdict has their scores
_PAGE_BYTES = 7_200_000  # of the volumes and stills of a page
_LEAST_STILLS_BYTES, _MOST_STILLS_BYTES = 1_000_000, 3_000_000


@dataclass(frozen=True)
class _Judged:
    """The verdict on a case, its errors or lesions, worst first, and what is measured without a reference."""

    verdict: Verdict
    findings: list[Finding] = field(default_factory=list)
    found: list[FoundTable] = field(default_factory=list)
    volumes_ml: dict[str, float] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Picture:
    """A still that is not of a listed error."""

    still: str  # data URI
    caption: str


@dataclass(frozen=True)
class _Pictures:
    """Everything on a page that shows voxels."""

    errors: list[ShownError]
    others: list[_Picture]
    viewer: Viewer | None


def case_page(
    parts: CaseParts,
    scan: Scan | str,
    settings: ReportConfig | None = None,
    *,
    with_viewer: bool = True,
) -> tuple[str, CaseSummary]:
    """Return the HTML page of a case, and what the page of the cohort shows of it.

    A case without rows of scores has no reference: its page has volumes and lesions of the prediction alone.

    Args:
        parts: what is known of the case.
        scan: the volumes of the case, or the reason why they cannot be shown.
        settings: thresholds of the verdict; None: the defaults.
        with_viewer: whether the page has volumes to scroll through; otherwise it has stills only.
    """
    settings = settings or ReportConfig()
    targets = _targets_of(parts)
    known = scan if isinstance(scan, Scan) else None
    cut = find_cut(known, targets) if known else None
    if len(parts.rows):
        judged = _judge_scored(parts, known, settings, cut)
    elif known is None or known.prediction is None:
        reason = scan if isinstance(scan, str) else "there is no predicted mask"
        judged = _Judged(Verdict("failed", f"Failed: {reason}"))
    else:
        judged = _judge_new(parts, known, targets, settings, cut or {})
    stills = Stills(known, parts.description, targets) if known else None
    pictures = (
        _draw(
            known,
            stills,
            judged.findings,
            with_viewer=with_viewer,
            ignore_value=parts.description.ignore_value,
        )
        if known and stills
        else _Pictures([], [], None)
    )
    html = _render(parts, scan, settings, targets, cut, judged, pictures, stills)
    worst = pictures.errors[0] if pictures.errors and len(parts.rows) else None
    return html, CaseSummary(
        page=parts.page,
        severity=judged.verdict.severity,
        verdict=judged.verdict.sentence,
        reasons=judged.verdict.reasons,
        thumbnail=stills.draw_small(judged.findings[0] if judged.findings else None) if stills else None,
        worst_picture=worst.still if worst else None,
        worst_text=worst.caption if worst else "",
        trouble=scan if isinstance(scan, str) else "",
    )


def _targets_of(parts: CaseParts) -> dict[str, tuple[int, ...]]:
    """Return the label values of the targets that were scored, or of all."""
    named = set(parts.rows["label"]) if len(parts.rows) else set(parts.description.targets)
    return {name: values for name, values in parts.description.targets.items() if name in named}


def _judge_scored(
    parts: CaseParts, scan: Scan | None, settings: ReportConfig, cut: Mapping[str, str] | None
) -> _Judged:
    """Judge a case by its scores, and find its errors."""
    verdict = judge_case(
        parts.rows,
        parts.lesions,
        settings,
        parts.description.unit,
        cut=cut,
        stale=parts.stale,
        noun=noun_of(parts.description),
    )
    return _Judged(verdict, find_case_errors(scan, parts) if scan else [])


def _judge_new(
    parts: CaseParts,
    scan: Scan,
    targets: Mapping[str, tuple[int, ...]],
    settings: ReportConfig,
    cut: Mapping[str, str],
) -> _Judged:
    """Judge a mask without a reference by itself, and find its lesions."""
    volumes_ml = measure_volumes(scan, targets)
    agreement = measure_agreement(scan, targets, len(parts.entry.get("members", ())))
    verdict = judge_new(volumes_ml, settings, parts.description.unit, cut=cut, agreement=agreement)
    found, findings = find_lesions(scan, targets, choose_rules(targets, parts.lesion_rules))
    return _Judged(verdict, findings, found, volumes_ml, agreement)


def _render(
    parts: CaseParts,
    scan: Scan | str,
    settings: ReportConfig,
    targets: Mapping[str, tuple[int, ...]],
    cut: Mapping[str, str] | None,
    judged: _Judged,
    pictures: _Pictures,
    stills: Stills | None,
) -> str:
    """Return the HTML of the page."""
    num_networks = len(parts.entry.get("members", ()))
    description, unit, has_scores = parts.description, parts.description.unit, len(parts.rows) > 0
    known = scan if isinstance(scan, Scan) else None
    tables = (
        tabulate_case(parts.lesions, parts.rows, unit, scan=known, targets=targets, findings=judged.findings)
        if parts.lesions is not None and has_scores
        else []
    )
    asking = find_asking(parts.rows, settings, unit) if has_scores else set()
    groups = group_classes(parts.rows, unit, asking, with_border=cut is None) if has_scores else []
    scripts = (*(VIEWER_SCRIPTS if pictures.viewer else ()), *(("case.js",) if len(targets) > MANY else ()))
    return render(
        "case.html",
        styles=(*(VIEWER_STYLES if pictures.viewer else ()), "case.css"),
        scripts=scripts,
        title=parts.case_id,
        dataset=description.title or description.name,
        links=parts.links,
        scan=known,
        no_scan=scan if isinstance(scan, str) else "",
        has_scores=has_scores,
        verdict=judged.verdict,
        caveats=_caveats(parts, has_scores=has_scores),
        thresholds=describe_thresholds(settings, unit, has_reference=has_scores, noun=noun_of(description)),
        notices=collect_notices(parts, scan, cut or {}),
        pictures=pictures,
        viewer_notices=pictures.viewer.notices if pictures.viewer else (),
        has_key_rows=has_scores and len(parts.rows) <= _MAX_KEY_ROWS,
        groups=groups,
        columns=[measure.heading for measure in measures(parts.rows, unit)] if has_scores else [],
        num_targets=len(targets),
        is_searched=len(targets) > MANY,
        volumes=group_volumes(judged.volumes_ml, judged.agreement, unit) if judged.volumes_ml else [],
        num_networks=num_networks,
        disagreement=(
            show_disagreement(known, stills, num_networks) if judged.volumes_ml and known and stills else None
        ),
        has_agreement=bool(judged.agreement),
        noun=noun_of(description),
        size_unit=SIZE_UNITS[unit][0],
        unit=unit,
        lesions=tables,
        lesion_rules=[
            describe_rules(rules, unit, instances=description.instances)
            for rules in dict.fromkeys(table.rules for table in tables)
        ],
        found=judged.found,
        conventions=describe_conventions(parts.rows, unit) if has_scores else _describe_new(unit),
        origin=_origin(parts),
        provenance=flat_items(dict(parts.provenance)),
    )


def _draw(
    scan: Scan, stills: Stills, findings: list[Finding], *, with_viewer: bool, ignore_value: int | None
) -> _Pictures:
    """Return the stills and the viewer of a case."""
    viewer = None
    if with_viewer:
        viewer = make_viewer(
            scan,
            stills.targets,
            colour_targets(stills.targets),
            stills.viewer_presets(findings),
            findings,
            modalities={name: stills.modality_of(name) for name in stills.channels},
            shown_on={name: stills.channel_of(name) for name in stills.targets},
            ignore_value=ignore_value,
            noun=stills.noun,
        )
    free_bytes = _PAGE_BYTES - (len(viewer.html) if viewer else 0)
    errors = show_errors(
        findings,
        stills,
        scan,
        min(max(free_bytes, _LEAST_STILLS_BYTES), _MOST_STILLS_BYTES),
        has_viewer=viewer is not None,
    )
    others = []
    if findings and len(stills.channels) > 1:  # the worst error in the other channels
        own = stills.channel_of(findings[0].target)
        others += [
            _Picture(stills.draw(findings[0], channel=name), f"The same place in {name}")
            for name in stills.channels
            if name != own
        ]
    others.append(_Picture(stills.draw(), stills.describe_overview()))
    return _Pictures(errors, others, viewer)


def _caveats(parts: CaseParts, *, has_scores: bool) -> list[str]:
    """Return what to bear in mind when reading the verdict: units, and how the case was used."""
    caveats = [] if has_scores else ["There is no reference, and so no score."]
    if parts.use and has_scores:
        caveats.append(f"{parts.use[0].upper()}{parts.use[1:]}.")
    if parts.description.unit == "px":
        caveats.append("Lengths are in pixels and sizes are areas: a picture has no spacing.")
    return caveats


def _describe_new(unit: str) -> str:
    sizes = "Volumes are in ml and lengths in mm, on the scan's own grid."
    return "Areas and lengths are in pixels, since a picture has no spacing." if unit == "px" else sizes


def _origin(parts: CaseParts) -> list[tuple[str, str]]:
    """Return where the mask comes from; the faults found when predicted have their own notices."""
    entry: Mapping[str, Any] = {key: value for key, value in parts.entry.items() if key != "faults"}
    own = {"fold": parts.fold, **entry}
    return flat_items({key: value for key, value in own.items() if value is not None})
