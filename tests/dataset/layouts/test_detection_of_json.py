"""Folders with a dataset.json, nnU-Net's or the Decathlon's: told by it, and what is missing or not read is said."""

import json
from pathlib import Path

import pytest
from PIL import Image
from tiny_layouts import ask, cases, put, write_json
from tiny_pictures import write_pictures

from medunet.base.errors import InputError
from medunet.dataset.checks.manifest_checks import check_manifest
from medunet.dataset.manifest import make_manifest

NNUNET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "tumour": 2},
    "numTraining": 2,
}


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_nnunet_raw_dataset(tmp_path: Path, ending: str) -> None:
    root = tmp_path / "Dataset003_Liver"
    put(root, *(f"imagesTr/{name}_0000{ending}" for name in "abc"), f"imagesTs/t_0000{ending}")
    put(root, f"labelsTr/a{ending}", f"labelsTr/b{ending}")
    write_json(root / "dataset.json", {**NNUNET, "file_ending": ending})
    found = ask(root)
    assert found.what == "an nnU-Net raw dataset"
    assert (
        f"dataset.json with channel_names, imagesTr/CASE_0000{ending}; 3 cases, 2 with a label"
        in found.evidence
    )
    assert found.description.name == "Dataset003_Liver"
    assert found.description.labels == NNUNET["labels"]
    assert found.left_out == ("1 image without a label", "1 of type .json")
    assert cases(found, root) == {
        "a": (f"imagesTr/a_0000{ending}", f"labelsTr/a{ending}", "train"),
        "b": (f"imagesTr/b_0000{ending}", f"labelsTr/b{ending}", "train"),
        "t": (f"imagesTs/t_0000{ending}", None, "test"),
    }
    errors = [
        fault
        for fault in check_manifest(make_manifest(found.description, root), root)
        if fault.severity == "error"
    ]
    assert {fault.code for fault in errors} <= {"S002"}  # both have the same tiny label


def test_nnunet_says_where_cases_are_missing(tmp_path: Path) -> None:
    put(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    write_json(tmp_path / "dataset.json", {**NNUNET, "file_ending": ".nii.gz"})
    assert "dataset.json says numTraining 2, but 1 training cases are complete" in ask(tmp_path).notes


def test_nnunet_of_the_first_version(tmp_path: Path) -> None:
    put(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    entry = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
    plain = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver", "2": "cancer"}}
    write_json(tmp_path / "dataset.json", {**plain, "training": [entry]})
    found = ask(tmp_path)
    assert found.what == "an nnU-Net raw dataset"
    assert cases(found, tmp_path) == {"a": ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "train")}


def test_nnunet_of_pictures(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "p", 2)
    for path in sorted(pictures.rglob("*.png")):
        folder, name = (
            ("imagesTr", f"{path.stem}_0000.png") if path.parent.name == "images" else ("labelsTr", path.name)
        )
        (tmp_path / "raw" / folder).mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / "raw" / folder / name)
    names = {"0": "R", "1": "G", "2": "B"}
    plain = {"channel_names": names, "labels": {"background": 0, "disc": 1}, "file_ending": ".png"}
    write_json(tmp_path / "raw/dataset.json", plain)
    found = ask(tmp_path / "raw")
    assert (found.description.layout, list(found.description.channels)) == ("png", ["R", "G", "B"])
    assert cases(found, tmp_path / "raw")["disc_00"] == (
        "imagesTr/disc_00_0000.png", "labelsTr/disc_00.png", "train",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ending", "files", "message"),
    [
        (".bmp", (), "file_ending '.bmp' is not a supported image format.*Convert the files"),
        (".png", ("a_0000.png", "a_0001.png"), "several pictures per case"),
        (".tif", ("a_0000.tif",), "has 2 pages.*Convert stacks of slices"),
    ],
)
def test_nnunet_of_files_that_are_not_read(
    tmp_path: Path, ending: str, files: tuple[str, ...], message: str
) -> None:
    (tmp_path / "imagesTr").mkdir()
    page = Image.new("L", (9, 9))
    for name in files:
        page.save(
            tmp_path / "imagesTr" / name,
            **({"save_all": True, "append_images": [page]} if ending == ".tif" else {}),
        )
    write_json(tmp_path / "dataset.json", {**NNUNET, "file_ending": ending})
    with pytest.raises(InputError, match=message):
        ask(tmp_path)


