"""What a report is made from, and what a reader wants of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from medunet.records.config import WITH_VOLUMES, ReportConfig
from medunet.records.description import Description
from medunet.records.fault import Fault
from medunet.records.manifest import Case, Manifest
from medunet.records.scores import LesionPreset
from medunet.reporting.stale import StaleScores


@dataclass(frozen=True, kw_only=True)
class ReportSource:
    """Score tables, the cases with their files, and what is known of their making."""

    name: str  # of the run or the folder
    report: Path  # folder to write
    scores: pd.DataFrame
    lesions: pd.DataFrame | None
    scores_json: Path  # it may be absent
    description: Description
    cases: Mapping[str, Case]
    predictions: Mapping[str, Path | None]  # by case; the file may be absent
    data_root: Path
    unreferenced: Mapping[str, Path] = field(default_factory=dict)  # masks of cases without a reference
    manifest: Manifest | None = None  # of the scored dataset, if there is one
    predicted_targets: Mapping[str, Sequence[int]] | None = None
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of predictions/index.json
    uses: Mapping[str, str] = field(default_factory=dict)  # by case: see `CaseParts.use`
    faults: Sequence[Fault] | None = None
    provenance: Mapping[str, Any] | None = None
    stale: StaleScores = field(default_factory=lambda: StaleScores({}))
    no_scan: str = ""  # why no case has pictures
    is_run: bool = False  # whose data can be checked
    has_selection: bool = False
    has_events: bool = False  # of its training, for TensorBoard


@dataclass(frozen=True)
class ReportOptions:
    """Thresholds, lesion rules, volumes, processes, and the columns whose values are groups of cases."""

    settings: ReportConfig = field(default_factory=ReportConfig)
    num_volumes: int | None = WITH_VOLUMES  # worst cases with volumes on their pages; None: all
    workers: int | None = None
    by: Sequence[str] = ()
    join: Path | None = None
    lesion_rules: Mapping[str, LesionPreset] = field(default_factory=dict)  # of cases without a reference
