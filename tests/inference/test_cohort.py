"""Scans on their way in three places at once: errors belong to their case, and nothing is lost or waits for ever."""

import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medunet.base import progress
from medunet.base.errors import InputError
from medunet.base.files import read_json
from medunet.base.threads import ThreadEndedError
from medunet.imaging.nifti import write_volume
from medunet.imaging.volumes import read_volume, write_mask
from medunet.inference import cohort
from medunet.inference.model import Model
from medunet.inference.predict import predict_scans
from medunet.inference.scan import Scan
from medunet.records.config import InferenceConfig
from medunet.records.manifest import Accepted
from medunet.records.mask_journal import read_mask_index
from medunet.runs.run import Run

CPU = torch.device("cpu")
OPTIONS = InferenceConfig()
WAIT_S = 20.0  # far more than a step takes


@pytest.fixture
def model(finished_run: Run) -> Model:
    return Model.load(finished_run.folder.model(0), device=CPU, precision="fp32")


@pytest.fixture
def scans(tmp_path: Path) -> list[Scan]:
    """Five scans of different shapes and contents."""
    rng = np.random.default_rng(3)
    found = []
    for number in range(5):
        path = tmp_path / f"scans/p{number}.nii.gz"
        array = rng.normal(0, 40, (20 + number, 17, 9)).astype(np.int16)
        array[4:12, 5:11, 2 : 4 + number] += 90
        write_volume(path, array, np.diag([-2.0, 2.0, 4.0, 1.0]))
        found.append(Scan(f"p{number}", [path]))
    return found


def masks_in(folder: Path) -> dict[str, bytes]:
    return {path.name: read_volume(path).array.tobytes() for path in folder.glob("[!.]*.nii.gz")}


@pytest.mark.parametrize("ahead", [False, True])
def test_masks_and_index_do_not_depend_on_what_runs_beside(
    model: Model, scans: list[Scan], tmp_path: Path, ahead: bool
) -> None:
    assert predict_scans(model, scans, tmp_path / "out", OPTIONS, ahead=ahead) == {}
    for scan in scans:
        assert predict_scans(model, [scan], tmp_path / "alone", OPTIONS, ahead=False) == {}
    assert masks_in(tmp_path / "out") == masks_in(tmp_path / "alone")
    found, alone = (read_json(tmp_path / name / "index.json") for name in ("out", "alone"))
    for index in (found, alone):
        for entry in index["cases"].values():
            parts = entry.pop("seconds_by_part")
            assert list(parts) == ["read", "prepare", "compute", "tidy", "write"]
            assert sum(parts.values()) == pytest.approx(entry.pop("seconds"), abs=0.02)
            assert entry["windows"] >= 1
    assert found == alone


