"""The metrics by their column in scores.csv: how a column is named, where its values are, and what it measures."""

import math
import re
from collections.abc import Callable, Sequence
from operator import attrgetter

from medunet.records.scores import CaseScore

# They count the background: they grow with the field of view, and say nothing beside those of another.
FIELD_OF_VIEW_COLUMNS = ("specificity", "accuracy", "balanced_accuracy", "mcc", "kappa")

_OVERLAPS = ("dice", "iou", "precision", "recall", "f1", "specificity", "accuracy")
_OTHERS = ("f2", "balanced_accuracy", "mcc", "kappa", "difference_ml", "relative_difference")
LESION_COLUMNS = {
    **{f"lesion_{name}": name for name in ("sensitivity", "precision", "f1", "dice", "hd95_mm")},
    **{name: name for name in ("rq", "sq", "pq")},
}  # column -> field of CaseLesions
OPTIONAL_COLUMNS = (*LESION_COLUMNS, "cldice")  # of the targets that the configuration names
_ZERO_WHERE_UNSCORED = (
    *("dice", "iou", "recall", "f1", "f2", "cldice"),
    *("lesion_sensitivity", "lesion_f1", "lesion_dice", "rq", "pq"),
)
_HIGHER_IS_BETTER = (  # F1 is Dice
    *("dice", "iou", "precision", "recall", "f2", "specificity", "accuracy"),
    *("balanced_accuracy", "mcc", "kappa", "cldice"),
    *("lesion_sensitivity", "lesion_precision", "lesion_f1", "lesion_dice", "rq", "sq", "pq"),
)


def metric_columns(scores: Sequence[CaseScore]) -> dict[str, Callable[[CaseScore], float]]:
    """Return the metrics by their column in `scores.csv`, each with the way to its value, in that order.

    A column names the percentile, the way that both directions are joined unless it is their maximum, and the
    tolerances: `hd95_mm`, `hd95_pooled_mm`, `nsd_1mm`. Columns of lesions are there where any score has lesions.
    """
    kinds = {(score.percentile, score.hd95) for score in scores} or {(95.0, "max")}
    assert len(kinds) == 1, f"scores at several percentiles or modes {kinds} share no column"
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
    """Return the column of the distance at a percentile."""
    return next(name for name in metric_columns(scores) if percentile_of(name))


def percentile_of(column: str) -> tuple[str, bool] | None:
    """Return the percentile that a column such as hd95_pooled_mm names, and whether it pools both directions."""
    match = re.fullmatch(r"hd([\d.]+)(_pooled)?_mm", column)
    return (match[1], match[2] is not None) if match else None


def is_zero_where_unscored(column: str) -> bool:
    """Return whether a missing or failed case counts as 0: the metric falls with what was not found."""
    return column in _ZERO_WHERE_UNSCORED or column.startswith("nsd_")


def is_distance(column: str) -> bool:
    """Return whether a column holds distances in mm, which a miss makes infinite: `hd95_mm`, not `nsd_1mm`."""
    return column.endswith("_mm")


def higher_is_better(column: str) -> bool:
    """Return whether more of a metric is better; less of a distance or a volume's error is."""
    return column in _HIGHER_IS_BETTER or column.startswith("nsd_")
