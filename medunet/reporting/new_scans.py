"""Report of new scans without references: a page for each, and a list of them, as offline HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medunet.base.files import write_text
from medunet.base.progress import track
from medunet.records.config import ReportConfig
from medunet.records.description import Description
from medunet.records.mask_journal import read_mask_index
from medunet.records.scores import LesionPreset
from medunet.reporting.case_page import case_page
from medunet.reporting.case_parts import CaseParts, CaseSummary, Links
from medunet.reporting.page import page_names, render
from medunet.reporting.scans import Scan, read_scan, scan_or_reason
from medunet.reporting.scores import SEVERITY_ORDER
from medunet.reporting.viewer import copy_assets


@dataclass(frozen=True)
class NewScan:
    """A scan that was predicted: its case, an image per channel in the description's order, and its mask."""

    case: str
    images: Sequence[Path]
    mask: Path
    resample: bool = False  # channels on another grid were resampled to the first one's


def report_new_scans(
    scans: Sequence[NewScan],
    description: Description,
    folder: Path,
    *,
    failed: Mapping[str, str],
    settings: ReportConfig | None = None,
    lesion_rules: Mapping[str, LesionPreset] | None = None,
) -> Path:
    """Write `report/index.html` and `report/cases/*.html` below a folder of masks and return the path of the index.

    Pages of other scans in the same folder stay, but are not listed. A scan that failed is listed with its reason.

    Args:
        scans: those that were predicted, and those that failed.
        description: of the model, which its masks follow.
        folder: of the masks, with their index.json.
        failed: reasons by case.
        settings: thresholds of the verdicts; None: the defaults.
        lesion_rules: targets whose lesions are listed; without any, the parts of up to 6 targets.
    """
    index = read_mask_index(folder)
    report = folder / "report"
    copy_assets(report)
    names = page_names(scan.case for scan in scans)
    entries: list[tuple[str, CaseSummary]] = []
    for scan in track(scans, "Report"):
        parts = CaseParts(
            case_id=scan.case,
            page=names[scan.case],
            description=description,
            rows=pd.DataFrame(columns=["case", "label", "status", "surface", "dice", "reason", "notes"]),
            links=Links(),
            entry=_entry(index, scan.case),
            lesion_rules=lesion_rules or {},
        )
        volumes = failed[scan.case] if scan.case in failed else _load(scan, description, index.get("targets"))
        html, summary = case_page(parts, volumes, settings)
        write_text(report / "cases" / names[scan.case], html)
        entries.append((scan.case, summary))
    entries.sort(key=lambda entry: SEVERITY_ORDER[entry[1].severity])  # stable
    page = report / "index.html"
    title = description.title or description.name
    write_text(page, render("scans.html", styles=("case.css",), title=f"New scans: {title}", entries=entries))
    return page


def _entry(index: Mapping[str, Any], case: str) -> Mapping[str, Any]:
    entry: Mapping[str, Any] = index.get("cases", {}).get(case, {})
    return entry


def _load(scan: NewScan, description: Description, targets: Mapping[str, Sequence[int]] | None) -> Scan | str:
    """Return the volumes of a scan, or the reason why they cannot be shown."""
    images = dict(zip(description.channels, scan.images, strict=True))
    return scan_or_reason(
        lambda: read_scan(
            images,
            description,
            scan.mask,
            predicted_targets=targets,
            resample_channels=scan.resample,
            keep_integers=True,
            where=f"case {scan.case}",
        )
    )
