"""Pictures of image, reference and prediction: one for each case, overlays in the right place and colour."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny_run import ODD_ID, make_run

from medunet.base.errors import InputError
from medunet.drawing.palette import TARGET_COLOURS, to_rgb
from medunet.drawing.sheet import Place
from medunet.reporting import triptych
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


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Return what is drawn from now on: rows of places, legend, heading and footer."""
    drawn: list[dict] = []
    original = triptych.draw_sheet

    def record(rows, legend, **options):
        drawn.append({"rows": rows, "legend": legend, **options})
        return original(rows, legend, **options)

    monkeypatch.setattr(triptych, "draw_sheet", record)
    return drawn


def pixels_of(place: Place) -> NDArray[np.int16]:
    """Return the pixels (height, width, 3) of a panel."""
    return np.asarray(place.panel.finish()).astype(np.int16)


def coloured_extent(pixels: NDArray[np.int16]) -> list[float]:
    """Return left, right, top and bottom of the coloured pixels as shares of the panel."""
    coloured = np.ptp(pixels, axis=2) > 40
    rows, columns = np.flatnonzero(coloured.any(axis=1)), np.flatnonzero(coloured.any(axis=0))
    height, width = coloured.shape
    return [columns[0] / width, (columns[-1] + 1) / width, rows[0] / height, (rows[-1] + 1) / height]


def test_columns_are_image_reference_prediction(sheets: list[dict]) -> None:
    labels = box_of(slice(4, 9), slice(5, 12), slice(6, 10))
    draw_triptych(scan_of(labels, None), TARGETS, title="case 7")
    (sheet,) = sheets
    assert sheet["heading"] == "case 7"
    assert [[place.title for place in row] for row in sheet["rows"]] == [
        ["FLAIR: axial  S 32.0 mm", "reference", "no prediction"],
        ["coronal  A 24.0 mm", "", ""],
        ["sagittal  R 12.0 mm", "", ""],
    ]
    assert [entry.text for entry in sheet["legend"]] == ["whole", "core"]


@pytest.mark.parametrize(("column", "start"), [(1, 4), (2, 10)])
def test_overlays_lie_where_their_masks_are(column: int, start: int, sheets: list[dict]) -> None:
    """On the axial panel the patient's right is on the left, and anterior is up."""
    reference = box_of(slice(4, 9), slice(5, 12), slice(6, 10))
    prediction = box_of(slice(10, 15), slice(5, 12), slice(6, 10))
    draw_triptych(scan_of(reference, prediction), TARGETS)
    axial = [pixels_of(place) for place in sheets[0]["rows"][0]]
    expected = [1 - (start + 5) / 24, 1 - start / 24, 1 - 12 / 20, 1 - 5 / 20]
    assert coloured_extent(axial[column]) == pytest.approx(expected, abs=0.015)
    assert not (np.ptp(axial[0], axis=2) > 40).any(), "the image itself is grey"


def test_later_targets_lie_over_earlier_ones(sheets: list[dict]) -> None:
    labels = box_of(slice(4, 20), slice(4, 16), slice(4, 12))
    labels[8:16, 7:13, 6:10] = 2
    draw_triptych(scan_of(labels, labels), TARGETS)
    pixels = pixels_of(sheets[0]["rows"][0][1])
    height, width = pixels.shape[:2]
    for colour, (across, up) in zip(TARGET_COLOURS, ((6, 10), (12, 10)), strict=False):
        shown = pixels[round(height * (1 - (up + 0.5) / 20)), round(width * (1 - (across + 0.5) / 24))]
        assert np.corrcoef(shown, to_rgb(colour))[0, 1] > 0.95


def test_empty_surroundings_are_left_out(sheets: list[dict]) -> None:
    labels = box_of(slice(10, 14), slice(8, 12), slice(6, 10))
    scan = scan_of(labels, labels)
    image = np.zeros(SHAPE, np.float32)
    image[6:18, 5:15, 4:12] = 3.0
    draw_triptych(replace(scan, image=image), TARGETS)
    axial = sheets[0]["rows"][0][0].panel
    # Voxels 4 to 19 of 2 mm across, 3 to 16 of 3 mm up, the highest ones first.
    corners = axial.to_px(np.array([[19.5, 16.5], [3.5, 2.5]]))
    assert corners == pytest.approx(np.array([[0, 0], axial.size]), abs=1)


def test_a_coloured_2d_picture_has_one_row_without_directions(sheets: list[dict]) -> None:
    generator = np.random.default_rng(0)
    image = generator.uniform(0, 255, (20, 30, 1, 3)).astype(np.float32)
    labels = np.zeros((20, 30, 1), np.uint8)
    labels[4:9, 6:12] = 1
    scan = Scan(image, np.eye(4), "red, green, blue", "other", "", labels, labels, (), "px")
    picture = Image.open(io.BytesIO(draw_triptych(scan, {"nucleus": (1,)})))
    assert picture.mode == "RGB"
    ((*places,),) = sheets[0]["rows"]
    assert [place.directions for place in places] == [None] * 3
    assert [place.title for place in places] == ["red, green, blue", "reference", "prediction"]


def test_every_case_gets_its_picture(tmp_path: Path) -> None:
    run, data_root = make_run(tmp_path)
    assert save_triptychs(run, data_root, read_scores(run.scores), channels=("CT",)) == {}
    # no_prediction was scored as missing: its picture shows that.
    names = {"ras_good", "lps_poor", "oblique_healthy", "no_prediction", ODD_ID}
    assert {path.name for path in (run.root / "pictures").iterdir()} == {f"{name}.png" for name in names}
    assert Image.open(run.root / "pictures" / "ras_good.png").width > 1200


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