class Meeting:
    """Lets two steps of a job go on only once both are running; a step that waits in vain says so."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)
        self.met = 0

    def join(self) -> None:
        self.barrier.wait(WAIT_S)
        self.met += 1


def test_the_next_scan_is_prepared_and_the_last_mask_written_while_one_computes(
    model: Model, scans: list[Scan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparing, writing = Meeting(), Meeting()
    number = {"prepare": 0, "compute": 0, "finish": 0}
    held: list[int] = []

    def meet(name: str, before: Callable[[int], None]) -> None:
        original = getattr(Model, name)

        def step(self: Model, *args: Any, **kwargs: Any) -> Any:
            number[name] += 1
            before(number[name])
            return original(self, *args, **kwargs)

        monkeypatch.setattr(Model, name, step)

    def compute(count: int) -> None:
        held.append(number["prepare"] - count)
        if count < 5:
            preparing.join()  # with the next scan
        if count > 1:
            writing.join()  # with the last one

    meet("prepare", lambda count: preparing.join() if count > 1 else None)
    meet("compute", compute)
    meet("finish", lambda count: writing.join() if count < 5 else None)
    assert predict_scans(model, scans, tmp_path / "out", OPTIONS, ahead=True) == {}
    assert (preparing.met, writing.met) == (8, 8)
    assert max(held) <= 1, "no more than one scan is read ahead"


@pytest.mark.parametrize("ahead", [False, True])
def test_a_corrupt_scan_between_others_fails_alone(
    model: Model, scans: list[Scan], tmp_path: Path, ahead: bool
) -> None:
    out = tmp_path / "out"
    predict_scans(model, scans, out, OPTIONS, ahead=ahead)
    before = masks_in(out)
    data = scans[2].images[0].read_bytes()
    scans[2].images[0].write_bytes(data[: len(data) // 2])
    failed = predict_scans(model, scans, out, OPTIONS, ahead=ahead, overwrite=True)
    assert list(failed) == ["p2"]
    assert "N001" in failed["p2"] or "truncated" in failed["p2"] or "cannot be read" in failed["p2"]
    del before["p2.nii.gz"]
    assert masks_in(out) == before
    index = read_json(out / "index.json")
    assert index["failed"] == failed
    assert sorted(index["cases"]) == ["p0", "p1", "p3", "p4"]
    assert not any("begun" in entry for entry in index["cases"].values())


STEPS = ("check", "prepare", "compute", "finish")


def fail_once(monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException, at: int = 2) -> None:
    """Let a step of the n-th scan raise an error."""
    original, count = getattr(Model, step), [0]

    def failing(self: Model, *args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if count[0] == at:
            raise error
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Model, step, failing)


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_memory_that_runs_out_in_any_step_is_an_error_of_its_case(
    model: Model, scans: list[Scan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, ahead: bool
) -> None:
    fail_once(monkeypatch, step, MemoryError())
    failed = predict_scans(model, scans[:3], tmp_path / "out", OPTIONS, ahead=ahead)
    assert failed == {"p1": "memory ran out on cpu. Free memory."}
    assert masks_in(tmp_path / "out").keys() == {"p0.nii.gz", "p2.nii.gz"}
    assert read_json(tmp_path / "out/index.json")["cases"].keys() == {"p0", "p2"}


def wait_for_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the computation of the second scan last until something ends it."""
    compute, count = Model.compute, [0]

    def endless(self: Model, *args: Any, on_window: Callable[[Any], None], **kwargs: Any) -> Any:
        count[0] += 1
        mask = compute(self, *args, on_window=on_window, **kwargs)
        end = time.monotonic() + WAIT_S
        while count[0] == 2 and time.monotonic() < end:
            time.sleep(0.01)
            on_window(type("Stream", (), {"num_done": 1, "num_reused": 0, "num_windows": 2}))
        assert count[0] != 2, "nothing ended it"
        return mask

    monkeypatch.setattr(Model, "compute", endless)


@pytest.mark.parametrize(("step", "at"), [("check", 3), ("prepare", 3), ("finish", 1)])
@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit()])
def test_a_thread_that_dies_ends_the_job_while_another_scan_computes(
    model: Model,
    scans: list[Scan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    at: int,
    error: BaseException,
) -> None:
    wait_for_windows(monkeypatch)
    fail_once(monkeypatch, step, error, at)
    words = "writing masks" if step == "finish" else "reading scans"
    with pytest.raises(ThreadEndedError, match=f"{words} ended by {type(error).__name__}"):
        predict_scans(model, scans, tmp_path / "out", OPTIONS, ahead=True)
    monkeypatch.undo()
    assert predict_scans(model, scans, tmp_path / "out", OPTIONS) == {}
    assert len(masks_in(tmp_path / "out")) == 5
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *masks_in(tmp_path / "out"),
        "cost.json",
        "index.json",
    }


