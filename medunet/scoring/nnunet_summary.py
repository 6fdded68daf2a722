"""Content of summary.json in the format of nnU-Net v2."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from medunet.records.scores import CaseScore


def nnunet_summary(
    scores: Sequence[CaseScore], targets: Mapping[str, tuple[int, ...]], mask_ending: str
) -> dict[str, Any]:
    """Return the content of summary.json, with files named by case id.

    It differs from nnU-Net's in two ways: a missing or failed case has Dice and IoU 0 and counts in the means, where
    nnU-Net leaves it out; and undefined values become null, where nnU-Net writes NaN.
    """
    keys = {name: str(values[0]) if len(values) == 1 else str(values) for name, values in targets.items()}
    cases: dict[str, dict[str, Any]] = {}
    for score in scores:
        file = f"{score.case}{mask_ending}"
        case = cases.setdefault(
            score.case,
            {
                "metrics": {},
                "prediction_file": None if score.status == "missing" else file,
                "reference_file": file,
            },
        )
        case["metrics"][keys[score.label]] = _nnunet_metrics(score)
    labels = list(dict.fromkeys(keys[score.label] for score in scores))
    mean = {
        label: _mean_by_key([case["metrics"][label] for case in cases.values() if label in case["metrics"]])
        for label in labels
    }
    return {
        "foreground_mean": _mean_by_key(list(mean.values())),
        "mean": mean,
        "metric_per_case": list(cases.values()),
    }


def _nnunet_metrics(score: CaseScore) -> dict[str, float]:
    if score.tp is None or score.fp is None or score.fn is None or score.tn is None:
        unknown = dict.fromkeys(("FN", "FP", "TN", "TP", "n_pred", "n_ref"), math.nan)
        return {"Dice": 0.0, "IoU": 0.0, **unknown}
    return {
        "Dice": score.dice,
        "FN": score.fn,
        "FP": score.fp,
        "IoU": score.iou,
        "TN": score.tn,
        "TP": score.tp,
        "n_pred": score.tp + score.fp,
        "n_ref": score.tp + score.fn,
    }


def _mean_by_key(rows: list[dict[str, float]]) -> dict[str, float]:
    means = pd.DataFrame(rows).mean()  # over the defined values
    return {str(key): float(value) for key, value in means.items()}
