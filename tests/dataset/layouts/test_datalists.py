"""`dataset.json` of the Decathlon and MONAI's datalists, as they are found."""

import json
from pathlib import Path
from typing import Any

import pytest

from medunet.base.errors import InputError
from medunet.dataset.manifest import make_manifest
from medunet.records.description import Description

ENTRIES = [
    {"image": f"./imagesTr/liver_{i}.nii.gz", "label": f"./labelsTr/liver_{i}.nii.gz"} for i in range(3)
]


def describe(num_channels: int = 1) -> Description:
    names = ["CT"] if num_channels == 1 else ["FLAIR", "T1w"][:num_channels]
    plain = {
        "name": "tiny",
        "layout": "msd",
        "channels": {name: {"modality": "CT"} for name in names},
        "labels": {"background": 0, "liver": 1, "tumour": 2},
        "folds": 3,
    }
    return Description.parse(plain, "test")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (tmp_path / folder).mkdir()
    for i in range(4):
        (tmp_path / f"imagesTr/liver_{i}.nii.gz").touch()
        (tmp_path / f"labelsTr/liver_{i}.nii.gz").touch()
    return tmp_path


def write(path: Path, plain: dict[str, Any]) -> Path:
    path.write_text(json.dumps(plain))
    return path


@pytest.mark.parametrize(
    "labels", [{"0": "background", "1": "liver", "2": "cancer"}, {"background": 0, "liver": 1, "cancer": 2}]
)
def test_dataset_json(root: Path, labels: dict[str, Any]) -> None:
    missing = {"image": "./imagesTr/liver_77.nii.gz", "label": "./labelsTr/liver_77.nii.gz"}
    plain = {"labels": labels, "modality": {"0": "CT"}, "training": [*ENTRIES, missing]}
    write(root / "dataset.json", {**plain, "test": ["./imagesTs/liver_9.nii.gz"]})
    manifest = make_manifest(describe(), root)
    assert [(case.id, case.split) for case in manifest.cases] == [
        *[(f"liver_{i}", "train") for i in (0, 1, 2, 77)],
        ("liver_9", "test"),
    ]
    assert manifest.cases[0].images == {"CT": "imagesTr/liver_0.nii.gz"}
    assert {item.path: item.reason for item in manifest.unmatched} == {
        "imagesTr/liver_3.nii.gz": "not listed in dataset.json",
        "labelsTr/liver_3.nii.gz": "not listed in dataset.json",
    }


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"labels": {"0": "background", "1": "tumour", "2": "liver"}}, "label 'tumour' is 1, not 2"),
        ({"labels": {"background": 0, "liver": 2, "tumour": 1}}, "label 'liver' is 2, not 1"),
        ({"labels": {"0": "background", "1": "liver"}}, "labels .* against"),
        ({"modality": {"0": "FLAIR", "1": "T1w"}}, "channels .* against"),
    ],
)
def test_contradictions_are_refused(root: Path, plain: dict[str, Any], message: str) -> None:
    write(root / "dataset.json", {**plain, "training": ENTRIES})
    with pytest.raises(InputError, match=message):
        make_manifest(describe(), root)


def test_swapped_channels_are_refused(root: Path) -> None:
    write(root / "dataset.json", {"modality": {"0": "T1w", "1": "FLAIR"}, "training": ENTRIES})
    with pytest.raises(InputError, match="channel 'T1w' is 0, not 1"):
        make_manifest(describe(2), root)


def test_a_dataset_json_without_cases_leaves_the_folder_to_be_scanned(root: Path) -> None:
    write(root / "dataset.json", {"channel_names": {"0": "CT"}, "numTraining": 4})
    assert len(make_manifest(describe(), root).cases) == 4


def test_datalist_with_folds(root: Path) -> None:
    entries = [{**entry, "fold": (2, 0, 1)[i]} for i, entry in enumerate(ENTRIES)]
    datalist = write(root / "list.json", {"training": entries, "testing": [{"image": "imagesTs/x.nii.gz"}]})
    manifest = make_manifest(describe(), root, datalist=datalist)
    assert [(case.id, case.fold, case.split) for case in manifest.cases] == [
        ("liver_0", 2, "train"),
        ("liver_1", 0, "train"),
        ("liver_2", 1, "train"),
        ("x", None, "test"),
    ]


def test_validation_section_is_fold_0(root: Path) -> None:
    datalist = write(root / "list.json", {"training": ENTRIES[:2], "validation": ENTRIES[2:]})
    manifest = make_manifest(describe(), root, datalist=datalist)
    train, validation = manifest.split_fold(0)
    assert [case.id for case in train] == ["liver_0", "liver_1"]
    assert [case.id for case in validation] == ["liver_2"]


def test_several_images_and_absolute_paths(root: Path) -> None:
    entry = {
        "image": ["c1/B_1_flair.nii.gz", str(root / "c1/B_1_fla2.nii.gz")],
        "label": "c1/B_1_seg.nii.gz",
    }
    manifest = make_manifest(describe(2), root, datalist=write(root / "list.json", {"training": [entry]}))
    (case,) = manifest.cases
    assert case.id == "B_1"
    assert case.images == {"FLAIR": "c1/B_1_flair.nii.gz", "T1w": "c1/B_1_fla2.nii.gz"}


def test_files_named_alike_take_the_folders_name(root: Path) -> None:
    entries = [{"image": f"s/{i}/ct.nii.gz", "label": f"s/{i}/label.nii.gz"} for i in (1, 2)]
    manifest = make_manifest(describe(), root, datalist=write(root / "list.json", {"training": entries}))
    assert [case.id for case in manifest.cases] == ["s_1_ct", "s_2_ct"]


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"train": []}, "no list 'training'"),
        ({"training": [{"label": "a.nii.gz"}]}, r"training\[0\]: 'image' must be"),
        ({"training": [{"image": ["a.nii.gz", "b.nii.gz"]}]}, "2 images, but .* 1 channels"),
        ({"training": [{**ENTRIES[0], "fold": 0}, ENTRIES[1]]}, r"training\[1\]: 'fold' must be"),
        ({"training": [{"image": "/elsewhere/a.nii.gz"}]}, "is outside the data root"),
        ({"training": ENTRIES, "test": [ENTRIES[1]["image"]]}, "images occur twice: imagesTr_liver_1"),
        ({"training": [{"image": "../a.nii.gz"}]}, "is outside the data root"),
    ],
)
def test_lists_that_cannot_be_used(root: Path, plain: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_manifest(describe(), root, datalist=write(root / "list.json", plain))
