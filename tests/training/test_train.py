"""Training that is killed, cut short or stopped goes on, and ends where an undisturbed one ends."""

import csv
import math
import os
import signal
import time
from contextlib import nullcontext

import lightning as L
import pytest
import torch
from conftest import TINY

from medunet.base.errors import InputError, PreemptedError
from medunet.base.files import read_json_object
from medunet.commands.check import run_check
from medunet.commands.manifest import run_manifest
from medunet.commands.plan import run_plan
from medunet.commands.predict import run_predict
from medunet.commands.score import run_score
from medunet.commands.train import run_train
from medunet.records.config import Config, change_config
from medunet.records.plan import Plan
from medunet.runs.run import Run, open_run
from medunet.training import module as module_file
from medunet.training.checkpoints import (
    CheckpointState,
    best_row,
    is_readable,
    newest_readable,
    out_of_patience,
)
from medunet.training.export import export_weights
from medunet.training.module import SegmentationModule
from medunet.training.probe import ComputeChoice
from medunet.training.stop_request import StopRequest
from medunet.training.train import train_fold


def weights_of(run: Run) -> bytes:
    return (run.folder.model(0) / "weights.safetensors").read_bytes()


def steps_of(run: Run) -> list[int]:
    """Return the step of each row of training.csv."""
    with (run.folder.fold(0) / "training.csv").open() as stream:
        return [int(row["step"]) for row in csv.DictReader(stream)]


def begin(run: Run, root, changes: tuple[str, ...] = ()) -> Run:
    """Begin a run on the same data up to the plan."""
    begun = open_run(root, run.data_root, dataset="phantoms", changes=(*TINY, *changes))
    run_manifest(begun)
    run_check(begun)
    run_plan(begun)
    return begun


def test_a_checkpoint_cut_short_is_passed_over_for_the_one_before(own_run: Run):
    folder = own_run.folder.fold(0) / "checkpoints"
    last = folder / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-2000])
    assert not is_readable(last)
    assert newest_readable(folder) == folder / "previous.ckpt"
    before = weights_of(own_run)
    (own_run.folder.model(0) / "weights.safetensors").unlink()
    run_train(own_run)
    assert is_readable(last)
    assert weights_of(own_run) == before


def test_a_broken_checkpoint_does_not_replace_the_one_before(own_run: Run, monkeypatch):
    folder = own_run.folder.fold(0) / "checkpoints"
    last = folder / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-2000])

    def killed(*_):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(L.Trainer, "save_checkpoint", killed)
        with pytest.raises(RuntimeError, match="killed"):
            run_train(own_run)
    assert newest_readable(folder) is not None


def test_what_a_kill_left_of_a_checkpoint_is_removed(own_run: Run):
    part = own_run.folder.fold(0) / "checkpoints" / ".last.ckpt.x1y2.ckpt"
    part.write_bytes(b"begun")
    run_train(own_run)
    assert not part.exists()


def test_lost_best_weights_are_not_claimed(own_run: Run, capsys):
    folder = own_run.folder.fold(0) / "checkpoints"
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    checkpoint["medunet"]["history"][0]["dice"] = 0.999
    (folder / "last.ckpt").unlink()
    torch.save(checkpoint, folder / "last.ckpt")
    (folder / "best.ckpt").unlink()
    card = export_weights(own_run.folder, own_run.read_manifest(), own_run.read_plan(), own_run.config)
    assert card.validation_dice["dice"] == checkpoint["medunet"]["history"][-1]["dice"] < 0.999
    assert "newest weights" in capsys.readouterr().err


def test_two_broken_checkpoints_are_not_silently_started_anew(own_run: Run):
    folder = own_run.folder.fold(0) / "checkpoints"
    for name in ("last.ckpt", "previous.ckpt"):
        path = folder / name
        path.unlink()
        path.write_bytes(b"broken")
    with pytest.raises(InputError, match="neither of"):
        run_train(own_run)


def test_more_epochs_go_on_from_the_last_one(own_run: Run):
    longer = open_run(own_run.folder.root, own_run.data_root, changes=["training.epochs=4"])
    run_train(longer)
    assert steps_of(longer) == [16, 32, 48, 64]


