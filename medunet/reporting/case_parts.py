"""What the page of a case is made from, and what the page of the cohort shows of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from medunet.records.description import Description
from medunet.records.fault import Fault
from medunet.records.manifest import Accepted
from medunet.records.scores import LesionPreset

# failed: no scores; review: a threshold is not kept; good: all are kept; none: nothing to judge.
Severity = Literal["failed", "review", "good", "none"]


@dataclass(frozen=True)
class Links:
    """File names of the pages of the next worse and the next better case, or None."""

    worse: str | None = None
    better: str | None = None


@dataclass(frozen=True)
class CaseParts:
    """What is known of a case besides its volumes."""

    case_id: str
    page: str  # file name of its page, in the folder cases/ of the report
    description: Description
    rows: (
        pd.DataFrame
    )  # its rows of scores.csv, one for each target; without rows for a scan without a reference
    lesions: pd.DataFrame | None = None  # its rows of lesions.csv, if lesions were scored
    links: Links = Links()
    fold: int | None = None  # in which the case is held out
    faults: tuple[Fault, ...] = ()  # that the data check found in this case
    accepted: tuple[Accepted, ...] = ()  # faults of this case that the user accepted, with reasons
    entry: Mapping[str, Any] = field(default_factory=dict)  # of the case in predictions/index.json
    provenance: Mapping[str, Any] = field(default_factory=dict)  # content of the run's provenance.json
    stale: tuple[str, ...] = ()  # what changed since the case was scored
    lesion_rules: Mapping[str, LesionPreset] = field(default_factory=dict)  # by target, without a reference
    use: str = (
        ""  # whether its model was trained on this case, or its weights chosen on it: see `describe_use`
    )


@dataclass(frozen=True)
class CaseSummary:
    """What the page of the cohort shows of a case; all values can be stored as JSON."""

    page: str  # file name
    severity: Severity
    verdict: str  # one sentence
    reasons: tuple[str, ...]  # why the case asks for a review, most serious first
    thumbnail: str | None  # data URI
    worst_picture: str | None  # data URI of the still of the worst error
    worst_text: str  # its caption; "" without an error
    trouble: str  # why there are no pictures; "" if there are
