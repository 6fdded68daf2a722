"""Folders given bare: each layout told by its files, with evidence; what is ambiguous or unknown refused."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from tiny_pictures import draw_discs, write_pictures

from medunet.base.errors import InputError
from medunet.dataset.checks.manifest_checks import check_manifest
from medunet.dataset.layouts.detection import Recognised, recognise
from medunet.dataset.manifest import make_manifest
from medunet.imaging.nifti import write_volume
from medunet.records.description import Description, load_description

DESCRIPTIONS = Path(__file__).parents[3] / "data_manifests"
SHIPPED = [load_description(path.stem) for path in sorted(DESCRIPTIONS.glob("*.yaml"))]
SHAPE, AFFINE = (6, 5, 4), np.diag([2.0, 1.0, 3.0, 1.0])


def put(root: Path, *paths: str, low: float = 0, values: Sequence[int] = (1, 2)) -> Path:
    """Write small volumes: scans down to `low`, and label maps of `values` where the name says so."""
    for seed, path in enumerate(paths):
        is_label = any(word in path.lower() for word in ("label", "seg", "mask", "gt"))
        scan = np.random.default_rng(seed).integers(low, 900, SHAPE).astype(np.int16)
        scan.flat[0] = low
        label = np.resize(np.array((0, *values), np.uint16), SHAPE)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith((".nrrd", ".mha")):
            sitk.WriteImage(sitk.GetImageFromArray((label if is_label else scan).T), str(root / path))
        else:
            write_volume(root / path, label if is_label else scan, AFFINE)
    return root


def ask(root: Path, place: str = "") -> Recognised:
    return recognise(root / place, root, SHIPPED)


def cases(found: Recognised, root: Path) -> dict[str, tuple[str, str | None, str]]:
    """First image, label and split of each case, as the manifest will have them."""
    listed = make_manifest(found.description, root).cases
    return {case.id: (next(iter(case.images.values())), case.label, case.split) for case in listed}


def write_json(path: Path, plain: dict[str, Any]) -> None:
    path.write_text(json.dumps(plain))


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
    assert found.left_out == ("1 image without a label", "1 of kind .json")
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
    assert "dataset.json says numTraining 2, but 1 training cases are whole" in ask(tmp_path).notes


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
        (".bmp", (), "file_ending '.bmp' is of no image that is read.*Convert the files"),
        (".png", ("a_0000.png", "a_0001.png"), "several pictures a case"),
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


def test_lits(tmp_path: Path) -> None:
    found = ask(put(tmp_path, "b1/volume-0.nii", "b1/segmentation-0.nii", "volume-10.nii"))
    assert found.description == load_description("lits_2017")
    assert "volume-0.nii, segmentation-0.nii; 2 cases, 1 with a label" in found.evidence


@pytest.mark.parametrize(
    ("name", "endings"),
    [
        ("brats_2018_2021", ("_flair", "_t1", "_t1ce", "_t2", "_seg")),
        ("brats_2023_glioma", ("-t2f", "-t1n", "-t1c", "-t2w", "-seg")),
    ],
)
def test_brats(tmp_path: Path, name: str, endings: tuple[str, ...]) -> None:
    found = ask(put(tmp_path, *(f"B-1/B-1{ending}.nii.gz" for ending in endings)))
    assert found.description == load_description(name)


@pytest.mark.parametrize(
    ("paths", "evidence"),
    [
        (("images/a.nii.gz", "labels/a.nii.gz"), "images/ with labels/"),
        (("imagesTr/a.nii.gz", "labelsTr/a.nii.gz"), "imagesTr/ with labelsTr/"),
        (("img/a.nii.gz", "mask/a_mask.nii.gz"), "img/ with mask/"),
        (("scans/a.nrrd", "Masks/a-seg.mha"), "scans/ with Masks/"),
        (("Images/a_CT.nii", "GT/a_GT.nii"), "Images/ with GT/"),
        (("train/images/a.nii", "train/masks/a.nii", "test/images/b.nii"), "images/ with masks/"),
        (("p1/a.nii.gz", "p1/a_seg.nii.gz"), "CASE beside CASE_seg"),
        (("a_ct.nii.gz", "a_label.nii.gz"), "CASE_… beside its label"),
        (("x/a/imaging.nii.gz", "x/a/segmentation.nii.gz"), "CASE/imaging with CASE/segmentation"),
    ],
)
def test_pairs(tmp_path: Path, paths: tuple[str, ...], evidence: str) -> None:
    found = ask(put(tmp_path, *paths, low=-1000))
    assert evidence in found.evidence
    assert {name: channel.modality for name, channel in found.description.channels.items()} == {"CT": "CT"}
    assert found.description.labels == {"background": 0, "label_1": 1, "label_2": 2}
    assert cases(found, tmp_path)["a"] == (paths[0], paths[1], "train")
    if "test/images/b.nii" in paths:
        assert cases(found, tmp_path)["b"] == ("test/images/b.nii", None, "test")
    assert found.left_out == ()
    assert any("--describe FILE.yaml" in note for note in found.notes)
    assert any("the lowest intensity is -1000" in note for note in found.notes)


def test_several_images_in_a_case_folder_are_channels(tmp_path: Path) -> None:
    found = ask(
        put(tmp_path, "a/t1.nii", "a/flair.nii", "a/mask.nii", "b/t1.nii", "b/flair.nii", "b/mask.nii")
    )
    assert {name: channel.modality for name, channel in found.description.channels.items()} == {
        "flair": "MR", "t1": "MR",
    }  # fmt: skip
    assert cases(found, tmp_path)["b"] == ("b/flair.nii", "b/mask.nii", "train")


def test_frames_of_4d_images_are_channels(tmp_path: Path) -> None:
    put(tmp_path, "labels/a.nii.gz")
    (tmp_path / "images").mkdir()
    frames = np.random.default_rng(0).integers(0, 9, (*SHAPE, 2)).astype(np.int16)
    nib.save(nib.Nifti1Image(frames, AFFINE), tmp_path / "images/a.nii.gz")
    assert list(ask(tmp_path).description.channels) == ["channel_0", "channel_1"]


def test_nnunet_names_without_a_dataset_json(tmp_path: Path) -> None:
    put(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz")
    found = ask(tmp_path)
    assert found.description.layout == "nnunet"
    assert list(found.description.channels) == ["channel_0", "channel_1"]
    assert cases(found, tmp_path)["a"] == ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "train")


BIDS = (
    "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
    "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz",
    "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz",
    "sub-01/ses-2/anat/sub-01_ses-2_FLAIR.nii.gz",
    "sub-02/anat/sub-02_T1w.nii.gz",
    "sub-02/anat/sub-02_FLAIR.nii.gz",
    "sub-02/anat/sub-02_acq-fast_T1w.nii.gz",
    "derivatives/manual/sub-01/ses-1/anat/sub-01_ses-1_space-T1w_label-lesion_mask.nii.gz",
    "derivatives/manual/sub-01/ses-2/anat/sub-01_ses-2_space-T1w_label-lesion_mask.nii.gz",
    "derivatives/manual/sub-02/anat/sub-02_space-T1w_label-lesion_mask.nii.gz",
)


def test_bids(tmp_path: Path) -> None:
    found = ask(put(tmp_path, *BIDS, values=(1,)))
    assert (found.what, found.description.layout) == ("BIDS", "bids")
    assert "_FLAIR, _T1w with derivatives/manual/…_space-T1w_label-lesion_mask (3 cases)" in found.evidence
    assert found.left_out == ("1 belongs to no channel",)
    listed = make_manifest(found.description, tmp_path).cases
    assert [(case.id, case.patient) for case in listed] == [
        ("sub-01_ses-1", "01"), ("sub-01_ses-2", "01"), ("sub-02", "02"),
    ]  # fmt: skip
    assert listed[0].images == {"FLAIR": BIDS[1], "T1w": BIDS[0]}
    assert listed[2].label == BIDS[-1]


def test_bids_of_two_kinds_of_labels_is_ambiguous(tmp_path: Path) -> None:
    put(tmp_path, *BIDS, "derivatives/fast/sub-02/anat/sub-02_dseg.nii.gz", values=(1,))
    with pytest.raises(
        InputError, match=r"2 ways: BIDS .*label-lesion_mask.*derivatives/fast/…_dseg \(1 cases\)"
    ):
        ask(tmp_path)


def test_a_table_of_cases(tmp_path: Path) -> None:
    put(tmp_path, "x/a.nii.gz", "y/a_seg.nii.gz", "x/b.nii.gz")
    (tmp_path / "cases.csv").write_text("case;image;label;site\n1;x/a.nii.gz;y/a_seg.nii.gz;ucl\n")
    (tmp_path / "notes.csv").write_text("case,age\n1,60\n")
    for place in ("", "cases.csv"):
        found = ask(tmp_path, place)
        assert found.evidence == "cases.csv with 1 rows and image columns image; 1 case, 1 with a label"
        assert (found.description.layout, found.description.table) == ("csv", "cases.csv")
        assert cases(found, tmp_path) == {"1": ("x/a.nii.gz", "y/a_seg.nii.gz", "train")}
    (tmp_path / "more.csv").write_text("image,label\nx/b.nii.gz,\n")
    with pytest.raises(InputError, match=r"2 ways: .*cases\.csv.*more\.csv.*Give the folder or CSV"):
        ask(tmp_path)


def test_a_table_of_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path, 3)
    rows = [f"{i},images/disc_0{i}.png,labels/disc_0{i}.png" for i in range(3)]
    (tmp_path / "cases.csv").write_text("\n".join(["case,image,label", *rows]))
    found = ask(tmp_path)
    assert (found.description.layout, found.description.unit, found.description.instances) == (
        "png",
        "px",
        True,
    )
    assert cases(found, tmp_path)["0"] == ("images/disc_00.png", "labels/disc_00.png", "train")


def numbered_discs(number: int) -> np.ndarray:
    """Discs cut into 8 or more numbered objects, not as many in each."""
    label = draw_discs(number)[1]
    label[label > 0] = np.arange((label > 0).sum()) % (8 + number) + 1
    return label


@pytest.mark.parametrize(
    ("draw", "labels", "instances"),
    [
        (lambda number: draw_discs(number)[1], {"background": 0, "object": 1}, True),  # numbers from 300 on
        (numbered_discs, {"background": 0, "object": 1}, True),
        (lambda number: (draw_discs(number)[1] > 0) * 255, {"background": 0, "label_255": 255}, False),
        (
            lambda number: draw_discs(number)[1] % 299,
            {"background": 0, "label_1": 1, "label_2": 2, "label_3": 3},
            False,
        ),
    ],
    ids=["large numbers", "many objects", "binary", "classes"],
)
def test_pictures_with_instances_or_masks(
    tmp_path: Path, draw: Callable[[int], np.ndarray], labels: dict[str, int], instances: bool
) -> None:
    write_pictures(tmp_path, 3)
    for number in range(3):
        Image.fromarray(draw(number).astype(np.uint16)).save(tmp_path / f"labels/disc_0{number}.png")
    found = ask(tmp_path)
    assert (found.description.labels, found.description.instances) == (labels, instances)
    assert list(found.description.channels) == ["red", "green", "blue"]
    faults = check_manifest(make_manifest(found.description, tmp_path), tmp_path)
    assert [fault.code for fault in faults if fault.severity == "error"] == []


def test_grey_pictures_with_suffixed_masks(tmp_path: Path) -> None:
    write_pictures(tmp_path, 2)
    for path in (tmp_path / "images").iterdir():
        Image.open(path).convert("L").save(path)
    (tmp_path / "labels").rename(tmp_path / "masks")
    for path in (tmp_path / "masks").iterdir():
        path.rename(path.with_stem(f"{path.stem}_mask"))
    found = ask(tmp_path)
    assert list(found.description.channels) == ["grey"]
    assert cases(found, tmp_path)["disc_00"] == ("images/disc_00.png", "masks/disc_00_mask.png", "train")


def test_two_layouts_in_one_folder_are_refused_with_their_names(tmp_path: Path) -> None:
    put(tmp_path, "images/a.nii", "labels/a.nii", "volume-1.nii", "segmentation-1.nii")
    with pytest.raises(
        InputError, match=r"2 ways: Liver and liver tumours, LiTS.*pairs of volumes.*`files` say"
    ):
        ask(tmp_path)


def test_one_name_for_cases_of_two_folders_is_no_pair(tmp_path: Path) -> None:
    put(tmp_path, *(f"{folder}/{kind}/1.nii" for folder in ("train", "test") for kind in ("images", "masks")))
    with pytest.raises(InputError, match=r"folders in it are: test \(pairs of volumes\), train \(pairs"):
        ask(tmp_path)


def test_a_dicom_tree_is_to_be_imported_first(tmp_path: Path) -> None:
    (tmp_path / "study/series").mkdir(parents=True)
    (tmp_path / "study/series/IM1").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(InputError, match=r"DICOM files in 1 folder\(s\).*medunet import-dicom TREE OUT"):
        ask(tmp_path)


def test_folders_of_datasets_are_named(tmp_path: Path) -> None:
    put(tmp_path, "Task1/images/a.nii", "Task1/labels/a.nii", "other/scan.nii")
    (tmp_path / "broken").mkdir()
    write_json(tmp_path / "broken/dataset.json", {"channel_names": {}, "labels": {}})
    (tmp_path / "Task1").rename(tmp_path / "Task1x")
    put(tmp_path, "Task2/images/a.nii", "Task2/labels/a.nii")
    with pytest.raises(
        InputError, match=r"Task1x \(pairs of volumes\), Task2 \(pairs of volumes\)"
    ) as caught:
        ask(tmp_path)
    assert "broken (which cannot be used: dataset.json: labels: write" in str(caught.value)


def test_nothing_recognised_says_what_there_is(tmp_path: Path) -> None:
    put(tmp_path, "ref.nii.gz", "pred.nii.gz")
    (tmp_path / "nowhere.bin").symlink_to(tmp_path / "gone")
    with pytest.raises(
        InputError, match=r"2 volumes among 3 files, such as pred\.nii\.gz.*list their paths in a CSV"
    ):
        ask(tmp_path)


def test_label_values_that_are_no_classes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"label values up to 700.*`instances: true`"):
        ask(put(tmp_path / "many", "images/a.nii", "labels/a.nii", values=(1, 700)))
    with pytest.raises(InputError, match="no label value above 0 in 1 label files"):
        ask(put(tmp_path / "empty", "images/a.nii", "labels/a.nii", values=()))


def test_a_label_that_cannot_be_read_is_left_to_the_check(tmp_path: Path) -> None:
    put(tmp_path, "images/a.nii", "images/b.nii", "labels/a.nii", "labels/b.nii")
    (tmp_path / "labels/b.nii").write_bytes(b"broken")
    assert "b.nii cannot be read: left to the check" in ask(tmp_path).notes


def test_links_out_of_the_folder_are_not_read(tmp_path: Path) -> None:
    put(tmp_path, "secret/label.nii", "data/images/a.nii", "data/labels/b.nii")
    (tmp_path / "data/labels/a.nii").symlink_to(tmp_path / "secret/label.nii")
    with pytest.raises(InputError, match=r"case a: the path labels/a\.nii leads out of the data root"):
        ask(tmp_path / "data")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"case;image;label\nF\xfc;scan.nii;map.nii\n", r"cases\.csv: cannot be read as text in UTF-8"),
        (b"case,image,image\na,scan.nii,map.nii\n", r"cases\.csv: columns stand twice: image"),
        (b"case,foo,bar\na,scan.nii,map.nii\n", r"cases\.csv names files, but has no column 'label'"),
        (b"case,image,label,split\na,scan.nii,map.nii,dev\n", r"cases\.csv: row 2: split 'dev' is none"),
    ],
)
def test_a_table_at_fault_is_named(tmp_path: Path, text: bytes, message: str) -> None:
    put(tmp_path, "scan.nii", "map.nii")
    (tmp_path / "cases.csv").write_bytes(text)
    with pytest.raises(InputError, match=message):
        ask(tmp_path)


def test_a_table_of_cases_at_fault_is_not_passed_over_for_the_names(tmp_path: Path) -> None:
    put(tmp_path, "images/a.nii", "labels/a.nii")
    row = "images/a.nii,labels/a.nii"
    (tmp_path / "cases.csv").write_text(f"case,image,label,fold\na,{row},0\na,{row},1\n")
    with pytest.raises(InputError, match="row 3: case a stands in row 2 already"):
        ask(tmp_path)


def test_tables_of_other_things_are_left_aside(tmp_path: Path) -> None:
    put(tmp_path, "images/a.nii", "labels/a.nii")
    (tmp_path / "ages.csv").write_text("filename,age\na.nii,60\n")
    (tmp_path / "._cases.csv").write_bytes(b"\xff")
    found = ask(tmp_path)
    assert found.what == "pairs of volumes"
    assert [note for note in found.notes if "left aside" in note] == [
        "left aside as a list of cases: ages.csv names files, but has no column 'label'"
    ]


def test_two_folders_of_label_maps_are_ambiguous(tmp_path: Path) -> None:
    put(tmp_path, *(f"{folder}/{name}.nii" for folder in ("images", "labels", "masks") for name in "ab"))
    with pytest.raises(InputError, match=r"2 ways: .*images/ with labels/.*images/ with masks/"):
        ask(tmp_path)


def test_the_folders_that_are_taken_together_are_named(tmp_path: Path) -> None:
    put(tmp_path, *(f"{part}/{kind}/{part}.nii" for part in ("train", "val") for kind in ("images", "masks")))
    assert "images/ with masks/ below train/, val/, matched by stem" in ask(tmp_path).evidence


def test_no_description_is_hinted_at_without_cases(tmp_path: Path) -> None:
    put(tmp_path, "imagesTr/a_0000.nii", "labelsTr/a.nii")
    write_json(tmp_path / "dataset.json", {**NNUNET, "channel_names": {"0": "T1", "1": "T2"}})
    assert not [note for note in ask(tmp_path).notes if "medunet manifest" in note]


def test_labels_that_cannot_be_read_at_all(tmp_path: Path) -> None:
    put(tmp_path, "images/a.nii", "labels/a.nii")
    (tmp_path / "labels/a.nii").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"none of 1 label files can be read: a\.nii.*Correct the files"):
        ask(tmp_path)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "what", "num_cases", "channels"),
    [
        ("hippocampus", "pairs of volumes", 190, ["MR"]),
        ("brats/TCGA-FG-6692", "Gliomas .* 2018 to 2021", 1, ["FLAIR", "T1w", "T1gd", "T2w"]),
        ("brats/BraTS-GLI-00001-000", "Adult gliomas .* 2023", 1, ["FLAIR", "T1w", "T1gd", "T2w"]),
        ("brats/raw_not_coregistered", "Gliomas .* 2018 to 2021", 1, ["FLAIR", "T1w", "T1gd", "T2w"]),
        ("nuclei", "pairs of 2D pictures", 542, ["red", "green", "blue"]),
        ("ct_abdomen", "Whole-body structures, TotalSegmentator", 1, ["CT"]),
        ("brats", "can be read in 2 ways: .*2018 to 2021.*2023", 0, []),
        ("ct_dicom_series", r"DICOM files in 1 folder\(s\)", 0, []),
        ("mr_dicom_series", r"DICOM files in 3 folder\(s\)", 0, []),
        ("spine_instances/semantic", "no layout that is recognised: 2 volumes", 0, []),
    ],
)
def test_the_shared_folders(
    shared_data: Path, folder: str, what: str, num_cases: int, channels: list[str]
) -> None:
    root = shared_data / folder
    if not num_cases:
        with pytest.raises(InputError, match=what):
            ask(root)
        return
    found = ask(root)
    assert list(found.description.channels) == channels
    assert len(make_manifest(found.description, root).cases) == num_cases
    if folder == "hippocampus":
        assert found.left_out == ("2 label without an image", "1 image without a label")
        assert any("medunet manifest msd_task04_hippocampus" in note for note in found.notes)
    assert found.description.instances == (folder == "nuclei")


def test_descriptions_that_are_made_are_read_again(tmp_path: Path) -> None:
    root = put(tmp_path / "data", *BIDS, values=(1,))
    found = ask(root)
    found.description.write(tmp_path / "made.json")
    assert Description.read(tmp_path / "made.json") == found.description


def test_imported_series_of_one_patient_stay_together(tmp_path: Path) -> None:
    for name in ("p0001_s01", "p0001_s02", "p0002_s01"):
        for folder, top in (("images", 900), ("labels", 2)):
            array = np.random.default_rng(len(name + folder)).integers(0, top, (9, 8, 7))
            write_volume(tmp_path / folder / f"{name}.nii.gz", array.astype(np.int16), np.eye(4))
    found = recognise(tmp_path, tmp_path, [])
    patients = [found.description.patient_of(name) for name in ("p0001_s01", "p0001_s02", "p0002_s01")]
    assert patients == ["p0001", "p0001", "p0002"]
    assert any("what stands before _s is the patient" in note for note in found.notes)