def test_minutes_end_training_with_a_last_validation(finished_run: Run, tmp_path):
    run = begin(finished_run, tmp_path / "run", ("training.max_minutes=0.02", "training.epochs=1000"))
    (card,) = run_train(run)
    assert len(steps_of(run)) < 20
    assert card.validation_dice["dice"] is not None


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_epoch_cut_by_minutes_is_followed_by_whole_ones(finished_run: Run, tmp_path, accumulate: int):
    changes = ("training.max_minutes=1e-9", "training.steps_per_epoch=8", "training.epochs=2",
               f"training.accumulate={accumulate}", "training.validation_cases=1")  # fmt: skip
    run = begin(finished_run, tmp_path / "run", changes)
    run_train(run)
    assert steps_of(run) == [1]  # also where two batches make it: none is thrown away
    longer = open_run(run.folder.root, run.data_root, changes=["training.max_minutes=null"])
    run_train(longer)
    assert steps_of(longer) == [1, 9, 16]


def test_minutes_that_end_during_a_validation_end_training(finished_run: Run, tmp_path, monkeypatch):
    changes = ("training.max_minutes=0.03", "training.steps_per_epoch=1", "training.validation_cases=1")
    run = begin(finished_run, tmp_path / "run", changes)
    validate = module_file.validate_case
    monkeypatch.setattr(module_file, "validate_case", lambda *a, **k: (time.sleep(2), validate(*a, **k))[1])
    run_train(run)
    assert steps_of(run) == [1]


def test_diverged_weights_are_neither_validated_nor_saved(finished_run: Run, tmp_path, monkeypatch):
    run = begin(finished_run, tmp_path / "run", ("training.checkpoint_minutes=0",))
    step = SegmentationModule.training_step

    def diverging(self, batch, batch_idx):
        return step(self, batch, batch_idx) * (math.inf if batch_idx == 2 else 1)

    monkeypatch.setattr(SegmentationModule, "training_step", diverging)
    with pytest.raises(InputError, match="no longer finite"):
        run_train(run)
    folder = run.folder.fold(0) / "checkpoints"
    for name in ("last.ckpt", "previous.ckpt"):
        state = torch.load(folder / name, weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in state.values())


@pytest.mark.parametrize("has_listener", [False, True])
def test_lightning_leaves_signals_alone(finished_run: Run, tmp_path, monkeypatch, has_listener: bool):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    run = begin(finished_run, tmp_path / "run")
    seen = []

    def interrupt(module: SegmentationModule, batch, batch_idx: int) -> None:
        seen.append(signal.getsignal(signal.SIGTERM))
        raise KeyboardInterrupt

    monkeypatch.setattr(SegmentationModule, "training_step", interrupt)
    stop = StopRequest()
    with pytest.raises(KeyboardInterrupt), stop.listening() if has_listener else nullcontext():
        train_fold(
            run.folder, run.read_manifest(), run.read_plan(), run.config, run.data_root,
            device=torch.device("cpu"), compute=ComputeChoice("fp32"), stop=stop,
        )  # fmt: skip
    assert seen == [stop._receive if has_listener else before[0]]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_asked_to_end_at_the_end_of_one_training_the_next_does_not_prepare(finished_run: Run, tmp_path):
    run = begin(finished_run, tmp_path / "run")

    def train_asked() -> None:
        with StopRequest().listening() as stop:
            with stop.deferred():
                os.kill(os.getpid(), signal.SIGTERM)
            train_fold(
                run.folder, run.read_manifest(), run.read_plan(), run.config, run.data_root,
                device=torch.device("cpu"), compute=ComputeChoice("fp32"), stop=stop,
            )  # fmt: skip

    with pytest.raises(PreemptedError, match="with no step in work"):
        train_asked()
    assert not (run.folder.root / "folds").exists()


def test_two_dimensions_train_and_predict_volumes(finished_run: Run, tmp_path):
    changes = ("planning.dimensions=2", "planning.patch_size=[24, 24]", "planning.batch_size=8")
    run = begin(finished_run, tmp_path / "run", changes)
    run_train(run)
    assert run_predict(run) == {}
    scores = run_score(run)
    assert sum(row.dice for row in scores if row.label == "liver") / 2 > 0.5


