"""The verdict on a case: what asks for a review, by the thresholds of the configuration, and what to bear in mind."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from medunet.base.words import list_some
from medunet.records.config import ReportConfig
from medunet.records.scores import UNSCORED
from medunet.reporting.case_parts import Severity
from medunet.reporting.page import number_text
from medunet.reporting.scores import SIZE_UNITS, Measure, Unit, has_note, measures
from medunet.scoring.columns import percentile_of

_MAX_NAMED = 4  # targets named in one reason


@dataclass(frozen=True)
class Verdict:
    """The verdict on a case: its severity, a headline, and the reasons, most serious first."""

    severity: Severity
    headline: str
    reasons: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The headline with the first reason, as the list of cases shows it."""
        if not self.reasons:
            return self.headline
        more = len(self.reasons) - 1
        return f"{self.headline}: {self.reasons[0]}" + (
            f", and {more} more reason{'s' * (more > 1)}" if more else ""
        )


def judge_case(
    rows: pd.DataFrame,
    lesions: pd.DataFrame | None,
    settings: ReportConfig,
    unit: Unit = "mm",
    *,
    cut: Mapping[str, str] | None = None,
    stale: Sequence[str] = (),
    noun: str = "lesion",
) -> Verdict:
    """Return the verdict on a scored case.

    Whatever the thresholds, these ask for a review: swapped labels, a target missed, invented or with a Dice of 0, a
    counted lesion missed or invented, a mask cut by the border of the scan, and masks that changed since scoring.

    Args:
        rows: the case's rows of scores.csv.
        lesions: its rows of lesions.csv, if lesions were scored.
        settings: the thresholds.
        unit: px for 2D pictures, which have no distances in mm.
        cut: by target, which mask reaches which border; None: by the notes of the scores.
        stale: what changed since scoring.
        noun: what a lesion is called, such as "object".
    """
    for status in ("failed", "missing"):
        if (rows["status"] == status).any():
            given = dict.fromkeys(rows.loc[rows["status"] == status, "reason"].tolist())
            found = [reason for reason in given if reason]
            default = "the case could not be scored" if status == "failed" else "there is no prediction"
            return Verdict("failed", f"{status.capitalize()}: {'; '.join(found) or default}")
    reasons = [
        *stale,
        *_swapped(rows),
        *_whole_targets(rows, unit),
        *_lesion_reasons(lesions, unit, noun),
        *_threshold_reasons(rows, settings, unit),
        *_cut_reasons(_cut_by_notes(rows) if cut is None else cut, settings),
    ]
    if reasons:
        return Verdict("review", "Review", tuple(reasons))
    defined = rows[rows["dice"].notna()]
    if defined.empty:
        return Verdict("none", "Nothing to find, and nothing was predicted")
    lowest, label = min(zip(defined["dice"], defined["label"], strict=True), key=lambda pair: pair[0])
    which = f" ({label})" if len(defined) > 1 else ""
    text = f"{'lowest ' if which else ''}Dice {lowest:.3f}{which}"
    counted = 0 if lesions is None else int(lesions["counted"].sum())
    text += f", {counted} of {counted} {noun}{'' if counted == 1 else 's'} found" if counted else ""
    return Verdict("good", f"Within the thresholds: {text}")


def judge_new(
    volumes_ml: Mapping[str, float],
    settings: ReportConfig,
    unit: Unit = "mm",
    *,
    cut: Mapping[str, str],
    agreement: Mapping[str, float],
) -> Verdict:
    """Return the verdict on a mask without a reference, which can only be judged by itself.

    Args:
        volumes_ml: volume by target, or area in 1000 pixels in a picture.
        settings: the thresholds.
        unit: px for 2D pictures.
        cut: by target, which mask reaches which border.
        agreement: by target, the share of its voxels on which all networks agree; empty for a single network.
    """
    least = settings.min_agreement
    poor = [
        (share, f"{name} {100 * share:.0f}%")
        for name, share in agreement.items()
        if least is not None and share < least
    ]
    reasons = [*_cut_reasons(cut, settings)]
    if poor:
        what = list_some([text for _, text in sorted(poor)], _MAX_NAMED)
        reasons.append(f"the networks agree on less than {100 * (least or 0):.0f}% of the voxels of {what}")
    present = [f"{name} {_size_text(volume, unit)}" for name, volume in volumes_ml.items() if volume > 0]
    if not present:
        reasons.insert(0, "nothing was found")
    if reasons:
        return Verdict("review", "Review", tuple(reasons))
    return Verdict("none", f"Found: {list_some(present, _MAX_NAMED)}")


