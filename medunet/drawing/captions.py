"""What a picture of an error says about it."""

import math

from medunet.records.finding import Finding, FindingKind

_KINDS: dict[FindingKind, str] = {
    "surface_distance": "worst surface distance",
    "missed_lesion": "missed lesion",
    "false_positive_lesion": "false positive lesion",
    "lesion": "part",
    "false_negative": "largest false negative region",
    "false_positive": "largest false positive region",
}


def caption(finding: Finding, unit: str = "mm", target: str | None = None, noun: str = "lesion") -> str:
    """Return what a finding is, with its size: "tumour: missed lesion 3, 0.42 ml, long axis 11.8 mm".

    `target` is what stands for the target's name, by default the name without underscores; `noun` is what a lesion is
    called, such as "object" where a dataset numbers them.
    """
    number = f" {finding.lesion}" if finding.lesion is not None else ""
    name = finding.target.replace("_", " ") if target is None else target
    parts = [f"{name}: {_KINDS[finding.kind].replace('lesion', noun)}{number}"]
    if not math.isnan(finding.volume_ml):
        parts.append(f"{volume_text(finding.volume_ml)} ml")
    if not math.isnan(finding.length_mm):
        length = "infinite" if math.isinf(finding.length_mm) else f"{finding.length_mm:.1f} {unit}"
        parts.append(length if finding.kind == "surface_distance" else f"long axis {length}")
    return ", ".join(parts)


def volume_text(volume_ml: float) -> str:
    """Return a volume in ml with two decimals, or two significant digits where it is below 0.1 ml."""
    return f"{volume_ml:.2f}" if volume_ml >= 0.1 else f"{volume_ml:.2g}"
