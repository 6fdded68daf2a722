"""Manifests: made, written, read again; data roots, paths and what does not fit."""

import json
from pathlib import Path

import pytest

from medunet.base.errors import InputError
from medunet.dataset.manifest import make_manifest
from medunet.dataset.splits import read_folds
from medunet.records.data_root import case_paths, file_path, resolve_data_root
from medunet.records.description import Description, load_description
from medunet.records.manifest import Case, Manifest


@pytest.fixture
def liver() -> Description:
    return load_description("msd_task03_liver")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (root / folder).mkdir(parents=True)
    for i in range(12):
        (root / f"imagesTr/liver_{i}.nii.gz").touch()
        (root / f"labelsTr/liver_{i}.nii.gz").touch()
    (root / "imagesTs/liver_90.nii.gz").touch()
    return root


def test_manifest_is_read_again_as_it_was_written(root: Path, liver: Description, tmp_path: Path) -> None:
    (root / "labelsTr/liver_3.nii.gz").unlink()
    manifest = make_manifest(liver, root, seed=3, exclude={"liver_5": "motion"})
    manifest.write(tmp_path / "manifest.json")
    assert Manifest.read(tmp_path / "manifest.json") == manifest
    assert str(root) not in (tmp_path / "manifest.json").read_text()
    assert [case.id for case in manifest.cases] == sorted(case.id for case in manifest.cases)
    assert manifest.num_folds == 5
    assert [(item.path, item.reason) for item in manifest.unmatched] == [
        ("imagesTr/liver_3.nii.gz", "image without a label")
    ]
    by_id = {case.id: case for case in manifest.cases}
    assert (by_id["liver_5"].fold, by_id["liver_90"].fold, by_id["liver_90"].split) == (None, None, "test")
    assert make_manifest(liver, root, seed=3, exclude={"liver_5": "motion"}) == manifest
    assert make_manifest(liver, root, seed=4, exclude={"liver_5": "motion"}) != manifest


def test_fixed_folds_and_excluded_cases(root: Path, liver: Description) -> None:
    folds = [[f"liver_{i}" for i in range(6)], [f"liver_{i}" for i in range(6, 11)]]
    with pytest.raises(InputError, match="in no fold: liver_11"):
        make_manifest(liver, root, folds=folds)
    manifest = make_manifest(liver, root, folds=folds, exclude={"liver_11": "no contrast"})
    assert {case.id for case in manifest.split_fold(1)[1]} == set(folds[1])
    with pytest.raises(InputError, match="excluded cases do not exist: liver_50"):
        make_manifest(liver, root, exclude={"liver_50": "typing mistake"})


def test_no_cases_says_what_the_layout_expects(root: Path, liver: Description) -> None:
    with pytest.raises(InputError, match=r"no case of layout msd among the 12 volume files.*imagesTr/CASE"):
        make_manifest(liver, root / "labelsTr")
    with pytest.raises(InputError, match="no such folder"):
        make_manifest(liver, root / "absent")


def test_paths_must_stay_in_the_data_root(root: Path, liver: Description, tmp_path: Path) -> None:
    outside = tmp_path / "secret.nii.gz"
    outside.touch()
    inside = root / "imagesTr/liver_0.nii.gz"
    inside.unlink()
    inside.symlink_to(root / "imagesTr/liver_1.nii.gz")  # a link within the root will do
    assert len(make_manifest(liver, root).cases) == 13
    inside.unlink()
    inside.symlink_to(outside)
    with pytest.raises(InputError, match=r"case liver_0: .*imagesTr/liver_0.nii.gz is outside the data root"):
        make_manifest(liver, root)
    inside.unlink()
    inside.symlink_to(inside)  # which the check finds missing
    assert len(make_manifest(liver, root).cases) == 13
    for path in ("../secret.nii.gz", str(outside), "imagesTr/../../secret.nii.gz"):
        case = Case(id="x", patient="x", images={"CT": path})
        with pytest.raises(InputError, match="is outside the data root"):
            case_paths(case, liver, root)


def test_case_paths_follow_the_descriptions_channels(root: Path) -> None:
    brats = load_description("brats_2023_glioma")
    images = {name: f"{name}.nii.gz" for name in reversed(brats.channels)}
    paths, label = case_paths(Case(id="x", patient="x", images=images, label="l.nii.gz"), brats, root)
    assert [path.name for path in paths] == ["FLAIR.nii.gz", "T1w.nii.gz", "T1gd.nii.gz", "T2w.nii.gz"]
    assert label == root / "l.nii.gz"


