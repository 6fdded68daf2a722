"""Process pool: all cases are done, and a process that dies loses only its own case."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from medunet.base import local_engine
from medunet.base.errors import InputError
from medunet.base.pool import Lost, choose_workers, run_parallel, serve_batches

KILLED = Lost("its process was killed, perhaps because memory ran out")


def number_and_process(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def die_on_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)  # as the system does where memory runs out
    return number * number


def process_unless_150(number: int) -> int:
    if number == 150:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def sleep_long_after_one(number: int) -> int:
    if number > 1:
        time.sleep(60)
    return number


class NeverArrives:
    """Work that a new process cannot load, as where a script has no `__main__` guard."""

    def __call__(self, number: int) -> int:
        return number

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return fail, ()


class ArrivesOnce:
    """Work that one new process alone can load."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __call__(self, number: int) -> int:
        return number

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return arrive_once, (self._mark,)


def arrive_once(mark: Path) -> ArrivesOnce:
    mark.mkdir()  # there already in the second process
    return ArrivesOnce(mark)


def fail() -> None:
    raise RuntimeError("cannot be loaded")


def test_one_worker_works_here_and_in_order() -> None:
    results = list(run_parallel(number_and_process, [3, 1, 2], 1))
    assert results == [(0, (9, os.getpid())), (1, (1, os.getpid())), (2, (4, os.getpid()))]
    assert list(run_parallel(number_and_process, [], 4)) == []


def test_several_workers_share_the_items() -> None:
    results = list(run_parallel(number_and_process, range(7), 2))
    squares = sorted((index, result[0]) for index, result in results if result)
    assert squares == [(number, number * number) for number in range(7)]
    processes = {result[1] for _, result in results if result}
    assert os.getpid() not in processes
    assert len(processes) <= 2


def test_a_process_that_dies_loses_its_own_case_alone() -> None:
    assert sorted(run_parallel(die_on_three, range(6), 2), key=lambda result: result[0]) == [
        (0, 0), (1, 1), (2, 4), (3, KILLED), (4, 16), (5, 25)
    ]  # fmt: skip
    assert list(run_parallel(die_on_three, [3], 2)) == [(0, KILLED)]


def test_the_one_of_many_short_cases_that_kills_its_process_is_found_by_halves() -> None:
    results = dict(run_parallel(process_unless_150, range(400), 2))
    assert results.pop(150) == KILLED
    assert sorted(results) == [number for number in range(400) if number != 150]
    assert len(set(results.values())) <= 2 + 2 * 8  # at most 200 were held, in two batches of 100


def test_results_come_batch_by_batch_as_they_are_done() -> None:
    def two_late(items: Iterator[tuple[int, str]], number: int) -> Iterator[tuple[int, str]]:
        held: list[tuple[int, str]] = []
        for item in items:
            held.insert(0, item)
            if len(held) > 2:
                yield held.pop()
        yield from held

    batches = iter([[(4, "a"), (2, "b")], [(0, "c")], [(3, "d"), (1, "e")]])
    found = list(serve_batches(two_late, batches, 0))
    assert found[0] == [(4, "a"), (2, "b")]
    assert sorted(found[1:]) == [[(0, "c")], [(3, "d"), (1, "e")]]


def test_one_worker_can_run_in_its_own_process() -> None:
    results = list(run_parallel(number_and_process, [3, 1], 1, isolated=True))
    assert [(index, result[0]) for index, result in results] == [(0, 9), (1, 1)]
    assert os.getpid() not in {result[1] for _, result in results if result}
    assert list(run_parallel(die_on_three, [2, 3, 4], 1, isolated=True)) == [(0, 4), (1, KILLED), (2, 16)]


def test_closing_stops_the_processes() -> None:
    begun = time.monotonic()
    with closing(run_parallel(sleep_long_after_one, [1, 2, 3, 4], 2)) as results:
        assert next(results) == (0, 1)
        assert multiprocessing.active_children()
    assert not multiprocessing.active_children()
    assert time.monotonic() - begun < 30


def test_processes_that_cannot_start_are_named() -> None:
    with pytest.raises(InputError, match=r"processes cannot be started.*one worker"):
        list(run_parallel(NeverArrives(), [1, 2], 2))
    assert not multiprocessing.active_children()


def test_a_process_that_dies_at_its_start_leaves_the_work_to_the_others(tmp_path: Path) -> None:
    results = run_parallel(ArrivesOnce(tmp_path / "mark"), range(5), 2)
    assert sorted(results) == [(number, number) for number in range(5)]


def test_workers_by_cases_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_engine, "usable_cores", lambda: 6)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64e9))
    million = 10**6
    assert choose_workers(3, 100 * million).count == 1  # fewer than four cases
    assert choose_workers(200, million // 20).count == 1  # hippocampi: 10 million voxels in all
    assert choose_workers(5, 100 * million).count == 5  # no more than cases
    assert choose_workers(50, 100 * million).count == 6  # nor than cores that this process may use
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=6e9))
    assert choose_workers(50, 100 * million).count == 3  # 0.3 + 1.6 GB each
    assert choose_workers(50, 100 * million, bytes_per_voxel=24, bytes_per_process=500 * million).count == 2
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1e9))
    assert choose_workers(50, 100 * million).count == 1


SLOW = """
import sys, time
from pathlib import Path
from medunet.base.pool import run_parallel

def write_late(path):
    path.with_suffix(".begun").touch()
    time.sleep(3)
    path.touch()

if __name__ == "__main__":
    list(run_parallel(write_late, [Path(sys.argv[1])], 1, isolated=True))
"""


def test_a_worker_writes_nothing_after_its_parent_was_killed(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    process = subprocess.Popen([sys.executable, tmp_path / "slow.py", tmp_path / "late.txt"])
    while not (tmp_path / "late.begun").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    time.sleep(4)
    assert not (tmp_path / "late.txt").exists()


def linear_algebra_threads(_: int) -> str | None:
    return os.environ.get("OPENBLAS_NUM_THREADS")


def test_processes_do_linear_algebra_on_one_thread_each(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    assert [result for _, result in run_parallel(linear_algebra_threads, [0, 1], 2)] == ["1", "1"]
    assert os.environ["OPENBLAS_NUM_THREADS"] == "7"