def test_decathlon_task(tmp_path: Path) -> None:
    put(tmp_path, "imagesTr/liver_0.nii.gz", "labelsTr/liver_0.nii.gz", "imagesTs/liver_9.nii.gz")
    plain = {
        "name": "LIVER",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "training": [{"image": "./imagesTr/liver_0.nii.gz", "label": "./labelsTr/liver_0.nii.gz"}],
        "test": ["./imagesTs/liver_9.nii.gz"],
    }
    write_json(tmp_path / "dataset.json", plain)
    found = ask(tmp_path)
    assert (found.what, found.description.layout) == ("a Decathlon task", "msd")
    assert found.description.labels == {"background": 0, "liver": 1, "cancer": 2}
    assert any("medunet manifest msd_task03_liver" in note for note in found.notes)
    assert cases(found, tmp_path)["liver_9"] == ("imagesTs/liver_9.nii.gz", None, "test")


def test_no_description_is_hinted_at_without_cases(tmp_path: Path) -> None:
    put(tmp_path, "imagesTr/a_0000.nii", "labelsTr/a.nii")
    write_json(tmp_path / "dataset.json", {**NNUNET, "channel_names": {"0": "T1", "1": "T2"}})
    assert not [note for note in ask(tmp_path).notes if "medunet manifest" in note]


FIRST_VERSION = {
    "modality": {"0": "CT"},
    "labels": {"0": "background", "1": "liver", "2": "cancer"},
    "numTraining": 3,
    "test": [],
    "tensorImageSize": "3D",
}


