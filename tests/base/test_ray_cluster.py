"""A Ray cluster of several nodes: a node's death puts its cases back; nothing of the data is left in Ray's files."""

import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medunet.base.errors import InputError
from medunet.base.pool import Workers, run_parallel
from medunet.base.ray_engine import ray_engine

has_ray = importlib.util.find_spec("ray") is not None  # imported later: it reads its settings at import
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_ray"),
    pytest.mark.skipif(not has_ray, reason="Ray is not installed"),
]
CANARY = "Quisling_Jubilee"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


def slow(job: tuple[int, Path]) -> int:
    number, folder = job
    time.sleep(0.2)
    with (folder / f"{number}.txt").open("a") as file:
        file.write("done\n")
    return number


def speak(name: str) -> str:
    import logging

    print(name)
    logging.getLogger("medunet.test").warning(f"about {name}")
    if name.endswith("0"):
        raise InputError(f"no such patient {name}")
    return name


def test_the_cases_of_a_node_that_dies_are_put_back(cluster: Any, tmp_path: Path) -> None:
    nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
    jobs = [(number, tmp_path) for number in range(40)]
    results = {}
    with ray_engine(cluster.address):
        for index, result in run_parallel(slow, jobs, Workers(4)):
            results[index] = result
            if len(results) == 4:
                cluster.remove_node(nodes[1], allow_graceful=False)
    assert results == {number: number for number in range(40)}
    assert {path.stem for path in tmp_path.iterdir()} == {str(number) for number in range(40)}


def test_an_answer_that_is_lost_with_its_node_is_a_death_of_the_node(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.add_node(num_cpus=2)
    with ray_engine(cluster.address):
        import ray

        real, lost = ray.get, []

        def get_unless_first_batch(reference: Any) -> Any:
            answer = real(reference)
            if not lost and answer[0] == "done":
                lost.append(reference)
                raise ray.exceptions.ObjectReconstructionFailedError(reference.hex(), "", "")
            return answer

        monkeypatch.setattr(ray, "get", get_unless_first_batch)
        results = dict(run_parallel(abs, [-1, -2, -3], Workers(1)))
    assert len(lost) == 1
    assert results == {0: 1, 1: 2, 2: 3}


def test_without_an_address_no_running_cluster_is_joined(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    before = dict(os.environ)
    with ray_engine(None):
        import ray

        assert ray.get_runtime_context().gcs_address != cluster.address
        assert dict(os.environ) != before
    assert dict(os.environ) == before  # a `ray start` from here may be of several nodes


def test_a_wrong_token_and_no_token_are_refused(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError, match="no token is given"), ray_engine(cluster.address):
        pass


def test_names_are_in_no_file_of_ray(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with ray_engine(None):
        import ray

        session = Path(ray._private.worker._global_node.get_session_dir_path())
        names = [f"{CANARY}_{number}" for number in range(1, 5)]
        assert sorted(result for _, result in run_parallel(speak, names, Workers(2))) == names
        assert f"about {CANARY}_1" in caplog.text  # it has come here instead
        with pytest.raises(InputError, match=CANARY):
            list(run_parallel(speak, [f"{CANARY}_0"], Workers(1)))
    files = [path for path in session.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path.name for path in files if CANARY.encode() in path.read_bytes()] == []
