"""Pictures from the folder to the plan: found by stem, checked, measured in pixels."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny_pictures import SIZES, describe_pictures, draw_discs, write_pictures

from medunet.base.errors import InputError
from medunet.dataset.checks.manifest_checks import check_manifest
from medunet.dataset.layouts.patterns import scan_folder
from medunet.dataset.manifest import make_manifest
from medunet.dataset.splits import read_folds
from medunet.planning.fingerprint import compute_fingerprint
from medunet.planning.planner import make_plan
from medunet.records.config import PlanningConfig
from medunet.records.description import Description, load_description
from medunet.records.fault import Fault
from medunet.records.plan import Plan

MASKS = {"instances": False, "labels": {"background": 0, "disc": 255}}


def faults_of(root: Path, description: Description | None = None) -> list[Fault]:
    description = description or describe_pictures()
    return [
        fault
        for fault in check_manifest(make_manifest(description, root), root)
        if fault.code != "S008"  # which every set of pictures has
    ]


def change(path: Path, edit: Callable[[NDArray], NDArray]) -> None:
    with Image.open(path) as picture:
        pixels = np.array(picture)
    Image.fromarray(edit(pixels)).save(path)


def test_files_are_matched_by_stem(tmp_path: Path) -> None:
    for path in (
        *(
            "images/a.png",
            "labels/a.tif",
            "images/b.JPG",
            "labels/b.PNG",
            "images/c.d.tiff",
            "labels/c.d.png",
        ),
        *("images/e.png", "labels/f.png", "images/g.png", "images/g.tif", "labels/g.png", "labels/h.jpg"),
        *("look.png", "images/._a.png", "images/notes.txt", "images/sub/a.png"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    listing = scan_folder(describe_pictures(), tmp_path)
    found = {case.id: (set(case.images.values()), case.label) for case in listing.cases}
    assert found == {
        "a": ({"images/a.png"}, "labels/a.tif"),
        "b": ({"images/b.JPG"}, "labels/b.PNG"),
        "c.d": ({"images/c.d.tiff"}, "labels/c.d.png"),
        "g": ({"images/g.png"}, "labels/g.png"),
    }
    assert {item.path: item.reason for item in listing.unmatched} == {
        "images/e.png": "image without a label",
        "labels/f.png": "label without an image",
        "images/g.tif": "a second image of one case",
        "labels/h.jpg": "belongs to no case",
        "look.png": "belongs to no case",
        "images/sub/a.png": "belongs to no case",
    }


def test_pictures_beside_volumes_are_left_alone(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    assert scan_folder(load_description("phantoms"), tmp_path).unmatched == ()


def test_clean_pictures_have_no_fault_but_say_that_they_are_measured_in_pixels(tmp_path: Path) -> None:
    root = write_pictures(tmp_path)
    faults = check_manifest(make_manifest(describe_pictures(), root), root)
    assert [(fault.code, fault.severity) for fault in faults] == [("S008", "note")]


def test_an_empty_colour_is_a_stain_and_no_fault(tmp_path: Path) -> None:
    root = write_pictures(tmp_path)
    change(root / "images/disc_01.png", lambda pixels: pixels * np.array([0, 0, 1], np.uint8))
    assert faults_of(root) == []


@pytest.mark.parametrize(
    ("code", "severity", "path", "edit", "measured"),
    [
        ("P001", "error", "labels/disc_00.png", lambda label: label.T.copy(), "shape 40×48×1"),
        ("L003", "warning", "labels/disc_00.png", np.zeros_like, "every voxel is 0"),
        ("N011", "error", "images/disc_00.png", lambda image: image * 0 + 9, "every voxel is 9"),
        ("N014", "note", "images/disc_00.png", lambda image: image[..., 0], "one channel"),
        ("S001", "warning", "images/disc_00.png", lambda _: draw_discs(3)[0], "same voxels"),
        ("S002", "error", "labels/disc_00.png", lambda _: draw_discs(3)[1], "same voxels"),
    ],
)
def test_faults(tmp_path: Path, code: str, severity: str, path: str, edit: Callable, measured: str) -> None:
    root = write_pictures(tmp_path)
    change(root / path, edit)
    faults = {fault.code: fault for fault in faults_of(root)}
    assert faults[code].severity == severity or code == "S001"  # an error where the two lie in two folds
    assert measured in faults[code].measured


def test_unreadable_pictures(tmp_path: Path) -> None:
    root = write_pictures(tmp_path, 3)
    whole = (root / "images/disc_00.png").read_bytes()
    (root / "images/disc_00.png").write_bytes(whole[:200])
    (root / "labels/disc_01.png").write_text("hello")
    Image.new("L", (9, 9)).save(
        root / "images/disc_02.tif", save_all=True, append_images=[Image.new("L", (9, 9))]
    )
    (root / "images/disc_02.png").unlink()
    found = [(fault.code, fault.case, fault.subject) for fault in faults_of(root)]
    assert found == [
        ("N002", "disc_01", "label"),
        ("N002", "disc_02", "red+green+blue"),
        ("N003", "disc_00", "red+green+blue"),
    ]


def test_values_of_masks_must_be_declared(tmp_path: Path) -> None:
    root = write_pictures(tmp_path)
    undeclared = faults_of(root, describe_pictures(instances=False))
    assert {fault.code for fault in undeclared} == {"L001", "S006"}
    assert f"300 in {np.count_nonzero(draw_discs(0)[1] == 300)} voxels" in undeclared[0].measured
    assert "instances: true" in undeclared[0].hint
    for path in (root / "labels").iterdir():
        change(path, lambda label: (label > 0).astype(np.uint8) * 255)
    assert faults_of(root, describe_pictures(**MASKS)) == []
    assert faults_of(root) == []


def test_a_coloured_picture_is_no_grey_one(tmp_path: Path) -> None:
    root = write_pictures(tmp_path)
    faults = faults_of(root, describe_pictures(channels={"grey": {"modality": "other"}}))
    assert {(fault.code, fault.measured) for fault in faults[:4]} >= {("N005", "shape 48×40×1×3")}
    assert "the description has one channel" in faults[0].expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"background": 0, "a": 1, "b": 2}}, "instances: needs exactly one foreground label"),
        ({"channels": {name: {"modality": "other"} for name in "ab"}}, "channels: a 2D image has 1"),
    ],
)
def test_descriptions_that_cannot_be(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe_pictures(**change)


def test_description_of_instances() -> None:
    assert describe_pictures().instances_as == 1
    assert describe_pictures(labels=MASKS["labels"]).instances_as == 255
    assert describe_pictures(**MASKS).instances_as is None
    assert describe_pictures().unit == "px"
    assert load_description("phantoms").unit == "mm"


def test_plan_of_pictures_of_many_sizes(tmp_path: Path) -> None:
    root, description = write_pictures(tmp_path), describe_pictures()
    fingerprint = compute_fingerprint(make_manifest(description, root).cases, description, root, seed=0)
    assert fingerprint.shapes[:3] == tuple((*size, 1) for size in SIZES)
    assert set(fingerprint.spacings_mm) == {(1.0, 1.0, 1.0)}
    assert fingerprint.intensities["red"]["mean"] == pytest.approx(200, abs=1)
    assert fingerprint.intensities["green"]["mean"] == pytest.approx(60, abs=1)

    def plan(dimensions: Literal[2, 3]) -> Plan:
        config = PlanningConfig(dimensions=dimensions, base_features=4)
        return make_plan(fingerprint, description, config, memory_gb=1.0, memory_why="given")

    made = plan(2)
    assert (made.slice_axis, made.spacing_mm, len(made.patch_size)) == (2, (1.0, 1.0, 1.0), 2)
    assert {intensity.scheme for intensity in made.intensities.values()} == {"zscore"}
    with pytest.raises(InputError, match=r"single slice. Set planning.dimensions: 2"):
        plan(3)


def test_a_share_is_held_out_as_fold_0(tmp_path: Path) -> None:
    root, description = write_pictures(tmp_path), describe_pictures()
    manifest = make_manifest(description, root, holdout=0.25)
    assert sorted(case.fold for case in manifest.cases) == [0, 1, 1, 1]
    training, validation = manifest.split_fold(0)
    assert (len(training), len(validation)) == (3, 1)
    with pytest.raises(InputError, match="folds_file or holdout, not both"):
        make_manifest(description, root, holdout=0.25, folds=[["disc_00"], ["disc_01", "disc_02", "disc_03"]])


@pytest.mark.real_data
def test_nuclei(shared_data: Path) -> None:
    root = shared_data / "nuclei"
    folds = read_folds(shared_data.parent / "splits" / "nuclei.json")
    manifest = make_manifest(load_description("dsb2018_nuclei"), root, folds=folds)
    assert [sum(case.fold == fold for case in manifest.cases) for fold in (0, 1)] == [108, 434]
    assert manifest.unmatched == ()
    few = manifest.model_copy(update={"cases": manifest.cases[::20]})
    assert [fault.code for fault in check_manifest(few, root)] == ["S008"]
