"""One case's page: verdict, warnings, scores, pictures, provenance, all in one offline file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from nibabel.affines import obliquity
from numpy.typing import NDArray

from medunet.errors import DataError
from medunet.imaging.figures import (
    draw_errors,
    draw_planes,
    draw_thumbnail,
    figure_png,
    largest_cross_sections,
    window_limits,
)
from medunet.imaging.geometry import Affine, axis_codes, corner_displacement_mm
from medunet.imaging.nifti import Header, Volume
from medunet.imaging.orientation import to_ras
from medunet.imaging.volumes import read_channels, read_label
from medunet.records import Accepted, Case, Description, Fault
from medunet.reporting.lesions import describe_rules, tabulate_case
from medunet.reporting.page import data_uri, flat_items, number_text, render
from medunet.reporting.scores import SIZE, Measure, Unit, measures, verdict
from medunet.reporting.sentences import conventions, row_reason, score_notes, trained_on
from medunet.scoring.reading import read_pair

_MOST_CONTOURS = 6  # a picture shows the contours of all targets up to here, else of its own target alone
_MOST_PICTURED = 24  # targets that get pictures
_FACES = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))


@dataclass(frozen=True)
class Scan:
    """A case as its page shows it, in RAS+ axis order; a label map that does not exist is None."""

    image: NDArray[np.float32]  # (I, J, K), or (I, J, K, 3) in colour
    affine: Affine
    channel: str
    modality: str
    grid: str  # in words, as stored
    reference: NDArray | None
    prediction: NDArray | None
    warnings: tuple[str, ...]
    unit: Unit  # px: a 2D picture
    is_resampled: bool = False  # the prediction, from another grid to the reference's


@dataclass(frozen=True)
class Links:
    """Where a page leads: file names of the worse and the better case beside it, or None."""

    worse: str | None
    better: str | None


@dataclass(frozen=True)
class _Picture:
    target: str
    planes: str  # data URI
    errors: str | None
    text: str


def shown_channel(description: Description) -> str:
    """Return the channel that pictures show: FLAIR, where tumours stand out, else the first."""
    flair = [name for name in description.channels if "flair" in name.casefold()]
    return flair[0] if flair else next(iter(description.channels))


def load_scan(
    case: Case,
    description: Description,
    data_root: Path,
    prediction: Path,
    predicted_targets: Mapping[str, Sequence[int]] | None = None,
    *,
    resample: bool = False,
) -> Scan:
    """Read a case's shown channel and its label maps, those that exist.

    `predicted_targets` are the prediction's own label values by name, where they are not the description's. With
    `resample` a prediction on another grid is brought to the reference's by the very call that scoring makes.

    Raises:
        DataError: a file cannot be read, has a singular affine, or a label map has another shape than the scan; or a
            prediction cannot be resampled.
    """
    channel = shown_channel(description)
    if channel not in case.images:
        raise DataError(f"has no channel '{channel}'", where=f"case {case.id}")
    path = case.images[channel]
    frames = [name for name in description.channels if case.images.get(name) == path]
    volume = read_channels([data_root / path] * len(frames))
    header = volume.header
    if "?" in axis_codes(header.affine):
        raise DataError("its affine is singular", where=f"case {case.id}", mend="Export the scan again.")
    coloured = header.nifti is None and len(frames) > 1
    shown = volume.array if coloured else volume.array[frames.index(channel)][None]
    image, affine = to_ras(shown, header.affine)
    warnings: list[str] = []
    label = data_root / case.label if case.label else None
    truth, found, is_resampled = _read_masks(label, prediction, description.instances_as, resample=resample)
    reference = None if truth is None else _match(truth, "reference", header, warnings)
    told = [] if is_resampled else warnings  # it lies where the reference does
    predicted = None if found is None else _match(found, "prediction", header, told)
    if predicted is not None and predicted_targets is not None:
        predicted = _join_by_name(predicted, predicted_targets, description)
    return Scan(
        image=np.moveaxis(image, 0, -1) if coloured else image[0],
        affine=affine,
        channel=", ".join(frames) if coloured else channel,
        modality=description.channels[channel].modality,
        grid=_describe_grid(header),
        reference=reference,
        prediction=predicted,
        warnings=tuple(warnings),
        unit=description.unit,
        is_resampled=is_resampled,
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
) -> str:
    """Return a case's page.

    Args:
        case_id: the case.
        rows: its rows of the score table, one for each target.
        description: what the dataset is: targets and modality.
        scan: the case's volumes, or why they cannot be shown.
        links: the neighbouring pages.
        lesions: its rows of the table of lesions, where there is one.
        fold: the fold that held the case out.
        faults: what the data check said of this case.
        accepted: which of its faults the user accepted, and why.
        prediction_entry: what predictions/index.json says of this case.
        provenance: what provenance.json says of the run.
    """
    gravity, sentence = verdict(rows)
    shown = measures(rows, description.unit)
    targets = {name: values for name, values in description.targets.items() if name in set(rows["label"])}
    pictures = _pictures(scan, targets) if isinstance(scan, Scan) else []
    pictured = {picture.target for picture in pictures}
    tables = [] if lesions is None else tabulate_case(lesions, rows, description.unit)
    origin = {"fold": fold, **(prediction_entry or {})}
    return render(
        "case.html",
        title=case_id,
        dataset=description.title or description.name,
        gravity=gravity,
        verdict=sentence,
        columns=[measure.heading for measure in shown],
        size_unit=SIZE[description.unit][0],
        rows=[_row(row, shown, description.unit) for _, row in rows.iterrows()],
        notes=score_notes(rows),
        faults=faults,
        accepted={entry.code: entry.reason for entry in accepted},
        warnings=[
            *([trained_on(provenance)] if trained_on(provenance) else []),
            *([*_border_warnings(scan, targets), *scan.warnings] if isinstance(scan, Scan) else []),
        ],
        lesions=tables,
        lesion_rules=[
            describe_rules(rules, description.unit)
            for rules in dict.fromkeys(table.rules for table in tables)
        ],
        unit=description.unit,
        scan=scan if isinstance(scan, Scan) else None,
        no_scan=scan if isinstance(scan, str) else "",
        pictures=pictures,
        unpictured=[name for name in targets if name not in pictured] if isinstance(scan, Scan) else [],
        conventions=conventions(rows, description.unit),
        origin=flat_items({key: value for key, value in origin.items() if value is not None}),
        provenance=flat_items(dict(provenance or {})),
        links=links,
    )


def thumbnail(scan: Scan, rows: pd.DataFrame, description: Description) -> str:
    """Return a small picture (axial), as a data URI, of the target that does worst."""
    known = rows[rows["label"].isin(list(description.targets))]
    worst = known.sort_values("dice", kind="stable")["label"].head(1)
    targets = {label: description.targets[label] for label in worst}
    return data_uri(figure_png(draw_thumbnail(scan.image, scan.affine, targets=targets, **_shown(scan))))


def _read_masks(
    label: Path | None, prediction: Path, instances_as: int | None, *, resample: bool
) -> tuple[Volume | None, Volume | None, bool]:
    """Return reference and prediction, those that exist, and whether the prediction was resampled."""
    if resample and label is not None and prediction.exists():
        truth, labels, note = read_pair(label, prediction, reference_instances_as=instances_as, resample=True)
        return truth, Volume(labels, truth.header), bool(note)
    return (
        None if label is None else read_label(label, instances_as=instances_as),
        read_label(prediction) if prediction.exists() else None,
        False,
    )


def _match(volume: Volume, name: str, scan: Header, warnings: list[str]) -> NDArray:
    """Return a label map in RAS+ axis order, matched with the scan voxel by voxel; add a warning if it lies apart."""
    if volume.array.shape != scan.shape:
        can_resample = name == "prediction" and scan.nifti is not None
        raise DataError(
            f"{name} shape {volume.array.shape} differs from the scan's {scan.shape}",
            where=volume.header.path.name,
            mend="Score it with `--resample` to see it on the reference's grid." if can_resample else "",
        )
    moved_mm = corner_displacement_mm(scan.shape, scan.affine, volume.affine)
    if moved_mm > 0.01 * min(scan.spacing_mm):
        warnings.append(
            f"The header of the {name} places it {moved_mm:.2f} mm away from the scan; "
            "the pictures match them voxel by voxel."
        )
    return to_ras(volume.array[None], scan.affine)[0][0]


def _join_by_name(
    labels: NDArray, predicted_targets: Mapping[str, Sequence[int]], description: Description
) -> NDArray:
    """Return a label map with the description's values for the targets that both declare."""
    joined = np.zeros_like(labels)
    for name, value in description.written_values.items():
        if name in predicted_targets:
            joined[np.isin(labels, predicted_targets[name])] = value
    return joined


