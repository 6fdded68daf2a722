"""Report page of one case: verdict, warnings, scores, pictures and provenance in one offline HTML file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medunet.dataset.checks.fault_catalogue import FAULT_KINDS
from medunet.drawing.figures import (
    View,
    draw_errors,
    draw_planes,
    draw_thumbnail,
    figure_png,
    largest_cross_sections,
    window_limits,
)
from medunet.records.config import ReportConfig
from medunet.records.description import Description
from medunet.records.fault import Fault
from medunet.records.manifest import Accepted
from medunet.records.scores import UNSCORED
from medunet.reporting.case_parts import CaseParts, CaseSummary, Links
from medunet.reporting.explanations import (
    describe_conventions,
    describe_faster_ways,
    row_reason,
    score_remarks,
    training_warning,
)
from medunet.reporting.lesions import describe_rules, tabulate_case
from medunet.reporting.page import data_uri, flat_items, number_text, render
from medunet.reporting.scans import Scan
from medunet.reporting.scores import SIZE_UNITS, Measure, Unit, measures, verdict

_MAX_CONTOURS = (
    6  # pictures show the contours of all targets up to this number, otherwise only of their own target
)
_MAX_PICTURED = 24  # targets that get pictures
_FACES = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))


@dataclass(frozen=True)
class _Picture:
    target: str
    planes: str  # data URI
    errors: str | None
    text: str  # caption


def case_page(
    parts: CaseParts,
    scan: Scan | str,
    settings: ReportConfig | None = None,
    *,
    with_viewer: bool = True,
) -> tuple[str, CaseSummary]:
    """Return the HTML page of a case, and what the page of the cohort shows of it.

    Args:
        parts: what is known of the case.
        scan: the volumes of the case, or the reason why they cannot be shown.
        settings: thresholds of the verdict; None: the defaults.
        with_viewer: whether the page has volumes to scroll through; otherwise it has stills only.
    """
    severity, sentence = verdict(parts.rows)
    targets = {} if isinstance(scan, str) else parts.description.targets
    worst = parts.rows.sort_values("dice", kind="stable")["label"].tolist()
    named = {name: targets[name] for name in worst[:1] if name in targets}
    pictures = _pictures(scan, named) if isinstance(scan, Scan) else []
    html = case_html(
        parts.case_id,
        parts.rows,
        parts.description,
        scan,
        parts.links,
        lesions=parts.lesions,
        fold=parts.fold,
        faults=parts.faults,
        accepted=parts.accepted,
        prediction_entry=parts.entry,
        provenance=parts.provenance,
        stale=parts.stale,
    )
    return html, CaseSummary(
        page=parts.page,
        severity="failed"
        if parts.rows["status"].isin(UNSCORED).any()
        else {"bad": "review", "fair": "good", "none": "none"}[severity],
        verdict=sentence,
        reasons=(),
        thumbnail=thumbnail(scan, parts.rows, parts.description) if isinstance(scan, Scan) else None,
        worst_picture=pictures[0].errors or pictures[0].planes if pictures else None,
        worst_text=pictures[0].text if pictures else "",
        trouble=scan if isinstance(scan, str) else "",
    )


def case_html(
    case_id: str,
    rows: pd.DataFrame,
    description: Description,
    scan: Scan | str,
    links: Links,
    *,
    lesions: pd.DataFrame | None = None,
    fold: int | None = None,
    faults: Sequence[Fault] = (),
    accepted: Sequence[Accepted] = (),
    prediction_entry: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    stale: Sequence[str] = (),
) -> str:
    """Return the HTML page of a case.

    Args:
        case_id: the id of the case.
        rows: its rows of scores.csv, one for each target.
        description: the dataset's description, with targets and modality.
        scan: the volumes of the case, or the reason why they cannot be shown.
        links: the neighbouring pages.
        lesions: its rows of lesions.csv, if lesions were scored.
        fold: the fold in which the case is held out.
        faults: faults that the data check found in this case.
        accepted: faults of this case that the user accepted, with reasons.
        prediction_entry: the entry of the case in predictions/index.json.
        provenance: the content of the run's provenance.json.
        stale: what changed since the case was scored.
    """
    severity, sentence = verdict(rows)
    shown = measures(rows, description.unit)
    targets = {name: values for name, values in description.targets.items() if name in set(rows["label"])}
    pictures = _pictures(scan, targets) if isinstance(scan, Scan) else []
    pictured = {picture.target for picture in pictures}
    tables = [] if lesions is None else tabulate_case(lesions, rows, description.unit)
    origin = {"fold": fold, **(prediction_entry or {})}
    known = {(fault.code, fault.subject) for fault in faults}
    found = [
        fault for fault in origin.pop("faults", []) if (fault["code"], fault.get("subject", "")) not in known
    ]
    return render(
        "case.html",
        title=case_id,
        dataset=description.title or description.name,
        severity=severity,
        verdict=sentence,
        columns=[measure.heading for measure in shown],
        size_unit=SIZE_UNITS[description.unit][0],
        rows=[_row(row, shown, description.unit) for _, row in rows.iterrows()],
        remarks=score_remarks(rows),
        faults=faults,
        accepted={entry.code: entry.reason for entry in accepted},
        warnings=[
            *stale,
            *map(_prediction_warning, found),
            *describe_faster_ways(prediction_entry or {}),
            *([training_warning(provenance)] if training_warning(provenance) else []),
            *([*_border_warnings(scan, targets), *scan.warnings] if isinstance(scan, Scan) else []),
        ],
        lesions=tables,
        lesion_rules=[
            describe_rules(rules, description.unit, instances=description.instances)
            for rules in dict.fromkeys(table.rules for table in tables)
        ],
        unit=description.unit,
        scan=scan if isinstance(scan, Scan) else None,
        no_scan=scan if isinstance(scan, str) else "",
        pictures=pictures,
        unpictured=[name for name in targets if name not in pictured] if isinstance(scan, Scan) else [],
        conventions=describe_conventions(rows, description.unit),
        origin=flat_items({key: value for key, value in origin.items() if value is not None}),
        provenance=flat_items(dict(provenance or {})),
        links=links,
    )


def thumbnail(scan: Scan, rows: pd.DataFrame, description: Description) -> str:
    """Return a small axial picture of the target with the lowest Dice, as data URI."""
    known = rows[rows["label"].isin(list(description.targets))]
    worst = known.sort_values("dice", kind="stable")["label"].head(1)
    targets = {label: description.targets[label] for label in worst}
    return data_uri(figure_png(draw_thumbnail(_view(scan, targets))))


def _view(scan: Scan, targets: Mapping[str, tuple[int, ...]]) -> View:
    """Return a view of the scan with the targets to outline, with the window of all its pictures."""
    low, high = window_limits(scan.image, scan.modality)
    return View(
        scan.image,
        scan.affine,
        targets,
        reference=scan.reference,
        prediction=scan.prediction,
        modality=scan.modality,
        window=((low + high) / 2, high - low),
        unit=scan.unit,
    )


def _pictures(scan: Scan, targets: Mapping[str, tuple[int, ...]]) -> list[_Picture]:
    """Draw each target that is in the reference or the prediction, at its largest cross-sections."""
    view = _view(scan, targets)
    pictures: list[_Picture] = []
    for name, values in targets.items():
        truth, found = (
            None if labels is None else np.isin(labels, values)
            for labels in (scan.reference, scan.prediction)
        )
        present = [
            (owner, mask)
            for owner, mask in (("reference", truth), ("prediction", found))
            if mask is not None and mask.any()
        ]
        if not present or len(pictures) == _MAX_PICTURED:
            continue
        owner, mask = present[0]
        own = replace(view, targets={name: values}, centre=largest_cross_sections(mask))
        planes = draw_planes(replace(own, targets=targets) if len(targets) <= _MAX_CONTOURS else own)
        errors = None
        if truth is not None and found is not None:
            errors = data_uri(figure_png(draw_errors(own)))
        text = f"Largest cross-sections of {name} in the {owner}. The patient's right is on the left of the picture."
        if scan.unit == "px":
            text = f"The whole picture with the outlines of {name}."
        if scan.is_resampled:
            text += " The prediction is shown as it was scored: resampled to the reference's grid."
        pictures.append(_Picture(name, data_uri(figure_png(planes)), errors, text))
    return pictures


def _prediction_warning(fault: Mapping[str, str]) -> str:
    """Return what the checks found when the scan was predicted, as a sentence."""
    accepted = f" (accepted: {fault['accepted']})" if "accepted" in fault else ""
    title = FAULT_KINDS[fault["code"]].title
    found = f"{fault['code']} {title}, {fault.get('subject', '')}: {fault['measured']}{accepted}"
    return f"Found when predicted: {found}."


def _border_warnings(scan: Scan, targets: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return warnings about masks that touch a face of the volume and may be cut off; none for 2D pictures."""
    warnings: list[str] = []
    if scan.unit == "px":
        return warnings
    for owner, labels in (("reference", scan.reference), ("prediction", scan.prediction)):
        for name, values in targets.items():
            faces = [] if labels is None else _touched_faces(np.isin(labels, values))
            if faces:
                warnings.append(
                    f"{name}: the {owner} reaches the {', '.join(faces)} border of the scan and may be cut off. "
                    "Volume and distances are those of the visible part."
                )
    return warnings


def _touched_faces(mask: NDArray[np.bool_]) -> list[str]:
    return [
        face
        for axis, faces in enumerate(_FACES)
        if mask.shape[axis] > 1
        for index, face in zip((0, -1), faces, strict=True)
        if mask[(slice(None),) * axis + (index,)].any()
    ]


def _row(row: pd.Series, columns: Sequence[Measure], unit: Unit) -> dict[str, Any]:
    scale, decimals = SIZE_UNITS[unit][1], 2 if unit == "mm" else 0
    reference, predicted = (
        scale * float(row.get(name, math.nan)) for name in ("reference_ml", "predicted_ml")
    )
    return {
        "label": row["label"],
        "status": row["status"],
        "reason": row_reason(row),
        "values": [number_text(row[measure.column], measure.decimals) for measure in columns],
        "reference": number_text(reference, decimals),
        "predicted": number_text(predicted, decimals),
        "difference": number_text(predicted - reference, decimals, signed=True),
    }
