"""The viewer of a case page: NiiVue on volumes that are written into the page, and its file beside the pages."""

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from medunet.base.files import atomic_write, hash_file, remove_unfinished
from medunet.drawing.captions import caption
from medunet.drawing.palette import FALSE_NEGATIVE, FALSE_POSITIVE
from medunet.drawing.presets import Preset
from medunet.records.finding import Finding
from medunet.reporting.page import json_script, render_part
from medunet.reporting.scans import Scan
from medunet.reporting.scores import Unit
from medunet.reporting.viewer_volumes import Box, Layout, encode_images, encode_mask, number_labels
from medunet.scoring.bits import find_box

_log = logging.getLogger(__name__)

# For `render(styles=..., scripts=...)` of a page with a viewer.
VIEWER_STYLES = ("viewer.css",)
VIEWER_SCRIPTS = (
    "viewer_volumes.js",
    "viewer_panes.js",
    "viewer.js",
    "viewer_marks.js",
    "viewer_controls.js",
    "viewer_input.js",
)
ASSETS = Path(__file__).parent / "assets"  # filled when medunet is installed, see hatch_build.py
LIBRARY, LICENCES = "niivue.umd.js", "niivue.LICENCES.txt"

_SIDE_BY_SIDE = 8  # channels at most: MAX_SIDE_BY_SIDE of viewer.js


@dataclass(frozen=True)
class Viewer:
    """The viewer's part of a page. It shows itself once it runs; until then only a line that says why not.

    While it runs, the page's `<html>` has the class `viewer-runs`, so that a page may hide stills on screen, not in
    print. A link or button with `data-finding="3"` anywhere on the page jumps to the fourth finding.
    """

    html: Markup
    notices: tuple[str, ...]  # what the page must say of it, such as a display at half the resolution


def make_viewer(
    scan: Scan,
    targets: Mapping[str, Sequence[int]],
    colours: Mapping[str, str],
    presets: Mapping[str, Sequence[Preset]],
    findings: Sequence[Finding] = (),
    *,
    masks: Mapping[str, NDArray] | None = None,
    modalities: Mapping[str, str] | None = None,
    shown_on: Mapping[str, str] | None = None,
    ignore_value: int | None = None,
    noun: str = "lesion",
    assets: str = "../assets",
) -> Viewer | None:
    """Return the viewer of a scan, or None if medunet was installed without NiiVue.

    Args:
        scan: image, channels and label maps in RAS+ axis order.
        targets: label values of each target, in the order of the page.
        colours: colour of each target as `#RRGGBB`.
        presets: windows of each channel, the default first. The channels are those of `scan.channels`, or
            `scan.channel` if there are none.
        findings: what can be jumped to, in the order of `data-finding`.
        masks: label maps on the scan's grid by name, if others than the scan's reference and prediction (two
            methods, say). One named "reference" is what errors are shown against.
        modalities: modality of each channel; one that is not named has the scan's.
        shown_on: the channel that shows a target best, if one does: jumps to its findings change to it.
        ignore_value: value in the reference whose voxels are no errors.
        noun: what a lesion is called.
        assets: folder of NiiVue as the page sees it, see `copy_assets`.
    """
    if not (ASSETS / LIBRARY).exists():
        return None
    images = dict(scan.channels) or {scan.channel: scan.image}
    stored = {"reference": scan.reference, "prediction": scan.prediction} if masks is None else masks
    label_maps = {name: labels for name, labels in stored.items() if labels is not None}
    spacing = [1.0, 1.0, 1.0] if scan.unit == "px" else [float(mm) for mm in voxel_sizes(scan.affine)]
    values = sorted({value for group in targets.values() for value in group})
    ignored = [] if ignore_value is None else [ignore_value]
    numbered = number_labels(label_maps, [*values, *ignored])
    number_of = {value: place + 1 for place, value in enumerate(sorted({*values, *ignored}))}
    layout, encoded = encode_images(list(images.values()), spacing, _find_important(numbered, findings))
    channel_of = {name: place for place, name in enumerate(images)}
    offset = [first for first, _ in layout.box]
    affine = np.array(scan.affine, np.float64)
    affine[:3, 3] += affine[:3, :3] @ offset
    data = {
        "unit": scan.unit,
        "size": [end - first for first, end in layout.box],
        "first": offset,
        "step": layout.step,
        "spacing": spacing,
        "affine": affine.tolist(),
        "channels": [
            {
                "name": name,
                "unit": "HU" if (modalities or {}).get(name, scan.modality).upper() == "CT" else "",
                "presets": [[preset.name, preset.low, preset.high] for preset in presets.get(name, ())],
                **image,
            }
            for name, image in zip(images, encoded, strict=True)
        ],
        "targets": [
            {
                "name": name,
                "colour": colours[name],
                "values": sorted(number_of[value] for value in group),
                "channel": channel_of.get((shown_on or {}).get(name, "")),
            }
            for name, group in targets.items()
        ],
        "masks": [{"name": name, **encode_mask(labels, layout.box)} for name, labels in numbered.items()],
        "reference": list(numbered).index("reference") if "reference" in numbered else None,
        "ignored": number_of[ignore_value] if ignore_value is not None else None,
        "errors": {"false negative": FALSE_NEGATIVE, "false positive": FALSE_POSITIVE},
        "findings": [_finding(finding, list(targets), offset, scan.unit, noun) for finding in findings],
    }
    return Viewer(
        html=render_part(
            "viewer.html",
            data=json_script("viewer-data", data),
            library=f"{assets}/{LIBRARY}",
            findings=[describe_finding(finding, scan.unit, noun) for finding in findings],
            is_picture=scan.unit == "px",
        ),
        notices=tuple(_notices(scan, layout, list(images))),
    )