def test_all_cases_train_and_say_that_they_validate_too(finished_run: Run, tmp_path, capsys):
    run = begin(finished_run, tmp_path / "run", ("training.fold=all", "training.epochs=1"))
    capsys.readouterr()
    assert run_train(run)[0].train_is_validation
    assert f"{len(run.read_manifest().used)} preprocessed cases" in capsys.readouterr().err  # each held once


def test_the_best_weights_are_the_first_highest_dice():
    history = [{"dice": value} for value in (0.3, math.nan, 0.7, 0.7, 0.5)]
    assert best_row(history) == 2
    assert best_row([{"dice": math.nan}]) == 0


@pytest.mark.parametrize(
    ("changes", "over"),
    [([], False), (["training.epochs=2"], True), (["training.max_minutes=1"], True), (["training.patience=2"], True),
     (["training.patience=3"], False)],
)  # fmt: skip
def test_limits_that_end_a_resumed_run(changes, over):
    history = [
        {"dice": value, "step": 125 * (i + 1), "epoch": i} for i, value in enumerate((0.5, 0.8, 0.7, 0.6))
    ]
    saved = CheckpointState("id", step=500, elapsed_s=60.0, history=history)
    assert saved.is_over(change_config({"dataset": "x"}, changes, "test")) is over


def test_early_stopping_ends_training_and_keeps_the_best(finished_run: Run, tmp_path):
    changes = (
        "training.patience=1",
        "training.epochs=50",
        "training.learning_rate=1e-9",
        "training.steps_per_epoch=2",
    )
    run = begin(finished_run, tmp_path / "run", changes)
    run_train(run)
    num_rows, every = (
        len(steps_of(run)),
        read_json_object(run.folder.fold(0) / "validation.json")["every_epochs"],
    )
    assert num_rows < 10
    patient = open_run(run.folder.root, run.data_root, changes=[f"training.patience={3 * every}"])
    run_train(patient)
    assert len(steps_of(patient)) == num_rows + 2
    run_train(patient)
    assert len(steps_of(patient)) == num_rows + 2


def test_patience_counts_from_the_first_highest_dice():
    history = [{"dice": value, "epoch": epoch} for epoch, value in enumerate((math.nan, 0.0, 0.8, 0.8, 0.7))]
    assert out_of_patience(history, 2)
    assert not out_of_patience(history, 3)
    assert not out_of_patience(history[:2], 1)
    assert not out_of_patience(history, None)


def test_patience_counts_epochs_however_few_of_them_are_validated():
    history = [{"dice": value, "epoch": epoch} for epoch, value in ((2, 0.8), (5, 0.7), (8, 0.7))]
    assert out_of_patience(history, 6)
    assert not out_of_patience(history, 7)


def module_of(plan: Plan, run: Run, changes=(), *, compiled: bool = False) -> SegmentationModule:
    config: Config = change_config({"dataset": "phantoms"}, changes, "test")
    compute = ComputeChoice("fp32", compile=compiled)
    return SegmentationModule(plan, run.read_description(), config, compute, "id")


@pytest.mark.parametrize("compiled", [False, True])
def test_a_checkpoint_holds_the_network_once_however_it_is_computed(tiny_plan, finished_run, compiled: bool):
    module = module_of(tiny_plan, finished_run, compiled=compiled)
    assert {name.split(".")[0] for name in module.state_dict()} == {"network"}
    assert "_orig_mod" not in " ".join(module.state_dict())


def test_losses_of_a_resumed_epoch_lie_on_the_device_of_those_to_come(tiny_plan, finished_run):
    module = module_of(tiny_plan, finished_run)
    own = {"history": [], "elapsed_s": 1.0, "epoch_start_s": 0.0, "step_losses": torch.tensor([1.0, 2.0])}
    module.on_load_checkpoint({"medunet": own})
    module.to("meta")  # stands for a card
    module.on_train_start()
    assert {loss.device.type for loss in module.step_losses} == {"meta"}


def test_addresses_of_patches_stay_off_the_card(tiny_plan, finished_run):
    module = module_of(tiny_plan, finished_run)
    batch = {"image": torch.zeros(2), "address": torch.tensor([[3, 4], [3, 5]])}
    assert module.on_before_batch_transfer(batch, 0)["address"] == [[3, 4], [3, 5]]
    assert module.on_before_batch_transfer({"id": "case"}, 0) == {"id": "case"}
