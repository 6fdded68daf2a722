"""Two processes train on one batch together: the same losses as one process, every validation case counted once."""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist
from conftest import TINY
from planned_run import begin_run

from medunet.base.errors import InputError, PreemptedError
from medunet.commands.train import run_train
from medunet.compute.processes import ALONE, Processes
from medunet.records.config import TrainingConfig, change_config
from medunet.runs.run import Run, open_run
from medunet.training.checkpoints import SaveCheckpoints
from medunet.training.data import EpochSampler, FoldData
from medunet.training.module import SegmentationModule
from medunet.training.probe import ComputeChoice

CHANGES = (
    *TINY,
    "training.augment=true",
    "training.epochs=2",
    "training.steps_per_epoch=6",
    "training.accumulate=2",
    "training.learning_rate=1e-3",
    "planning.batch_size=4",
    "seed=3",
)


def history(run: Run) -> list[dict[str, str]]:
    with (run.folder.fold(0) / "training.csv").open() as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_two_processes_train_as_one(finished_run: Run, tmp_path: Path):
    folds = tmp_path / "folds.json"  # three cases to validate, which two processes cannot share evenly
    folds.write_text('{"folds": [["case_00", "case_02", "case_04"], ["case_01", "case_03", "case_05"]]}')
    changes = (*CHANGES, f'folds_file="{folds}"')
    begun = begin_run(tmp_path / "begun", finished_run.data_root, (*changes, "training.epochs=1"))
    run_train(begun)  # both go on from here: what was timed at the start bounds their validation
    one, two = (
        open_run(
            shutil.copytree(begun.folder.root, tmp_path / name),
            finished_run.data_root,
            changes=["training.epochs=3"],
        )
        for name in ("one", "two")
    )
    two.save()
    run_train(one)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone")
    command = (
        *torchrun,
        "-m",
        "medunet.cli",
        "train",
        str(two.folder.root),
        "--data-root",
        str(two.data_root),
    )
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("held once for all processes") == 1
    assert len(history(one)) == len(history(two)) == 3
    for alone, shared in zip(history(one), history(two), strict=True):
        # Gradients of halves, added, are those of the whole but for rounding, which twelve steps carry on; with AVX2
        # the sums have other lengths, and the means then differ in the fifth digit. Other patches change the second.
        assert float(alone["loss"]) == pytest.approx(float(shared["loss"]), abs=1e-4)
        assert alone["step"] == shared["step"]
        assert float(alone["validation_loss"]) == pytest.approx(float(shared["validation_loss"]), abs=1e-4)
        for key in ("dice", "dice_liver", "precision_liver"):  # rounding may turn a voxel or two
            assert float(alone[key]) == pytest.approx(float(shared[key]), abs=1e-3), key
    assert two.folder.model(0).is_dir()


class Both(Processes):
    """Two processes, of which the other one has this flag set at some steps."""

    others: list[bool]

    def any_of(self, flags: Sequence[bool]) -> list[bool]:
        return [flags[0], flags[1] or self.others.pop(0)]


def run_batches(trainer: Any, keep: SaveCheckpoints, count: int) -> None:
    for batch in range(count):
        trainer.global_step += (batch + 1) % trainer.accumulate_grad_batches == 0
        keep.on_train_batch_end(trainer, None, None, None, batch)


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_processes_save_within_an_epoch_after_whole_steps(tmp_path: Path, accumulate: int):
    trainer: Any = SimpleNamespace(
        accumulate_grad_batches=accumulate, is_last_batch=False, should_stop=False, world_size=2, global_step=0,
        is_global_zero=True, saved=[],
    )  # fmt: skip
    trainer.save_checkpoint = lambda path: trainer.saved.append(trainer.global_step)
    both = Both(2, 0, 2)
    object.__setattr__(both, "others", [False] * 3 + [True])
    keep = SaveCheckpoints(tmp_path, minutes=0, processes=both)
    with pytest.raises(PreemptedError, match="asked to end by another process's signal, after step 4"):
        run_batches(trainer, keep, 30 * accumulate)
    assert trainer.saved == [1, 2, 3, 4]


