"""`medunet package` and `medunet models`: what a package holds, what it does not, and prediction by its name."""

import gzip
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medunet.base.files import hash_file, read_json
from medunet.commands.package import run_package
from medunet.commands.terminal import console
from medunet.inference import half_weights
from medunet.records.model_card import ModelCard
from medunet.records.package import Package
from medunet.runs.packages import find_models, open_package, read_package
from medunet.runs.run import Run

LICENCES = ("--weights-licence", "CC-BY-4.0", "--data-licence", "made up, CC0")
NUM_CLASSES = 2  # of the finished run: regions liver and tumour
HOW = ("--device", "cpu", "--precision", "fp32", "--backend", "torch")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user_data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))


@pytest.fixture(scope="session")
def packaged(finished_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of the finished run's first fold."""
    out = tmp_path_factory.mktemp("packages") / "tiny.zip"
    run_package([finished_run.folder.root], out, weights_licence="CC-BY-4.0", data_licence="made up, CC0")
    return out


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the weights of a model folder, and keep the card in step."""
    card = ModelCard.read(folder / "model.json")
    for name, field in (("weights.safetensors", "weights"), ("weights_final.safetensors", "final_weights")):
        weights = load_file(folder / name)
        change(weights)
        save_file(weights, folder / name)
        card = card.model_copy(update={f"{field}_sha256": hash_file(folder / name)})
    card.write(folder / "model.json")


def bias_of_classes(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    (name,) = [name for name, value in weights.items() if value.shape == (NUM_CLASSES,)]
    return weights[name]


def nudge(weights: dict[str, torch.Tensor]) -> None:
    bias_of_classes(weights).add_(0.01)


def overflow(weights: dict[str, torch.Tensor]) -> None:
    bias_of_classes(weights).add_(1e5)


# ---- what a package holds ---------------------------------------------------------------------------------------


def test_no_case_is_in_a_package(packaged: Path, finished_run: Run):
    cases = [case.id for case in finished_run.read_manifest().cases]
    assert len(cases) > 4
    for name, content in contents(packaged).items():
        plain = gzip.decompress(content) if name.endswith(".gz") else content
        assert [case for case in cases if case.encode() in name.encode() + content + plain] == [], name
    card = json.loads(contents(packaged)["members/0/model.json"])
    fingerprint = card["plan"]["fingerprint"]
    assert (len(fingerprint["spacings_mm"]), len(fingerprint["shapes"])) == (2, 2)
    assert card["training_cases"] == card["validation_cases"] == []
    original = finished_run.read_plan().fingerprint
    assert fingerprint["num_cases"] == len(original.spacings_mm)
    assert fingerprint["spacings_mm"] == [
        np.min(original.spacings_mm, 0).tolist(),
        np.max(original.spacings_mm, 0).tolist(),
    ]


def test_a_package_lists_and_hashes_its_files(packaged: Path, finished_run: Run):
    package = Package.parse(json.loads(contents(packaged)["package.json"]), "package.json")
    assert set(contents(packaged)) == {"package.json", *package.files}
    (member,) = package.members
    assert (package.name, package.targets, package.channels) == ("tiny", ("liver", "tumour"), {"CT": "CT"})
    assert (member.fold, member.seed, member.weights) == (0, 0, "final")
    assert (member.epochs, member.steps) == (3, 48)
    training, _ = finished_run.read_manifest().split_fold(0)
    assert member.num_training_cases == len(training)
    folder, again = open_package(packaged)
    assert again == package
    assert {name: hash_file(folder / name) for name in package.files} == package.files


def test_the_same_package_is_made_again(packaged: Path, finished_run: Run, tmp_path: Path, call):
    code, _ = call("package", finished_run.folder.root, "--out", tmp_path / "tiny.zip", *LICENCES)
    assert code == 0
    assert (tmp_path / "tiny.zip").read_bytes() == packaged.read_bytes()


def test_a_card_has_scores_and_no_empty_section(packaged: Path, finished_run: Run):
    text = contents(packaged)["MODEL_CARD.md"].decode()
    sections = dict(re.findall(r"^## (.+)\n\n((?:(?!^## ).*\n?)*)", text, re.MULTILINE))
    assert {"What it segments", "Inputs", "Members", "Scores", "Limits"} <= set(sections)
    assert all(content.strip() for content in sections.values())
    scores = read_json(finished_run.folder.root / "scores.json")
    for label in scores["summary"]:
        (row,) = [
            line for line in sections["Scores"].splitlines() if line.startswith(f"| {label['label']} |")
        ]
        assert f"| {label['metrics']['dice']['mean']:.3f}" in row
    assert "held-out" in sections["Scores"]


def test_scores_of_other_weights_are_left_out(own_run: Run, tmp_path: Path, call):
    change_weights(own_run.folder.model(0), nudge)
    code, text = call("package", own_run.folder.root, "--fold", "0", "--out", tmp_path / "x.zip", *LICENCES)
    assert code == 0
    assert "not known to be of these weights, and are left out" in text
    card = contents(tmp_path / "x.zip")["MODEL_CARD.md"].decode()
    assert "Not scored." in card
    assert "has not been measured on held-out scans" in card


def trained_on_all(run: Run, root: Path) -> Path:
    """Write the run again as one whose network is another one, trained on all cases."""
    shutil.copytree(run.folder.root, root)
    (root / "folds" / "0").rename(root / "folds" / "all")
    change_weights(root / "folds/all/model", nudge)
    card = ModelCard.read(root / "folds/all/model/model.json")
    cases = tuple(case.id for case in run.read_manifest().used)
    card.model_copy(update={"fold": "all", "training_cases": cases}).write(
        root / "folds/all/model/model.json"
    )
    return root / "folds/all/model"


def test_a_model_of_all_cases_has_the_scores_of_its_recipe(own_run: Run, tmp_path: Path, call):
    model = trained_on_all(own_run, tmp_path / "release")
    out = tmp_path / "all.zip"
    assert call("package", model, "--out", out, *LICENCES, "--scores-of", own_run.folder.root)[0] == 0
    text = contents(out)["MODEL_CARD.md"].decode()
    training, held_out = own_run.read_manifest().split_fold(0)
    assert f"one network, trained alike on {len(training)} scans, on held-out scans of fold 0" in text
    assert f"{len(held_out)} of the scored ones among them" in text


@pytest.mark.parametrize("fault", ["another recipe", "other weights", "no scores"])
def test_scores_that_are_not_of_the_recipe_are_refused(own_run: Run, tmp_path: Path, call, fault: str):
    model = trained_on_all(own_run, tmp_path / "release")
    theirs = own_run.folder.model(0)
    if fault == "another recipe":
        card = ModelCard.read(model / "model.json")
        plan = card.plan.model_copy(update={"batch_size": card.plan.batch_size + 1})
        card.model_copy(update={"plan": plan}).write(model / "model.json")
        expected = "is of another recipe: batch"
    elif fault == "other weights":
        change_weights(theirs, nudge)
        expected = "its scores are not known to be of these weights"
    else:
        (own_run.folder.root / "scores.json").unlink()
        expected = "holds no trained network with scores.json"
    out = tmp_path / "x.zip"
    code, text = call("package", model, "--out", out, *LICENCES, "--scores-of", own_run.folder.root)
    assert (code, out.exists()) == (2, False)
    assert expected in text


# ---- half precision ---------------------------------------------------------------------------------------------


def test_weights_are_halved_where_labels_stay(packaged: Path, finished_run: Run):
    (model,) = find_models(packaged)
    stored = load_file(model / "weights.safetensors")
    original = load_file(finished_run.folder.model(0) / "weights_final.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert all(torch.equal(stored[name], value.half()) for name, value in original.items())


def test_weights_stay_in_fp32_where_labels_change(own_run: Run, tmp_path: Path, call, monkeypatch):
    def halve_badly(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: (value * 1.2).half() for name, value in weights.items()}

    monkeypatch.setattr(half_weights, "halve", halve_badly)
    folder = own_run.folder.model(0)
    code, text = call("package", folder, "--out", tmp_path / "x.zip", *LICENCES)
    assert code == 0
    assert re.search(r"in fp32: in half precision \d+ of [\d,]+ voxels have another label", text)
    check_fp32(tmp_path / "x.zip", folder)


def test_weights_beyond_half_precision_stay_in_fp32(own_run: Run, tmp_path: Path, call):
    folder = own_run.folder.model(0)
    change_weights(folder, overflow)
    code, text = call("package", folder, "--out", tmp_path / "x.zip", *LICENCES)
    assert code == 0
    assert "in fp32: weights are beyond half precision" in text
    check_fp32(tmp_path / "x.zip", folder)


def check_fp32(package: Path, folder: Path) -> None:
    (model,) = find_models(package)
    stored = load_file(model / "weights.safetensors")
    for name, value in load_file(folder / "weights_final.safetensors").items():
        assert torch.equal(stored[name], value)
    assert read_package(package).members[0].precision == "fp32"
    card = ModelCard.read(model / "model.json")
    assert card.weights_sha256 == hash_file(model / "weights.safetensors")


# ---- refusals ---------------------------------------------------------------------------------------------------


def test_all_that_is_wrong_is_told_at_once(finished_run: Run, tmp_path: Path, call):
    code, text = call(
        "package", finished_run.folder.root, tmp_path, "--fold", "7", "--out", tmp_path / "a b.tar"
    )
    assert code == 2
    for part in (
        "licence of the weights",
        "licence of the data",
        "not NAME.zip",
        "fold 7",
        "no trained fold",
    ):
        assert part in text
    assert not (tmp_path / "a b.tar").exists()


def test_a_model_is_a_member_once(finished_run: Run, tmp_path: Path, call):
    given = finished_run.folder.root, finished_run.folder.model(0)
    code, text = call("package", *given, "--out", tmp_path / "x.zip", *LICENCES, "--fold", "0")
    assert (code, "has no folds: leave --fold out" in text) == (2, True)
    code, text = call("package", given[1], given[1], "--out", tmp_path / "x.zip", *LICENCES)
    assert (code, "a model is given twice" in text) == (2, True)


def test_another_file_is_not_replaced(finished_run: Run, tmp_path: Path, call):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        packed.writestr("thesis.txt", "x")
    before = (tmp_path / "x.zip").read_bytes()
    code, text = call("package", finished_run.folder.root, "--out", tmp_path / "x.zip", *LICENCES)
    assert code == 2
    assert "exists and is no packaged model" in text
    assert (tmp_path / "x.zip").read_bytes() == before


def test_members_need_the_same_channels_and_targets(own_run: Run, finished_run: Run, tmp_path: Path, call):
    path = own_run.folder.model(0) / "model.json"
    card = ModelCard.read(path)
    labels = {"background": 0, "liver": 2, "tumour": 1}
    card.model_copy(update={"description": card.description.model_copy(update={"labels": labels})}).write(
        path
    )
    models = finished_run.folder.model(0), own_run.folder.model(0)
    code, text = call("package", *models, "--out", tmp_path / "x.zip", *LICENCES)
    assert code == 2
    assert "have different labels" in text


# ---- examples ---------------------------------------------------------------------------------------------------


def test_a_real_example_loses_its_name_and_texts(own_run: Run, tmp_path: Path, call):
    scan = sorted((own_run.data_root / "imagesTr").iterdir())[0]
    image = nib.load(scan)
    image.header["descrip"] = b"Jane Doe"
    nib.save(image, tmp_path / "doe_jane.nii.gz")
    given = ("--example", tmp_path / "doe_jane.nii.gz")
    assert call("package", own_run.folder.root, "--out", tmp_path / "x.zip", *LICENCES, *given)[0] == 0
    folder, package = open_package(tmp_path / "x.zip")
    kept = nib.load(folder / package.example)
    assert np.array_equal(kept.get_fdata(), image.get_fdata())
    np.testing.assert_allclose(kept.affine, image.affine, atol=1e-5)
    everything = b"".join(contents(tmp_path / "x.zip").values()) + kept.header.binaryblock
    assert b"oe" not in kept.header["descrip"].tobytes()
    assert b"jane" not in everything.lower()


def test_an_example_that_the_model_refuses_is_refused(own_run: Run, tmp_path: Path, call):
    nib.save(nib.Nifti1Image(np.ones((9, 8, 7), np.int16), np.diag([2, 2, 4, 1])), tmp_path / "flat.nii.gz")
    given = ("--example", tmp_path / "flat.nii.gz")
    code, text = call("package", own_run.folder.root, "--out", tmp_path / "x.zip", *LICENCES, *given)
    assert code in (1, 2)
    assert "N011" in text
    assert not (tmp_path / "x.zip").exists()


# ---- by name ----------------------------------------------------------------------------------------------------


def test_a_package_predicts_as_its_run_does(packaged: Path, finished_run: Run, tmp_path: Path, call):
    scans = sorted((finished_run.data_root / "imagesTr").iterdir())[:3]
    assert call("predict", packaged, *scans, "--out", tmp_path / "a", *HOW)[0] == 0
    assert call("predict", finished_run.folder.model(0), *scans, "--out", tmp_path / "b", *HOW)[0] == 0
    for path in sorted((tmp_path / "b").glob("*.nii.gz")):
        one, other = (np.asarray(nib.load(tmp_path / each / path.name).dataobj) for each in "ab")
        assert np.mean(one != other) < 1e-3
        assert other.any()


def test_a_package_refuses_what_its_run_refuses(packaged: Path, finished_run: Run, tmp_path: Path, call):
    scan = sorted((finished_run.data_root / "imagesTr").iterdir())[0]
    image = nib.load(scan)
    large = np.tile(np.asarray(image.dataobj), (2, 2, 2))
    nib.save(nib.Nifti1Image(large, image.affine), tmp_path / "large.nii.gz")
    texts = []
    for model in (packaged, finished_run.folder.model(0)):
        code, text = call("predict", model, tmp_path / "large.nii.gz", "--out", tmp_path / "o", *HOW)
        assert code == 1
        texts.append(re.search(r"failed large: (N028 .*--accept N028)", text)[1])  # type: ignore[index]
    assert texts[0] == texts[1]
    accepted = ("--accept", "N028:large")
    assert (
        call("predict", packaged, tmp_path / "large.nii.gz", "--out", tmp_path / "o", *HOW, *accepted)[0] == 0
    )


def test_a_run_s_own_cases_are_not_refused(own_run: Run, call):
    path = own_run.folder.model(0) / "model.json"
    card = ModelCard.read(path)
    shown = card.plan.fingerprint.shown
    assert shown is not None
    small = shown.model_copy(update={"field_of_view_mm": (20.0, 20.0, 20.0)})
    fingerprint = card.plan.fingerprint.model_copy(update={"shown": small})
    card.model_copy(update={"plan": card.plan.model_copy(update={"fingerprint": fingerprint})}).write(path)
    arguments = (
        "predict",
        own_run.folder.root,
        "--data-root",
        own_run.data_root,
        "--fold",
        "0",
        "--overwrite",
    )
    assert call(*arguments)[0] == 0
    entries = read_json(own_run.folder.predictions / "index.json")["cases"].values()
    own = [row for entry in entries if entry["fold"] == 0 for row in entry["faults"]]
    assert {(row["code"], row["accepted"]) for row in own} == {
        ("N028", "one of the run's own cases, whose scores are measured")
    }


def test_models_are_listed_shown_and_added(
    packaged: Path, own_run: Run, tmp_path: Path, call, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(console, "_width", 200)
    assert "hippocampus" in call("models")[1], "the one that medunet ships"
    code, text = call("models", "--add", packaged)
    assert (code, "tiny can be named" in text) == (0, True)
    assert call("models", "--add", packaged)[0] == 0, "the same again"
    code, text = call("models")
    assert code == 0
    assert "tiny liver, tumour CT 1" in text
    assert "CC-BY-4.0" in text
    assert "# tiny" in call("models", "tiny")[1]
    code, text = call("models", "other")
    assert code == 2
    assert re.search(r"there is no model 'other'. Choose from hippocampus\S* .*tiny", text)
    scan = sorted((own_run.data_root / "imagesTr").iterdir())[0]
    assert call("predict", "tiny", scan, "--out", tmp_path / "out", *HOW)[0] == 0
    assert "no scans are given" in call("predict", "tiny")[1]
    code, text = call("predict", "other", scan, "--out", tmp_path / "out")
    assert (code, "there is no model 'other'" in text) == (2, True)
    code, text = call("predict", tmp_path / "gone.zip", scan, "--out", tmp_path / "out")
    assert (code, "no such file" in text) == (2, True)
    code, text = call("predict", "tiny", scan, "--out", tmp_path / "out", "--fold", "0")
    assert (code, "no folds to choose from" in text) == (2, True)


def test_an_installation_without_models_says_where_they_would_be(tmp_path: Path, call, monkeypatch):
    for module in ("medunet.runs.model_library", "medunet.commands.models"):
        monkeypatch.setattr(f"{module}.model_folders", lambda: [tmp_path])
    assert f"There are none in {tmp_path}" in call("models")[1].replace("\n", "")


def test_the_example_of_a_model_can_be_written_and_predicted(packaged: Path, tmp_path: Path, call):
    assert call("models", "--add", packaged)[0] == 0
    scan = tmp_path / "scan.nii.gz"
    code, text = call("models", "tiny", "--example", tmp_path / "scan.png")
    assert (code, "the example is a .nii.gz file" in text) == (2, True)
    assert call("models", "tiny", "--example", scan)[0] == 0
    assert scan.read_bytes() == contents(packaged)["example.nii.gz"]
    code, text = call("models", "tiny", "--example", scan)
    assert (code, "exists" in text) == (2, True)
    assert call("models", "tiny", "--example", scan, "--overwrite")[0] == 0
    assert call("models", "--example", scan)[0] == 2
    assert call("predict", "tiny", scan, "--out", tmp_path / "masks", *HOW)[0] == 0
    assert nib.load(tmp_path / "masks/scan.nii.gz").shape == nib.load(scan).shape


def test_a_name_is_not_taken_from_another_model(packaged: Path, own_run: Run, tmp_path: Path, call):
    call("models", "--add", packaged)
    model = own_run.folder.model(0)
    assert call("package", model, "--out", tmp_path / "tiny.zip", "--attribution", "A. B.", *LICENCES)[0] == 0
    code, text = call("models", "--add", tmp_path / "tiny.zip")
    assert (code, "another model is named 'tiny'" in text) == (2, True)
    kept = tmp_path / "user_data" / "medunet" / "models" / "tiny.zip"
    assert kept.read_bytes() == packaged.read_bytes()
    assert call("models", "--add", tmp_path / "tiny.zip", "--overwrite")[0] == 0
    assert kept.read_bytes() == (tmp_path / "tiny.zip").read_bytes()
    assert "A. B." in call("models", "tiny")[1]


def test_a_broken_model_is_listed_with_its_trouble(
    packaged: Path, tmp_path: Path, call, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(console, "_width", 200)
    call("models", "--add", packaged)
    (tmp_path / "user_data" / "medunet" / "models" / "odd.zip").write_bytes(packaged.read_bytes()[:500])
    code, text = call("models")
    assert code == 1
    assert "odd cannot be read" in text
    assert "is not a complete archive" in text


def test_several_members_are_one_model(own_run: Run, tmp_path: Path, call):
    folder = own_run.folder.model(0)
    other = tmp_path / "other" / "model"
    shutil.copytree(folder, other)
    change_weights(other, nudge)
    out = tmp_path / "two.zip"
    assert call("package", folder, other, "--out", out, *LICENCES)[0] == 0
    models = find_models(out)
    assert [model.parent.name for model in models] == ["members", "members"]
    assert len({ModelCard.read(model / "model.json").weights_sha256 for model in models}) == 2
    assert [(member.seed, member.epochs) for member in read_package(out).members] == [(0, 3), (0, None)]
    scan = sorted((own_run.data_root / "imagesTr").iterdir())[0]
    code, text = call("predict", out, scan, "--out", tmp_path / "out", *HOW)
    assert (code, "2 networks averaged" in text) == (0, True)
    (entry,) = json.loads((tmp_path / "out/index.json").read_text())["cases"].values()
    assert len({member["model_sha256"] for member in entry["members"]}) == 2
    code, text = call("export", out, "--to", "onnx", "--out", tmp_path / "onnx")
    assert (code, "has 2 members, of which one must be chosen" in text) == (2, True)
    assert call("predict", models[1], scan, "--out", tmp_path / "out", *HOW)[0] == 0
