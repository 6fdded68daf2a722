"""How processes find one another: those that are missing are named, and signals are answered meanwhile."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist
from slurm_cluster import free_ports

from medunet.base.errors import InputError, PreemptedError
from medunet.compute import processes
from medunet.compute.processes import LostProcessError, Processes, _listens, _meet
from medunet.training.stop_request import StopRequest


@pytest.fixture
def place() -> Any:
    (port,) = free_ports(1)
    return SimpleNamespace(main_address="127.0.0.1", main_port=port)


def test_all_come_in_any_order(place: Any):
    with ThreadPoolExecutor(3) as pool:
        third, second, first = (pool.submit(_meet, Processes(3, rank), place) for rank in (2, 1, 0))
        first.result(60).set("told", "by the first")
        assert {store.result(60).get("told") for store in (second, third)} == {b"by the first"}


@pytest.mark.parametrize(("rank", "who"), [(0, "rank 1, rank 2 of"), (2, "the first one at 127.0.0.1:")])
def test_those_who_do_not_come_are_named(
    rank: int, who: str, place: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(processes, "_MEETING_MINUTES", 0.01)
    monkeypatch.setattr(processes, "_QUIET_S", 0.0)
    caplog.set_level("INFO")
    with pytest.raises(LostProcessError, match=f"waited 0.01 minutes in vain for {who}"):
        _meet(Processes(3, rank), place)
    (said,) = caplog.messages
    assert said.startswith(f"Waiting up to 0.01 minutes for {who.removesuffix(' of')}")


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_waits_is_asked_to_end(rank: int, place: Any):
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(PreemptedError, match="asked to end by SIGTERM"), StopRequest().listening():
        _meet(Processes(2, rank), place)
    timer.join()


def test_one_that_leaves_while_it_waits_is_not_waited_for(place: Any):
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(_meet, Processes(3, 0), place)
        while not (first.done() or _listens(place.main_address, place.main_port)):
            time.sleep(0.01)
        timer = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        with pytest.raises(PreemptedError), StopRequest().listening():
            _meet(Processes(3, 1), place)
        with pytest.raises(LostProcessError, match="another process has ended"):
            first.result(60)


def test_a_port_in_use_is_named(place: Any):
    taken = dist.TCPStore("127.0.0.1", place.main_port, 1, True, wait_for_workers=False)
    with pytest.raises(InputError, match=f"port {place.main_port} of .* is in use.*MASTER_PORT"):
        _meet(Processes(2, 0), place)
    del taken


def test_jobs_that_chose_one_port_are_not_mixed(place: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "_MEETING_MINUTES", 0.01)
    others = dist.TCPStore("127.0.0.1", place.main_port, 2, True, wait_for_workers=False)
    others.set("21 rank 0", "is here")
    monkeypatch.setenv("SLURM_JOB_ID", "10021")
    with pytest.raises(LostProcessError, match="in vain for rank 0"):
        _meet(Processes(2, 1), place)
