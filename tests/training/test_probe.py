"""How a network is trained: as requested, otherwise by a benchmark of its own steps, with the seconds of a step."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from medunet.base.files import read_json
from medunet.base.processor import read_processor
from medunet.commands.plan import run_plan
from medunet.compute.choice_cache import Choice, change_settings, list_choices
from medunet.inference.probe import choose_prediction
from medunet.records.config import TrainingConfig, change_config
from medunet.records.plan import Plan
from medunet.runs import computing
from medunet.runs.provenance import add_provenance
from medunet.runs.run import Run
from medunet.training import probe
from medunet.training.probe import ComputeChoice, choose_compute

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("loss", ["auto", "focal_tversky"])
def test_the_very_network_is_tried_and_its_seconds_are_numbers(tiny_plan, finished_run, loss: Any):
    choice = choose_compute(TrainingConfig(loss=loss), tiny_plan, finished_run.read_description(), CPU)
    assert choice.precision in ("fp32", "bf16")
    assert choice.why
    assert choice.channels_last_why
    assert 0 < choice.window_s < 60
    assert 0 < choice.step_s < 60
    assert not choice.compile
    assert "took half a minute" in choice.compile_why


def test_what_was_asked_for_is_not_compared(tiny_plan, finished_run):
    config = TrainingConfig(precision="bf16", channels_last="on", compile="on")
    choice = choose_compute(config, tiny_plan, finished_run.read_description(), CPU)
    assert (choice.precision, choice.channels_last, choice.compile) == ("bf16", True, True)
    assert (choice.why, choice.channels_last_why, choice.compile_why) == ("asked for",) * 3
    assert choice.step_s > 0


def test_training_and_prediction_are_chosen_and_set_apart(tiny_plan, finished_run):
    change_settings(["training.precision=bf16", "training.channels_last=off", "inference.channels_last=on"])
    choice = choose_compute(TrainingConfig(), tiny_plan, finished_run.read_description(), CPU)
    assert (choice.precision, choice.channels_last, choice.why) == ("bf16", False, "set by you")
    predicting = choose_prediction(tiny_plan, finished_run.read_description(), CPU, "fp32")
    assert (predicting.precision, predicting.channels_last) == ("fp32", True)


def test_a_second_training_of_the_same_network_tries_nothing(tiny_plan, finished_run, monkeypatch):
    monkeypatch.setattr(probe, "choose_on_cpu", lambda key, *_: keys.append(key) or Choice(seconds=1.0))
    keys: list[dict[str, Any]] = []
    description = finished_run.read_description()
    for config, plan in (
        (TrainingConfig(), tiny_plan),
        (TrainingConfig(epochs=3, learning_rate=0.1), tiny_plan.model_copy(update={"memory_gb": 3.0})),
        (TrainingConfig(loss="bce"), tiny_plan),
        (TrainingConfig(), tiny_plan.model_copy(update={"batch_size": 3})),
        (TrainingConfig(), tiny_plan.model_copy(update={"patch_size": (32, 16, 8)})),
        (TrainingConfig(), tiny_plan.model_copy(update={"features": (5, 8, 16)})),
    ):
        choose_compute(config, plan, description, CPU)
    assert keys[0] == keys[1]
    assert all(key != keys[0] for key in keys[2:])


# ---- GPUs, whose steps are timed here on the CPU ----------------------------------------------------------------


def chosen_on_gpu(
    plan: Plan, run: Run, monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float], **options
):
    """Return the choice where a step takes so long "plain", with "channels_last", and "compiled"."""

    def step_s(self, *, channels_last: bool, compiled: bool = False) -> float:
        return seconds["compiled" if compiled else "channels_last" if channels_last else "plain"]

    monkeypatch.setattr(probe.GpuProbe, "step_s", step_s)
    monkeypatch.setattr(probe, "choose_prediction", lambda *_, **__: Choice(seconds=0.5))
    config = TrainingConfig(**{"precision": "fp32", "epochs": 4, "steps_per_epoch": 250} | options)
    return choose_compute(config, plan, run.read_description(), torch.device("cuda"))


def test_the_fastest_way_is_chosen_where_training_is_long(tiny_plan, finished_run, monkeypatch):
    seconds = {"plain": 4.0, "channels_last": 3.0, "compiled": 2.0}
    choice = chosen_on_gpu(tiny_plan, finished_run, monkeypatch, seconds, epochs=40)
    assert choice.channels_last
    assert choice.compile
    assert (choice.step_s, choice.window_s) == (2.0, 0.5)
    slower = chosen_on_gpu(tiny_plan, finished_run, monkeypatch, {**seconds, "compiled": 2.9}, epochs=40)
    assert not slower.compile
    assert slower.step_s == 3.0


@pytest.mark.parametrize(
    ("options", "is_probed"),
    [
        ({}, False),
        ({"accumulate": 8}, True),
        ({"epochs": 40}, True),
        ({"epochs": 40, "max_minutes": 9}, False),
    ],
)
def test_only_long_trainings_are_probed(tiny_plan, finished_run, monkeypatch, options, is_probed: bool):
    seconds = {"plain": 0.1, "channels_last": 0.05, "compiled": 0.05}
    choice = chosen_on_gpu(tiny_plan, finished_run, monkeypatch, seconds, **options)
    assert choice.channels_last is is_probed
    assert choice.step_s == (0.05 if is_probed else 0.1)


def test_a_probe_takes_but_a_small_share_of_the_training(tiny_plan, finished_run, monkeypatch):
    seconds = {"plain": 20.0, "channels_last": 10.0, "compiled": 10.0}
    choice = chosen_on_gpu(tiny_plan, finished_run, monkeypatch, seconds, max_minutes=60)  # 180 steps
    assert not choice.channels_last
    assert choice.channels_last_why == "not probed: the training is short"


def test_what_was_asked_for_on_a_gpu_is_not_probed(tiny_plan, finished_run, monkeypatch):
    options = {"channels_last": "on", "compile": "off", "epochs": 400}
    choice = chosen_on_gpu(tiny_plan, finished_run, monkeypatch, {"channels_last": 1.0}, **options)
    assert choice.channels_last
    assert not choice.compile


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_step_of_the_planned_network_is_timed(tiny_plan, finished_run, channels_last: bool):
    timed = probe.GpuProbe(TrainingConfig(), tiny_plan, finished_run.read_description(), CPU, "fp32")
    assert 0 < timed.step_s(channels_last=channels_last) < 60


# ---- runs -------------------------------------------------------------------------------------------------------


def test_another_plan_is_probed_anew(own_run: Run, monkeypatch: pytest.MonkeyPatch):
    before = computing.choose_run_compute(own_run, CPU)
    asked: list[Plan] = []

    def choose(config, plan, description, device):
        asked.append(plan)
        return ComputeChoice("fp32", why="another")

    monkeypatch.setattr(probe, "choose_compute", choose)
    assert computing.choose_run_compute(own_run, CPU) == before
    own_run.read_plan().model_copy(update={"batch_size": 5}).write(own_run.folder.plan)
    assert computing.choose_run_compute(own_run, CPU).why == "another"
    assert asked == [own_run.read_plan()]


def test_a_fold_without_a_checkpoint_or_on_another_processor_is_chosen_for_anew(
    own_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(probe, "choose_compute", lambda *_: ComputeChoice("fp32", why="anew"))
    entries = read_json(own_run.folder.provenance)["folds"]
    entries["0"]["processor"]["name"] = "another one"
    add_provenance(own_run, "folds", entries)
    assert computing.choose_run_compute(own_run, CPU, keep=False).why == "anew"
    assert "Fold 0 was started on another one" in capsys.readouterr().err
    entries["0"]["processor"] = read_processor().to_dict()
    add_provenance(own_run, "folds", entries)
    assert computing.choose_run_compute(own_run, CPU).why != "anew"
    for path in (own_run.folder.fold(0) / "checkpoints").iterdir():
        path.unlink()
    assert computing.choose_run_compute(own_run, CPU).why == "anew"


def test_a_run_of_an_earlier_version_goes_on_as_it_began(own_run: Run):
    provenance = read_json(own_run.folder.provenance)
    compute = provenance["folds"]["0"]["compute"]
    early = {key: value for key, value in compute.items() if key not in ("step_s", "window_s")}
    del provenance["folds"]["0"]["processor"]
    provenance["folds"]["0"]["compute"] = {**early, "precision": "bf16"}
    add_provenance(own_run, "folds", provenance["folds"])
    choice = computing.choose_run_compute(own_run, CPU)
    assert choice == replace(ComputeChoice(**early), precision="bf16")
    assert (choice.step_s, choice.window_s) == (0.0, 0.0)
    assert list_choices() == []


def test_a_model_trained_in_fp16_predicts_on_a_cpu():
    config = change_config({"dataset": "phantoms"}, ["training.precision=fp16"], "test")
    assert computing.precision_for(config, CPU) == "auto"
    assert computing.precision_for(config, torch.device("cuda")) == "fp16"


def test_a_plan_of_0_4_that_nothing_was_trained_by_is_made_anew(own_run: Run, capsys):
    earlier = own_run.read_plan().model_copy(update={"grid": "first_voxel"})
    earlier.write(own_run.folder.plan)
    assert run_plan(own_run).grid == "first_voxel"  # a run that has started keeps its plan
    for path in (own_run.folder.fold(0) / "checkpoints").iterdir():
        path.unlink()
    assert run_plan(own_run).grid == "extent"
    assert "made again" in capsys.readouterr().out