def test_processes_go_by_one_clock(tiny_plan, finished_run: Run, monkeypatch: pytest.MonkeyPatch):
    config = change_config({"dataset": "phantoms"}, ["training.max_minutes=5"], "test")
    module = SegmentationModule(
        tiny_plan, finished_run.read_description(), config, ComputeChoice("fp32"), "id"
    )
    module._trainer = SimpleNamespace(world_size=2, global_step=0)  # type: ignore[assignment]
    monkeypatch.setattr(dist, "broadcast", lambda shared, src: shared.fill_(150.0))
    module.on_train_start()
    module.on_train_epoch_start()
    module.on_validation_epoch_start()
    assert module.elapsed_s == 150.0


def test_a_process_that_waits_for_one_that_ended_says_so(monkeypatch: pytest.MonkeyPatch):
    def broken(*_, **__):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")

    monkeypatch.setattr(dist, "barrier", broken)
    monkeypatch.setattr(dist, "broadcast_object_list", broken)
    monkeypatch.setattr(dist, "all_gather_object", broken)
    monkeypatch.setattr(dist, "all_reduce", broken)
    alone = Processes(2, 1, 2)
    for act in (
        alone.wait,
        lambda: alone.broadcast(None),
        lambda: alone.gather(None),
        lambda: alone.any_of([True]),
    ):
        with pytest.raises(InputError, match="another process has ended"):
            act()


VALIDATE = """
import sys, time
from datetime import timedelta
from types import SimpleNamespace
import torch, torch.distributed as dist
from medunet.training import module
from medunet.compute.processes import Processes

rank, store = int(sys.argv[1]), "file://" + sys.argv[2]
dist.init_process_group("gloo", store, timeout=timedelta(seconds=1), rank=rank, world_size=2)
patient = Processes(2, rank, 2, dist.new_group(timeout=timedelta(minutes=1)))
one = SimpleNamespace(
    processes=patient, _results={rank: SimpleNamespace(name=f"case {rank}", loss=0.5 + rank, is_judged=True)},
    step_losses=[torch.tensor(1.0 + rank)], _is_cut=False,
    history=[], description=None, plan=SimpleNamespace(batch_size=2), trainer=SimpleNamespace(world_size=2),
    current_epoch=0, global_step=0, elapsed_s=0.0, _train_s=1.0, _update_clock=lambda: None, current_rate=lambda: 0.1,
    progress=lambda: 0.0, device=torch.device("cpu"),
)
module.summarise = lambda cases, description: {}
time.sleep(3 * rank)  # its share of the validation takes longer than the gradients' line waits
module.SegmentationModule.on_validation_epoch_end(one)
row = one.history[0]
print([case.name for case in one.cases], row["loss"], row["validation_loss"], flush=True)
time.sleep(3 * (1 - rank))
"""


@pytest.mark.slow
def test_a_validation_that_takes_longer_in_one_process_is_waited_for(tmp_path: Path):
    commands = [[sys.executable, "-c", VALIDATE, str(rank), str(tmp_path / "store")] for rank in (0, 1)]
    begun = [
        subprocess.Popen(each, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for each in commands
    ]
    ended = [process.communicate(timeout=120) for process in begun]
    for output, errors in ended:
        assert output == "['case 0', 'case 1'] 1.5 1.0\n", errors


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_processes_of_a_batch_see_every_patch_once(count: int):
    samplers = [EpochSampler(4, 6, Processes(count, rank, count)) for rank in range(count)]
    addresses = [list(sampler) for sampler in samplers]
    share = 6 // count
    for batch in range(4):
        seen = [index for rank in addresses for _, index in rank[batch * share : (batch + 1) * share]]
        assert seen == list(range(6 * batch, 6 * batch + 6))


def test_only_the_first_epoch_begins_where_a_run_goes_on():
    sampler = EpochSampler(3, 2, ALONE, first_epoch=7, first_batch=2)
    assert list(sampler) == [(7, 4), (7, 5)]  # as loading workers begin, before the epoch is set
    sampler.set_epoch(7)
    assert list(sampler) == [(7, 4), (7, 5)]
    sampler.set_epoch(8)
    assert [index for _, index in sampler] == list(range(6))


def test_a_batch_that_cannot_be_divided_is_refused(tiny_plan):
    with pytest.raises(InputError, match="multiple of 4"):
        FoldData([], [], tiny_plan, TrainingConfig(), seed=0, num_workers=0, processes=Processes(4, 0, 4))
