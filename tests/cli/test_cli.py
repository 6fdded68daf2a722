"""The command line: every mistake ends in one message with its hint and its exit code, never a traceback."""

import errno
import shutil
import subprocess
import sys
from itertools import chain

import pytest
from conftest import TINY

from medunet import __version__
from medunet.base import processor
from medunet.base.files import read_json
from medunet.cli import review
from medunet.commands.manifest import run_manifest
from medunet.commands.predict import run_predict
from medunet.commands.score import run_score
from medunet.commands.train import run_train
from medunet.compute import choosing
from medunet.imaging.volumes import read_label
from medunet.records.manifest import Manifest
from medunet.runs.run import Run, open_run
from medunet.scoring.tables import read_lesions, read_scores

LESIONS = "scoring.lesions={tumour: lits}"


def test_all_commands_in_turn(call, finished_run: Run, tmp_path):
    root, data = tmp_path / "run", finished_run.data_root
    settings = [part for change in TINY for part in ("--set", change)]
    assert call("manifest", "phantoms", "--run", root, "--data-root", data, *settings)[0] == 0
    assert call("check", root, "--data-root", data)[0] == 0
    assert call("plan", root, "--data-root", data)[0] == 0
    assert call("train", root, "--data-root", data, "--set", "training.epochs=1")[0] == 0
    assert call("predict", root, "--data-root", data)[0] == 0
    code, text = call("score", root, "--data-root", data)
    assert code == 0
    assert "mean Dice" in text
    assert call("report", root, "--data-root", data)[0] == 0
    assert (root / "report/index.html").exists()