def test_a_full_disk_ends_the_job_while_another_scan_computes(
    model: Model, scans: list[Scan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for_windows(monkeypatch)

    def full(*_: object) -> None:
        raise InputError("cannot be written (No space left on device)")

    monkeypatch.setattr(cohort, "write_mask", full)
    with pytest.raises(InputError, match="No space left"):
        predict_scans(model, scans, tmp_path / "out", OPTIONS)


def test_stopped_by_the_user_the_mask_that_is_being_written_is_kept(
    model: Model, scans: list[Scan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, begun = write_mask, threading.Event()

    def write_slowly(path: Path, *args: Any) -> None:
        begun.set()
        time.sleep(0.2)
        write(path, *args)

    compute = Model.compute

    def stop(self: Model, *args: Any, **kwargs: Any) -> Any:
        mask = compute(self, *args, **kwargs)
        if threading.current_thread() is threading.main_thread() and stops:
            stops.pop()
            return mask
        assert begun.wait(WAIT_S)
        raise KeyboardInterrupt

    stops = [1]
    monkeypatch.setattr(cohort, "write_mask", write_slowly)
    monkeypatch.setattr(Model, "compute", stop)
    with pytest.raises(KeyboardInterrupt):
        predict_scans(model, scans, tmp_path / "out", OPTIONS, ahead=True)
    assert masks_in(tmp_path / "out").keys() == {"p0.nii.gz"}
    index = read_json(tmp_path / "out/index.json")
    assert index["cases"]["p0"]["windows"]
    assert index["cases"]["p1"] == {"begun": True}
    monkeypatch.undo()
    assert predict_scans(model, scans, tmp_path / "out", OPTIONS) == {}


def test_stopped_by_the_user_while_only_the_last_mask_is_left_it_is_kept(
    model: Model, scans: list[Scan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_slowly(path: Path, *args: Any) -> None:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        write_mask(path, *args)

    monkeypatch.setattr(cohort, "write_mask", write_slowly)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning ignores it after a Ctrl-C
    try:
        with pytest.raises(KeyboardInterrupt):
            predict_scans(model, scans[:1], tmp_path / "out", OPTIONS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert masks_in(tmp_path / "out").keys() == {"p0.nii.gz"}
    assert read_json(tmp_path / "out/index.json")["cases"]["p0"]["windows"]


JOB = """
import sys
from pathlib import Path
import torch
from medunet.inference.model import Model
from medunet.inference.predict import predict_scans
from medunet.inference.scan import Scan
from medunet.records.config import InferenceConfig
folder, scans, out, ahead = sys.argv[1:]
torch.set_num_threads(1)
model = Model.load(Path(folder), device=torch.device("cpu"), precision="fp32")
given = [Scan(path.name.removesuffix(".nii.gz"), [path]) for path in sorted(Path(scans).iterdir())]
print("loaded", flush=True)
predict_scans(model, given, Path(out), InferenceConfig(), ahead=bool(int(ahead)))
"""


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again_the_masks_are_those_of_an_undisturbed_run(
    model: Model, finished_run: Run, scans: list[Scan], tmp_path: Path
) -> None:
    calm, out = tmp_path / "calm", tmp_path / "out"
    start = time.monotonic()
    assert predict_scans(model, scans, calm, OPTIONS) == {}
    lasts_s = time.monotonic() - start
    arguments = (str(finished_run.folder.model(0)), str(tmp_path / "scans"), str(out))
    rng = random.Random(5)
    for number in range(3):
        job = [sys.executable, "-c", JOB, *arguments, str(number % 2)]
        process = subprocess.Popen(job, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "loaded\n"
        time.sleep(rng.uniform(0, lasts_s / 2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        whole = masks_in(out)  # each can be read
        assert whole.items() <= masks_in(calm).items()
        entries = read_mask_index(out).get("cases", {})  # also those in the journal of the killed command
        assert {name.removesuffix(".nii.gz") for name in whole} <= entries.keys()
    assert predict_scans(model, scans, out, OPTIONS) == {}
    assert masks_in(out) == masks_in(calm)
    names = [{path.name for path in folder.iterdir()} for folder in (out, calm)]
    assert names[0] | {"cost.json"} == names[1]  # a killed command leaves none


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock of the progress that only the test moves."""
    now = [0.0]
    monkeypatch.setattr("medunet.base.progress.time.monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_half_minute(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with progress.CaseBar("Predict", 5) as bar:
        for number in range(5):
            bar.begin(f"p{number}")
            for part in (0.25, 0.5, 0.75):
                clock[0] += 4
                bar.update(part)
            clock[0] += 4
            bar.advance()
    assert [record.message for record in caplog.records] == [
        "Predict: 2 of 5 cases, 16 s a case, 48 s left; now p2",
        "Predict: 4 of 5 cases, 16 s a case, 16 s left; now p4",
    ]


def test_workers_that_tell_of_ends_alone_move_the_bar(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with progress.CaseBar("Predict", 5) as bar:
        for number in range(5):
            clock[0] += 16
            bar.advance(failed=number == 2)
    assert [record.message for record in caplog.records] == [
        "Predict: 2 of 5 cases, 16 s a case, 48 s left",
        "Predict: 4 of 5 cases, 1 failed, 16 s a case, 16 s left",
    ]


def test_at_the_end_a_line_says_where_the_time_went(
    model: Model, scans: list[Scan], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    array = np.full((40, 17, 9), -1000, np.int16)
    array[0, 0, 0] = 100
    write_volume(tmp_path / "air.nii.gz", array, np.diag([-2.0, 2.0, 4.0, 1.0]))
    accepted = (Accepted(code="N027", case="air", reason="all but one voxel is air"),)
    air = Scan("air", [tmp_path / "air.nii.gz"], accepted=accepted)
    predict_scans(model, [*scans[:1], air], tmp_path / "out", OPTIONS)
    line = next(record.message for record in caplog.records if " s a case" in record.message)
    assert line.startswith("2 cases in ")
    assert "(read " in line
    entries = read_json(tmp_path / "out/index.json")["cases"]
    assert f"; {sum(entry['windows'] for entry in entries.values())} windows" in line
    assert tmp_path.name not in line
