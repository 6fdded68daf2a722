"""Pictures of a compared case: each method's worst error, the same slices of a method without one, and a viewer."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medunet.drawing.palette import colour_targets
from medunet.records.config import ReportConfig
from medunet.records.description import Description
from medunet.records.finding import Finding
from medunet.records.manifest import Case
from medunet.reporting.case_parts import CaseParts
from medunet.reporting.errors_shown import Stills, describe_place, find_case_errors, show_errors
from medunet.reporting.scans import Scan, load_scan, scan_or_reason
from medunet.reporting.verdict import judge_case
from medunet.reporting.viewer import Viewer, make_viewer
from medunet.scoring.compare import Comparison


@dataclass(frozen=True)
class Images:
    """The scans of the compared cases, and the folders with each method's masks."""

    description: Description
    data_root: Path
    cases: Mapping[str, Case]
    masks: Mapping[str, Mapping[str, Path]]  # by method, then by case


@dataclass(frozen=True)
class Picture:
    """The worst error of one method in a case, or the slices of another's, or why there is none."""

    letter: str
    picture: str | None  # data URI
    text: str


@dataclass(frozen=True)
class Pictures:
    """What a case's page shows of its voxels."""

    of_methods: tuple[Picture, ...] = ()
    viewer: Viewer | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Loaded:
    """A method's mask of a case with its errors, worst first."""

    letter: str
    method: str
    scan: Scan
    stills: Stills
    findings: list[Finding]
    rows: pd.DataFrame


def draw_compared(
    case_id: str, rows: Mapping[str, pd.DataFrame | None], comparison: Comparison, images: Images
) -> Pictures:
    """Draw each method's worst error, and make the viewer with the masks of all methods.

    A method without any error is drawn in the slices of the first worst error of another.

    Args:
        case_id: the case.
        rows: its rows of each method's scores; None: it has none.
        comparison: the compared methods and targets.
        images: scans and masks.
    """
    case = images.cases.get(case_id)
    reasons, loaded = {}, []
    for method, letter in comparison.letters.items():
        scan, own = _load(case, images.masks.get(method, {}).get(case_id), images), rows[method]
        if isinstance(scan, str) or own is None:
            reasons[letter] = scan if isinstance(scan, str) else "it has no scores of this case"
            continue
        parts = CaseParts(case_id=case_id, page="", description=images.description, rows=own)
        stills = Stills(scan, images.description, own["label"])
        loaded.append(_Loaded(letter, method, scan, stills, find_case_errors(scan, parts), own))
    worst = next((each for each in loaded if each.findings), None)
    drawn = {each.letter: _draw(each, worst) for each in loaded}
    viewer = _view(loaded, (worst or loaded[0]), comparison, images) if loaded else None
    notices = dict.fromkeys(warning for each in loaded for warning in each.scan.warnings)
    return Pictures(
        tuple(
            drawn.get(letter) or Picture(letter, None, reasons[letter])
            for letter in comparison.letters.values()
        ),
        viewer,
        (*notices, *(viewer.notices if viewer else ())),
    )


def _draw(own: _Loaded, worst: _Loaded | None) -> Picture:
    """Draw a method's worst error, or the place of that of `worst`, if there is one."""
    if own.findings:
        (error,) = show_errors(own.findings[:1], own.stills, own.scan, 1)
        return Picture(own.letter, error.still, error.caption)
    verdict = judge_case(own.rows, None, ReportConfig(), own.scan.unit, noun=own.stills.noun).sentence
    if worst is None or own.scan.prediction is None or own.scan.reference is None:
        return Picture(own.letter, None, verdict)
    finding = worst.findings[0]
    place = describe_place(own.scan, finding.centre)
    text = f"no error here, in the slices of the worst error of {worst.letter}, {place}"
    return Picture(own.letter, own.stills.draw_place(finding, "no error here"), text)


def _view(loaded: list[_Loaded], lead: _Loaded, comparison: Comparison, images: Images) -> Viewer | None:
    """Return the viewer with all masks; it begins in the window of the picture of `lead`."""
    scan, stills = lead.scan, lead.stills
    targets = {name: images.description.targets[name] for name in comparison.labels}
    masks = {} if scan.reference is None else {"reference": scan.reference}
    for each in loaded:
        if each.scan.prediction is not None:
            masks[f"{each.letter}: {each.method}"] = each.scan.prediction
    return make_viewer(
        scan,
        targets,
        colour_targets(stills.targets),
        stills.viewer_presets(lead.findings),
        masks=masks,
        modalities={name: stills.modality_of(name) for name in stills.channels},
        shown_on={name: stills.channel_of(name) for name in targets},
        ignore_value=images.description.ignore_value,
    )


def _load(case: Case | None, mask: Path | None, images: Images) -> Scan | str:
    """Return the volumes of a case with a method's mask, or the reason why they cannot be shown."""
    if case is None or not case.images:
        return "no image of this case is known"
    if mask is None:
        return "its masks are not known: name their folder instead of scores.csv"
    return scan_or_reason(
        lambda: load_scan(case, images.description, images.data_root, mask, keep_integers=True)
    )
