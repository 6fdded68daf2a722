"""Pages with nothing but a viewer, for tests and for looking at it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medunet.drawing.palette import colour_targets
from medunet.drawing.presets import Preset
from medunet.records.finding import Finding
from medunet.reporting import page
from medunet.reporting.scans import Scan
from medunet.reporting.viewer import VIEWER_SCRIPTS, VIEWER_STYLES, Viewer, copy_assets, make_viewer

BODY = """{% extends "base.html" %}{% block body %}<h1>{{ title }}</h1>
{% for notice in viewer.notices %}<p>{{ notice }}</p>{% endfor %}
<p><a href="#viewer" data-finding="1" id="jump">the second finding</a></p>
{{ viewer.html }}{% endblock %}"""


def make_scan(
    channels: Mapping[str, NDArray],
    affine: NDArray,
    *,
    reference: NDArray | None = None,
    prediction: NDArray | None = None,
    modality: str = "CT",
    unit: str = "mm",
) -> Scan:
    """Return a scan as `load_scan` does."""
    name, image = next(iter(channels.items()))
    return Scan(
        image=image,
        affine=affine,
        channel=name,
        modality=modality,
        grid="",
        reference=reference,
        prediction=prediction,
        warnings=(),
        unit=unit,  # type: ignore[arg-type]
        channels={} if image.ndim == 4 else channels,
    )


def write_page(
    folder: Path,
    scan: Scan,
    targets: Mapping[str, Sequence[int]],
    presets: Mapping[str, Sequence[Preset]],
    findings: Sequence[Finding] = (),
    **options: object,
) -> tuple[Path, Viewer]:
    """Write a report folder with the page of a viewer, and return the page."""
    viewer = make_viewer(scan, targets, colour_targets(targets), presets, findings, **options)  # type: ignore[arg-type]
    assert viewer is not None
    copy_assets(folder)
    html = page.render(
        page._environment().from_string(BODY),  # type: ignore[arg-type]
        styles=VIEWER_STYLES,
        scripts=VIEWER_SCRIPTS,
        title="A case",
        viewer=viewer,
    )
    path = folder / "cases" / "case.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")
    return path, viewer


def box_finding(kind: str, target: str, mask: NDArray[np.bool_], **values: object) -> Finding:
    """Return a finding of all voxels of a mask."""
    places = np.argwhere(mask)
    low, high = places.min(axis=0), places.max(axis=0) + 1
    centre = places[np.abs(places - places.mean(axis=0)).sum(axis=1).argmin()]
    defaults = {"end": None, "length_mm": float("nan"), "volume_ml": float("nan")}
    return Finding(
        kind=kind,  # type: ignore[arg-type]
        target=target,
        centre=tuple(int(at) for at in centre),
        box=tuple((int(first), int(end)) for first, end in zip(low, high, strict=True)),
        **{**defaults, **values},  # type: ignore[arg-type]
    )
