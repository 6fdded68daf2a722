"""One case's page: verdict, warnings, scores, pictures, provenance, all in one offline file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
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
from medunet.imaging.geometry import Affine, axis_codes, corner_displacement_mm, spacing_of
from medunet.imaging.nifti import Header, read_channels, read_label
from medunet.imaging.orientation import to_ras
from medunet.records import Accepted, Case, Description, Fault
from medunet.reporting.page import data_uri, flat_items, number_text, render
from medunet.reporting.scores import Measure, measures, verdict

_MOST_CONTOURS = 6  # a picture shows the contours of all targets up to here, else of its own target alone
_MOST_PICTURED = 24  # targets that get pictures
_FACES = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))


@dataclass(frozen=True)
class Scan:
    """A case as its page shows it, in RAS+ axis order; a label map that does not exist is None."""

    image: NDArray[np.float32]
    affine: Affine
    channel: str
    modality: str
    grid: str  # in words, as stored
    reference: NDArray | None
    prediction: NDArray | None
    warnings: tuple[str, ...]


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


def load_scan(case: Case, description: Description, data_root: Path, prediction: Path) -> Scan:
    """Read a case's shown channel and its label maps, those that exist.

    Raises:
        DataError: a file cannot be read, or a label map has another shape than the scan.
    """
    channel = shown_channel(description)
    if channel not in case.images:
        raise DataError(f"has no channel '{channel}'", where=f"case {case.id}")
    path = case.images[channel]
    frames = [name for name in description.channels if case.images.get(name) == path]
    volume = read_channels([data_root / path] * len(frames))
    header = volume.header
    image, affine = to_ras(volume.array[frames.index(channel)][None], header.affine)
    warnings: list[str] = []
    reference = _load_labels(data_root / case.label, "reference", header, warnings) if case.label else None
    predicted = _load_labels(prediction, "prediction", header, warnings) if prediction.exists() else None
    return Scan(
        image=image[0],
        affine=affine,
        channel=channel,
        modality=description.channels[channel].modality,
        grid=_describe_grid(header),
        reference=reference,
        prediction=predicted,
        warnings=tuple(warnings),
    )


def case_html(
    case_id: str,
    rows: pd.DataFrame,
    description: Description,
    scan: Scan | str,
    *,
    fold: int | None = None,
    faults: Sequence[Fault] = (),
    accepted: Sequence[Accepted] = (),
    prediction_entry: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    links: Links = Links(None, None),
) -> str:
    """Return a case's page.

    Args:
        case_id: the case.
        rows: its rows of the score table, one for each target.
        description: what the dataset is: targets and modality.
        scan: the case's volumes, or why they cannot be shown.
        fold: the fold that held the case out.
        faults: what the data check said of this case.
        accepted: which of its faults the user accepted, and why.
        prediction_entry: what predictions/index.json says of this case.
        provenance: what provenance.json says of the run.
        links: the neighbouring pages.
    """
    gravity, sentence = verdict(rows)
    targets = {name: values for name, values in description.targets.items() if name in set(rows["label"])}
    pictures = _pictures(scan, targets) if isinstance(scan, Scan) else []
    pictured = {picture.target for picture in pictures}
    origin = {"fold": fold, **(prediction_entry or {})}
    return render(
        "case.html",
        title=case_id,
        dataset=description.title or description.name,
        gravity=gravity,
        verdict=sentence,
        columns=[measure.heading for measure in measures(rows)],
        rows=[_row(row, measures(rows)) for _, row in rows.iterrows()],
        faults=faults,
        accepted={entry.code: entry.reason for entry in accepted},
        warnings=[*_border_warnings(scan, targets), *scan.warnings] if isinstance(scan, Scan) else [],
        scan=scan if isinstance(scan, Scan) else None,
        no_scan=scan if isinstance(scan, str) else "",
        pictures=pictures,
        unpictured=[name for name in targets if name not in pictured] if isinstance(scan, Scan) else [],
        conventions=conventions(rows),
        origin=flat_items({key: value for key, value in origin.items() if value is not None}),
        provenance=flat_items(dict(provenance or {})),
        links=links,
    )


def thumbnail(scan: Scan, rows: pd.DataFrame, description: Description) -> str:
    """Return a small axial picture, as a data URI, of the target that does worst."""
    values = description.targets
    labels = [label for label in rows.sort_values("dice", kind="stable")["label"] if label in values]
    targets = {label: values[label] for label in labels[:1]}
    return data_uri(
        figure_png(
            draw_thumbnail(
                scan.image,
                scan.affine,
                reference=scan.reference,
                prediction=scan.prediction,
                targets=targets,
                modality=scan.modality,
            )
        )
    )


def conventions(rows: pd.DataFrame) -> str:
    """Say in a sentence how the scores of a table were measured."""
    surfaces = sorted(set(rows["surface"]) - {""})
    modes = {"voxel": "on voxel centres of the surface", "area": "on the surface, weighted by area"}
    how = "; ".join(f"{mode}: {modes.get(mode, mode)}" for mode in surfaces) or "convention not recorded"
    return (
        f"Distances in mm ({how}), volumes in ml, on the scan's own grid against the untouched reference. "
        "HD95 is the larger of the two directed 95th percentiles. "
        "“–” is undefined (both masks empty), “∞” a distance to an empty mask."
    )
