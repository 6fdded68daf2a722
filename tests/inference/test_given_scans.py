"""Files and folders given to `medunet predict`: grouped as in training, and none dropped without a word."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medunet.base.errors import InputError
from medunet.base.files import write_json
from medunet.dataset.layouts.channel_names import learn_endings
from medunet.imaging.nifti import write_volume
from medunet.inference.given_scans import GivenScans, find_scans
from medunet.records.description import Description, load_description
from medunet.records.manifest import Case
from medunet.records.model_card import ModelCard
from medunet.records.plan import Plan


def card_of(plan: Plan, description: Description | str, **endings: tuple[str, ...]) -> ModelCard:
    if isinstance(description, str):
        description = load_description(description)
    return ModelCard(medunet_version="0", description=description, plan=plan, fold=0, endings=endings)


def describe(layout: str, channels: dict[str, tuple[str, ...]], **others: Any) -> Description:
    kinds = {name: name if name in ("CT", "PET", "MR") else "other" for name in channels}
    return Description.parse(
        {
            "name": "x",
            "layout": layout,
            "channels": {name: {"modality": kinds[name], "endings": each} for name, each in channels.items()},
            "labels": {"background": 0, "liver": 1},
            **others,
        },
        "test",
    )


NNUNET_CT = describe("nnunet", {"CT": ("_0000",)})
NNUNET_PET_CT = describe("nnunet", {"CT": ("_0000",), "PET": ("_0001",)})


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def scan(path: Path, shape: tuple[int, ...] = (4, 5, 6), origin: float = 0.0) -> None:
    affine = np.eye(4)
    affine[0, 3] = origin
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, np.zeros(shape, np.int16), affine)


def shown(found: GivenScans) -> dict[str, list[str]]:
    return {each.case: [path.name for path in each.images] for each in found.scans}


def left_out(found: GivenScans) -> list[str]:
    return sorted(name for names in found.left_out.values() for name in names)


def test_a_model_of_one_channel_leaves_out_the_second_one(tmp_path, tiny_plan: Plan):
    touch(tmp_path, "p_0_0000.nii.gz", "p_0_0001.nii.gz", "p_1_0000.nii.gz")
    found = find_scans([tmp_path], card_of(tiny_plan, NNUNET_CT))
    assert shown(found) == {"p_0": ["p_0_0000.nii.gz"], "p_1": ["p_1_0000.nii.gz"]}
    assert found.left_out == {"a channel that the model does not use": ["p_0_0001.nii.gz"]}


def test_both_channels_are_paired_and_a_missing_one_fails_its_case(tmp_path, tiny_plan: Plan):
    touch(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "c_0001.nii.gz", "a_0002.nii.gz")
    found = find_scans([tmp_path], card_of(tiny_plan, NNUNET_PET_CT))
    whole, *parts = found.scans
    assert [path.name for path in whole.images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert whole.trouble == ""
    assert [each.trouble.partition(".")[0] for each in parts] == [
        "no image for PET (_0001)",
        "no image for CT (_0000)",
    ]
    assert left_out(found) == ["a_0002.nii.gz"]


def test_a_label_beside_the_channels_of_its_case_is_named(tmp_path, tiny_plan: Plan):
    for name in ("p_0_0000.nii.gz", "p_0_0001.nii.gz", "p_0.nii.gz"):
        scan(tmp_path / name)
    found = find_scans([tmp_path], card_of(tiny_plan, NNUNET_PET_CT))
    assert shown(found) == {"p_0": ["p_0_0000.nii.gz", "p_0_0001.nii.gz"]}
    assert not found.scans[0].trouble
    assert left_out(found) == ["p_0.nii.gz"]


def test_the_only_channel_is_told_by_its_number_too(tmp_path, tiny_plan: Plan):
    touch(tmp_path, "a_0000.nii.gz", "b_0001.nii.gz")
    found = find_scans([tmp_path], card_of(tiny_plan, NNUNET_CT))
    assert shown(found) == {"a": ["a_0000.nii.gz"], "b": ["b_0001.nii.gz"]}
    assert "no image for CT (b_0000)" in found.scans[1].trouble


def test_new_scans_need_no_number(tmp_path, tiny_plan: Plan):
    touch(tmp_path, "liver_0000.nii.gz", "liver_3.nii.gz", "new.nii")
    found = find_scans([tmp_path], card_of(tiny_plan, NNUNET_CT))
    assert list(shown(found)) == ["liver", "liver_3", "new"]
    amos = tmp_path / "amos"
    touch(amos, "amos_0004.nii.gz", "amos_0007.nii.gz")
    assert list(shown(find_scans([amos], card_of(tiny_plan, NNUNET_CT)))) == ["amos_0004", "amos_0007"]


def test_a_layout_without_numbers_reads_nnunets_where_they_are_channels(tmp_path, tiny_plan: Plan):
    card = card_of(tiny_plan, "phantoms")
    for case in ("a", "b"):
        scan(tmp_path / f"two/{case}_0000.nii.gz")
        scan(tmp_path / f"two/{case}_0001.nii.gz")
    found = find_scans([tmp_path / "two"], card)
    assert shown(found) == {"a": ["a_0000.nii.gz"], "b": ["b_0000.nii.gz"]}
    assert left_out(found) == ["a_0001.nii.gz", "b_0001.nii.gz"]
    assert "as nnU-Net's" in found.notes[0]
    for number in range(2):  # patients on grids of their own
        scan(tmp_path / f"cases/patient_{number:04d}.nii.gz", (4, 5, 6 + number))
    found = find_scans([tmp_path / "cases"], card)
    assert list(shown(found)) == ["patient_0000", "patient_0001"]
    assert not found.notes
    for number in range(2):  # a PET on a grid of its own
        scan(tmp_path / f"one/p_7_{number:04d}.nii.gz", (4, 5, 6 + number))
    found = find_scans([tmp_path / "one"], card)
    assert (list(shown(found)), left_out(found)) == (["p_7"], ["p_7_0001.nii.gz"])
    touch(tmp_path / "later", "s_0001.nii.gz", "s_0002.nii.gz")
    assert list(shown(find_scans([tmp_path / "later"], card))) == ["s_0001", "s_0002"]


def test_a_pet_beside_a_ct_is_no_second_ct(tmp_path, tiny_plan: Plan):
    touch(tmp_path, "p1_ct.nii.gz", "p1_pet.nii.gz", "p2_CT.nii.gz", "p2_SUV.nii.gz", "case_t1.nii.gz")
    found = find_scans([tmp_path], card_of(tiny_plan, "phantoms"))
    assert list(shown(found)) == ["case_t1", "p1_ct", "p2_CT"]
    assert found.left_out == {
        "PET by its name, but the model was trained on CT": ["p1_pet.nii.gz", "p2_SUV.nii.gz"]
    }


def test_channels_are_grouped_by_their_endings(tmp_path, tiny_plan: Plan):
    card = card_of(tiny_plan, "brats_2018_2021")
    touch(tmp_path, "p1_flair.nii.gz", "p1_t1.nii.gz", "p1_t1c.nii.gz", "p1_t2.nii.gz", "p1_seg.nii.gz")
    touch(tmp_path, "p2_FLAIR.nii.gz")
    scan(tmp_path / "p1_adc.nii.gz")
    found = find_scans([tmp_path], card)
    assert shown(found) == {
        "p1": ["p1_flair.nii.gz", "p1_t1.nii.gz", "p1_t1c.nii.gz", "p1_t2.nii.gz"],
        "p2": ["p2_FLAIR.nii.gz"],
    }
    assert "no image for T1w (_t1), T1gd (_t1ce or _t1c), T2w (_t2)" in found.scans[1].trouble
    assert left_out(found) == ["p1_adc.nii.gz", "p1_seg.nii.gz"]


def test_a_layout_of_one_folder_a_case_is_read_as_in_training(tmp_path, tiny_plan: Plan):
    for case in ("A", "B"):
        touch(tmp_path / case, *(f"{case}_{name}.nii.gz" for name in ("flair", "t1", "t1ce", "t2", "seg")))
    found = find_scans([tmp_path], card_of(tiny_plan, "brats_2018_2021"))
    assert [(each.case, len(each.images), each.trouble) for each in found.scans] == [
        ("A", 4, ""),
        ("B", 4, ""),
    ]
    assert left_out(found) == ["A_seg.nii.gz", "B_seg.nii.gz"]
    bids = describe(
        "bids",
        {"T1w": ("_T1w",)},
        files={
            "image": r"sub-[^/]+/anat/(?P<id>sub-[^_/]+)(?P<channel>_\w+)\.nii\.gz",
            "label": r"derivatives/(?P<id>sub-[^_/]+)_dseg\.nii\.gz",
        },
    )
    touch(
        tmp_path / "bids",
        "sub-1/anat/sub-1_T1w.nii.gz",
        "sub-1/anat/sub-1_T2w.nii.gz",
        "derivatives/sub-1_dseg.nii.gz",
    )
    found = find_scans([tmp_path / "bids"], card_of(tiny_plan, bids))
    assert shown(found) == {"sub-1": ["sub-1_T1w.nii.gz"]}
    assert left_out(found) == ["sub-1_T2w.nii.gz", "sub-1_dseg.nii.gz"]
    flat = [tmp_path / "bids/sub-1/anat/sub-1_T1w.nii.gz"]
    assert list(shown(find_scans(flat, card_of(tiny_plan, bids)))) == ["sub-1"]


def test_endings_of_a_table_are_learnt_in_training(tmp_path, tiny_plan: Plan):
    description = describe("csv", {"CT": (), "PET": ()}, table="cases.csv")

    def case(name: str, **images: str) -> Case:
        return Case(id=name, patient=name, images=images)

    cases = [case(name, CT=f"a/{name}_low_ct.nii.gz", PET=f"b/{name}_low_pet.nii") for name in ("t1", "t2")]
    endings = learn_endings(cases, description)
    assert endings == {"CT": ("_ct",), "PET": ("_pet",)}
    touch(tmp_path, "new_ct.nii.gz", "new_pet.nii.gz")
    assert shown(find_scans([tmp_path], card_of(tiny_plan, description, **endings))) == {
        "new": ["new_ct.nii.gz", "new_pet.nii.gz"]
    }
    folders = [case(name, CT=f"{name}/ct.nii", PET=f"{name}/pet.nii") for name in ("t1", "t2")]
    endings = learn_endings(folders, description)
    assert endings == {"CT": ("ct",), "PET": ("pet",)}
    touch(tmp_path / "folders", "n1/ct.nii.gz", "n1/pet.nii.gz", "n2/ct.nii.gz", "n2/other/x.nii.gz")
    found = find_scans([tmp_path / "folders"], card_of(tiny_plan, description, **endings))
    assert list(shown(found)) == ["n1", "n2"]
    assert left_out(found) == ["x.nii.gz"]
    one = describe("csv", {"CT": ()}, table="cases.csv")
    assert learn_endings([case("a", CT="a_ct.nii"), case("b", CT="b_ct.nii")], one) == {"CT": ("_ct",)}
    assert learn_endings([case("a", CT="x17.nii"), case("b", CT="x18.nii")], one) == {}
    assert learn_endings([case("a", CT="a.nii"), case("b", CT="b.nii")], one) == {}
    assert learn_endings([case("a", CT="1/mueller.nii")], one) == {}, "the model would tell a patient's name"
    assert learn_endings([case("a", CT="1/ct.nii"), case("b", CT="2/ct.nii")], one) == {"CT": ("ct",)}
    follow_ups = [Case(id=name, patient="p", images={"CT": f"{name}/mueller.nii"}) for name in ("1", "2")]
    assert learn_endings(follow_ups, one) == {}


def test_a_picture_has_all_channels_and_no_number(tmp_path, tiny_plan: Plan):
    description = describe("png", dict.fromkeys(("red", "green", "blue"), ()))
    images = [dict.fromkeys(("red", "green", "blue"), f"imagesTr/{name}_0000.png") for name in ("a", "b")]
    cases = [Case(id=name, patient=name, images=each) for name, each in zip(("a", "b"), images, strict=True)]
    endings = learn_endings(cases, description)
    assert endings == dict.fromkeys(("red", "green", "blue"), ("_0000",))
    touch(tmp_path, "x_0000.png", "y.JPG", "z.nii.gz")
    found = find_scans([tmp_path], card_of(tiny_plan, description, **endings))
    assert shown(found) == {"x": ["x_0000.png"] * 3, "y": ["y.JPG"] * 3}
    assert found.left_out == {"a volume, but the model was trained on 2D pictures": ["z.nii.gz"]}


def test_a_word_behind_a_case_names_another_channel(tmp_path, tiny_plan: Plan):
    touch(tmp_path, "sub-1_T1w.nii.gz", "sub-1_T2w.nii.gz", "sub-2.nii.gz", "sub-2_big.nii.gz")
    found = find_scans([tmp_path], card_of(tiny_plan, describe("pairs", {"T1w": ("_T1w",)})))
    assert list(shown(found)) == ["sub-1", "sub-2", "sub-2_big"]
    assert left_out(found) == ["sub-1_T2w.nii.gz"]


def test_frames_of_one_file_are_channels(tmp_path, tiny_plan: Plan):
    card = card_of(tiny_plan, "msd_task01_brain_tumour")
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6, 4), np.int16), np.eye(4)), tmp_path / "BRATS_1.nii.gz")
    scan(tmp_path / "flat.nii.gz")
    four, flat = find_scans([tmp_path], card).scans
    assert (four.case, [path.name for path in four.images], four.trouble) == (
        "BRATS_1",
        ["BRATS_1.nii.gz"] * 4,
        "",
    )
    assert "no image for FLAIR, T1w, T1gd, T2w" in flat.trouble


def test_every_format_of_scans_is_taken_and_the_others_are_named(tmp_path, tiny_plan: Plan):
    image = sitk.GetImageFromArray(np.zeros((4, 5, 6), np.int16))
    for name in ("a.nrrd", "b.mha", "c.mhd", "D.NRRD"):
        sitk.WriteImage(image, tmp_path / name)
    nib.save(nib.Nifti1Pair(np.zeros((4, 5, 6), np.int16), np.eye(4)), tmp_path / "e.hdr")
    scan(tmp_path / "f.NII.GZ".lower())
    (tmp_path / "f.nii.gz").rename(tmp_path / "F.NII.GZ")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "page.png")
    touch(
        tmp_path, "brain.mgz", "notes.txt", "x.seg.nrrd", "1.dcm", "below/g.nii.gz", "h_mask.nii.gz", "k.img"
    )
    detached = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 5 6\nencoding: raw\ndata file: l_voxels.raw\n"
    (tmp_path / "l.nrrd").write_text(detached)
    (tmp_path / "l_voxels.raw").write_bytes(bytes(240))
    (tmp_path / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    found = find_scans([tmp_path], card_of(tiny_plan, "phantoms"))
    assert sorted(shown(found)) == ["D", "F", "a", "b", "c", "e", "l"]
    reasons = {name: reason for reason, names in found.left_out.items() for name in names}
    for name, reason in {
        "brain.mgz": "FreeSurfer",
        "page.png": "a 2D picture, but the model was trained on volumes",
        "notes.txt": "no scan",
        "k.img": "header, .hdr, is missing",
        "x.seg.nrrd": "a segmentation",
        "1.dcm": "import-dicom",
        "IM0001": "import-dicom",
        "g.nii.gz": "in a subfolder",
        "h_mask.nii.gz": "a mask or label",
    }.items():
        assert reason in reasons.pop(name)
    assert not reasons, "voxels of c.mhd and e.hdr"
    assert list(
        shown(find_scans([tmp_path / "e.img", tmp_path / "e.hdr"], card_of(tiny_plan, "phantoms")))
    ) == ["e"]


def test_a_folder_is_no_scan_of_its_own_masks(tmp_path, tiny_plan: Plan):
    touch(tmp_path, "a_0000.nii.gz", "a.nii.gz")
    write_json(tmp_path / "index.json", {"schema": "medunet.predictions/1", "cases": {"a": {}}})
    found = find_scans([tmp_path], card_of(tiny_plan, NNUNET_CT))
    assert shown(found) == {"a": ["a_0000.nii.gz"]}
    assert found.left_out == {"a mask that medunet predicted": ["a.nii.gz"]}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("x.nii.gz", "x.nrrd"), "case x: x.nii.gz and x.nrrd are both its CT"),
        (("x.nii", "x_0000.nii.gz"), "case x: x_0000.nii.gz and x.nii are both its CT"),
        (("1/x.nii", "2/x.nii"), "case x: 1/x.nii and 2/x.nii are both its CT"),
        (("x.nii", "X.nii"), "X, x: names that some disks do not tell apart"),
        (("x.mgz",), r"no scan was given \(x.mgz: FreeSurfer"),
        (("below/x.nii",), "no scan was given"),
    ],
)
def test_names_that_collide_are_refused(tmp_path, tiny_plan: Plan, names, message):
    touch(tmp_path, *names)
    given = [tmp_path / name for name in names] if names[0].startswith("1/") else [tmp_path]
    with pytest.raises(InputError, match=message):
        find_scans(given, card_of(tiny_plan, NNUNET_CT))


def test_of_two_files_of_a_case_without_its_channels_both_are_named(tmp_path: Path, tiny_plan: Plan) -> None:
    description = describe("pairs", {"CT": (), "PET": ()})
    for name in ("p1/ct.nii.gz", "p2/ct.nii.gz", "x.nii", "x.nii.gz"):
        scan(tmp_path / name)
    given = [tmp_path / "p1", tmp_path / "p2", tmp_path / "x.nii", tmp_path / "x.nii.gz"]
    found = find_scans(given, card_of(tiny_plan, description))
    assert shown(found) == {"ct": ["ct.nii.gz"], "x": ["x.nii"]}
    assert all(each.trouble for each in found.scans)
    assert left_out(found) == ["ct.nii.gz", "x.nii.gz"]


def test_a_file_given_twice_is_one_scan(tmp_path, tiny_plan: Plan):
    touch(tmp_path, "x.nii.gz")
    found = find_scans([tmp_path, tmp_path / "x.nii.gz"], card_of(tiny_plan, NNUNET_CT))
    assert list(shown(found)) == ["x"]
    with pytest.raises(InputError, match="no such file"):
        find_scans([tmp_path / "none.nii"], card_of(tiny_plan, NNUNET_CT))


def test_cards_of_earlier_versions_can_be_read(tiny_plan: Plan):
    plain = card_of(tiny_plan, "phantoms").to_dict()
    del plain["endings"]
    assert ModelCard.parse(plain, "test").endings == {}
