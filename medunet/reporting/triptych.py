"""One picture for each predicted case: image, reference and prediction side by side, in three planes.

Columns are one or more channels, followed by each mask as a coloured overlay on the first channel. Rows are the
planes through the largest cross-sections of all targets. Only masks that were resampled for scoring are resampled.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from medunet.base.errors import InputError, MedunetError
from medunet.base.files import read_json
from medunet.base.progress import track
from medunet.drawing.figures import largest_cross_sections, save_figure, window_limits
from medunet.drawing.palette import colour_targets
from medunet.drawing.planes import (
    INK,
    PLANES,
    Box,
    Plane,
    add_footer,
    annotate,
    box_around,
    outline,
    paint,
    position_text,
    set_limits,
)
from medunet.imaging.geometry import spacing_of
from medunet.imaging.orientation import to_ras
from medunet.imaging.volumes import mask_ending
from medunet.records.description import Description
from medunet.records.manifest import Case, Manifest
from medunet.records.run_folder import RunFolder
from medunet.reporting.page import number_text
from medunet.reporting.scans import Scan, default_channel, load_scan, read_channel_file
from medunet.reporting.scores import is_resampled

_COLUMN_INCH, _GAP_INCH, _DPI = 3.2, 0.08, 110
_TITLE_INCH, _HEADER_INCH, _FOOTER_INCH = 0.62, 0.3, 0.4
_MAX_NAMED = 6  # targets in title and legend
_OPACITY = 0.4
_MARGIN_VOXELS = 2  # margin around skull-stripped heads, where the background is 0


def save_triptychs(
    run: RunFolder, data_root: Path, scores: pd.DataFrame | None = None, *, channels: Sequence[str] = ()
) -> dict[str, str]:
    """Save `pictures/<case>.png` for every case of a run that was predicted or scored.

    Args:
        run: folder with manifest.json and predictions/.
        data_root: folder that the manifest's paths are relative to.
        scores: the table of scores.csv, for the Dice in the titles, cases without a prediction, and masks that were
            resampled.
        channels: channels to show, with the overlays on the first; by default the one shown in the report.

    Returns:
        The cases whose files cannot be read, each with the reason.

    Raises:
        InputError: manifest.json is missing, one of the run's files cannot be used, or a channel does not exist.
    """
    manifest = Manifest.read(run.need(run.manifest, "manifest"))
    known = list(manifest.description.channels)
    if unknown := [name for name in channels if name not in known]:
        raise InputError(f"there is no channel {unknown}", where="pictures", hint=f"Choose from {known}.")
    index_file = run.predictions / "index.json"
    predicted_targets = read_json(index_file).get("targets") if index_file.exists() else None
    scored = {} if scores is None else dict(list(scores.groupby("case")))
    failed = {}
    for case in track(manifest.used, "Pictures"):
        prediction = run.predictions / f"{case.id}{mask_ending(next(iter(case.images.values())))}"
        if not prediction.exists() and case.id not in scored:
            continue
        try:
            scan = load_scan(
                case,
                manifest.description,
                data_root,
                prediction,
                predicted_targets,
                channel=default_channel(manifest.description),
                resample=case.id in scored and is_resampled(scored[case.id]),
            )
            images = {name: _load_channel(case, name, manifest.description, data_root) for name in channels}
        except MedunetError as error:
            failed[case.id] = str(error)
            continue
        title = f"{case.id}    {_dice_text(scored[case.id])}" if case.id in scored else case.id
        figure = draw_triptych(scan, manifest.description.targets, images=images, title=title)
        save_figure(run.root / "pictures" / f"{case.id}.png", figure)
    return failed


def draw_triptych(
    scan: Scan,
    targets: Mapping[str, tuple[int, ...]],
    *,
    images: Mapping[str, NDArray] | None = None,
    title: str = "",
) -> Figure:
    """Draw image, reference and prediction side by side; later targets are painted over earlier ones.

    Args:
        scan: volumes in RAS+ axis order, as `medunet.reporting.scans.load_scan` returns them.
        targets: target name -> its label values; their order determines the colours.
        images: channels on the scan's grid to show instead of the scan's own, by name.
        title: text above the columns.
    """
    images = dict(images or {scan.channel: scan.image})
    limits = {name: window_limits(image, scan.modality) for name, image in images.items()}
    masks = {"reference": scan.reference, "prediction": scan.prediction}
    colours = colour_targets(targets)
    columns = [*images, *masks]
    headings = {name: f"no {name}" if name in masks and masks[name] is None else name for name in columns}
    if scan.is_resampled:
        headings["prediction"] = "prediction, resampled"
    background = next(iter(images))
    centre, box = _centre(scan, targets), _filled_box(images[background])
    spacing_mm = spacing_of(scan.affine)
    position_mm = apply_affine(scan.affine, centre)
    figure, panels = _lay_out(headings, box, spacing_mm)
    for (column, plane), axes in panels.items():
        cut = (slice(None),) * plane.through + (centre[plane.through],)
        shown = column if column in images else background
        set_limits(axes, plane, box, spacing_mm)
        paint(axes, images[shown][cut], plane, spacing_mm, limits[shown])
        if scan.unit == "mm":
            is_left = column == columns[0]
            annotate(axes, plane, position_text(plane, position_mm) if is_left else "")
        mask = masks.get(column)
        if mask is not None:
            _overlay(axes, mask[cut], plane, spacing_mm, targets, colours)
    top = 1 - 0.3 * _TITLE_INCH / figure.get_figheight()
    figure.text(0.5, top, title, color=INK, fontsize=12, ha="center", va="center")
    named = list(targets)[:_MAX_NAMED]
    handles = [Patch(color=colours[name], label=name.replace("_", " ")) for name in named]
    handles += [Patch(alpha=0, label=f"and {len(targets) - len(named)} more")] * (len(targets) > len(named))
    text = ", ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in limits.items())
    add_footer(figure, next(iter(panels.values())), text, handles, scan.unit)
    return figure


def _lay_out(
    headings: Mapping[str, str], box: Box, spacing_mm: Sequence[float]
) -> tuple[Figure, dict[tuple[str, Plane], Axes]]:
    """Return a black figure with a heading and planes for each column, all at one scale in mm, and its panels."""
    sizes_mm = [(end - first) * step for (first, end), step in zip(box, spacing_mm, strict=True)]
    seen = [plane for plane in PLANES if min(_num_voxels(box, plane)) > 1] or [PLANES[0]]
    inch_per_mm = _COLUMN_INCH / max(sizes_mm[plane.across] for plane in seen)
    tall = [sizes_mm[plane.up] * inch_per_mm for plane in seen]
    width = len(headings) * (_COLUMN_INCH + _GAP_INCH) - _GAP_INCH
    height = _TITLE_INCH + sum(tall) + _HEADER_INCH * len(seen) + _FOOTER_INCH
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="black")
    panels = {}
    for number, (column, heading) in enumerate(headings.items()):
        middle = number * (_COLUMN_INCH + _GAP_INCH) + _COLUMN_INCH / 2
        top = height - _TITLE_INCH
        figure.text(middle / width, top / height, heading, color=INK, fontsize=12, ha="center", va="bottom")
        for plane, up in zip(seen, tall, strict=True):
            across = sizes_mm[plane.across] * inch_per_mm
            top -= _HEADER_INCH + up
            rectangle = ((middle - across / 2) / width, top / height, across / width, up / height)
            panels[column, plane] = figure.add_axes(rectangle)
    return figure, panels


def _overlay(
    axes: Axes,
    labels: NDArray,
    plane: Plane,
    spacing_mm: Sequence[float],
    targets: Mapping[str, tuple[int, ...]],
    colours: Mapping[str, str],
) -> None:
    """Draw every target of a slice `(across, up)` filled and outlined."""
    fill = np.zeros((*labels.shape, 4))
    for name, values in targets.items():
        fill[np.isin(labels, values)] = to_rgba(colours[name], _OPACITY)
    paint(axes, fill, plane, spacing_mm)
    for name, values in targets.items():
        outline(axes, np.isin(labels, values), plane, spacing_mm, colours[name])


def _centre(scan: Scan, targets: Mapping[str, tuple[int, ...]]) -> tuple[int, int, int]:
    """Return the largest cross-sections of all targets in the reference, or in the prediction if it has none."""
    values = [value for united in targets.values() for value in united]
    for labels in (scan.reference, scan.prediction):
        if labels is not None and (mask := np.isin(labels, values)).any():
            return largest_cross_sections(mask)
    return largest_cross_sections(np.zeros(scan.image.shape[:3]))


def _filled_box(image: NDArray) -> Box:
    """Return the box of voxels to show, without the empty background around skull-stripped heads."""
    filled = (image != 0).reshape(*image.shape[:3], -1).any(axis=-1)
    if not filled.any():
        return tuple((0, size) for size in filled.shape)
    return box_around(filled, [_MARGIN_VOXELS] * 3)


def _num_voxels(box: Box, plane: Plane) -> tuple[int, int]:
    return box[plane.across][1] - box[plane.across][0], box[plane.up][1] - box[plane.up][0]


def _load_channel(case: Case, name: str, description: Description, data_root: Path) -> NDArray:
    """Read one channel `(I, J, K)` in RAS+ axis order.

    Raises:
        DataError: a file cannot be read.
    """
    volume, frames = read_channel_file(case, name, description, data_root)
    return to_ras(volume.array[frames.index(name)][None], volume.affine)[0][0]


def _dice_text(rows: pd.DataFrame) -> str:
    """Return a case's Dice by target as text, the mean if there are many targets, "" if it was not scored."""
    if rows.empty:
        return ""
    if len(rows) > _MAX_NAMED:
        return f"mean Dice {number_text(float(rows['dice'].mean()))}"
    texts = [
        f"{row['label'].replace('_', ' ')} {number_text(float(row['dice']))}" for _, row in rows.iterrows()
    ]
    return f"Dice: {', '.join(texts)}"
