"""Strata for stratified splits: each label's absence or volume, and the site."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medunet.base.errors import DataError, InputError
from medunet.base.pool import Lost, choose_workers, run_parallel
from medunet.base.progress import track
from medunet.imaging.volumes import read_header, read_label
from medunet.records.description import Description
from medunet.records.label_rules import LabelRules

_FEW = (
    3  # cases with a label are one stratum: thirds would be single cases, which may come to lie in one fold
)
_SIZES = ("small", "medium", "large")  # thirds of the cases that have a label


@dataclass(frozen=True)
class _LabelFile:
    """One label map to measure, with the values of its labels."""

    path: Path
    values: dict[str, int]
    rules: LabelRules


def measure_labels(
    labels: Mapping[str, Path], description: Description, may_fail: Collection[str] = ()
) -> dict[str, dict[str, float]]:
    """Return the volume of every foreground label in each case, in ml (1000 pixels in pictures), 0 if absent.

    Args:
        labels: label file of each case id.
        may_fail: ids of cases that are left out of the result if their label cannot be read.

    Raises:
        InputError: labels of other cases cannot be read; the message lists all of them.
    """
    values = {name: description.labels[name] for name in description.foreground}
    ids = sorted(labels)
    files = [_LabelFile(labels[case_id], values, description.label_rules) for case_id in ids]
    num_voxels = max((_count_voxels(file.path) for file in files), default=0)
    work = run_parallel(_measure, files, choose_workers(len(files), num_voxels))
    volumes, faults = {}, []
    for _ in track(files, "Label volumes"):
        index, result = next(work)
        if isinstance(result, dict):
            volumes[ids[index]] = result
        elif ids[index] not in may_fail:
            faults.append(f"case {ids[index]}: {result.why if isinstance(result, Lost) else result}")
    if faults:
        raise InputError(
            f"{len(faults)} label(s) cannot be read: {'; '.join(sorted(faults))}",
            where="stratify",
            hint="Correct the files or exclude the cases; make the manifest without --stratify and run "
            "`medunet check` for details.",
        )
    return volumes


def make_strata(
    volumes: Mapping[str, Mapping[str, float]], sites: Mapping[str, str | None]
) -> dict[str, frozenset[str]]:
    """Return the strata of each case: for every label its absence or its third by volume; and the site if known.

    Thirds are among the cases that have the label; equal volumes are in the same third. A label that only a few cases
    have is one stratum, so that they are spread over the folds and each fold trains on some of them. The order of the
    cases does not matter.

    Args:
        volumes: case id to label to volume, 0 where absent.
        sites: case id to site.
    """
    strata: dict[str, set[str]] = defaultdict(set)
    for label in sorted({name for sizes in volumes.values() for name in sizes}):
        present = [sizes[label] for sizes in volumes.values() if sizes[label] > 0]
        bounds = np.quantile(present, (1 / 3, 2 / 3)) if present else np.zeros(2)
        for case_id, sizes in volumes.items():
            third = _SIZES[int(np.searchsorted(bounds, sizes[label]))]
            kind = third if len(present) > _FEW else _SIZES[0]
            strata[case_id].add(f"{label} {kind if sizes[label] > 0 else 'absent'}")
    if any(site is not None for site in sites.values()):
        for case_id, site in sites.items():
            strata[case_id].add(f"site {site or 'unknown'}")
    return {case_id: frozenset(names) for case_id, names in strata.items()}


def _count_voxels(path: Path) -> int:
    """Return a label map's number of voxels, or 0 if its header cannot be read, which is reported on measuring."""
    try:
        return int(np.prod(read_header(path, label=True).shape))
    except DataError:
        return 0


def _measure(file: _LabelFile) -> dict[str, float] | str:
    """Return the volume of each label in ml, or the reason why the file cannot be read."""
    try:
        label = read_label(file.path, file.rules)
    except DataError as error:
        return error.what
    counts = np.zeros(256, dtype=np.int64)
    for part in label.array.T:  # one slice at a time: bincount widens its input to 8 bytes a voxel
        counts += np.bincount(part[part < 256], minlength=256)
    voxel_ml = abs(float(np.linalg.det(label.affine[:3, :3]))) / 1000
    return {name: float(counts[value] * voxel_ml) for name, value in file.values.items()}