def describe_thresholds(
    settings: ReportConfig, unit: Unit = "mm", *, has_reference: bool = True, noun: str = "lesion"
) -> str:
    """Return the thresholds of the verdict as a sentence."""
    parts = []
    if has_reference:
        if settings.min_dice is not None:
            parts.append(f"Dice below {settings.min_dice:g}")
        parts += [f"Dice of {name} below {dice:g}" for name, dice in settings.target_min_dice.items()]
        if settings.max_hd95_mm is not None and unit == "mm":
            parts.append(f"robust HD above {settings.max_hd95_mm:g} mm")
        if settings.max_volume_error is not None:
            size = "volume" if unit == "mm" else "area"
            parts.append(f"{size} off by more than {100 * settings.max_volume_error:g}%")
        parts.append(f"a target or {noun} missed or invented")
    else:
        parts.append("nothing found")
        if settings.min_agreement is not None:
            parts.append(f"networks that agree on less than {100 * settings.min_agreement:g}% of a target")
    if unit == "mm" and settings.may_be_cut != "all":
        allowed = f" (allowed for {', '.join(settings.may_be_cut)})" if settings.may_be_cut else ""
        parts.append(f"a mask cut by the border of the scan{allowed}")
    return f"These ask for a review: {'; '.join(parts)}."


def _swapped(rows: pd.DataFrame) -> Iterable[str]:
    pairs = zip(rows["label"], rows["notes"], strict=True)
    if swapped := [label for label, notes in pairs if has_note(notes, "swapped")]:
        yield f"labels look swapped: {list_some(swapped, _MAX_NAMED)}"


def _whole_targets(rows: pd.DataFrame, unit: Unit) -> Iterable[str]:
    """Yield the targets that are missed, invented or elsewhere as a whole, the largest first."""
    apart = (rows["status"] == "ok") & (rows["dice"] == 0)
    for what, own, column in (
        ("missed", rows[rows["status"] == "missed"], "reference_ml"),
        ("invented", rows[rows["status"] == "false_positive"], "predicted_ml"),
        ("Dice 0, the masks do not overlap", rows[apart], "reference_ml"),
    ):
        sizes = own[column] if column in own else pd.Series(math.nan, index=own.index)
        named = [
            f"{label}{f' ({_size_text(size, unit)})' if not math.isnan(size) else ''}"
            for size, label in sorted(
                zip(sizes, own["label"], strict=True), key=lambda pair: -_or_zero(pair[0])
            )
        ]
        if named:
            yield f"{what}: {list_some(named, _MAX_NAMED)}"


def _lesion_reasons(lesions: pd.DataFrame | None, unit: Unit, noun: str) -> Iterable[str]:
    if lesions is None:
        return
    for label in lesions["label"].drop_duplicates():
        own = lesions[(lesions["label"] == label) & lesions["counted"]]
        num_lesions = int((own["status"] != "false_positive").sum())
        for status, word, column in (
            ("missed", "missed", "reference_ml"),
            ("false_positive", "invented", "predicted_ml"),
        ):
            wrong = own[own["status"] == status]
            if wrong.empty:
                continue
            of = f" of {num_lesions}" if status == "missed" else ""
            largest = float(wrong[column].max())
            upto = "up to " if len(wrong) > 1 else ""
            size = "" if math.isnan(largest) else f" ({upto}{_size_text(largest, unit)})"
            yield f"{noun}s of {label}: {len(wrong)}{of} {word}{size}"


def find_asking(rows: pd.DataFrame, settings: ReportConfig, unit: Unit) -> set[str]:
    """Return the targets that are missed, invented, or beyond a threshold."""
    wrong = rows["status"].isin(["missed", "false_positive", *UNSCORED]) | (rows["dice"] == 0)
    asking = {*rows.loc[wrong, "label"]}
    for find in (_low_dice, _far, _off):
        asking |= {label for _, label in find(rows, settings, unit)}
    return asking