@pytest.mark.parametrize("ending", ["", "_0000"])
@pytest.mark.parametrize("others", [{}, {"file_ending": ".nii.gz"}])
def test_a_training_list_of_the_first_version_is_followed(tmp_path: Path, ending: str, others: dict) -> None:
    put(tmp_path, *(f"imagesTr/{name}_0000.nii.gz" for name in "abc"), "imagesTs/t_0000.nii.gz")
    put(tmp_path, *(f"labelsTr/{name}.nii.gz" for name in "abc"))
    listed = [
        {"image": f"./imagesTr/{name}{ending}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in "abx"
    ]
    write_json(tmp_path / "dataset.json", {**FIRST_VERSION, **others, "training": listed})
    found = ask(tmp_path)
    assert found.what == "an nnU-Net raw dataset"
    manifest = make_manifest(found.description, tmp_path)
    assert [(case.id, case.images["CT"], case.label, case.split) for case in manifest.cases] == [
        ("a", "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "train"),
        ("b", "imagesTr/b_0000.nii.gz", "labelsTr/b.nii.gz", "train"),
        ("t", "imagesTs/t_0000.nii.gz", None, "test"),
        ("x", "imagesTr/x_0000.nii.gz", "labelsTr/x.nii.gz", "train"),
    ]
    assert [(item.path, item.reason) for item in manifest.unmatched] == [
        ("imagesTr/c_0000.nii.gz", "not listed in dataset.json"),
        ("labelsTr/c.nii.gz", "not listed in dataset.json"),
    ]
    absent = [
        (fault.case, fault.subject) for fault in check_manifest(manifest, tmp_path) if fault.code == "N001"
    ]
    assert absent == [("x", "CT"), ("x", "label")]


def test_lists_with_paths_of_windows(tmp_path: Path) -> None:
    numbered, plain = tmp_path / "numbered", tmp_path / "plain"
    put(numbered, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    put(plain, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    listed = [{"image": ".\\imagesTr\\a.nii.gz", "label": ".\\labelsTr\\a.nii.gz"}]
    for folder, image in ((numbered, "imagesTr/a_0000.nii.gz"), (plain, "imagesTr/a.nii.gz")):
        write_json(folder / "dataset.json", {**FIRST_VERSION, "training": listed})
        assert cases(ask(folder), folder) == {"a": (image, "labelsTr/a.nii.gz", "train")}


def test_an_ending_without_its_dot(tmp_path: Path) -> None:
    put(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    write_json(tmp_path / "dataset.json", {**NNUNET, "file_ending": "nii.gz"})
    assert list(cases(ask(tmp_path), tmp_path)) == ["a"]


@pytest.mark.parametrize("ending", ["", "_0000"])
def test_all_channels_of_the_first_version_are_found(tmp_path: Path, ending: str) -> None:
    put(tmp_path, *(f"imagesTr/{name}_000{n}.nii.gz" for name in "ab" for n in (0, 1)))
    put(tmp_path, "labelsTr/a.nii.gz", "labelsTr/b.nii.gz")
    listed = [
        {"image": f"./imagesTr/{name}{ending}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in "ab"
    ]
    plain = {**FIRST_VERSION, "modality": {"0": "CT", "1": "PET"}, "training": listed}
    write_json(tmp_path / "dataset.json", plain)
    listing = make_manifest(ask(tmp_path).description, tmp_path)
    assert [case.images for case in listing.cases] == [
        {"CT": f"imagesTr/{name}_0000.nii.gz", "PET": f"imagesTr/{name}_0001.nii.gz"} for name in "ab"
    ]


def test_cases_of_the_decathlon_whose_names_end_in_four_digits(tmp_path: Path) -> None:
    put(tmp_path, *(f"{folder}/brain_000{n}.nii.gz" for folder in ("imagesTr", "labelsTr") for n in (0, 1)))
    listed = [
        {"image": f"./imagesTr/brain_000{n}.nii.gz", "label": f"./labelsTr/brain_000{n}.nii.gz"}
        for n in (0, 1)
    ]
    write_json(tmp_path / "dataset.json", {**FIRST_VERSION, "training": listed})
    found = ask(tmp_path)
    assert (found.what, list(cases(found, tmp_path))) == ("a Decathlon task", ["brain_0000", "brain_0001"])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_a_dataset_json_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    put(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    text = json.dumps({**NNUNET, "description": "Größe", "file_ending": ".nii.gz"}, ensure_ascii=False)
    (tmp_path / "dataset.json").write_text(text, encoding=encoding)
    found = ask(tmp_path)
    assert found.description.title == "Größe"
    assert list(cases(found, tmp_path)) == ["a"]


def _entries(names: str, *endings: str) -> list[dict[str, object]]:
    images = [[f"scans/{name}{ending}.nii.gz" for ending in endings or ("",)] for name in names]
    return [
        {"image": paths if len(paths) > 1 else paths[0], "label": f"masks/{name}.nii.gz"}
        for name, paths in zip(names, images, strict=True)
    ]


@pytest.mark.parametrize("file_name", ["dataset.json", "datalist_0.json"])
@pytest.mark.parametrize("given", ["", "file"])
def test_a_datalist_without_labels(tmp_path: Path, file_name: str, given: str) -> None:
    put(tmp_path, *(f"scans/{name}.nii.gz" for name in "abcdt"), low=-1000)
    put(tmp_path, *(f"masks/{name}.nii.gz" for name in "abcd"))
    plain = {
        "training": _entries("abc"),
        "validation": _entries("d"),
        "testing": [{"image": "scans/t.nii.gz"}],
    }
    write_json(tmp_path / file_name, plain)
    found = ask(tmp_path, file_name if given else "")
    assert found.what == "a list of cases in JSON"
    assert f"{file_name} without names of labels and channels; 5 cases, 4 with a label" in found.evidence
    assert found.description.labels == {"background": 0, "label_1": 1, "label_2": 2}
    assert {name: each.modality for name, each in found.description.channels.items()} == {"CT": "CT"}
    manifest = make_manifest(found.description, tmp_path)
    assert [(case.id, case.fold, case.split) for case in manifest.cases] == [
        ("a", 1, "train"), ("b", 1, "train"), ("c", 1, "train"), ("d", 0, "train"), ("t", None, "test"),
    ]  # fmt: skip


@pytest.mark.parametrize("sections", [("train", "val", "test"), ("training", "valid", "testing")])
def test_sections_of_a_datalist_by_other_names(tmp_path: Path, sections: tuple[str, ...]) -> None:
    put(tmp_path, *(f"scans/{name}.nii.gz" for name in "abcde"))
    put(tmp_path, *(f"masks/{name}.nii.gz" for name in "abcde"))
    lists = [_entries("ab"), _entries("c"), _entries("d")]
    write_json(tmp_path / "list.json", {**dict(zip(sections, lists, strict=True)), "extra": _entries("e")})
    found = ask(tmp_path)
    assert {name: split for name, (_, _, split) in cases(found, tmp_path).items()} == {
        **dict.fromkeys("abc", "train"),
        "d": "test",
    }
    assert {(item.path, item.reason) for item in make_manifest(found.description, tmp_path).unmatched} == {
        (path, "in section 'extra' of list.json, which is not used")
        for path in ("scans/e.nii.gz", "masks/e.nii.gz")
    }


def test_a_datalist_with_several_images_names_the_channels_by_their_endings(tmp_path: Path) -> None:
    put(tmp_path, *(f"scans/{name}_{end}.nii.gz" for name in "ab" for end in ("t1", "flair")))
    put(tmp_path, "masks/a.nii.gz", "masks/b.nii.gz")
    labels = {"0": "background", "1": "core", "2": "oedema"}
    write_json(tmp_path / "list.json", {"labels": labels, "training": _entries("ab", "_t1", "_flair")})
    found = ask(tmp_path)
    assert "list.json without names of channels; 2 cases" in found.evidence
    assert {name: each.modality for name, each in found.description.channels.items()} == {
        "t1": "MR",
        "flair": "MR",
    }
    assert found.description.foreground == ("core", "oedema")
    assert list(cases(found, tmp_path)) == ["a", "b"]


def test_a_plain_list_of_cases_is_a_training_list(tmp_path: Path) -> None:
    put(tmp_path, "scans/a.nii.gz", "scans/b.nii.gz", "masks/a.nii.gz", "masks/b.nii.gz")
    (tmp_path / "list.json").write_text(json.dumps(_entries("ab")))
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    assert list(cases(ask(tmp_path), tmp_path)) == ["a", "b"]


def test_all_entries_at_fault_are_named_at_once(tmp_path: Path) -> None:
    put(tmp_path, "scans/a.nii.gz", "masks/a.nii.gz")
    bad = [
        {"image": "../x.nii.gz"},
        {"label": "masks/a.nii.gz"},
        {"image": "scans/a.nii.gz", "label": ["x", "y"]},
    ]
    write_json(tmp_path / "list.json", {"training": [*_entries("a"), *bad]})
    with pytest.raises(InputError, match=r"training\[1\]: .*training\[2\]: 'image'.*training\[3\]: 'label'"):
        ask(tmp_path)


def test_json_files_that_list_no_cases_are_said(tmp_path: Path) -> None:
    put(tmp_path, "images/a.nii", "labels/a.nii")
    write_json(tmp_path / "dataset.json", {"name": "mine"})
    (tmp_path / "broken.json").write_text("{")
    write_json(tmp_path / "plans.json", {"patch": 3})
    found = ask(tmp_path)
    notes = [note.removeprefix("not used as a list of cases: ") for note in found.notes if "not used" in note]
    assert notes[0] == "dataset.json names neither cases nor channels"
    assert notes[1].startswith("broken.json: not valid JSON")
    assert len(notes) == 2
