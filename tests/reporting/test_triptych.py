"""Pictures of image, reference and prediction: one for each case, overlays in the right place and colour."""

from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from figure_pixels import figure_array
from numpy.typing import NDArray
from tiny_run import ODD_ID, make_run

from medunet.base.errors import InputError
from medunet.drawing.figures import figure_png
from medunet.drawing.palette import TARGET_COLOURS
from medunet.reporting.scans import Scan
from medunet.reporting.triptych import _dice_text, draw_triptych, save_triptychs
from medunet.scoring.tables import read_scores

SHAPE = (24, 20, 16)
AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])
TARGETS = {"whole": (1, 2), "core": (2,)}


def scan_of(reference: NDArray | None, prediction: NDArray | None) -> Scan:
    image = np.ones(SHAPE, np.float32)
    image[0] = 2.0
    return Scan(image, AFFINE, "FLAIR", "MR", "", reference, prediction, (), "mm")


def box_of(*slices: slice) -> NDArray[np.uint8]:
    labels = np.zeros(SHAPE, np.uint8)
    labels[slices] = 1
    return labels


def panel_pixels(scan: Scan, column: int, row: int) -> NDArray[np.int16]:
    """Return the pixels (height, width, 3) of one panel of three columns by three rows."""
    figure = draw_triptych(scan, TARGETS)
    for axes in figure.axes:
        for text in list(axes.texts):
            text.remove()
    pixels = figure_array(figure)
    place = figure.axes[3 * column + row].get_window_extent()
    height = pixels.shape[0]
    return pixels[
        round(height - place.y1) : round(height - place.y0), round(place.x0) : round(place.x1)
    ].astype(np.int16)


def coloured_extent(pixels: NDArray[np.int16]) -> list[float]:
    """Return left, right, top and bottom of the coloured pixels as shares of the panel."""
    coloured = np.ptp(pixels, axis=2) > 40
    rows, columns = np.flatnonzero(coloured.any(axis=1)), np.flatnonzero(coloured.any(axis=0))
    height, width = coloured.shape
    return [columns[0] / width, (columns[-1] + 1) / width, rows[0] / height, (rows[-1] + 1) / height]


def test_columns_are_image_reference_prediction() -> None:
    labels = box_of(slice(4, 9), slice(5, 12), slice(6, 10))
    figure = draw_triptych(scan_of(labels, None), TARGETS, title="case 7")
    texts = [text.get_text() for text in figure.texts]
    assert {"FLAIR", "reference", "no prediction", "case 7"} <= set(texts)
    assert [axes.get_title() for axes in figure.axes[:3]] == [
        "axial  S 32.0 mm",
        "coronal  A 24.0 mm",
        "sagittal  R 12.0 mm",
    ]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["whole", "core"]


@pytest.mark.parametrize(("column", "start"), [(1, 4), (2, 10)])
def test_overlays_lie_where_their_masks_are(column: int, start: int) -> None:
    """On the axial panel the patient's right is on the left, and anterior is up."""
    reference = box_of(slice(4, 9), slice(5, 12), slice(6, 10))
    prediction = box_of(slice(10, 15), slice(5, 12), slice(6, 10))
    scan = scan_of(reference, prediction)
    extent = coloured_extent(panel_pixels(scan, column, 0))
    expected = [1 - (start + 5) / 24, 1 - start / 24, 1 - 12 / 20, 1 - 5 / 20]
    assert extent == pytest.approx(expected, abs=0.015)
    assert not (np.ptp(panel_pixels(scan, 0, 0), axis=2) > 40).any(), "the image itself is grey"


def test_later_targets_lie_over_earlier_ones() -> None:
    labels = box_of(slice(4, 20), slice(4, 16), slice(4, 12))
    labels[8:16, 7:13, 6:10] = 2
    pixels = panel_pixels(scan_of(labels, labels), 1, 0)
    height, width = pixels.shape[:2]
    for colour, (across, up) in zip(TARGET_COLOURS, ((6, 10), (12, 10)), strict=False):
        shown = pixels[round(height * (1 - (up + 0.5) / 20)), round(width * (1 - (across + 0.5) / 24))]
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert np.corrcoef(shown, wanted)[0, 1] > 0.95


def test_empty_surroundings_are_left_out() -> None:
    labels = box_of(slice(10, 14), slice(8, 12), slice(6, 10))
    scan = scan_of(labels, labels)
    image = np.zeros(SHAPE, np.float32)
    image[6:18, 5:15, 4:12] = 3.0
    axes = draw_triptych(replace(scan, image=image), TARGETS).axes[0]
    assert sorted(axes.get_xlim()) == pytest.approx([2 * (4 - 0.5), 2 * (20 - 0.5)])
    assert sorted(axes.get_ylim()) == pytest.approx([3 * (3 - 0.5), 3 * (17 - 0.5)])


def test_a_coloured_2d_picture_has_one_row_without_directions() -> None:
    generator = np.random.default_rng(0)
    image = generator.uniform(0, 255, (20, 30, 1, 3)).astype(np.float32)
    labels = np.zeros((20, 30, 1), np.uint8)
    labels[4:9, 6:12] = 1
    scan = Scan(image, np.eye(4), "red, green, blue", "other", "", labels, labels, (), "px")
    figure = draw_triptych(scan, {"nucleus": (1,)})
    assert len(figure.axes) == 3
    assert not any(axes.texts or axes.get_title() for axes in figure.axes)
    assert figure_png(figure).startswith(b"\x89PNG")


def test_every_case_gets_its_picture(tmp_path: Path) -> None:
    run, data_root = make_run(tmp_path)
    assert save_triptychs(run, data_root, read_scores(run.scores), channels=("CT",)) == {}
    # no_prediction was scored as missing: its picture shows that.
    names = {"ras_good", "lps_poor", "oblique_healthy", "no_prediction", ODD_ID}
    assert {path.name for path in (run.root / "pictures").iterdir()} == {f"{name}.png" for name in names}
    assert matplotlib.image.imread(run.root / "pictures" / "ras_good.png").ndim == 3


def test_what_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    run, data_root = make_run(tmp_path)
    for name in ("lps_poor", "oblique_healthy"):
        (run.predictions / f"{name}.nii.gz").unlink()
    (data_root / "images/ras_good.nii.gz").unlink()
    failed = save_triptychs(run, data_root)
    assert set(failed) == {"ras_good"}
    assert str(tmp_path) not in failed["ras_good"]
    assert [path.name for path in (run.root / "pictures").iterdir()] == [f"{ODD_ID}.png"]


def test_an_unknown_channel_is_refused(tmp_path: Path) -> None:
    run, data_root = make_run(tmp_path)
    with pytest.raises(InputError, match=r"no channel \['FLAIR'\].*Choose from \['CT'\]"):
        save_triptychs(run, data_root, channels=("FLAIR",))


def test_titles_give_the_dice_of_each_target() -> None:
    rows = pd.DataFrame({"label": ["tumour_core", "enhancing"], "dice": [0.876, float("nan")]})
    assert _dice_text(rows) == "Dice: tumour core 0.88, enhancing –"
    many = pd.DataFrame({"label": list("abcdefgh"), "dice": [0.5] * 4 + [1.0] * 4})
    assert _dice_text(many) == "mean Dice 0.75"
    assert _dice_text(rows[:0]) == ""