def _low_dice(rows: pd.DataFrame, settings: ReportConfig, unit: Unit) -> list[tuple[float, str]]:
    """Return the targets with a Dice below their threshold, and above 0, the lowest first."""
    low = []
    for dice, label in zip(rows["dice"], rows["label"], strict=True):
        least = settings.target_min_dice.get(label, settings.min_dice)
        if least is not None and 0 < dice < least:
            low.append((dice, label))
    return sorted(low)


def _far(rows: pd.DataFrame, settings: ReportConfig, unit: Unit) -> list[tuple[float, str]]:
    """Return the targets with a robust Hausdorff distance beyond the threshold, the largest first."""
    measure, most = _robust_distance(rows, unit), settings.max_hd95_mm
    if measure is None or most is None or unit == "px":
        return []
    scored = rows[rows["status"] == "ok"]
    pairs = zip(scored[measure.column], scored["label"], strict=True)
    return sorted(((value, label) for value, label in pairs if value > most), reverse=True)


def _off(rows: pd.DataFrame, settings: ReportConfig, unit: Unit) -> list[tuple[float, str]]:
    """Return the targets whose relative volume error is beyond the threshold, the largest first."""
    most = settings.max_volume_error
    scored = rows[(rows["status"] == "ok") & (rows["dice"] > 0)]
    if most is None or not {"reference_ml", "predicted_ml"} <= set(rows.columns):
        return []
    errors = (scored["predicted_ml"] - scored["reference_ml"]) / scored["reference_ml"]
    pairs = zip(errors, scored["label"], strict=True)
    return sorted(
        ((value, label) for value, label in pairs if abs(value) > most), key=lambda pair: -abs(pair[0])
    )


def _robust_distance(rows: pd.DataFrame, unit: Unit) -> Measure | None:
    distances = [each for each in measures(rows, unit) if percentile_of(each.column)]
    return distances[-1] if distances else None


def _threshold_reasons(rows: pd.DataFrame, settings: ReportConfig, unit: Unit) -> Iterable[str]:
    if low := _low_dice(rows, settings, unit):
        limits = {settings.target_min_dice.get(label, settings.min_dice) for _, label in low}
        below = " or ".join(f"{limit:g}" for limit in sorted(filter(None, limits)))
        yield f"Dice below {below}: {list_some([f'{label} {dice:.3f}' for dice, label in low], _MAX_NAMED)}"
    measure = _robust_distance(rows, unit)
    if measure is not None and (far := _far(rows, settings, unit)):
        named = [f"{label} {number_text(value, 1)} mm" for value, label in far]
        heading = measure.heading.removesuffix(" mm")
        yield f"{heading} above {settings.max_hd95_mm:g} mm: {list_some(named, _MAX_NAMED)}"
    if off := _off(rows, settings, unit):
        named = [f"{label} {number_text(100 * value, 0, signed=True)}%" for value, label in off]
        size, most = "volume" if unit == "mm" else "area", 100 * (settings.max_volume_error or 0)
        yield f"{size} off by more than {most:g}%: {list_some(named, _MAX_NAMED)}"


def _cut_reasons(cut: Mapping[str, str], settings: ReportConfig) -> Iterable[str]:
    if settings.may_be_cut == "all":
        return
    named = [
        f"{name} ({text})" if text else name for name, text in cut.items() if name not in settings.may_be_cut
    ]
    if named:
        yield f"cut by the border of the scan: {list_some(named, _MAX_NAMED)}"


def _cut_by_notes(rows: pd.DataFrame) -> dict[str, str]:
    scored = rows[~rows["status"].isin(UNSCORED)]
    pairs = zip(scored["label"], scored["notes"], strict=True)
    return {label: "" for label, notes in pairs if has_note(notes, "border")}


def _size_text(size_ml: float, unit: Unit) -> str:
    name, factor = SIZE_UNITS[unit]
    return f"{number_text(factor * size_ml, 2 if unit == 'mm' else 0)} {name}"


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
