"""Lesions of a predicted mask without a reference: volumes and diameters, and where they are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medunet.imaging.geometry import Affine, spacing_of
from medunet.records.finding import Finding, Voxel
from medunet.records.scores import LesionPreset
from medunet.reporting.page import number_text
from medunet.reporting.scans import Scan, position_name
from medunet.reporting.scores import SIZE_UNITS
from medunet.scoring.bits import find_box
from medunet.scoring.findings import find_errors
from medunet.scoring.lesion_presets import PRESETS
from medunet.scoring.lesions import score_lesions
from medunet.scoring.target_masks import find_boxes, mask_of

_MAX_SHOWN = 50  # lesions of a target
_MAX_TARGETS = 6  # up to which the parts of every target are listed if no target has lesions
_ALL_PARTS: LesionPreset = "panoptic"  # 26-connected


@dataclass(frozen=True)
class FoundLesion:
    """One lesion as text, and its place among the findings of the page."""

    number: int
    size: str
    axes: str
    place: str
    finding: int


@dataclass(frozen=True)
class FoundTable:
    """The lesions of one target, the largest first; `num_hidden` of the smallest are left out."""

    label: str
    connectivity: int
    rows: tuple[FoundLesion, ...]
    num_hidden: int

    @property
    def text(self) -> str:
        """How many there are."""
        count = len(self.rows) + self.num_hidden
        return f"{count} connected part{'' if count == 1 else 's'} ({self.connectivity}-connected)"


def choose_rules(
    targets: Mapping[str, tuple[int, ...]], rules: Mapping[str, LesionPreset]
) -> dict[str, LesionPreset]:
    """Return the targets whose lesions are listed: those with rules, or without any the parts of a few targets."""
    known = {name: preset for name, preset in rules.items() if name in targets}
    if known or len(targets) > _MAX_TARGETS:
        return known
    return dict.fromkeys(targets, _ALL_PARTS)


def find_lesions(
    scan: Scan, targets: Mapping[str, tuple[int, ...]], rules: Mapping[str, LesionPreset]
) -> tuple[list[FoundTable], list[Finding]]:
    """Return the lesions of the predicted mask by target, and the findings that lead to them."""
    assert scan.prediction is not None
    i_mm, j_mm, k_mm = spacing_of(scan.affine)
    find_target_box = find_boxes(scan.prediction, scan.prediction)
    scale, decimals = SIZE_UNITS[scan.unit][1], 2 if scan.unit == "mm" else 0
    tables: list[FoundTable] = []
    findings: list[Finding] = []
    for label, preset in rules.items():
        box = find_target_box(targets[label], ()) if find_target_box else find_box(scan.prediction)
        start = (box[0].start, box[1].start, box[2].start)
        mask = mask_of(scan.prediction[box], targets[label], None)
        nothing = np.zeros(mask.shape, dtype=bool)
        scored = score_lesions(nothing, mask, (i_mm, j_mm, k_mm), preset).lesions
        errors = find_errors(
            nothing.view(np.uint8),
            mask.view(np.uint8),
            {label: (1,)},
            (i_mm, j_mm, k_mm),
            rules={label: preset},
            unit=scan.unit,
        )
        places = {error.lesion: error for error in errors}
        largest = sorted(scored, key=lambda lesion: -lesion.predicted_ml)
        rows = []
        for number, lesion in enumerate(largest[:_MAX_SHOWN], start=1):
            place = places[lesion.number]
            position = position_name(2, _slice_mm(scan.affine, mask, lesion.slice_index, start))
            findings.append(replace(_shift(place, start), kind="lesion", lesion=number))
            rows.append(
                FoundLesion(
                    number=number,
                    size=number_text(scale * lesion.predicted_ml, decimals),
                    axes=f"{number_text(lesion.long_axis_mm, 1)} × {number_text(lesion.short_axis_mm, 1)}",
                    place=f"{position} mm" if scan.unit == "mm" else "",
                    finding=len(findings) - 1,
                )
            )
        if rows:
            hidden = len(scored) - len(rows)
            tables.append(FoundTable(label, PRESETS[preset].connectivity, tuple(rows), hidden))
    return tables, findings


def _shift(finding: Finding, start: Voxel) -> Finding:
    """Return a finding of a box that starts at a voxel as one of the whole grid."""
    i, j, k = (index + first for index, first in zip(finding.centre, start, strict=True))
    box = tuple((low + first, end + first) for (low, end), first in zip(finding.box, start, strict=True))
    return replace(finding, centre=(i, j, k), box=box)


def _slice_mm(affine: Affine, mask: NDArray[np.bool_], index: int, start: Voxel) -> float:
    """Return the position of a mask's slice along the axis to superior, in a tilted scan that of its middle."""
    i, j = np.argwhere(mask[:, :, index]).mean(axis=0) + start[:2]
    return float((affine @ (i, j, index + start[2], 1))[2])
