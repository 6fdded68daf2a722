"""nnU-Net's raw datasets: a description of their `dataset.json`, their file lists and their fixed splits."""

import json
from pathlib import Path
from typing import Any

import pytest

from medunet.base.errors import InputError
from medunet.dataset.layouts.dataset_json import describe_json, modality_of
from medunet.dataset.layouts.nnunet import check_case_count, find_splits, read_any_folds
from medunet.dataset.layouts.patterns import scan_folder
from medunet.dataset.manifest import list_cases
from medunet.records.description import Description

CT = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}


def describe(**changes: Any) -> Description:
    return describe_json({**CT, **changes}, "Dataset003 Liver!", "nnunet")


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def test_channels_and_labels() -> None:
    names = {"1": "T1", "0": "CT", "2": "noNorm", "3": "noNorm"}
    description = describe(channel_names=names, labels={"background": 0, "liver": 1, "ignore": 2})
    assert description.name == "Dataset003_Liver"
    assert {name: channel.modality for name, channel in description.channels.items()} == {
        "CT": "CT", "T1": "MR", "noNorm_2": "other", "noNorm_3": "other",
    }  # fmt: skip
    assert description.channels["T1"].endings == ("_0001",)
    assert (description.foreground, description.ignore_value) == (("liver",), 2)


def test_the_first_version_and_the_decathlon_write_labels_by_value() -> None:
    plain = {"modality": {"0": "MRI"}, "labels": {"0": "Background", "1": "Anterior", "2": "Posterior"}}
    description = describe_json(plain, "Task004", "msd")
    assert description.labels == {"background": 0, "Anterior": 1, "Posterior": 2}
    assert description.channels["MRI"].modality == "MR"


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        *(("CT", "CT"), ("ct", "CT"), ("CTA", "other"), ("T1", "MR"), ("t1ce", "MR"), ("T2-FLAIR", "MR")),
        *(("FLAIR", "MR"), ("MRI", "MR"), ("ADC", "MR"), ("PET", "PET"), ("zscore", "other"), ("R", "other")),
    ],
)
def test_modality_by_name(name: str, modality: str) -> None:
    assert modality_of(name) == modality


def test_regions_are_written_as_nnunet_writes_them() -> None:
    labels = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}
    description = describe(labels=labels, regions_class_order=[1, 2, 3])
    assert description.labels == {"background": 0, "label_1": 1, "label_2": 2, "enhancing tumor": 3}
    assert description.targets == {"whole tumor": (1, 2, 3), "tumor core": (2, 3), "enhancing tumor": (3,)}
    assert description.written_values == {"whole tumor": 1, "tumor core": 2, "enhancing tumor": 3}


def test_values_that_no_label_may_have_are_renumbered() -> None:
    description = describe(labels={"background": 0, "liver": 1000, "tumour": -1, "vessel": 7})
    assert description.labels == {"background": 0, "liver": 1, "tumour": 2, "vessel": 3}
    assert description.renumber == {0: 0, 1000: 1, -1: 2, 7: 3}
    assert describe(labels={"background": 0, "liver": 200, "tumour": 210}).renumber is None
    by_value = describe_json({**CT, "labels": {"0": "Background", "1000": "a", "-2": "b"}}, "x", "msd")
    assert by_value.renumber == {0: 0, 1000: 1, -2: 2}
    regions = {"background": 0, "whole": [1000, 2500], "core": 2500}
    description = describe(labels=regions, regions_class_order=[1000, 2500])
    assert description.targets == {"whole": (1, 2), "core": (2,)}
    assert description.renumber == {0: 0, 1000: 1, 2500: 2}
    with pytest.raises(InputError, match=r"regions_class_order \[1, 2\].*Write \[1000, 2500\]"):
        describe(labels=regions, regions_class_order=[1, 2])


