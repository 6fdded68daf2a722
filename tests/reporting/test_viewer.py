"""The viewer's part of a page: its data, its texts, and the file of NiiVue beside the pages."""

import json
import logging
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medunet.drawing.presets import Preset
from medunet.records.finding import Finding
from medunet.reporting import viewer as module
from medunet.reporting.scans import Scan
from medunet.reporting.viewer import LIBRARY, LICENCES, copy_assets, describe_finding, make_viewer
from medunet.reporting.viewer_volumes import Layout, encode_image, encode_images

SHAPE = (12, 10, 8)
TARGETS = {"organ": (1, 7), "lesion": (7,)}
COLOURS = {"organ": "#E69F00", "lesion": "#56B4E9"}


@pytest.fixture(autouse=True)
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a stand-in of NiiVue, which these tests do not run."""
    folder = tmp_path / "assets"
    folder.mkdir()
    (folder / LIBRARY).write_text("niivue = 1")
    (folder / LICENCES).write_text("free")
    monkeypatch.setattr(module, "ASSETS", folder)
    return folder


def make_scan(**changes: object) -> Scan:
    reference = np.zeros(SHAPE, np.uint8)
    reference[2:6, 3:7, 2:5] = 1
    reference[3, 4, 3] = 7
    values = {
        "image": np.random.default_rng(0).integers(-100, 100, SHAPE).astype(np.float32),
        "affine": np.diag([2.0, 3.0, 4.0, 1.0]),
        "channel": "CT",
        "modality": "CT",
        "grid": "",
        "reference": reference,
        "prediction": np.roll(reference, 1, axis=0),
        "warnings": (),
        "unit": "mm",
    }
    return Scan(**{**values, **changes})  # type: ignore[arg-type]


def make_finding(**changes: object) -> Finding:
    values = {
        "kind": "missed_lesion",
        "target": "lesion",
        "centre": (3, 4, 3),
        "end": None,
        "length_mm": 18.04,
        "volume_ml": 1.4,
        "box": ((3, 4), (4, 5), (3, 4)),
        "lesion": 2,
    }
    return Finding(**{**values, **changes})  # type: ignore[arg-type]


def read_data(html: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="viewer-data">(.*?)</script>', html, re.DOTALL)
    return json.loads(text)


def test_data_of_the_page() -> None:
    distance = make_finding(
        kind="surface_distance", target="organ", end=(5, 6, 4), volume_ml=math.nan, length_mm=math.inf
    )
    presets = {"CT": [Preset("soft tissue", -160, 240)]}
    viewer = make_viewer(make_scan(), TARGETS, COLOURS, presets, [make_finding(), distance])
    assert viewer is not None
    data = read_data(viewer.html)
    assert data["size"] == list(SHAPE)
    assert data["spacing"] == [2, 3, 4]
    assert [target["values"] for target in data["targets"]] == [[1, 2], [2]]
    assert [mask["name"] for mask in data["masks"]] == ["reference", "prediction"]
    assert data["reference"] == 0
    assert data["channels"][0]["unit"] == "HU"
    assert data["channels"][0]["presets"] == [["soft tissue", -160, 240]]
    assert data["findings"][0] == {
        "title": "lesion: missed lesion 2, 1.40 ml, long axis 18.0 mm",
        "kind": "missed_lesion",
        "target": 1,
        "centre": [3, 4, 3],
        "end": None,
        "length": 18.04,
        "low": [3, 4, 3],
        "high": [4, 5, 4],
    }
    assert data["findings"][1]["end"] == [5, 6, 4]
    assert data["findings"][1]["length"] is None  # infinite
    assert viewer.notices == ()
    assert 'data-finding="1"' in viewer.html
    assert f'data-library="../assets/{LIBRARY}"' in viewer.html


def test_places_are_those_of_the_part_that_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(((2, 12), (1, 10), (0, 8)), (1, 1, 1))
    monkeypatch.setattr(
        module, "encode_images", lambda images, *_: (layout, [encode_image(images[0], layout)])
    )
    viewer = make_viewer(make_scan(), TARGETS, COLOURS, {}, [make_finding()])
    assert viewer is not None
    data = read_data(viewer.html)
    assert data["first"] == [2, 1, 0]
    assert data["findings"][0]["centre"] == [1, 3, 3]
    assert [row[3] for row in data["affine"][:3]] == [4, 3, 0]  # the position of the first stored voxel
    assert viewer.notices == ("The viewer holds the part of the scan around the masks.",)


def test_findings_far_from_the_masks_are_stored_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def note(*args: Any) -> Any:
        asked.append(args[2])
        return encode_images(*args)

    monkeypatch.setattr(module, "encode_images", note)
    make_viewer(make_scan(), TARGETS, COLOURS, {}, [make_finding(box=((10, 12), (8, 9), (7, 8)))])
    (important,) = asked
    (i_low, i_end), (_, j_end), (_, k_end) = important
    assert (i_end, j_end, k_end) == (12, 9, 8)  # of the finding
    assert 0 < i_low <= 3  # of the masks


def test_two_methods_and_several_images() -> None:
    scan = make_scan()
    scan = make_scan(channels={"T1": scan.image, "PET": scan.image + 0.5}, channel="T1", modality="MRI")
    assert scan.reference is not None
    masks = {"reference": scan.reference, "A": scan.reference, "B": scan.reference * 0}
    viewer = make_viewer(
        scan,
        TARGETS,
        COLOURS,
        {},
        masks=masks,
        shown_on={"lesion": "PET"},
        modalities={"PET": "CT"},
        ignore_value=9,
    )
    assert viewer is not None
    data = read_data(viewer.html)
    assert [mask["name"] for mask in data["masks"]] == ["reference", "A", "B"]
    assert [(channel["name"], channel["unit"]) for channel in data["channels"]] == [("T1", ""), ("PET", "HU")]
    assert [target["channel"] for target in data["targets"]] == [None, 1]
    assert data["ignored"] == 3


def test_a_new_patient_has_no_reference_and_no_errors() -> None:
    viewer = make_viewer(make_scan(reference=None), TARGETS, COLOURS, {})
    assert viewer is not None
    data = read_data(viewer.html)
    assert data["reference"] is None
    assert [mask["name"] for mask in data["masks"]] == ["prediction"]
    assert make_viewer(make_scan(reference=None, prediction=None), TARGETS, COLOURS, {}) is not None


def test_nothing_of_the_data_is_markup() -> None:
    name = "</script><script>alert(1)</script><!--\u2028&\"'"
    scan = make_scan(channel=name)
    viewer = make_viewer(scan, {name: (1,)}, {name: "#000000"}, {}, [make_finding(target=name)])
    assert viewer is not None
    assert viewer.html.count("<script") == viewer.html.count("</script>") == 1
    assert "<!--" not in viewer.html
    assert read_data(viewer.html)["targets"][0]["name"] == name


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "lesion: missed lesion 2, 1.40 ml, long axis 18.0 mm"),
        ({"lesion": None, "volume_ml": 0.004, "length_mm": math.nan}, "lesion: missed lesion, 0.004 ml"),
        ({"kind": "false_positive_lesion"}, "lesion: false positive lesion 2, 1.40 ml, long axis 18.0 mm"),
        (
            {"kind": "surface_distance", "volume_ml": math.nan, "lesion": None},
            "lesion: worst surface distance, 18.0 mm",
        ),
        (
            {"kind": "false_negative", "length_mm": math.nan, "lesion": None},
            "lesion: largest false negative region, 1.40 ml",
        ),
        (
            {"kind": "false_positive", "length_mm": math.nan, "lesion": None},
            "lesion: largest false positive region, 1.40 ml",
        ),
    ],
)
def test_findings_as_text(changes: dict, text: str) -> None:
    assert describe_finding(make_finding(**changes)) == text


def test_lengths_in_pictures_are_in_pixels() -> None:
    finding = make_finding(kind="surface_distance", volume_ml=math.nan, length_mm=4.0, lesion=None)
    assert describe_finding(finding, "px") == "lesion: worst surface distance, 4.0 px"


def test_objects_are_called_so_and_their_targets_keep_their_names() -> None:
    assert describe_finding(make_finding(), noun="object") == (
        "lesion: missed object 2, 1.40 ml, long axis 18.0 mm"
    )


def test_more_channels_than_stand_side_by_side_are_named() -> None:
    image = make_scan().image
    for count in (8, 9):
        channels = {f"echo {number}": image for number in range(1, count + 1)}
        viewer = make_viewer(make_scan(channels=channels), TARGETS, COLOURS, {})
        assert viewer is not None
        named = [notice for notice in viewer.notices if "Side by side" in notice]
        assert len(named) == (count > 8)
    assert "the first 8 of 9 images: echo 1, echo 2" in named[0]
    assert "echo 9" not in named[0]


def test_the_library_is_written_once_and_mended(tmp_path: Path, assets: Path) -> None:
    report = tmp_path / "report"
    assert copy_assets(report)
    library = report / "assets" / LIBRARY
    assert library.read_text() == "niivue = 1"
    assert (report / "assets" / LICENCES).read_text() == "free"
    written = library.stat().st_mtime_ns
    assert copy_assets(report)
    assert library.stat().st_mtime_ns == written
    library.write_text("damaged")
    assert copy_assets(report)
    assert library.read_text() == "niivue = 1"


def test_an_installation_without_the_library_says_so(
    tmp_path: Path, assets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (assets / LIBRARY).unlink()
    assert make_viewer(make_scan(), TARGETS, COLOURS, {}) is None
    with caplog.at_level(logging.WARNING):
        assert not copy_assets(tmp_path / "report")
    assert "interactive viewer is missing from this installation" in caplog.text
    assert not (tmp_path / "report").exists()


def test_the_licences_of_all_parts_are_shipped() -> None:
    text = (Path(module.__file__).parent / "assets" / LICENCES).read_text()
    for part in (
        "NiiVue",
        "gl-matrix",
        "fflate",
        "nifti-reader-js",
        "zarrita",
        "numcodecs",
        "structured-clone",
    ):
        assert part in text
    assert text.count("Copyright") + text.count("(c)") > 12
