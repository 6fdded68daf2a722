"""The metric columns of scores.csv: their names, where their values come from, and what they measure."""

import math
import re
from collections.abc import Callable, Sequence
from operator import attrgetter

from medunet.records.scores import CaseScore

# These metrics count the background. They grow with the field of view and cannot be compared across fields of view.
FIELD_OF_VIEW_COLUMNS = ("specificity", "accuracy", "balanced_accuracy", "mcc", "kappa")

_OVERLAPS = ("dice", "iou", "precision", "recall", "f1", "specificity", "accuracy")
_OTHERS = ("f2", "balanced_accuracy", "mcc", "kappa", "difference_ml", "relative_difference")
LESION_COLUMNS = {
    **{f"lesion_{name}": name for name in ("sensitivity", "precision", "f1", "dice", "hd95_mm")},
    **{name: name for name in ("rq", "sq", "pq")},
}  # column -> field of CaseLesions
OPTIONAL_COLUMNS = (*LESION_COLUMNS, "cldice")  # only for targets named in the configuration
_ZERO_WHERE_UNSCORED = (
    *("dice", "iou", "recall", "f1", "f2", "cldice"),
    *("lesion_sensitivity", "lesion_f1", "lesion_dice", "rq", "pq"),
)
_OTHER_METRICS = ("hd_mm", "assd_mm", "masd_mm", "reference_ml", "predicted_ml")
_HIGHER_IS_BETTER = (  # F1 is Dice
    *("dice", "iou", "precision", "recall", "f2", "specificity", "accuracy"),
    *("balanced_accuracy", "mcc", "kappa", "cldice"),
    *("lesion_sensitivity", "lesion_precision", "lesion_f1", "lesion_dice", "rq", "sq", "pq"),
)


def metric_columns(scores: Sequence[CaseScore]) -> dict[str, Callable[[CaseScore], float]]:
    """Return the metric columns of scores.csv in their order, each with a function that gets its value from a score.

    Names contain the percentile, `pooled` if both directions are pooled, and the tolerance: `hd95_mm`,
    `hd95_pooled_mm`, `nsd_1mm`. There are lesion columns if any score has lesions, and `cldice` if any score has it.
    """
    kinds = {(score.percentile, score.hd95) for score in scores} or {(95.0, "max")}
    assert len(kinds) == 1, f"scores with different percentiles or modes {kinds} cannot share a column"
    tolerances = sorted({tolerance for score in scores for tolerance in score.nsd})

    def nsd(tolerance: float) -> Callable[[CaseScore], float]:
        return lambda score: score.nsd.get(tolerance, math.nan)

    def lesion(field: str) -> Callable[[CaseScore], float]:
        return lambda score: math.nan if score.lesions is None else getattr(score.lesions, field)

    ((percentile, mode),) = kinds
    robust = f"hd{percentile:g}_mm" if mode == "max" else f"hd{percentile:g}_{mode}_mm"
    fields = {name: name for name in (*_OVERLAPS, "hd_mm")}
    fields |= {robust: "hd95_mm", "assd_mm": "assd_mm", "masd_mm": "masd_mm"}
    columns: dict[str, Callable[[CaseScore], float]] = {
        column: attrgetter(field) for column, field in fields.items()
    }
    columns |= {f"nsd_{tolerance:g}mm": nsd(tolerance) for tolerance in tolerances}
    columns |= {field: attrgetter(field) for field in ("reference_ml", "predicted_ml", *_OTHERS)}
    if not all(math.isnan(score.cldice) for score in scores):
        columns["cldice"] = attrgetter("cldice")
    if any(score.lesions is not None for score in scores):
        columns |= {column: lesion(field) for column, field in LESION_COLUMNS.items()}
    return columns


def robust_column(scores: Sequence[CaseScore]) -> str:
    """Return the column of the robust Hausdorff distance, such as hd95_mm."""
    return next(name for name in metric_columns(scores) if percentile_of(name))


def percentile_of(column: str) -> tuple[str, bool] | None:
    """Return the percentile in a name such as hd95_pooled_mm, and whether both directions are pooled."""
    match = re.fullmatch(r"hd([\d.]+)(_pooled)?_mm", column)
    return (match[1], match[2] is not None) if match else None


def is_metric(column: str) -> bool:
    """Return whether a column of scores.csv is a metric; any other column holds text."""
    known = (*_OVERLAPS, *_OTHERS, *_OTHER_METRICS, *OPTIONAL_COLUMNS)
    return column in known or percentile_of(column) is not None or _is_nsd(column)


def bounds_of(column: str) -> tuple[float, float]:
    """Return the smallest and the largest value that a metric can have; infinite if there is none."""
    if column in ("mcc", "kappa"):
        return -1.0, 1.0
    if column == "difference_ml":
        return -math.inf, math.inf
    if column == "relative_difference":
        return -1.0, math.inf
    return 0.0, math.inf if column.endswith(("_mm", "_ml")) else 1.0


def is_zero_where_unscored(column: str) -> bool:
    """Return whether a missing or failed case counts as 0: metrics that measure how much was found."""
    return column in _ZERO_WHERE_UNSCORED or column.startswith("nsd_")


def is_distance(column: str) -> bool:
    """Return whether a column holds distances in mm, which are infinite for a miss: `hd95_mm`, not `nsd_1mm`."""
    return column.endswith("_mm")


def higher_is_better(column: str) -> bool:
    """Return whether higher values of a metric are better; for distances and volume errors, lower values are."""
    return column in _HIGHER_IS_BETTER or column.startswith("nsd_")


def _is_nsd(column: str) -> bool:
    return re.fullmatch(r"nsd_[\d.]+(e-?\d+)?mm", column) is not None
