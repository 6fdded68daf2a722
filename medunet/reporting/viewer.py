"""The viewer of a case page: NiiVue on volumes that are written into the page, and its file beside the pages."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from numpy.typing import NDArray

from medunet.drawing.presets import Preset
from medunet.records.finding import Finding
from medunet.reporting.scans import Scan

_log = logging.getLogger(__name__)

# For `render(styles=..., scripts=...)` of a page with a viewer.
VIEWER_STYLES, VIEWER_SCRIPTS = ("viewer.css",), ("viewer.js",)


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
        assets: folder of NiiVue as the page sees it, see `copy_assets`.
    """
    return None


def copy_assets(report_folder: Path) -> bool:
    """Write NiiVue and its licences into `report_folder/assets`, and return whether medunet has them.

    A file that is there already and is the same is left alone. Logs one line if NiiVue is missing.
    """
    return False
