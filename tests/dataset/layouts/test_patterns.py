"""Layouts, each read from a tiny tree of empty files."""

import os
from pathlib import Path
from typing import Any

import pytest

from medunet.base.errors import InputError
from medunet.dataset.layouts import bids
from medunet.dataset.layouts.patterns import Listing, scan_folder
from medunet.records.description import Description

BRATS_CHANNELS = {
    "FLAIR": {"modality": "MR", "endings": ["_flair"]},
    "T1w": {"modality": "MR", "endings": ["_t1"]},
    "T1gd": {"modality": "MR", "endings": ["_t1ce", "_t1c"]},
}


def describe(layout: str, **others: Any) -> Description:
    plain = {"name": "tiny", "layout": layout, "channels": {"CT": {"modality": "CT"}}}
    return Description.parse({**plain, "labels": {"background": 0, "liver": 1}, **others}, "test")


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def summary(listing: Listing) -> dict[str, tuple[str, str | None, str]]:
    """First image, label and split of each case."""
    return {case.id: (next(iter(case.images.values())), case.label, case.split) for case in listing.cases}


def reasons(listing: Listing) -> dict[str, str]:
    return {item.path: item.reason for item in listing.unmatched}


def test_msd(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(
            "imagesTr/liver_1.nii.gz",
            "labelsTr/liver_1.nii.gz",
            "imagesTr/liver_0.nii",
            "labelsTr/liver_0.nii.gz",
        ),
        *("imagesTr/._liver_1.nii.gz", "imagesTr/liver_2.nii.gz", "labelsTr/liver_3.nii.gz"),
        *("imagesTs/liver_9.nii.gz", "imagesTs/liver_8.nii.gz", "labelsTs/liver_8.nii.gz"),
        *("other/liver_5.nii.gz", "readme.txt", "imagesTr/liver_7.mha"),
    )
    listing = scan_folder(describe("msd", patient=r"liver_(\d+)"), tmp_path)
    assert summary(listing) == {
        "liver_0": ("imagesTr/liver_0.nii", "labelsTr/liver_0.nii.gz", "train"),
        "liver_1": ("imagesTr/liver_1.nii.gz", "labelsTr/liver_1.nii.gz", "train"),
        "liver_8": ("imagesTs/liver_8.nii.gz", "labelsTs/liver_8.nii.gz", "test"),
        "liver_9": ("imagesTs/liver_9.nii.gz", None, "test"),
    }
    assert [case.patient for case in listing.cases] == ["0", "1", "8", "9"]
    assert reasons(listing) == {
        "imagesTr/liver_2.nii.gz": "image without a label",
        "labelsTr/liver_3.nii.gz": "label without an image",
        "other/liver_5.nii.gz": "belongs to no case",
        "imagesTr/liver_7.mha": "image without a label",
    }


def test_one_4d_file_holds_all_channels(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    channels = {"T1w": {"modality": "MR"}, "T2w": {"modality": "MR"}}
    (case,) = scan_folder(describe("msd", channels=channels), tmp_path).cases
    assert case.images == {"T1w": "imagesTr/a.nii.gz", "T2w": "imagesTr/a.nii.gz"}


def test_lits_in_any_folder(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *("batch 1/volume-0.nii", "batch 1/segmentation-0.nii", "batch2/volume-10.nii.gz"),
        *("masks/segmentation-10.nii.gz", "volume-3.nii", "test/test-volume-0.nii", "volume-x.nii"),
    )
    listing = scan_folder(describe("lits"), tmp_path)
    assert summary(listing) == {
        "volume-0": ("batch 1/volume-0.nii", "batch 1/segmentation-0.nii", "train"),
        "volume-10": ("batch2/volume-10.nii.gz", "masks/segmentation-10.nii.gz", "train"),
        "volume-3": ("volume-3.nii", None, "unlabelled"),
        "test-volume-0": ("test/test-volume-0.nii", None, "test"),
    }
    assert reasons(listing) == {"volume-x.nii": "belongs to no case"}


@pytest.mark.parametrize("folder", ["", "{id}/", "HGG/{id}/"])
def test_brats(tmp_path: Path, folder: str) -> None:
    def files(case_id: str, *endings: str) -> list[str]:
        return [f"{folder.format(id=case_id)}{case_id}{ending}.nii.gz" for ending in endings]

    touch(
        tmp_path,
        *files("B_1", "_flair", "_t1", "_t1ce", "_seg"),
        *files("B_2", "_flair", "_t1", "_t1c"),
        *files("B_3", "_flair", "_t1", "_seg"),
        *files("B_4", "_seg"),
        "raters/isen-20.nii.gz",
    )
    listing = scan_folder(describe("brats", channels=BRATS_CHANNELS), tmp_path)
    first, second = listing.cases
    assert (first.id, first.split, second.id, second.split) == ("B_1", "train", "B_2", "unlabelled")
    assert [*first.images.values(), first.label] == files("B_1", "_flair", "_t1", "_t1ce", "_seg")
    assert list(second.images.values()) == files("B_2", "_flair", "_t1", "_t1c")
    found = reasons(listing)
    assert found.pop("raters/isen-20.nii.gz") == "belongs to no case"
    assert found.pop(*files("B_4", "_seg")) == "label without an image"
    assert found == dict.fromkeys(files("B_3", "_flair", "_t1", "_seg"), "its case lacks channel T1gd")


def test_brats_2023(tmp_path: Path) -> None:
    channels = {
        "T1w": {"modality": "MR", "endings": ["-t1n"]},
        "T1gd": {"modality": "MR", "endings": ["-t1c"]},
    }
    touch(tmp_path, "B-1/B-1-t1n.nii.gz", "B-1/B-1-t1c.nii.gz", "B-1/B-1-seg.nii.gz")
    listing = scan_folder(describe("brats2023", channels=channels), tmp_path)
    assert summary(listing) == {"B-1": ("B-1/B-1-t1n.nii.gz", "B-1/B-1-seg.nii.gz", "train")}


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("imagesTr", "labelsTr")])
def test_pairs_by_stem(tmp_path: Path, images: str, labels: str) -> None:
    touch(tmp_path, f"{images}/a.nii.gz", f"{labels}/a.nii", f"{images}/a.b.nii.gz", f"{labels}/a.b.nii.gz")
    assert summary(scan_folder(describe("pairs"), tmp_path)) == {
        "a": (f"{images}/a.nii.gz", f"{labels}/a.nii", "train"),
        "a.b": (f"{images}/a.b.nii.gz", f"{labels}/a.b.nii.gz", "train"),
    }


