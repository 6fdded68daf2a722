"""Folders given bare, told by the names of their files, with evidence."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from tiny_layouts import AFFINE, SHAPE, ask, cases, put

from medunet.base.errors import InputError
from medunet.dataset.checks.manifest_checks import check_manifest
from medunet.dataset.layouts.detection import recognise
from medunet.dataset.manifest import make_manifest
from medunet.dataset.strata import measure_labels
from medunet.imaging.nifti import write_volume
from medunet.records.description import Description, load_description


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
        (("p1/a.nii.gz", "p1/a_seg.nii.gz"), "CASE next to CASE_seg"),
        (("a_ct.nii.gz", "a_label.nii.gz"), "CASE_… next to its label"),
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


def test_a_label_that_cannot_be_read_is_left_to_the_check(tmp_path: Path) -> None:
    put(tmp_path, "images/a.nii", "images/b.nii", "labels/a.nii", "labels/b.nii")
    (tmp_path / "labels/b.nii").write_bytes(b"broken")
    assert "b.nii cannot be read: see `medunet check`" in ask(tmp_path).notes


def test_the_folders_that_are_taken_together_are_named(tmp_path: Path) -> None:
    put(tmp_path, *(f"{part}/{kind}/{part}.nii" for part in ("train", "val") for kind in ("images", "masks")))
    assert "images/ with masks/ below train/, val/, matched by stem" in ask(tmp_path).evidence


def test_bids_in_which_one_case_lacks_a_scan_keeps_the_channel(tmp_path: Path) -> None:
    names = [f"sub-{number:02d}" for number in range(6)]
    put(tmp_path, *(f"{name}/anat/{name}_{kind}.nii.gz" for name in names for kind in ("T1w", "FLAIR")))
    put(tmp_path, *(f"derivatives/m/{name}/anat/{name}_dseg.nii.gz" for name in names), values=(1,))
    put(tmp_path, f"{names[0]}/anat/{names[0]}_T2w.nii.gz")
    (tmp_path / f"{names[3]}/anat/{names[3]}_FLAIR.nii.gz").unlink()
    found = ask(tmp_path)
    assert list(found.description.channels) == ["FLAIR", "T1w"]
    assert "5 of 6 labelled cases have a scan _FLAIR: cases without it are left out" in found.notes
    assert "1 of 6 labelled cases have a scan _T2w: it is not used as a channel" in found.notes
    assert "2 its case lacks channel FLAIR" in found.left_out
    assert list(cases(found, tmp_path)) == [name for name in names if name != "sub-03"]


@pytest.mark.parametrize("ending", [".hdr", ".hdr.gz"])
def test_volumes_in_two_files(tmp_path: Path, ending: str) -> None:
    for name in "ab":
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir(exist_ok=True)
            array = np.random.default_rng(ord(name)).integers(0, 900, SHAPE).astype(np.int16)
            pair = nib.Nifti1Pair(array if folder == "images" else (array > 400).astype(np.uint8), AFFINE)
            pair.header.set_xyzt_units("mm")
            nib.save(pair, tmp_path / folder / f"{name}{ending}")
    (tmp_path / "cases.tsv").write_text("id\tscan\nx\ty\n")
    found = ask(tmp_path)
    assert found.left_out == ("1 of type .tsv",)
    assert list(cases(found, tmp_path)) == ["a", "b"]
    manifest = make_manifest(found.description, tmp_path)
    assert [fault.code for fault in check_manifest(manifest, tmp_path) if fault.severity == "error"] == []
    rows = [f"images/{name}{ending},labels/{name}{ending}".replace(".hdr", ".img") for name in "ab"]
    (tmp_path / "cases.csv").write_text("\n".join(["image,label", *rows]))
    assert cases(ask(tmp_path), tmp_path)["a"] == (f"images/a{ending}", f"labels/a{ending}", "train")


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
    assert any("the part before _s is the patient" in note for note in found.notes)


def save_segments(path: Path, array: np.ndarray, *names: str) -> None:
    """Write a map whose values 1, 2, ... have these names, as 3D Slicer does."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    for number, name in enumerate(names):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", str(number + 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/{}.nrrd", "labels/{}.seg.nrrd"),
        ("{}.nrrd", "{}.seg.nrrd"),
        ("{}/image.nrrd", "{}/segmentation.seg.nrrd"),
        ("imagesTr/{}_0000.nrrd", "labelsTr/{}.seg.nrrd"),
    ],
)
def test_segmentations_of_slicer_name_their_labels(tmp_path: Path, image: str, label: str) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 1:3, 1], labels[3, 3, 2] = 1, 2
    for number, names in enumerate((("liver", "tumour"), ("Tumour", "liver"), ("liver", "tumour"))):
        put(tmp_path, image.format(f"a{number}"))
        save_segments(tmp_path / label.format(f"a{number}"), labels, *names)
    found = ask(tmp_path)
    assert found.description.labels == {"background": 0, "liver": 1, "tumour": 2}
    assert {case: files[1] for case, files in cases(found, tmp_path).items()} == {
        f"a{number}": label.format(f"a{number}") for number in range(3)
    }
    listed = make_manifest(found.description, tmp_path).cases
    sizes = measure_labels({c.id: tmp_path / str(c.label) for c in listed}, found.description)
    assert sizes["a0"]["liver"] == sizes["a1"]["tumour"] == sizes["a2"]["liver"]
    assert sizes["a0"]["tumour"] == sizes["a1"]["liver"] < sizes["a0"]["liver"]
    save_segments(tmp_path / label.format("a1"), labels)
    with pytest.raises(InputError, match="2 label files name their segments, and 1 do not"):
        ask(tmp_path)
