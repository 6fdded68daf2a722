"""A score table of six cases with everything that can happen to one."""

import math

import pandas as pd


def score_table_of(*rows: tuple[str, str, str, float, float]) -> pd.DataFrame:
    """Return a score table of these cases, labels, statuses, Dice and distances."""
    table = pd.DataFrame(rows, columns=["case", "label", "status", "dice", "hd_mm"])
    return table.assign(surface="voxel", reason="", notes=[()] * len(table))


SCORES = score_table_of(
    ("good", "liver", "ok", 0.9, 4.0),
    ("good", "tumour", "both_empty", math.nan, math.nan),
    ("gone", "liver", "missing", math.nan, math.nan),
    ("gone", "tumour", "missing", math.nan, math.nan),
    ("broken", "liver", "failed", math.nan, math.nan),
    ("broken", "tumour", "failed", math.nan, math.nan),
    ("missed", "liver", "ok", 0.95, 2.0),
    ("missed", "tumour", "missed", 0.0, math.inf),
    ("apart", "liver", "ok", 0.5, 60.0),
    ("apart", "tumour", "ok", 0.0, 50.0),
    ("empty", "liver", "both_empty", math.nan, math.nan),
    ("empty", "tumour", "both_empty", math.nan, math.nan),
)