def test_regions_of_kits_with_an_ignored_value() -> None:
    labels = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2, "ignore": 4}
    description = describe(labels=labels, regions_class_order=[1, 3, 2])
    assert description.written_values == {"kidney": 1, "masses": 3, "tumor": 2}
    assert description.ignore_value == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"a": [1, 2], "b": 2}}, r"regions_class_order None .* a as 1, b as 2.*Write \[1, 2\]"),
        ({"labels": {"a": [1, 2], "b": 2}, "regions_class_order": [2, 1]}, r"regions_class_order \[2, 1\]"),
        ({"labels": {"a": [1, 2], "b": [2, 3]}, "regions_class_order": [1, 2]}, "exactly one label"),
        ({"labels": {"liver": "much"}, "channel_names": {}}, r"labels\.liver: 'much'.*channel_names: write"),
        ({"labels": {}}, "labels: write"),
        ({"channel_names": {"0": "CT", "2": "PET"}}, "channel_names: write"),
    ],
)
def test_what_cannot_be_described(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe(**changes)


def test_mirroring_is_refused_where_labels_have_sides() -> None:
    assert describe(labels={"background": 0, "left kidney": 1, "right kidney": 2}).sided
    assert not describe(labels={"background": 0, "left atrium": 1}).sided


def test_explicit_file_lists(tmp_path: Path) -> None:
    entries = {
        "b": {"images": ["elsewhere/b.nii.gz"], "label": "masks/b.nii.gz"},
        "a": {"images": [str(tmp_path / "elsewhere/a.nii.gz")], "label": "masks/a.nii.gz"},
    }
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/c.nii.gz").touch()
    write(tmp_path / "dataset.json", {**CT, "dataset": entries})
    listing = list_cases(describe(), tmp_path)
    assert [(case.id, case.images["CT"], case.label) for case in listing.cases] == [
        ("a", "elsewhere/a.nii.gz", "masks/a.nii.gz"),
        ("b", "elsewhere/b.nii.gz", "masks/b.nii.gz"),
    ]
    assert [item.path for item in listing.unmatched] == ["masks/c.nii.gz"]


def test_all_faults_of_a_file_list_at_once(tmp_path: Path) -> None:
    entries = {
        "a": {"images": ["../a.nii.gz"], "label": "a.nii.gz"},
        "b": {"images": ["1.nii.gz", "2.nii.gz"], "label": "b.nii.gz"},
        "c": {"label": "c.nii.gz"},
        "d": {"images": ["d\0.nii.gz"], "label": "x" * 300},
    }
    write(tmp_path / "dataset.json", {**CT, "dataset": entries})
    with pytest.raises(
        InputError, match=r"a: 1 of its files are outside.*b: 2 images.*c: write a list.*d: 2 of its files"
    ):
        list_cases(describe(), tmp_path)


def test_the_number_of_training_cases(tmp_path: Path) -> None:
    for name in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTr/b_0000.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listing = scan_folder(describe(), tmp_path)
    assert check_case_count({"numTraining": 1}, listing) == ""
    assert check_case_count({}, listing) == ""
    text = check_case_count({"numTraining": 2}, listing)
    assert "numTraining 2, but 1 training cases are complete (1 × image without a label)" in text


def test_splits_final(tmp_path: Path) -> None:
    splits = [
        {"train": ["c", "d", "e"], "val": ["a", "b"]},
        {"train": ["a", "b", "e"], "val": ["c", "d"]},
    ]
    path = write(tmp_path / "nnUNet_preprocessed/Dataset003/splits_final.json", splits)
    raw = tmp_path / "nnUNet_raw/Dataset003"
    raw.mkdir(parents=True)
    assert find_splits(raw) == path
    assert find_splits(tmp_path) is None
    assert find_splits(Path("/")) is None
    assert read_any_folds(path) == [["a", "b"], ["c", "d"], ["e"]]  # e is always trained on
    own = write(tmp_path / "own.json", {"folds": [["a"], ["b"]]})
    assert read_any_folds(own) == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ([], "has no splits"),
        ([{"train": ["a"]}], "has no splits"),
        ([{"train": ["a"], "val": ["b"]}, {"train": ["a"], "val": ["b"]}], "held out twice: b"),
        (
            [{"train": ["b"], "val": ["a"]}, {"train": ["a", "c"], "val": ["b"]}],
            "split 0 does not train on all",
        ),
    ],
)
def test_splits_that_cannot_be_folds(tmp_path: Path, splits: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_any_folds(write(tmp_path / "splits_final.json", splits))
