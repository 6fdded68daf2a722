"""Ray's workers: all cases are done, a worker's death takes its case alone, a node's none."""

import importlib.util
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from medunet.base.errors import InputError
from medunet.base.pool import Lost, Workers, run_parallel, serve_parallel
from medunet.base.ray_engine import ray_engine

has_ray = importlib.util.find_spec("ray") is not None  # imported later: it reads its settings at import
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_ray"),
    pytest.mark.skipif(not has_ray, reason="Ray is not installed"),
]


@pytest.fixture(scope="module")
def ray(one_ray: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where workers find the functions below
        with ray_engine(None):
            yield


def square(number: int) -> tuple[int, int]:
    time.sleep(0.2)
    return number * number, os.getpid()


def die_on_three(job: tuple[int, Path]) -> int:
    number, folder = job
    with (folder / f"{number}.txt").open("a") as file:
        file.write("tried\n")
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def hold_back(items: Iterator[tuple[int, int]], number: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Return each result when the next item has come, as a worker that writes one case beside the next."""
    last = None
    for index, item in items:
        if last is not None:
            yield last
        last = index, (item, number)
    if last is not None:
        yield last


def fail(number: int) -> int:
    raise InputError("the disk is full", where="here")


@pytest.mark.usefixtures("ray")
def test_workers_share_the_items() -> None:
    results = dict(run_parallel(square, range(20), Workers(2)))
    assert {index: value[0] for index, value in results.items()} == {n: n * n for n in range(20)}
    processes = {value[1] for value in results.values()}
    assert os.getpid() not in processes
    assert len(processes) == 2


@pytest.mark.usefixtures("ray")
def test_a_worker_that_dies_takes_its_case_alone_after_two_more_tries(tmp_path: Path) -> None:
    results = dict(run_parallel(die_on_three, [(number, tmp_path) for number in range(6)], Workers(2)))
    lost = results.pop(3)
    assert results == {number: number for number in (0, 1, 2, 4, 5)}
    assert isinstance(lost, Lost)
    assert "killed 3 times on " in lost.why
    assert "node " in lost.why
    tries = {path.stem: len(path.read_text().splitlines()) for path in tmp_path.iterdir()}
    assert tries.pop("3") in (3, 4, 5, 6)  # alone three times, and before among up to five, by halves
    assert tries.keys() == {"0", "1", "2", "4", "5"}
    assert set(tries.values()) <= {1, 2, 3}  # more than once if results were lost with the worker


@pytest.mark.usefixtures("ray")
def test_results_that_are_held_back_come() -> None:
    results = dict(serve_parallel(hold_back, range(7), Workers(2), ahead=1))
    assert {index: value[0] for index, value in results.items()} == {n: n for n in range(7)}


@pytest.mark.usefixtures("ray")
def test_an_error_ends_the_job_with_its_message() -> None:
    with pytest.raises(InputError, match="the disk is full"):
        list(run_parallel(fail, [1, 2], Workers(2)))


@pytest.mark.usefixtures("ray")
def test_more_than_any_node_has_is_refused() -> None:
    with pytest.raises(InputError, match=r"needs 1 cores and 90000.0 GB of memory, and no node"):
        list(run_parallel(square, [1, 2], Workers(2, memory_bytes=90_000_000_000_000)))
