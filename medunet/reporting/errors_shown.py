"""The errors of a case as its page shows them: listed worst first, each with a still picture."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from medunet.drawing.captions import caption
from medunet.drawing.marks import Marks
from medunet.drawing.presets import Preset, display_presets
from medunet.drawing.scene import StillView
from medunet.drawing.still import draw_still, draw_thumbnail
from medunet.imaging.geometry import spacing_of
from medunet.imaging.whole_numbers import count_values
from medunet.records.description import Description
from medunet.records.finding import Finding
from medunet.records.scores import LesionPreset, Surface
from medunet.reporting.case_parts import CaseParts
from medunet.reporting.page import data_uri
from medunet.reporting.scans import Scan, position_name
from medunet.reporting.scores import Unit, name_lesions
from medunet.scoring.findings import find_errors
from medunet.scoring.lesion_presets import PRESETS

_MAX_CONTOURS = 6  # targets outlined in the overview
_MAX_STILLS, _MAX_STILLS_BESIDE_VIEWER = 24, 12
_FIRST_PX = 440  # of the planes of the first still
_SMALLER_PX = 400  # of the planes of all stills but the first


@dataclass(frozen=True)
class ShownError:
    """An error as the page lists it."""

    index: int  # in the order of the findings
    target: str
    text: str  # what it is, with its size
    place: str
    still: str | None  # data URI; None beyond the number or size of stills of a page
    caption: str


def find_case_errors(scan: Scan, parts: CaseParts) -> list[Finding]:
    """Return the errors of a case, worst first, measured as its scores were; none without both masks."""
    if scan.reference is None or scan.prediction is None:
        return []
    surfaces = [surface for surface in parts.rows["surface"] if surface in ("area", "voxel")]
    rules: dict[str, LesionPreset] = {}
    if parts.lesions is not None:
        for label, name in zip(parts.lesions["label"], parts.lesions["rules"], strict=True):
            if name in PRESETS:
                rules[label] = cast(LesionPreset, name)
    scored = set(parts.rows["label"])
    i_mm, j_mm, k_mm = spacing_of(scan.affine)
    return find_errors(
        scan.reference,
        scan.prediction,
        {name: values for name, values in parts.description.targets.items() if name in scored},
        (i_mm, j_mm, k_mm),
        rules=rules,
        unit=scan.unit,
        surface=cast(Surface, surfaces[0]) if surfaces else "area",
        ignore_value=parts.description.ignore_value,
        stored_codes=scan.stored_codes,
        numbers_reference=scan.numbers_reference,
        numbers_prediction=scan.numbers_prediction,
    )


def noun_of(description: Description) -> str:
    """Return what the lesions of a dataset are called."""
    return name_lesions(instances=description.instances)


class Stills:
    """Draws the stills of a case, each in the channel and the window of its target."""

    def __init__(self, scan: Scan, description: Description, names: Iterable[str]) -> None:
        """Prepare the stills of a scan with these targets."""
        self._scan, self._description = scan, description
        self.targets = {name: values for name, values in description.targets.items() if name in set(names)}
        self._overview = _choose_largest(scan, self.targets)
        self.noun = noun_of(description)
        self._windows: dict[str, list[Preset]] = {}

    @property
    def channels(self) -> list[str]:
        """The names of the channels, the one shown first in front."""
        return list(self._scan.channels) or [self._scan.channel]

    def modality_of(self, channel: str) -> str:
        """Return the modality of a channel."""
        known = self._description.channels.get(channel)
        return known.modality if known else self._scan.modality

    def channel_of(self, target: str | None) -> str:
        """Return the channel that a target is judged on."""
        wanted = self._description.shown_in.get(target or "", "")
        return wanted if wanted in self._scan.channels else self.channels[0]

    def presets_of(self, channel: str, target: str | None = None) -> list[Preset]:
        """Return the windows of a channel to choose from, the one for a target, or for all targets, first."""
        image, modality = self._scan.channels.get(channel, self._scan.image), self.modality_of(channel)
        if modality == "CT":
            return display_presets(image, modality, self.targets, target)
        if channel not in self._windows:  # percentiles do not depend on the target
            self._windows[channel] = display_presets(image, modality, self.targets)
        return self._windows[channel]

    def viewer_presets(self, findings: Sequence[Finding]) -> dict[str, list[Preset]]:
        """Return the windows of each channel; a viewer begins in that of the picture that leads the page.

        That picture is of the worst error, and without a reference of all targets.
        """
        leads = findings[0].target if findings and findings[0].kind != "lesion" else None
        return {channel: self.presets_of(channel, leads) for channel in self.channels}

    def describe_overview(self) -> str:
        """Return the caption of the picture of all targets."""
        few = len(self._overview) < len(self.targets)
        which = f"the {len(self._overview)} largest targets" if few else "all targets"
        if self._scan.unit == "px":
            return f"The whole picture with {which}"
        return f"Largest cross-sections of {which}"

    def draw(
        self, focus: Finding | None = None, *, channel: str | None = None, plane_px: int = _SMALLER_PX
    ) -> str:
        """Return a still as data URI: of an error, filled or as a distance between contours, or of all targets."""
        view = self.view(focus, channel)
        return data_uri(draw_still(view, focus, marks=_marks_of(focus), plane_px=plane_px))

    def draw_place(self, error: Finding, heading: str) -> str:
        """Return a still of the place of another mask's error as data URI, in which this one may be right."""
        return data_uri(
            draw_still(self.view(error), error, marks=_marks_of(error), plane_px=_FIRST_PX, heading=heading)
        )

    def draw_small(self, focus: Finding | None = None) -> str:
        """Return a small picture of an error, or of all targets, as data URI."""
        return data_uri(draw_thumbnail(self.view(focus), focus))

    def view(self, focus: Finding | None = None, channel: str | None = None) -> StillView:
        """Return how the scan is drawn: in the window of an error's target, or with all targets."""
        scan, target = self._scan, focus.target if focus else None
        channel = channel or self.channel_of(target)
        return StillView(
            image=scan.channels.get(channel, scan.image),
            affine=scan.affine,
            targets=self.targets if focus else self._overview,
            preset=self.presets_of(channel, target)[0],
            modality=self.modality_of(channel),
            reference=scan.reference,
            prediction=scan.prediction,
            unit=scan.unit,
            ignore_value=self._description.ignore_value,
            noun=self.noun,
        )


