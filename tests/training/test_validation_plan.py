"""Validation is bounded before the first step, by what was timed, and stays so when the run goes on."""

from pathlib import Path

import lightning as L
import pytest
import torch
from conftest import TINY
from tiny_networks import plan_network

from medunet.base.errors import InputError
from medunet.base.files import read_json, write_json
from medunet.commands.check import run_check
from medunet.commands.manifest import run_manifest
from medunet.commands.plan import run_plan
from medunet.commands.train import run_train
from medunet.records.config import TrainingConfig
from medunet.records.manifest import Case
from medunet.runs.run import Run, open_run
from medunet.training import validation_plan
from medunet.training.checkpoints import CheckpointState
from medunet.training.module import SegmentationModule
from medunet.training.probe import ComputeChoice
from medunet.training.train import train_fold
from medunet.training.validation_plan import OVERHEAD, ValidationPlan, draw_cases, limit_validation
from medunet.training.windows import count_windows

PLAN = plan_network("plain", planning={"patch_size": (96, 96, 64), "batch_size": 2})
LONG = TrainingConfig(epochs=1000, steps_per_epoch=250)
NEEDED = count_windows(PLAN.median_shape, PLAN)  # 4 × 3 × 1


@pytest.mark.parametrize("step_s", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("window_s", [0.01, 0.3, 10.0])
@pytest.mark.parametrize("num_cases", [3, 26, 2000])
@pytest.mark.parametrize("minutes", [None, 5.0, 600.0])
def test_validation_takes_its_share_of_the_time_or_the_least(step_s, window_s, num_cases, minutes):
    training = LONG.model_copy(update={"max_minutes": minutes})
    found = limit_validation(training, PLAN, num_cases, step_s=step_s, window_s=window_s)
    spent_s = found.num_cases * min(found.windows, NEEDED) * window_s * OVERHEAD
    epoch_s = min(250 * step_s, 60 * minutes * 0.85) if minutes else 250 * step_s
    assert found.share == pytest.approx(spent_s / (spent_s + found.every_epochs * epoch_s), abs=1e-3)
    least = found.num_cases <= 4 and found.windows == 2
    assert found.share <= 0.151 or least
    all_of_all = found.num_cases == num_cases and found.windows >= NEEDED
    assert found.share >= 0.07 or (all_of_all and found.every_epochs == 1), found


def test_what_does_not_fit_is_looked_at_less_often_then_in_less_windows_then_on_less_cases():
    assert NEEDED == 12
    window_s = 0.1 / OVERHEAD
    every_epoch = limit_validation(
        LONG, PLAN, 20, step_s=1.0, window_s=0.1
    )  # 240 windows of 441 that an epoch pays
    assert (every_epoch.every_epochs, every_epoch.num_cases) == (1, 20)
    assert every_epoch.windows >= NEEDED
    seldom = limit_validation(LONG, PLAN, 200, step_s=1.0, window_s=window_s)
    assert (seldom.every_epochs, seldom.num_cases) == (6, 200)
    assert seldom.windows >= NEEDED
    few = LONG.model_copy(update={"epochs": 20})
    fewer_windows = limit_validation(few, PLAN, 200, step_s=1.0, window_s=window_s)
    assert (fewer_windows.every_epochs, fewer_windows.num_cases, fewer_windows.windows) == (2, 200, 4)
    fewer_cases = limit_validation(few, PLAN, 2000, step_s=1.0, window_s=window_s)
    assert (fewer_cases.every_epochs, fewer_cases.num_cases, fewer_cases.windows) == (2, 441, 2)
    bounded = LONG.model_copy(update={"validation_cases": 7})
    assert limit_validation(bounded, PLAN, 200, step_s=1.0, window_s=window_s).num_cases == 7


def test_where_cases_are_seen_whole_there_are_fewer_of_them_rather_than_windows():
    few = LONG.model_copy(update={"epochs": 20})
    whole = limit_validation(few, PLAN, 200, step_s=1.0, window_s=0.1 / OVERHEAD, whole_cases=True)
    assert (whole.every_epochs, whole.num_cases) == (2, 73)  # 882 windows are paid, of 12 a case
    assert whole.windows >= NEEDED


@pytest.mark.parametrize(("epochs", "minutes"), [(40, None), (1000, 100.0)])
def test_there_are_ten_validations_where_there_are_so_many_epochs(epochs: int, minutes: float | None):
    training = LONG.model_copy(update={"epochs": epochs, "max_minutes": minutes})
    found = limit_validation(training, PLAN, 5000, step_s=0.5, window_s=10.0)
    num_epochs = epochs if minutes is None else 0.85 * 60 * minutes / 125
    assert found.every_epochs == int(num_epochs // 10)


def test_where_nothing_was_timed_the_share_is_guessed_and_minutes_do_not_stretch_it():
    guessed = limit_validation(LONG, PLAN, 2000, step_s=0.0, window_s=0.0)
    assert guessed.share <= 0.151
    limited = LONG.model_copy(update={"max_minutes": 5.0})
    assert limit_validation(limited, PLAN, 2000, step_s=0.0, window_s=0.0).every_epochs == 1


def cases_of(count: int) -> list[Case]:
    return [Case(id=f"c{number:02d}", patient=f"p{number // 2}", images={}) for number in range(count)]


def test_cases_are_drawn_by_the_seed_and_stratified_not_the_first():
    cases = cases_of(60)
    strata = {case.id: {"tumour absent" if number < 30 else "tumour small" if number < 50 else "tumour large"}
              for number, case in enumerate(cases)}  # fmt: skip
    drawn = [draw_cases(cases, 12, strata, seed) for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1] == draw_cases(cases[::-1], 12, strata, 0)[::-1]
    assert len({tuple(each) for each in drawn}) == 3
    for each in drawn:
        numbers = [int(name[1:]) for name in each]
        assert len(numbers) == 12
        assert [sum(low <= one < high for one in numbers) for low, high in ((0, 30), (30, 50), (50, 60))] == [
            6,
            4,
            2,
        ]


class Validated(L.Callback):
    """Notes after which steps and on what it was validated."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.cases: list[list[str]] = []
        self.num_seen: list[int] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SegmentationModule)
        self.steps.append(trainer.global_step)
        self.cases.append([case.case for case in pl_module.cases])
        voxels = pl_module.cases[0].targets["liver"].voxels
        self.num_seen.append(voxels.tp + voxels.fp + voxels.fn + voxels.tn)


def begin(given: Run, root: Path, *changes: str) -> Run:
    run = open_run(root, given.data_root, dataset="phantoms", changes=(*TINY, *changes))
    for stage in (run_manifest, run_check, run_plan):
        stage(run)
    return run


def train(run: Run, compute: ComputeChoice, **given) -> Validated:
    watch = Validated()
    files = run.folder, run.read_manifest(), run.read_plan(), run.config, run.data_root
    train_fold(*files, device=torch.device("cpu"), compute=compute, callbacks=[watch], **given)
    return watch


CHANGES = ("training.epochs=5", "training.steps_per_epoch=4")


def test_it_is_validated_as_often_as_planned_and_behind_the_last_step(finished_run: Run, tmp_path: Path):
    run = begin(finished_run, tmp_path / "run", *CHANGES)
    case = run.read_manifest().split_fold(0)[1][0].id
    watch = train(
        run, ComputeChoice("fp32"), validation=ValidationPlan(every_epochs=2, cases=(case,), windows=1)
    )
    assert watch.steps == [8, 16, 20]
    assert watch.cases == [[case]] * 3
    assert set(watch.num_seen) == {min(watch.num_seen)}
    path = run.folder.fold(0) / "checkpoints" / "last.ckpt"
    history = torch.load(path, weights_only=True)["medunet"]["history"]
    assert [row["step"] for row in history] == [8, 16, 20]


def test_minutes_that_end_between_two_validations_end_with_one(finished_run: Run, tmp_path: Path):
    run = begin(finished_run, tmp_path / "run", *CHANGES, "training.max_minutes=1e-9")
    case = run.read_manifest().split_fold(0)[1][0].id
    plan = ValidationPlan(every_epochs=5, cases=(case,), windows=1)
    assert train(run, ComputeChoice("fp32"), validation=plan).steps == [1]


def test_a_resumed_run_validates_as_it_began_whatever_is_timed_now(finished_run: Run, tmp_path: Path, capsys):
    run = begin(finished_run, tmp_path / "run", *CHANGES, "training.epochs=2")
    before = train(run, ComputeChoice("fp32", step_s=1.0, window_s=2.0))
    kept = ValidationPlan.read(run.folder.fold(0) / "validation.json")
    assert kept.windows == 2
    assert "at most 2 windows of each" in " ".join(capsys.readouterr().err.split())
    longer = open_run(run.folder.root, run.data_root,
                           changes=["training.epochs=4", "training.validation_cases=1"])  # fmt: skip
    after = train(longer, ComputeChoice("fp32", step_s=1.0, window_s=1e-4))
    assert after.steps == [12, 16]
    assert after.cases == before.cases
    assert after.num_seen == before.num_seen
    assert ValidationPlan.read(run.folder.fold(0) / "validation.json") == kept


@pytest.mark.parametrize("step", [8, 14])  # behind an epoch that is not validated, and within one
def test_killed_between_two_validations_it_ends_as_undisturbed(step: int, finished_run: Run, tmp_path: Path):
    class Killed(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
            if trainer.global_step == step:
                raise RuntimeError("killed")

    case = finished_run.read_manifest().split_fold(0)[1][0].id
    plan = ValidationPlan(every_epochs=3, cases=(case,), windows=2)
    ended = []
    for name in ("calm", "killed"):
        run = begin(finished_run, tmp_path / name, *CHANGES, "training.checkpoint_minutes=0")
        arguments = (run.folder, run.read_manifest(), run.read_plan(), run.config, run.data_root)
        options = {"device": torch.device("cpu"), "compute": ComputeChoice("fp32"), "validation": plan}
        if name == "killed":
            with pytest.raises(RuntimeError, match="killed"):
                train_fold(*arguments, **options, callbacks=[Killed()])
        card = train_fold(*arguments, **options)
        history = torch.load(run.folder.fold(0) / "checkpoints/last.ckpt", weights_only=True)["medunet"][
            "history"
        ]
        assert [row["step"] for row in history] == [12, 20]
        ended.append((card.weights_sha256, card.final_weights_sha256, [row["dice"] for row in history]))
    assert ended[0] == ended[1]


def test_a_run_of_0_4_goes_on_as_it_validated(own_run: Run, tmp_path: Path):
    (own_run.folder.fold(0) / "validation.json").unlink()
    changes = ["training.epochs=4", "training.validation_cases=1"]
    longer = open_run(own_run.folder.root, own_run.data_root, changes=changes)
    watch = train(longer, ComputeChoice("fp32", step_s=1.0, window_s=9.0))
    first = longer.read_manifest().split_fold(0)[1][0]
    assert watch.cases == [[first.id]]
    (volume,) = {watch.num_seen[0]}
    assert volume > 24 * 24 * 8  # more than a window: the whole case


def test_a_case_that_is_gone_is_named(own_run: Run):
    path = own_run.folder.fold(0) / "validation.json"
    write_json(path, read_json(path) | {"cases": ["case_99"]})
    longer = open_run(own_run.folder.root, own_run.data_root, changes=["training.epochs=4"])
    with pytest.raises(InputError, match=r"fold 0: .*no longer holds out: case_99"):
        run_train(longer)


def test_where_few_cases_fit_the_held_out_labels_choose_them(
    finished_run: Run, monkeypatch: pytest.MonkeyPatch
):
    run, drawn = finished_run, []
    monkeypatch.setattr(validation_plan, "draw_cases", lambda *given: drawn.append(given) or ["case_01"])
    config = run.config.model_copy(
        update={"training": run.config.training.model_copy(update={"validation_cases": 1, "fold": "all"})}
    )
    found = validation_plan.plan_validation(
        run.read_manifest(), run.read_plan(), config, run.data_root, step_s=1.0, window_s=0.1
    )
    assert found.cases == ("case_01",)
    ((cases, count, strata, seed),) = drawn
    assert (len(cases), count, seed) == (6, 1, config.seed)
    assert "tumour absent" in strata["case_05"]
    assert not any("absent" in name for name in strata["case_00"])


def test_checkpoints_between_two_validations_say_where_they_stand(finished_run: Run):
    training = TrainingConfig(epochs=10, steps_per_epoch=100, accumulate=2)
    config = finished_run.config.model_copy(update={"training": training})
    history = [{"dice": 0.5, "step": 200, "epoch": 1}]
    mid, between = CheckpointState("id", 430, 1.0, history), CheckpointState("id", 400, 1.0, history)
    assert mid.batch_in_epoch(config) == 60
    assert between.batch_in_epoch(config) == 0
    assert (mid.epoch(config), between.epoch(config)) == (4, 4)
    assert CheckpointState("id", 30, 1.0, []).epoch(config) == 0
    assert mid.total_epochs(config) == between.total_epochs(config) == 10
    assert not between.ends_best_epoch()
    assert not CheckpointState("id", 1000, 1.0, history).is_over(config)
    assert CheckpointState("id", 200, 1.0, history).ends_best_epoch()