def test_data_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDUNET_DATA_ROOT", raising=False)
    with pytest.raises(InputError, match="--data-root FOLDER or set MEDUNET_DATA_ROOT"):
        resolve_data_root(None)
    monkeypatch.setenv("MEDUNET_DATA_ROOT", str(root))
    assert resolve_data_root(None) == root
    assert resolve_data_root(root / "imagesTr") == root / "imagesTr"
    with pytest.raises(InputError, match=r"not a folder\. Check --data-root"):
        resolve_data_root(root / "absent")
    monkeypatch.setenv("MEDUNET_DATA_ROOT", str(root / "absent"))
    with pytest.raises(InputError, match=r"Check MEDUNET_DATA_ROOT"):
        resolve_data_root(None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": {"MR": "a.nii.gz"}}, r"case liver_0: has channels \['MR'\], expected \['CT'\]"),
        ({"id": "liver_1"}, "duplicate ids: liver_1"),
        ({"split": "test"}, "has fold 0 although its split is test"),
    ],
)
def test_manifests_that_contradict_themselves(
    root: Path, liver: Description, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    plain = make_manifest(liver, root).to_dict()
    plain["cases"][0] |= {"fold": 0, **changes}
    (tmp_path / "manifest.json").write_text(json.dumps(plain))
    with pytest.raises(InputError, match=message):
        Manifest.read(tmp_path / "manifest.json")


@pytest.mark.real_data
def test_hippocampus_names_its_strays(shared_data: Path) -> None:
    folds = read_folds(shared_data.parent / "splits" / "hippocampus.json")
    description = load_description("msd_task04_hippocampus")
    manifest = make_manifest(description, shared_data / "hippocampus", folds=folds)
    assert len(manifest.cases) == 190
    assert {item.path: item.reason for item in manifest.unmatched} == {
        "imagesTr/hippocampus_118.nii.gz": "image without a label",
        "labelsTr/hippocampus_010.nii.gz": "label without an image",
        "labelsTr/hippocampus_281.nii.gz": "label without an image",
    }
    assert {case.id for case in manifest.split_fold(0)[1]} == set(folds[0])


@pytest.mark.real_data
def test_a_label_map_in_the_root_itself(shared_data: Path) -> None:
    description = load_description("totalsegmentator")
    (case,) = make_manifest(description, shared_data / "ct_abdomen").cases
    assert (case.id, case.images, case.fold) == ("ct", {"CT": "ct.nii.gz"}, 0)
    assert case.label == "totalsegmentator_labels.nii.gz"


def test_folds_of_a_list_begin_at_0(root: Path, liver: Description, tmp_path: Path) -> None:
    entries = [
        {"image": f"imagesTr/liver_{i}.nii.gz", "label": f"labelsTr/liver_{i}.nii.gz", "fold": 1 + i % 3}
        for i in range(6)
    ]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}))
    with pytest.raises(InputError, match=r"no case is in fold 0; folds are 1, 2, 3\. Number the folds 0, 1"):
        make_manifest(liver, root, datalist=tmp_path / "list.json")


@pytest.mark.parametrize("others", [{}, {"test_names": ["liver_3"]}])
def test_a_case_to_train_on_must_be_left(
    root: Path, liver: Description, others: dict[str, list[str]]
) -> None:
    kept = others.get("test_names", [])
    exclude = {f"liver_{i}": "motion" for i in range(12) if f"liver_{i}" not in kept}
    with pytest.raises(
        InputError, match=f"of 12, {len(kept)} are test cases and {12 - len(kept)} are excluded"
    ):
        make_manifest(liver, root, exclude=exclude, **others)


def test_paths_that_no_disk_can_hold(root: Path) -> None:
    with pytest.raises(InputError, match="is outside the data root"):
        file_path(f"{'x' * 300}.nii", root, "case a")


def test_ids_that_some_disks_do_not_tell_apart_are_refused_by_name(root: Path, liver: Description) -> None:
    for name in ("Liver_3", "m\u00fcller", "mu\u0308ller"):
        (root / f"imagesTr/{name}.nii.gz").touch()
        (root / f"labelsTr/{name}.nii.gz").touch()
    with pytest.raises(
        InputError, match="only in letter case or Unicode form: Liver_3 and liver_3; "
    ) as caught:
        make_manifest(liver, root)
    assert "(decomposed letters)" in caught.value.what
    exclude = {"Liver_3": "twice", "mu\u0308ller": "twice"}
    assert len(make_manifest(liver, root, exclude=exclude).used) == 14
