"""Fingerprint of the training cases: sizes, spacings and foreground intensities, the basis of the plan."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import InputError
from medunet.base.progress import track
from medunet.base.words import list_some
from medunet.imaging.geometry import spacing_of
from medunet.imaging.orientation import to_ras
from medunet.imaging.volume import sample_voxels
from medunet.imaging.volumes import read_channels, read_label
from medunet.records.data_root import case_paths
from medunet.records.description import Description
from medunet.records.manifest import Case
from medunet.records.plan import Fingerprint, Shown

_log = logging.getLogger(__name__)
_SAMPLES_PER_CASE = 10_000  # as nnU-Net: enough for stable percentiles with limited memory


def nonzero_box(array: NDArray[np.float32]) -> tuple[slice, slice, slice]:
    """Return the bounding box of the voxels of `(C, I, J, K)` that are nonzero in any channel."""
    mask = np.any(array != 0, axis=0)
    box = []
    for axis in range(3):
        line = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(int(line[0]), int(line[-1]) + 1) if line.size else slice(0, mask.shape[axis]))
    return box[0], box[1], box[2]


def compute_fingerprint(
    cases: Sequence[Case], description: Description, data_root: Path, *, seed: int
) -> Fingerprint:
    """Read each labelled case and collect shapes, spacings (RAS+ axis order) and foreground intensities.

    Intensities are sampled from the voxels of all foreground labels, at most 10,000 per case, drawn by `seed`.

    Raises:
        InputError: there is no labelled case, or all labels are empty.
    """
    labelled = [case for case in cases if case.label is not None]
    if not labelled:
        raise InputError("no case has a label", where="manifest.json", hint="Add labelled cases to train on.")
    ignored = description.ignore_value
    shapes, spacings, fractions, fields_mm, darkest = [], [], [], [], []
    samples: list[NDArray[np.float32]] = []
    lost: list[str] = []
    for index, case in enumerate(track(labelled, "Fingerprint")):
        image_paths, label_path = case_paths(case, description, data_root)
        image = read_channels(image_paths, resample=case.resample)
        assert label_path is not None
        label = read_label(label_path, description.label_rules).array
        array, affine = to_ras(image.array, image.affine)
        box = nonzero_box(array)
        shape = tuple(part.stop - part.start for part in box)
        shapes.append(shape)
        spacings.append(spacing_of(affine))
        fields_mm.append(np.multiply(array.shape[1:], spacings[-1]))
        darkest.append([np.percentile(sample_voxels(channel), 0.5) for channel in array])
        fractions.append(np.prod(shape) / np.prod(array.shape[1:]))
        is_foreground = (label > 0) & (label != ignored) if ignored is not None else label > 0
        foreground = np.flatnonzero(is_foreground)
        if outside := foreground.size - np.count_nonzero(
            to_ras(is_foreground[None], image.affine)[0][0][box]
        ):
            lost.append(f"{case.id} ({outside} voxels)")
        if foreground.size:
            rng = np.random.default_rng([seed, index])
            chosen = rng.choice(foreground, min(_SAMPLES_PER_CASE, foreground.size), replace=False)
            samples.append(image.array.reshape(len(image.array), -1)[:, chosen])
    if lost:
        _log.warning(
            "Labels lie beyond the box of the nonzero voxels, to which scans are cropped if many are mostly 0: "
            f"{list_some(lost)}."
        )
    if not samples:
        raise InputError("every label is empty", where="manifest.json", hint="Check the label files.")
    values = np.concatenate(samples, axis=1)
    return Fingerprint(
        num_cases=len(labelled),
        spacings_mm=tuple(_as_triple(spacing) for spacing in spacings),
        shapes=tuple((int(s[0]), int(s[1]), int(s[2])) for s in shapes),
        nonzero_fraction=round(float(np.median(fractions)), 4),
        intensities={
            name: _statistics(channel) for name, channel in zip(description.channels, values, strict=True)
        },
        shown=Shown(
            field_of_view_mm=_as_triple(np.max(fields_mm, axis=0).tolist()),
            darkest={
                name: round(float(value), 4)
                for name, value in zip(description.channels, np.median(darkest, axis=0), strict=True)
            },
        ),
    )


def _statistics(values: NDArray[np.float32]) -> dict[str, float]:
    low, high = np.percentile(values, (0.5, 99.5))
    return {
        "percentile_00_5": round(float(low), 4),
        "percentile_99_5": round(float(high), 4),
        "mean": round(float(values.mean(dtype=np.float64)), 4),
        "std": round(float(values.std(dtype=np.float64)), 4),
    }


def _as_triple(values: Sequence[float]) -> tuple[float, float, float]:
    i, j, k = (round(float(value), 5) for value in values)
    return i, j, k