def test_pairs_by_patterns_in_folders_and_in_the_root(tmp_path: Path) -> None:
    files = {"image": r"((?P<id>[^/]+)/)?ct\.nii\.gz", "label": r"((?P<id>[^/]+)/)?labels\.nii\.gz"}
    description = describe("pairs", files=files)
    touch(tmp_path, "s1/ct.nii.gz", "s1/labels.nii.gz", "s2/ct.nii.gz", "s3/labels.nii.gz")
    listing = scan_folder(description, tmp_path)
    assert summary(listing) == {
        "s1": ("s1/ct.nii.gz", "s1/labels.nii.gz", "train"),
        "s2": ("s2/ct.nii.gz", None, "unlabelled"),
    }
    assert reasons(listing) == {"s3/labels.nii.gz": "label without an image"}
    touch(tmp_path / "s1", "ct.nii.gz")
    assert summary(scan_folder(description, tmp_path / "s1")) == {
        "ct": ("ct.nii.gz", "labels.nii.gz", "train")
    }


@pytest.mark.parametrize(("text", "message"), [("[", "regular expression"), (r"\d+", "no group named id")])
def test_patterns_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scan_folder(describe("pairs", files={"image": text, "label": text}), tmp_path)


def test_a_second_file_of_one_case_is_unmatched(tmp_path: Path) -> None:
    touch(tmp_path, "a/volume-1.nii", "b/volume-1.nii", "segmentation-1.nii")
    listing = scan_folder(describe("lits"), tmp_path)
    assert summary(listing) == {"volume-1": ("a/volume-1.nii", "segmentation-1.nii", "train")}
    assert reasons(listing) == {"b/volume-1.nii": "a second image of one case"}


def test_links_that_lead_back_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    (tmp_path / "imagesTr" / "again").symlink_to(tmp_path)
    assert len(scan_folder(describe("msd"), tmp_path).cases) == 1


def test_links_to_the_folders_above_are_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "data/imagesTr/a.nii.gz", "data/labelsTr/a.nii.gz", "other/b.nii.gz")
    (tmp_path / "data/up").symlink_to(tmp_path)
    listing = scan_folder(describe("msd"), tmp_path / "data")
    assert [case.id for case in listing.cases] == ["a"]
    assert listing.unmatched == ()


def test_a_folder_that_cannot_be_listed_is_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "locked/b.nii.gz")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"locked: cannot be listed \(Permission denied\)"):
        scan_folder(describe("msd"), tmp_path)


def test_dicom_is_to_be_imported_first(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"'dicom' cannot be used for training directly.*import-dicom TREE OUT"
    ):
        scan_folder(describe("dicom"), tmp_path)


def test_nnunet(tmp_path: Path) -> None:
    channels = {"T1": {"modality": "MR"}, "FLAIR": {"modality": "MR"}}
    touch(
        tmp_path,
        *("imagesTr/a_0000.nrrd", "imagesTr/a_0001.nrrd", "labelsTr/a.nrrd"),
        *("imagesTr/b_0000_0000.nii.gz", "imagesTr/b_0000_0001.nii.gz", "labelsTr/b_0000.nii.gz"),
        *("imagesTr/c_0000.nii.gz", "labelsTr/c.nii.gz", "imagesTr/a_0002.nrrd"),
        *("imagesTs/d_0000.mha", "imagesTs/d_0001.mha"),
    )
    listing = scan_folder(describe("nnunet", channels=channels), tmp_path)
    assert {case.id: case.split for case in listing.cases} == {"a": "train", "b_0000": "train", "d": "test"}
    assert listing.cases[0].images == {"T1": "imagesTr/a_0000.nrrd", "FLAIR": "imagesTr/a_0001.nrrd"}
    assert reasons(listing) == {
        "imagesTr/c_0000.nii.gz": "its case lacks channel FLAIR",
        "labelsTr/c.nii.gz": "its case lacks channel FLAIR",
        "imagesTr/a_0002.nrrd": "belongs to no case",
    }


