"""One picture for each predicted case: image, reference and prediction side by side, in three planes.

Columns are one or more channels, followed by each mask as a coloured overlay on the first channel. Rows are the
planes through the largest cross-sections of all targets. Only masks that were resampled for scoring are resampled.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from medunet.base.errors import InputError, MedunetError
from medunet.base.files import atomic_write
from medunet.base.progress import track
from medunet.drawing.legend import Entry, Swatch, Text
from medunet.drawing.letters import name_targets
from medunet.drawing.orthogonal import PLANES, Box, Plane, box_around, direction_marks, position_text
from medunet.drawing.palette import colour_targets, style_targets
from medunet.drawing.panel import Panel
from medunet.drawing.png import reduce_colours, to_png
from medunet.drawing.presets import display_presets
from medunet.drawing.scene import largest_cross_sections
from medunet.drawing.sheet import Footer, Place, draw_sheet
from medunet.imaging.geometry import spacing_of
from medunet.imaging.orientation import to_ras
from medunet.imaging.volumes import mask_ending
from medunet.records.description import Description
from medunet.records.manifest import Case, Manifest
from medunet.records.mask_journal import read_mask_index
from medunet.records.run_folder import RunFolder
from medunet.reporting.page import number_text
from medunet.reporting.scans import Scan, default_channel, load_scan, read_channel_file
from medunet.reporting.scores import is_resampled

_WIDEST_PX = 400  # of a plane
_MAX_NAMED = 6  # targets in title and legend
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
    predicted_targets = read_mask_index(run.predictions).get("targets")
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
        picture = draw_triptych(scan, manifest.description.targets, images=images, title=title)
        with atomic_write(run.root / "pictures" / f"{case.id}.png", suffix=".png") as temporary:
            temporary.write_bytes(picture)
    return failed


def draw_triptych(
    scan: Scan,
    targets: Mapping[str, tuple[int, ...]],
    *,
    images: Mapping[str, NDArray] | None = None,
    title: str = "",
) -> bytes:
    """Return a PNG of image, reference and prediction side by side; later targets are painted over earlier ones.

    Args:
        scan: volumes in RAS+ axis order, as `medunet.reporting.scans.load_scan` returns them.
        targets: target name -> its label values; their order determines the colours.
        images: channels on the scan's grid to show instead of the scan's own, by name.
        title: text above the columns.
    """
    images = dict(images or {scan.channel: scan.image})
    presets = {name: display_presets(image, scan.modality, targets)[0] for name, image in images.items()}
    masks = {"reference": scan.reference, "prediction": scan.prediction}
    columns = {**dict.fromkeys(images), **masks}
    headings = {name: f"no {name}" if name in masks and masks[name] is None else name for name in columns}
    if scan.is_resampled:
        headings["prediction"] = "prediction, resampled"
    background = next(iter(images))
    centre, box = _centre(scan, targets), _filled_box(images[background])
    spacing_mm = spacing_of(scan.affine)
    position_mm = apply_affine(scan.affine, centre)
    seen = [plane for plane in PLANES if min(_num_voxels(box, plane)) > 1] or [PLANES[0]]
    px_per_mm = _WIDEST_PX / max(_num_voxels(box, plane)[0] * spacing_mm[plane.across] for plane in seen)

    def draw(column: str, plane: Plane) -> Panel:
        shown = column if column in images else background
        cut = (slice(None),) * plane.through + (centre[plane.through],)
        spans = box[plane.across], box[plane.up]
        step_mm = spacing_mm[plane.across], spacing_mm[plane.up]
        panel = Panel(images[shown][cut], spans, step_mm, px_per_mm, presets[shown])
        mask = columns[column]
        if mask is not None:
            _overlay(panel, mask[cut], targets)
        return panel

    rows = []
    for plane in seen:
        row = []
        for column in columns:
            parts = [headings[column]] if plane is seen[0] else []
            if scan.unit == "mm" and column == background:
                parts.append(position_text(plane, position_mm))
            directions = direction_marks(plane) if scan.unit == "mm" else None
            row.append(Place(draw(column, plane), ": ".join(parts), directions))
        rows.append(row)
    colours, names = colour_targets(targets), name_targets(targets)
    named = list(targets)[:_MAX_NAMED]
    legend: list[Entry] = [Swatch(names[name], colours[name], is_striped=False) for name in named]
    if len(targets) > len(named):
        legend.append(Text(f"and {len(targets) - len(named)} more"))
    text = ", ".join(f"{name} {preset.low:.3g} to {preset.high:.3g}" for name, preset in presets.items())
    sheet = draw_sheet(rows, legend, heading=title, footer=Footer(text, px_per_mm, scan.unit))
    is_grey = all(image.ndim == 3 for image in images.values())
    return to_png(reduce_colours(sheet, colours.values()) if is_grey else sheet)


def _overlay(panel: Panel, labels: NDArray, targets: Mapping[str, tuple[int, ...]]) -> None:
    """Draw every target of a slice `(across, up)` filled and outlined."""
    colours, styles = colour_targets(targets), style_targets(targets)
    masks = {name: np.isin(labels, values) for name, values in targets.items()}
    covered = np.zeros(labels.shape, dtype=bool)
    for name in reversed(masks):
        panel.fill(masks[name] & ~covered, colours[name], is_striped=False)
        covered |= masks[name]
    for name, mask in masks.items():
        panel.outline(mask, colours[name], styles[name], is_broken=False)


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
