"""How to compute is chosen by what a probe's steps take and how long the training will be."""

import pytest
import torch

from medunet import computing, runs
from medunet.config import TrainingConfig
from medunet.plans import Plan
from medunet.training import probe
from medunet.training.probe import ComputeChoice, choose_compute

CPU = torch.device("cpu")


def chosen(plan: Plan, run: runs.Run, monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float], **options):
    """Return the choice where a step takes so long "plain", with "channels_last", and "compiled"."""

    def step_s(self, *, channels_last: bool, compiled: bool = False) -> float:
        return seconds["compiled" if compiled else "channels_last" if channels_last else "plain"]

    monkeypatch.setattr(probe._Probe, "step_s", step_s)
    config = TrainingConfig(**{"precision": "fp32", "epochs": 4, "steps_per_epoch": 250} | options)
    return choose_compute(config, plan, run.description, CPU)


def test_the_fastest_way_is_chosen_where_training_is_long(tiny_plan, finished_run, monkeypatch):
    seconds = {"plain": 4.0, "channels_last": 3.0, "compiled": 2.0}
    choice = chosen(tiny_plan, finished_run, monkeypatch, seconds, epochs=40)
    assert choice.channels_last
    assert choice.compile
    slower = chosen(tiny_plan, finished_run, monkeypatch, {**seconds, "compiled": 2.9}, epochs=40)
    assert not slower.compile


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
    choice = chosen(tiny_plan, finished_run, monkeypatch, seconds, **options)
    assert choice.channels_last is is_probed


def test_a_probe_takes_but_a_small_share_of_the_training(tiny_plan, finished_run, monkeypatch):
    seconds = {"plain": 20.0, "channels_last": 10.0, "compiled": 10.0}
    choice = chosen(tiny_plan, finished_run, monkeypatch, seconds, max_minutes=60)  # 180 steps
    assert not choice.channels_last
    assert choice.channels_last_why == "not probed: the training is short"


def test_what_was_asked_for_is_not_probed(tiny_plan, finished_run, monkeypatch):
    choice = chosen(tiny_plan, finished_run, monkeypatch, {}, channels_last="on", compile="off", epochs=400)
    assert choice.channels_last
    assert not choice.compile


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_step_of_the_planned_network_is_timed(tiny_plan, finished_run, channels_last: bool):
    timed = probe._Probe(tiny_plan, finished_run.description, CPU, "fp32")
    assert 0 < timed.step_s(channels_last=channels_last) < 60


def test_another_plan_is_probed_anew(own_run: runs.Run, monkeypatch: pytest.MonkeyPatch):
    before = computing.choose_compute_of(own_run, CPU)
    asked: list[Plan] = []

    def choose(config, plan, description, device):
        asked.append(plan)
        return ComputeChoice("fp32", why="another")

    monkeypatch.setattr(probe, "choose_compute", choose)
    assert computing.choose_compute_of(own_run, CPU) == before
    own_run.plan.model_copy(update={"batch_size": 5}).write(own_run.folder.plan)
    assert computing.choose_compute_of(own_run, CPU).why == "another"
    assert asked == [own_run.plan]