def test_patterns_name_channels_and_test_cases(tmp_path: Path) -> None:
    files = {
        "image": r"(train|(?P<test>test))/(?P<id>[^/]+)/(?P<channel>t1|t2)\.nii",
        "label": r"(train|test)/(?P<id>[^/]+)/mask\.nii",
    }
    channels = {"T1": {"modality": "MR", "endings": ["t1"]}}
    touch(tmp_path, "train/a/t1.nii", "train/a/mask.nii", "train/a/t2.nii", "test/b/t1.nii")
    listing = scan_folder(describe("pairs", files=files, channels=channels), tmp_path)
    assert summary(listing) == {
        "a": ("train/a/t1.nii", "train/a/mask.nii", "train"),
        "b": ("test/b/t1.nii", None, "test"),
    }
    assert reasons(listing) == {"train/a/t2.nii": "belongs to no channel"}


def test_the_site_is_a_part_of_the_case_id(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/x_ucl_1.nii", "labelsTr/x_ucl_1.nii", "imagesTr/y1.nii", "labelsTr/y1.nii")
    cases = scan_folder(describe("msd", site=r"_([a-z]+)_"), tmp_path).cases
    assert [case.site for case in cases] == ["ucl", None]
    assert "site" not in describe("msd").to_dict()  # hashes of earlier runs stay valid


@pytest.mark.parametrize(
    ("layout", "others", "message"),
    [
        ("csv", {}, "table: layout csv needs"),
        ("msd", {"table": "a.csv"}, "table: is read by layouts csv and png"),
        ("msd", {"site": "x"}, "site: the expression needs exactly one group"),
    ],
)
def test_descriptions_that_cannot_be(layout: str, others: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe(layout, **others)


def test_brats_needs_endings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="endings of every channel"):
        scan_folder(describe("brats"), tmp_path)


@pytest.mark.parametrize("ending", [".NII.GZ", ".Nii", ".nrrd", ".MHA", ".mhd", ".hdr", ".HDR.GZ"])
@pytest.mark.parametrize(
    ("layout", "image", "label", "case"),
    [
        ("msd", "imagesTr/a", "labelsTr/a", "a"),
        ("nnunet", "imagesTr/a_0000", "labelsTr/a", "a"),
        ("pairs", "images/a", "labels/a", "a"),
        ("lits", "volume-1", "x/segmentation-1", "volume-1"),
        ("brats", "a/a_ct", "a/a_seg", "a"),
        ("bids", "sub-1/anat/sub-1_T1w", "derivatives/m/sub-1_dseg", "sub-1"),
    ],
)
def test_endings_in_capitals_and_other_formats(
    tmp_path: Path, layout: str, image: str, label: str, case: str, ending: str
) -> None:
    if layout == "bids" and ".nii" not in ending.lower():
        pytest.skip("BIDS has NIfTI alone")
    others: dict[str, Any] = (
        {"channels": {"CT": {"modality": "CT", "endings": ["_ct"]}}} if layout == "brats" else {}
    )
    if layout == "bids":
        (kind,) = bids.find_label_kinds([label + ending])
        others = {
            "channels": {"T1": {"modality": "MR", "endings": ["_T1w"]}},
            "files": kind.patterns.to_dict(),
        }
    files = [image + ending, label + ending]
    data = [f.replace(".hdr", ".img").replace(".HDR", ".IMG") for f in files if "hdr" in ending.lower()]
    listing = scan_folder(describe(layout, **others), touch(tmp_path, *files, *data))
    assert summary(listing) == {case: (image + ending, label + ending, "train")}
    assert reasons(listing) == {}


def test_a_segmentation_of_slicer_is_the_label_of_its_image(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nrrd", "labels/a.seg.nrrd", "images/b.nii.gz", "labels/b.SEG.NRRD")
    assert summary(scan_folder(describe("pairs"), tmp_path)) == {
        "a": ("images/a.nrrd", "labels/a.seg.nrrd", "train"),
        "b": ("images/b.nii.gz", "labels/b.SEG.NRRD", "train"),
    }


def test_voxels_without_their_header_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.hdr", "images/a.img", "images/b.img", "labels/a.hdr", "labels/a.img")
    listing = scan_folder(describe("pairs"), tmp_path)
    assert summary(listing) == {"a": ("images/a.hdr", "labels/a.hdr", "train")}
    assert reasons(listing) == {"images/b.img": "voxels without their header, .hdr"}


def test_names_that_are_not_unicode_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii", "labels/a.nii")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/images/\xff.nii"))).touch()
    with pytest.raises(InputError, match=r"names of files are not in UTF-8: 'images/\\udcff.nii'. Rename"):
        scan_folder(describe("pairs"), tmp_path)
