"""Detect outliers in a dataset: intensities on another scale (N012) and labels of unusual volume (L007).

Logarithms are compared with their median and median absolute deviation (MAD). 1.4826 MAD is an estimate of the
standard deviation that is robust to outliers (Leys et al. 2013, doi:10.1016/j.jesp.2013.03.013).
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from medunet.dataset.checks.case_facts import CaseFacts
from medunet.dataset.checks.fault_codes import make_fault
from medunet.records.description import Description
from medunet.records.fault import Fault

_MIN_COHORT = 10  # cases needed to estimate the distribution
_DEVIATIONS = 5.0  # robust standard deviations of the logarithm ...
_INTENSITY_FACTOR = 10.0  # ... and at least this factor from the median: scanners differ by less,
_VOLUME_FACTOR = 2.0  # as do the organs of most patients


@dataclass(frozen=True)
class Outlier:
    """An outlier: its index, its factor from the median, and the usual range."""

    index: int
    factor: float
    low: float
    high: float


def find_outliers(values: Sequence[float], least_factor: float) -> Iterator[Outlier]:
    """Yield the outliers among positive values, on a logarithmic scale; none among fewer than ten values."""
    if len(values) < _MIN_COHORT:
        return
    logs = np.log(values)
    median = float(np.median(logs))
    deviation = 1.4826 * float(np.median(np.abs(logs - median)))
    limit = max(_DEVIATIONS * deviation, math.log(least_factor))
    low, high = math.exp(median - limit), math.exp(median + limit)
    for index in np.flatnonzero(np.abs(logs - median) > limit).tolist():
        yield Outlier(index, math.exp(abs(logs[index] - median)), low, high)


def check_intensities(description: Description, facts: Sequence[CaseFacts]) -> Iterator[Fault]:
    """Yield faults for MR images whose 99.5th percentile is far from the dataset's median, for each channel."""
    by_channel: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for each in facts:
        for volume in each.images:
            for name, bright in volume.bright.items():
                if description.channels[name].modality == "MR" and math.isfinite(bright) and bright > 0:
                    by_channel[name].append((each.case.id, bright))
    for name, pairs in by_channel.items():
        for outlier in find_outliers([bright for _, bright in pairs], _INTENSITY_FACTOR):
            case_id, bright = pairs[outlier.index]
            yield make_fault(
                "N012",
                case_id,
                name,
                f"99.5th percentile {_number(bright)}, a factor of {_number(outlier.factor)} from the median",
                expected=f"{_number(outlier.low)} to {_number(outlier.high)}",
            )


def check_volumes(description: Description, facts: Sequence[CaseFacts]) -> Iterator[Fault]:
    """Yield faults for labels whose volume is far from the dataset's median, except for instances."""
    if description.instances:
        return
    for name in description.foreground:
        value = description.labels[name]
        pairs = [
            (each.case.id, volume_ml)
            for each in facts
            if each.label and (volume_ml := each.label.volumes_ml.get(value, 0.0)) > 0
        ]
        for outlier in find_outliers([volume_ml for _, volume_ml in pairs], _VOLUME_FACTOR):
            case_id, volume_ml = pairs[outlier.index]
            yield make_fault(
                "L007",
                case_id,
                "label",
                f"{name} has {_number(volume_ml)} ml, a factor of {_number(outlier.factor)} from the median",
                expected=f"{_number(outlier.low)} to {_number(outlier.high)} ml",
            )


def _number(value: float) -> str:
    return f"{value:.0f}" if 100 <= value < 1e6 else f"{value:.3g}"