def _describe_grid(header: Header) -> str:
    if header.nifti is None:
        return f"{header.shape[0]} × {header.shape[1]} pixels, no spacing known"
    tilt_degrees = float(np.rad2deg(obliquity(header.affine)).max())
    size = " × ".join(str(n) for n in header.shape)
    spacing = " × ".join(f"{mm:.2f}" for mm in header.spacing_mm)
    tilt = f", tilted by up to {tilt_degrees:.1f}° from the body's axes" if tilt_degrees > 0.1 else ""
    return f"{size} voxels of {spacing} mm, stored {axis_codes(header.affine)}{tilt}"


def _shown(scan: Scan) -> dict[str, Any]:
    """Return the arguments that every picture of a scan shares."""
    low, high = window_limits(scan.image, scan.modality)
    return {
        "reference": scan.reference,
        "prediction": scan.prediction,
        "modality": scan.modality,
        "window": ((low + high) / 2, high - low),
        "unit": scan.unit,
    }


def _pictures(scan: Scan, targets: Mapping[str, tuple[int, ...]]) -> list[_Picture]:
    """Draw the targets that reference or prediction hold, each at its largest cross-sections."""
    shown = _shown(scan)
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
        if not present or len(pictures) == _MOST_PICTURED:
            continue
        owner, mask = present[0]
        centre = largest_cross_sections(mask)
        contours = targets if len(targets) <= _MOST_CONTOURS else {name: values}
        planes = draw_planes(scan.image, scan.affine, targets=contours, centre=centre, **shown)
        errors = None
        if truth is not None and found is not None:
            drawn = draw_errors(scan.image, scan.affine, target=values, centre=centre, **shown)
            errors = data_uri(figure_png(drawn))
        text = f"At the largest cross-sections of {name} in the {owner}. Right of the patient is left in the picture."
        if scan.unit == "px":
            text = f"The whole picture with the outlines of {name}."
        if scan.is_resampled:
            text += " The prediction is shown as it was scored: resampled to the reference's grid."
        pictures.append(_Picture(name, data_uri(figure_png(planes)), errors, text))
    return pictures


def _border_warnings(scan: Scan, targets: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Name the masks that reach a face of the volume, where they may have been cut; any picture's edge cuts some."""
    warnings: list[str] = []
    if scan.unit == "px":
        return warnings
    for owner, labels in (("reference", scan.reference), ("prediction", scan.prediction)):
        for name, values in targets.items():
            faces = [] if labels is None else _touched_faces(np.isin(labels, values))
            if faces:
                warnings.append(
                    f"{name}: the {owner} reaches the {', '.join(faces)} border of the scan. It may be cut "
                    "there: its volume and distances are those of the visible part."
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
    scale, decimals = SIZE[unit][1], 2 if unit == "mm" else 0
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