def copy_assets(report_folder: Path) -> bool:
    """Write NiiVue and its licences into `report_folder/assets`, and return whether medunet has them.

    A file that is there already and is the same is left alone. Logs one line if NiiVue is missing.
    """
    if not (ASSETS / LIBRARY).exists():
        _log.warning(
            "The interactive viewer is missing from this installation, so that pages have still pictures only. "
            "Install medunet again with access to a package index to have it."
        )
        return False
    for name in (LIBRARY, LICENCES):
        source, target = ASSETS / name, report_folder / "assets" / name
        if not target.exists() or hash_file(target) != hash_file(source):
            if target.parent.exists():
                remove_unfinished([target])
            with atomic_write(target) as temporary:
                shutil.copyfile(source, temporary)
    return True


def describe_finding(finding: Finding, unit: Unit = "mm", noun: str = "lesion") -> str:
    """Return a finding as pictures and lists name it: "tumour: missed lesion 2, 1.40 ml, long axis 18.0 mm"."""
    return caption(finding, unit, finding.target, noun)


def _finding(
    finding: Finding, targets: Sequence[str], offset: Sequence[int], unit: Unit, noun: str
) -> dict[str, Any]:
    def place(voxel: Sequence[int]) -> list[int]:
        return [int(index) - first for index, first in zip(voxel, offset, strict=True)]

    return {
        "title": describe_finding(finding, unit, noun),
        "kind": finding.kind,
        "target": targets.index(finding.target) if finding.target in targets else None,
        "centre": place(finding.centre),
        "end": None if finding.end is None else place(finding.end),
        "length": finding.length_mm if math.isfinite(finding.length_mm) else None,
        "low": place([first for first, _ in finding.box]),
        "high": place([end for _, end in finding.box]),
    }


def _find_important(numbered: Mapping[str, NDArray], findings: Sequence[Finding]) -> Box | None:
    """Return the box that must be shown: all targets in all masks, and all that can be jumped to; None: all."""
    if not numbered:
        return None
    boxes = [finding.box for finding in findings]
    labelled = find_box(*numbered.values())
    if labelled[0].stop > labelled[0].start:
        boxes.append(tuple((side.start, side.stop) for side in labelled))
    if not boxes:
        return None
    return tuple(
        (min(low for low, _ in side), max(end for _, end in side)) for side in zip(*boxes, strict=True)
    )


def _notices(scan: Scan, layout: Layout, channels: Sequence[str]) -> list[str]:
    notices = []
    if len(channels) > _SIDE_BY_SIDE:
        notices.append(
            f"Side by side are the first {_SIDE_BY_SIDE} of {len(channels)} images: "
            f"{', '.join(channels[:_SIDE_BY_SIDE])}. The others are shown one at a time."
        )
    if any(end - first < size for (first, end), size in zip(layout.box, scan.image.shape, strict=False)):
        notices.append("The viewer holds the part of the scan around the masks.")
    if layout.step != (1, 1, 1):
        every = " × ".join(str(step) for step in layout.step)
        notices.append(
            f"The viewer holds one voxel in {every} of the image, so that the page stays small. Values at the "
            "crosshair are those of the stored voxel that is named; masks and errors have full resolution."
        )
    return notices