def _marks_of(focus: Finding | None) -> Marks:
    return "errors" if focus is not None and focus.kind not in ("surface_distance", "lesion") else "contours"


def _choose_largest(scan: Scan, targets: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the targets of the overview: the largest ones of the reference, or else of the prediction."""
    labels = scan.prediction if scan.reference is None else scan.reference
    if labels is None or len(targets) <= _MAX_CONTOURS:
        return dict(targets)
    counts = count_values(labels)
    sizes = {name: sum(counts.get(value, 0) for value in values) for name, values in targets.items()}
    largest = sorted(targets, key=lambda name: -sizes[name])[:_MAX_CONTOURS]
    return {name: targets[name] for name in targets if name in largest}


def show_errors(
    findings: Sequence[Finding], stills: Stills, scan: Scan, most_bytes: float, *, has_viewer: bool = False
) -> list[ShownError]:
    """Return all errors in their order, the first ones with stills, of about `most_bytes` together.

    Beside a viewer, in which all errors are found, there are fewer stills. The first one is the largest.
    """
    most_stills = _MAX_STILLS_BESIDE_VIEWER if has_viewer else _MAX_STILLS
    shown, num_bytes = [], 0
    for index, finding in enumerate(findings):
        text, place = describe_error(finding, scan.unit, stills.noun), describe_place(scan, finding.centre)
        still = None
        if index < most_stills and num_bytes < most_bytes:
            still = stills.draw(finding) if index else stills.draw(finding, plane_px=_FIRST_PX)
            num_bytes += len(still)
        channel = stills.channel_of(finding.target)
        caption = f"{finding.target}: {text}, {place}" + (
            f", in {channel}" if len(stills.channels) > 1 else ""
        )
        shown.append(ShownError(index, finding.target, text, place, still, caption))
    return shown


def describe_error(finding: Finding, unit: Unit, noun: str = "lesion") -> str:
    """Return what an error is, with its size, as its picture says it; `noun` is what a lesion is called."""
    return caption(finding, unit, "", noun).removeprefix(": ")


def describe_place(scan: Scan, voxel: tuple[int, int, int]) -> str:
    """Return the position of a voxel as pictures print it: in mm from the origin of the scan, or in pixels."""
    position = (scan.affine @ (*voxel, 1))[:3]
    if scan.unit == "px":  # the affine of pictures points against columns and rows
        column, row = (round(-float(along)) for along in position[:2])
        return f"at column {column}, row {row}"
    return f"at {' '.join(position_name(axis, float(mm)) for axis, mm in enumerate(position))} mm"