def test_devices_shows_and_sets_how_this_computer_computes(call, finished_run: Run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(choosing.CoreWatch, "other_load", lambda self: 0.0)
    code, text = call("devices")
    assert code == 0
    assert processor.read_processor().name in text
    assert "Set by you" not in text
    model = finished_run.folder.model(0)
    code, text = call("devices", model)
    assert code == 0
    assert "Benchmarking precision and memory layout for a prediction" in text
    assert "Prediction: " in text
    ours = {"precision": "bf16", "channels_last": "on", "backend": "torch"}  # OpenVINO has no layouts
    code, text = call(
        "devices", model, *chain(*(("--set", f"inference.{key}={value}") for key, value in ours.items()))
    )
    assert code == 0
    assert all(f"Set by you: inference.{key}={value}" in text for key, value in ours.items())
    assert "Prediction: bf16 in torch, channels-last" in text
    scan = finished_run.data_root / "imagesTr/case_00.nii.gz"
    assert call("predict", model, scan, "--out", tmp_path / "out")[0] == 0
    assert read_json(tmp_path / "out/index.json")["cases"]["case_00"]["precision"] == "bf16"
    code, text = call("devices", finished_run.folder.root)
    assert code == 0
    assert "Training fold 0: fp32" in text
    assert "asked for" in text  # the configuration comes before what is set for the computer
    assert len(list((tmp_path / "medunet/compute").glob("*.json"))) > 1
    code, text = call("devices", *chain(*(("--set", f"inference.{key}=auto") for key in ours)))
    assert code == 0
    assert "Set by you" not in text
    assert "set by you" in text  # why the choice that is kept was made
    assert call("devices", tmp_path)[0] == 2
    assert call("devices", "--set", "precision=fp32")[0] == 2


def test_prediction_tries_nothing_where_the_choice_is_known(call, finished_run: Run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(choosing.CoreWatch, "other_load", lambda self: 0.0)
    model, scan = finished_run.folder.model(0), finished_run.data_root / "imagesTr/case_00.nii.gz"
    _, text = call("predict", model, scan, "--out", tmp_path / "a")
    assert "3.5 seconds at most" in text
    monkeypatch.setattr(choosing, "Benchmark", None)
    code, text = call("predict", model, scan, "--out", tmp_path / "b")
    assert code == 0
    assert "seconds at most" not in text


def test_images_and_folders_and_a_manifest_can_be_predicted(call, finished_run: Run, tmp_path):
    images = finished_run.data_root / "imagesTr"
    model = finished_run.folder.model(0)
    assert call("predict", model, images / "case_00.nii.gz", "--out", tmp_path / "a")[0] == 0
    assert [path.name for path in (tmp_path / "a").glob("*.nii.gz")] == ["case_00.nii.gz"]
    manifest = finished_run.folder.manifest
    code, _ = call(
        "predict",
        finished_run.folder.root,
        manifest,
        "--out",
        tmp_path / "b",
        "--data-root",
        finished_run.data_root,
    )
    assert code == 0
    assert len(list((tmp_path / "b").glob("*.nii.gz"))) == 6
    labels = finished_run.data_root / "labelsTr"
    assert call("score", labels, tmp_path / "b", "--dataset", "phantoms", "--out", tmp_path / "s")[0] == 0
    assert len(read_scores(tmp_path / "s/scores.csv")) == 12
    out = ("--out", tmp_path / "m", "--data-root", finished_run.data_root)
    code, _ = call("score", manifest, tmp_path / "b", *out, "--resample", "--workers", "1", "--set", LESIONS)
    assert code == 0
    assert len(read_scores(tmp_path / "m/scores.csv")) == 12
    assert set(read_lesions(tmp_path / "m/lesions.csv")["label"]) == {"tumour"}
    about = read_json(tmp_path / "m/scores.json")["about"]
    assert (about["resample"], about["surface"], about["lesions"]) == (True, "area", {"tumour": "lits"})
    assert not (tmp_path / "m/scores.partial.jsonl").exists()


def test_masks_are_compared_with_a_manifest_as_reference(call, own_run: Run, tmp_path):
    run_score(own_run)
    run, predictions = own_run.folder, own_run.folder.predictions
    shutil.copytree(predictions, tmp_path / "masks")
    options = ("--out", tmp_path / "o", "--reference", run.manifest, "--data-root", own_run.data_root)
    code, text = call("compare", run.root, tmp_path / "masks", *options)
    # The run was scored on its held-out cases, the folder is asked for all.
    assert code == 1
    assert "count as failures" in text
    assert (tmp_path / "o/comparison.csv").exists()
    held_out = read_scores(run.scores)
    scores = read_scores(tmp_path / "o/scores/masks/scores.csv").set_index(["case", "label"])
    for row in held_out.itertuples():
        assert scores.loc[(row.case, row.label), "dice"] == pytest.approx(row.dice, nan_ok=True)


def test_a_model_folder_predicts_as_its_run_was_configured(call, own_run: Run, tmp_path):
    changes = ["inference.overlap=0.25", "inference.postprocess.tumour=[min_volume_ml: 1000000]"]
    run = open_run(own_run.folder.root, own_run.data_root, changes=changes)
    run_train(run)
    run_predict(run)
    case = next(run.folder.predictions.glob("*.nii.gz")).name
    scan = own_run.data_root / "imagesTr" / case
    assert call("predict", own_run.folder.model(0), scan, "--out", tmp_path / "out")[0] == 0
    assert read_label(tmp_path / "out" / case).array.max() == 1, "the tumour rule of the run was not applied"
    entries = [
        read_json(folder / "index.json")["cases"] for folder in (tmp_path / "out", run.folder.predictions)
    ]
    stem = case.removesuffix(".nii.gz")
    assert entries[0][stem]["options_sha256"] == entries[1][stem]["options_sha256"]


def test_a_failing_case_gives_exit_code_one_and_its_name(call, own_run: Run, tmp_path):
    images = own_run.data_root / "imagesTr"
    (images / "case_03.nii.gz").write_bytes(b"broken")
    code, text = call("predict", own_run.folder.model(0), images, "--out", tmp_path / "out")
    assert code == 1
    assert "failed case_03" in text
    assert "5 of 6 cases" in text


def test_faults_give_exit_code_one(call, own_run: Run):
    (own_run.data_root / "imagesTr/case_02.nii.gz").write_bytes(b"broken")
    code, text = call("check", own_run.folder.root, "--data-root", own_run.data_root)
    assert code == 1
    assert "case_02" in text
    code, text = call("train", own_run.folder.root, "--data-root", own_run.data_root)
    assert code == 1
    assert "--exclude CASE=REASON" in text
    arguments = ("check", own_run.folder.root, "--data-root", own_run.data_root)
    assert call(*arguments, "--exclude", "case_02")[0] == 2
    assert call(*arguments, "--exclude", "case_02=broken header")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "{tmp}/none", "--data-root", "{data}"), "Create a run with"),
        (("check", "{run}", "--data-root", "{tmp}/none"), "Check --data-root"),
        (("check", "{run}"), "MEDUNET_DATA_ROOT"),
        (("manifest", "livre", "--run", "{tmp}/r", "--data-root", "{data}"), "'livre' is neither a dataset"),
        (("manifest", "lits_2017", "--run", "{tmp}/r", "--data-root", "{data}"), "volume-"),
        (("train", "{run}", "--data-root", "{data}", "--set", "training.epoch=3"), "training.epoch: Extra inputs"),
        (("train", "{run}", "--data-root", "{data}", "--fold", "9"), "fold 9 has no cases"),
        (("train", "{run}", "--data-root", "{data}", "--device", "cuda:77"), "CUDA"),
        (("plan", "{run}", "--data-root", "{data}", "--set", "planning.memory_gb=-1"), "planning.memory_gb"),
        (("predict", "{tmp}", "{data}/imagesTr", "--out", "{tmp}/o"), "no trained network"),
        (("predict", "{run}", "{data}/imagesTr"), "Add --out FOLDER"),
        (("predict", "{run}", "{data}/none.nii.gz", "--out", "{tmp}/o"), "no such file"),
        (("score", "{data}/labelsTr", "{run}/predictions"), "Add --dataset NAME"),
        (("score", "{data}/labelsTr", "{tmp}/none", "--dataset", "phantoms", "--out", "{tmp}/o"), "none"),
        (("score", "{data}/labelsTr", "{run}/predictions", "--dataset", "phantoms", "--out", "{tmp}/o",
          "--target", "spleen"), "Choose from"),
        (("score", "{data}/labelsTr", "{run}/predictions", "--dataset", "msd_task04_hippocampus", "--out", "{tmp}/o"),
         "no name is common"),
        (("predict", "{run}", "--data-root", "{data}", "--out", "{tmp}/o"), "Leave the option out"),
        (("score", "{run}", "--data-root", "{data}", "--out", "{tmp}/o"), "Leave the option out"),
        (("score", "{run}/manifest.json", "{run}/predictions", "--dataset", "phantoms", "--out", "{tmp}/o"),
         "Leave the option out"),
        (("score", "{run}/manifest.json", "{run}/predictions", "--out", "{tmp}/o"), "MEDUNET_DATA_ROOT"),
        (("score", "{run}", "--data-root", "{data}", "--set", "scoring.lesions={{spleen: lits}}"), "Choose from"),
        (("score", "{data}/labelsTr", "{run}/predictions", "--dataset", "phantoms", "--out", "{tmp}/o",
          "--data-root", "{data}"), "--data-root: only the cases of a manifest need a data root"),
        (("compare", "{run}", "{tmp}", "--out", "{tmp}/o"), "--reference to score folders of masks here"),
        (("compare", "{run}", "{run}/predictions", "--out", "{tmp}/o", "--data-root", "{data}",
          "--dataset", "phantoms"),
         "--dataset, --data-root: score tables already name their labels"),
        (("compare", "{run}", "{run}/predictions", "--out", "{tmp}/o", "--reference", "{data}/labelsTr"),
         "Add --dataset NAME"),
        (("compare", "{run}", "{run}/predictions", "--out", "{tmp}/o", "--reference", "{run}/manifest.json",
          "--dataset", "phantoms"), "a manifest already contains its dataset"),
        (("compare", "--readers", "{run}/predictions", "--out", "{tmp}/o", "--dataset", "phantoms",
          "--reference", "{data}/labelsTr"), "--reference: readers are only compared with each other"),
        (("compare", "--readers", "{tmp}/empty", "--out", "{tmp}/o", "--dataset", "phantoms"), "only 0 label map"),
        (("predict", "{run}/folds/0/model", "--out", "{tmp}/o"), "Add scans"),
        (("run", "{tmp}/none.yaml", "--run", "{tmp}/r", "--data-root", "{data}"), "no such file"),
        (("report", "{tmp}/empty", "--data-root", "{data}"), "medunet manifest"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message_with_exit_code_two(
    call, finished_run, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.delenv("MEDUNET_DATA_ROOT", raising=False)
    run = tmp_path / "run"
    shutil.copytree(finished_run.folder.root, run)
    (tmp_path / "empty").mkdir()
    places = {"tmp": tmp_path, "data": finished_run.data_root, "run": run}
    code, text = call(*(argument.format(**places) for argument in arguments))
    assert code == 2, text
    assert message in text


def test_a_full_disk_is_named(call, own_run: Run, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, text = call("manifest", "phantoms", "--run", own_run.folder.root, "--data-root", own_run.data_root)
    assert code == 2
    assert "Free disk space" in text


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_that_runs_out_is_named(call, own_run: Run, monkeypatch, error: Exception):
    def exhausted(run: Run, **options: object) -> None:
        raise error

    monkeypatch.setattr(review, "run_report", exhausted)
    code, text = call("report", own_run.folder.root, "--data-root", own_run.data_root)
    assert code == 2
    assert "out of memory" in text


def test_our_own_faults_are_told_apart(call, own_run: Run, monkeypatch):
    monkeypatch.setattr(review, "run_report", lambda run, **options: 1 / 0)
    code, text = call("report", own_run.folder.root, "--data-root", own_run.data_root)
    assert code == 3
    assert "--debug" in text


def test_the_model_of_another_modality_count_is_refused(call, finished_run: Run, tmp_path):
    for name in ("a_t1", "a_t1ce", "a_t2", "a_flair", "a_seg"):
        shutil.copy(finished_run.data_root / "imagesTr/case_00.nii.gz", tmp_path / f"{name}.nii.gz")
    run = open_run(tmp_path / "r", tmp_path, dataset="brats_2018_2021")
    run_manifest(run)
    with pytest.raises(ValueError, match="the model was trained on"):
        run_predict(run, model=finished_run.folder.model(0))


def test_a_model_refuses_scans_of_another_modality(call, finished_run: Run, tmp_path):
    manifest = finished_run.read_manifest()
    plain = manifest.to_dict()
    plain["description"]["channels"] = {"MR": {"modality": "MR"}}
    plain["cases"] = [{**plain["cases"][0], "images": {"MR": plain["cases"][0]["images"]["CT"]}}]
    Manifest.parse(plain, "test").write(tmp_path / "manifest.json")
    code, text = call(
        "predict", finished_run.folder.model(0), tmp_path / "manifest.json",
        "--data-root", finished_run.data_root, "--out", tmp_path / "masks",
    )  # fmt: skip
    assert code == 2
    assert "the model was trained on CT (CT), but the dataset has MR (MR)" in text
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("module", ["medunet", "medunet.cli"])
def test_the_package_runs_as_a_module(module: str):
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"medunet {__version__}"
