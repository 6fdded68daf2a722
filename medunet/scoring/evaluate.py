"""Scores of whole cases: label maps of any tool against reference label maps, joined by name."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medunet.errors import DataError, InputError, MedunetError
from medunet.imaging.geometry import corner_displacement_mm
from medunet.imaging.nifti import Volume
from medunet.imaging.volumes import read_label
from medunet.progress import track
from medunet.records import CaseScore, Status, Surface
from medunet.scoring.masks import check_options, score_masks
from medunet.scoring.overlap import Confusion
from medunet.scoring.pairs import Pair

Targets = Mapping[str, tuple[int, ...]]  # label values that each target unites, by its name

_GRID_TOLERANCE = 0.1  # of the smallest spacing: how far a corner may lie from the reference's


def score_labels(
    reference: NDArray[np.integer],
    prediction: NDArray[np.integer],
    spacing_mm: tuple[float, ...],
    targets_reference: Targets,
    targets_prediction: Targets,
    case: str,
    *,
    ignore_value: int | None = None,
    surface: Surface = "voxel",
    percentile: float = 95.0,
    tolerances_mm: tuple[float, ...] = (1.0, 2.0),
) -> list[CaseScore]:
    """Score every target that both label maps `(I, J, K)` declare, whatever value either writes it with.

    Voxels that the reference gives `ignore_value` (see `Description.ignore_value`) are left out: they are taken from
    both masks and from the background, so that they are neither right nor wrong. Where both masks go on into them,
    the cut is a surface of both, at a distance of 0.

    Raises:
        InputError: no target is common, or as `score_masks`.
    """
    scores = []
    ignored = None if ignore_value is None else reference == ignore_value
    for name in find_common_targets(targets_reference, targets_prediction):
        mask_reference = np.isin(reference, targets_reference[name])
        mask_prediction = np.isin(prediction, targets_prediction[name])
        if ignored is not None:
            mask_reference &= ~ignored
            mask_prediction &= ~ignored
        score = asdict(
            score_masks(
                mask_reference,
                mask_prediction,
                spacing_mm,
                surface=surface,
                percentile=percentile,
                tolerances_mm=tolerances_mm,
            )
        )
        if ignored is not None:
            left = score["tn"] - int(np.count_nonzero(ignored))
            counts = Confusion(score["tp"], score["fp"], score["fn"], left)
            score |= {"tn": left, "specificity": counts.specificity, "accuracy": counts.accuracy}
        reason = "touches the border of the scan" if score.pop("touches_border") else ""
        scores.append(CaseScore(case=case, label=name, reason=reason, **score))
    return scores


def score_pairs(
    pairs: Iterable[Pair],
    reference_targets: Targets,
    prediction_targets: Targets,
    *,
    reference_instances_as: int | None = None,
    prediction_instances_as: int | None = None,
    ignore_value: int | None = None,
    surface: Surface = "voxel",
    percentile: float = 95.0,
    tolerances_mm: tuple[float, ...] = (1.0, 2.0),
) -> list[CaseScore]:
    """Score pairs of label files, each on its reference's own grid, with a progress bar on stderr.

    Files that number objects give `..._instances_as`, the label value that each number stands for. Voxels that the
    reference gives `ignore_value` are left out (see `score_labels`).

    A case without a prediction is "missing", one that cannot be read or lies on another grid "failed": each
    has a row for every target with the reason, and the other cases go on.

    Raises:
        InputError: no target is common, or an option cannot be used.
    """
    names = find_common_targets(reference_targets, prediction_targets)
    check_options(surface, percentile, tolerances_mm)  # once, so that it is not a failure of every case

    def unscored(case: str, status: Status, reason: str) -> list[CaseScore]:
        nsd = dict.fromkeys(tolerances_mm, math.nan)
        return [
            CaseScore(case, name, status, surface, nsd=nsd, reason=reason, percentile=percentile)
            for name in names
        ]

    scores: list[CaseScore] = []
    progress = track(list(pairs), "Score")
    for pair in progress:
        if pair.prediction is None or not pair.prediction.exists():
            scores += unscored(pair.case, "missing", "there is no prediction file")
            continue
        try:
            reference = _read(pair.reference, "reference", reference_instances_as)
            prediction = _read(pair.prediction, "prediction", prediction_instances_as)
            _check_grid(reference, prediction)
            scores += score_labels(
                reference.array,
                prediction.array,
                reference.spacing_mm,
                reference_targets,
                prediction_targets,
                pair.case,
                ignore_value=ignore_value,
                surface=surface,
                percentile=percentile,
                tolerances_mm=tolerances_mm,
            )
        except MedunetError as error:
            scores += unscored(pair.case, "failed", error.what)
        except Exception as error:  # a library's own; its text may hold paths
            scores += unscored(pair.case, "failed", f"scoring stopped with {type(error).__name__}")
    return scores


def find_common_targets(targets_reference: Targets, targets_prediction: Targets) -> list[str]:
    """Return the names that both sides declare, in the reference's order.

    Raises:
        InputError: there is none.
    """
    names = [name for name in targets_reference if name in targets_prediction]
    if not names:
        raise InputError(
            f"the reference declares {list(targets_reference)} and the prediction {list(targets_prediction)}: "
            "no name is common",
            mend="Name the labels alike in both descriptions.",
        )
    return names


def _read(path: Path, role: str, instances_as: int | None) -> Volume:
    """Read a label map; an error names its role alone, since file names may name the patient."""
    try:
        volume = read_label(path, instances_as=instances_as)
    except DataError as error:
        raise DataError(f"{role}: {error.what}".replace(path.name, "the file")) from error
    if volume.array.ndim != 3:
        raise DataError(f"{role}: shape {volume.array.shape} does not have three axes")
    return volume


def _check_grid(reference: Volume, prediction: Volume) -> None:
    shape, other = reference.array.shape, prediction.array.shape
    if other != shape:
        raise DataError(f"the prediction's shape {other} differs from the reference's {shape}")
    displacement_mm = corner_displacement_mm(shape, reference.affine, prediction.affine)
    if not displacement_mm <= _GRID_TOLERANCE * min(reference.spacing_mm):  # NaN is no match either
        raise DataError(f"the prediction's corners lie up to {displacement_mm:.4g} mm from the reference's")
