"""What a case's page must say besides scores, grouped: faults by code, and the same remark on many targets once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from medunet.dataset.checks.fault_catalogue import FAULT_KINDS
from medunet.records.fault import Fault
from medunet.reporting.case_parts import CaseParts
from medunet.reporting.explanations import describe_faster_ways, score_remarks, training_warning
from medunet.reporting.scans import Scan

_ORDER = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Notice:
    """A notice at the top of a case's page; a long one has its details folded."""

    severity: Literal["error", "warning", "note"]
    heading: str
    text: str
    details: tuple[str, ...] = ()


def collect_notices(parts: CaseParts, scan: Scan | str, cut: Mapping[str, str]) -> list[Notice]:
    """Return the notices of a case, errors first; `cut` are the targets cut by the border (see `find_cut`)."""
    notices = [
        *(
            Notice(remark.severity, remark.heading, f"{remark.text}.")
            for remark in (score_remarks(parts.rows) if len(parts.rows) else ())
        ),
        *_fault_notices(parts),
        *_predicted_notices(parts),
        *(Notice("warning", "", text) for text in describe_faster_ways(parts.entry)),
    ]
    if text := training_warning(parts.provenance):
        notices.append(Notice("warning", "", text))
    if isinstance(scan, Scan):
        notices += [Notice("warning", "", text) for text in scan.warnings]
        if scan.is_resampled:
            text = "The prediction is shown as it was scored: resampled to the reference's grid."
            notices.append(Notice("note", "", text))
    if cut:
        notices.append(_border_notice(cut))
    return sorted(notices, key=lambda notice: _ORDER[notice.severity])


def _border_notice(cut: Mapping[str, str]) -> Notice:
    many = len(cut) > 1
    what = f"{len(cut)} targets reach" if many else f"{next(iter(cut))} reaches"
    text = (
        f"{what} the border of the scan and may be cut off. "
        "Volumes and distances are those of the visible part"
    )
    if not many:
        return Notice("warning", "Border", f"{text} ({next(iter(cut.values()))}).")
    return Notice("warning", "Border", f"{text}.", tuple(f"{name} ({where})" for name, where in cut.items()))


def _fault_notices(parts: CaseParts) -> list[Notice]:
    """Return a notice for each code of the faults that the data check found."""
    accepted = {entry.code: entry.reason for entry in parts.accepted}
    by_code: dict[tuple[str, str], list[Fault]] = {}
    for fault in parts.faults:
        by_code.setdefault((fault.severity, fault.code), []).append(fault)
    notices = []
    for (severity, code), faults in by_code.items():
        texts = [f"{each.subject}: measured {each.measured}, expected {each.expected}" for each in faults]
        reason = f" Accepted: {accepted[code]}." if code in accepted else ""
        one = len(faults) == 1
        text = f"{texts[0]}. {faults[0].hint}" if one else f"in {len(faults)} places. {faults[0].hint}"
        notices.append(
            Notice(faults[0].severity, f"{code} {severity}", f"{text}{reason}", () if one else tuple(texts))
        )
    return notices


def _predicted_notices(parts: CaseParts) -> list[Notice]:
    """Return what the checks found when the scan was predicted, without what the data check found as well."""
    known = {(fault.code, fault.subject) for fault in parts.faults}
    found: Sequence[Mapping[str, str]] = parts.entry.get("faults", [])
    notices = []
    for fault in found:
        if (fault["code"], fault.get("subject", "")) in known:
            continue
        accepted = f" (accepted: {fault['accepted']})" if "accepted" in fault else ""
        title = FAULT_KINDS[fault["code"]].title
        text = f"{fault['code']} {title}, {fault.get('subject', '')}: {fault['measured']}{accepted}."
        notices.append(Notice("warning", "Found when predicted", text))
    return notices
