"""`medunet predict` with several networks: folds, seeds and other runs, averaged; the maps beside the masks."""

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medunet.base.files import hash_file
from medunet.records.config import InferenceConfig
from medunet.records.costs import hash_options
from medunet.records.run_folder import RunFolder
from medunet.runs.run import Run


def add_fold(run: Path, fold: int, *, cases: list[str] | None = None) -> Path:
    """Copy fold 0's model to another fold with other weights; return its folder."""
    folder = RunFolder(run).model(fold)
    shutil.copytree(RunFolder(run).model(0), folder)
    card = json.loads((folder / "model.json").read_text()) | {"fold": fold}
    rng = torch.Generator().manual_seed(fold)
    for name, key in (("weights", "weights_sha256"), ("weights_final", "final_weights_sha256")):
        path = folder / f"{name}.safetensors"
        weights = {
            key: value * (1 + 0.5 * torch.randn(value.shape, generator=rng)) if value.ndim > 2 else value
            for key, value in load_file(path).items()
        }
        save_file(weights, path)
        card[key] = hash_file(path)
    if cases is not None:
        card["training_cases"] = cases
    (folder / "model.json").write_text(json.dumps(card))
    return folder


def images_of(run: Run) -> list[Path]:
    return sorted((run.data_root / "imagesTr").iterdir())[:2]


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "index.json").read_text())["cases"]


def mask_of(folder: Path, case: str) -> np.ndarray:
    return np.asarray(nib.load(folder / f"{case}.nii.gz").dataobj)


FAST = ("--device", "cpu", "--precision", "fp32", "--backend", "torch")


def test_all_folds_are_averaged_on_demand(own_run: Run, call, tmp_path: Path):
    run, out = own_run.folder.root, tmp_path / "out"
    add_fold(run, 1)
    images = images_of(own_run)
    code, text = call("predict", run, *images, "--out", out, *FAST)
    assert code == 0
    assert "Fold 0 predicts alone: --fold each averages 1 more trained networks." in text
    alone = read(out)
    assert all("members" not in entry for entry in alone.values())

    code, text = call("predict", run, *images, "--out", out, *FAST, "--fold", "each", "--agreement")
    assert code == 0
    assert "2 networks averaged: of folds 0, 1" in text
    assert "2 of 2 cases are predicted again: other members of the ensemble (2)" in text
    for case, entry in read(out).items():
        assert [member["fold"] for member in entry["members"]] == [0, 1]
        assert entry["model_sha256"] == alone[case]["model_sha256"]
        agreement = nib.load(out / "agreement" / f"{case}.nii.gz")
        assert np.array_equal(agreement.affine, nib.load(out / f"{case}.nii.gz").affine)
        assert set(np.unique(agreement.dataobj)) <= {0, 1, 2}
        assert len(np.unique(agreement.dataobj)) > 1

    masks = {case: mask_of(out, case) for case in read(out)}
    _, text = call("predict", run, *images, "--out", out, *FAST, "--fold", "each", "--agreement")
    assert "predicted again" not in text
    _, text = call("predict", run, *images, "--out", out, *FAST, "--fold", "each", "--probabilities")
    assert "2 of 2 cases are predicted again: no map of probabilities (2)" in text
    assert not list((out / "agreement").iterdir())  # of masks that are no longer there
    for case, mask in masks.items():
        assert np.array_equal(mask_of(out, case), mask)  # maps change nothing
        assert (out / "probabilities" / f"{case}.b2nd").stat().st_size


def test_models_and_runs_are_averaged_by_name(own_run: Run, call, tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(own_run.folder.root, other)
    model = add_fold(other, 1)
    image = images_of(own_run)[0]
    given = ("predict", own_run.folder.model(0), image, "--out", tmp_path / "out", *FAST)
    assert call(*given, "--with", model)[0] == 0
    (entry,) = read(tmp_path / "out").values()
    assert [member["fold"] for member in entry["members"]] == [0, 1]
    code, text = call(*given, "--agreement")
    assert code == 2
    assert "one network alone has none to agree with" in text
    empty = tmp_path / "empty"
    empty.mkdir()
    code, text = call(*given, "--with", empty, "--with", tmp_path / "none")
    assert code == 2
    assert f"{empty}: no trained network" in text
    assert f"there is no model '{tmp_path / 'none'}'" in text


def test_held_out_cases_are_predicted_by_other_runs_of_the_same_fold_too(own_run: Run, call, tmp_path: Path):
    run = own_run.folder.root
    other = tmp_path / "other"
    shutil.copytree(run, other)
    shutil.rmtree(other / "folds" / "0")
    given = ("predict", run, "--data-root", own_run.data_root, "--device", "cpu")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("inference:\n", "inference:\n  members: [../other]\n"))
    code, text = call(*given)
    assert code == 2
    assert "fold 0 is not trained" in text
    assert "inference.members: " in text
    shutil.copytree(run / "folds" / "0", other / "folds" / "0")
    folder = add_fold(other, 1)
    shutil.rmtree(other / "folds" / "0")
    folder.parent.rename(other / "folds" / "0")
    before = read(own_run.folder.predictions)
    code, text = call(*given)
    assert code == 0, text
    after = read(own_run.folder.predictions)
    assert "other members of the ensemble" in text
    assert [len(entry["members"]) for entry in after.values()] == [2] * len(before)

    card = json.loads((other / "folds/0/model/model.json").read_text())
    card["training_cases"] = [*card["training_cases"], next(iter(before))]
    (other / "folds/0/model/model.json").write_text(json.dumps(card))
    code, text = call(*given)
    assert code == 2
    assert "was trained on 1 of the held-out cases" in text


@pytest.mark.parametrize("option", [["--with", "x"], ["--fold", "7"]])
def test_options_that_do_not_fit_are_refused(own_run: Run, call, option: list[str]):
    code, text = call("predict", own_run.folder.root, "--data-root", own_run.data_root, *option)
    assert code == 2
    assert "inference.members" in text if option[0] == "--with" else "fold" in text


def test_a_measured_cost_holds_for_a_run_that_names_other_runs():
    """The cost is of the network by itself: whom it is averaged with is not one of its options."""
    alone = InferenceConfig()
    assert hash_options(alone.model_copy(update={"members": ("../other",)})) == hash_options(alone)
    assert hash_options(alone.model_copy(update={"overlap": 0.25})) != hash_options(alone)
