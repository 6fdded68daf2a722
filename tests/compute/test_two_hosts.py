"""Training over two hosts: two network namespaces with a cable, each with its own hostname and shared memory."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TINY
from planned_run import begin_run
from training_together import end_all, start

from medunet.base.errors import InputError
from medunet.commands.train import run_train
from medunet.compute.processes import ALONE, Processes, detect_processes
from medunet.runs.run import Run, open_run
from medunet.training.checkpoints import CheckpointState
from medunet.training.train import _require_same_folder

ADDRESSES = ("10.77.17.1", "10.77.17.2")
AS_A_HOST = 'hostname "$1" && mount -t tmpfs tmpfs /dev/shm && shift && exec "$@"'
PORT = 29417


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two network namespaces that reach each other; skips where they cannot be made."""
    names = [f"medunet-{os.getpid()}-{letter}" for letter in "ab"]
    if missing := [tool for tool in ("ip", "unshare", "hostname") if shutil.which(tool) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip(
                "-n",
                names[0],
                "link",
                "add",
                "eth0",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                names[1],
            )
            for name, address in zip(names, ADDRESSES, strict=True):
                ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
                ip("-n", name, "link", "set", "eth0", "up")
                ip("-n", name, "link", "set", "lo", "up")
            subprocess.run(
                ["unshare", "--mount", "--uts", "true"], check=True, capture_output=True, text=True
            )
        except subprocess.CalledProcessError as error:
            pytest.skip(f"namespaces cannot be made here: {error.stderr.strip()}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def torchrun(host: str, number: int, run: Run) -> subprocess.Popen[str]:
    command = (
        *(
            "ip",
            "netns",
            "exec",
            host,
            "unshare",
            "--mount",
            "--uts",
            "sh",
            "-c",
            AS_A_HOST,
            "sh",
            f"host{number}",
        ),
        *(
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nnodes=2",
            "--nproc-per-node=1",
            "--rdzv-backend=c10d",
        ),
        *(
            f"--rdzv-endpoint={ADDRESSES[0]}:{PORT}",
            "--rdzv-id=17",
            f"--rdzv-conf=is_host={int(number == 0)}",
        ),
        *(f"--local-addr={ADDRESSES[number]}", "-m", "medunet.cli", "train", str(run.folder.root)),
        *("--data-root", str(run.data_root), "--device", "cpu"),
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0"}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_two_hosts_train_as_two_processes_of_one(hosts: list[str], finished_run: Run, tmp_path: Path):
    data_root = finished_run.data_root
    changes = (*TINY, "training.epochs=1", "training.steps_per_epoch=6", "planning.batch_size=4")
    begun = begin_run(tmp_path / "begun", data_root, changes)
    run_train(begun)
    near, far = (
        open_run(
            shutil.copytree(begun.folder.root, tmp_path / name), data_root, changes=["training.epochs=2"]
        )
        for name in ("near", "far")
    )
    for run in (near, far):
        run.save()
        shutil.rmtree(run.folder.model(0))
        shutil.rmtree(run.folder.cache)  # the first process preprocesses again, the others read what it wrote
    assert end_all(start(near.folder.root, data_root)) == [0, 0]
    begun_by = [torchrun(host, number, far) for number, host in enumerate(hosts)]
    try:
        printed = [process.communicate(timeout=600)[0] for process in begun_by]
    finally:
        for process in begun_by:
            process.kill()
    assert [process.returncode for process in begun_by] == [0, 0], printed
    assert sum("in 2 processes" in text for text in printed) == 1
    for name in ("weights.safetensors", "weights_final.safetensors"):
        assert (near.folder.model(0) / name).read_bytes() == (far.folder.model(0) / name).read_bytes()
    logs = [len(list((run.folder.fold(0) / "tensorboard").glob("events.*"))) for run in (begun, near, far)]
    assert logs[1] == logs[2]  # one process wrote
    assert not list(far.folder.root.rglob(".*.lock"))


class Seen(Processes):
    """Two processes that see other things."""

    def gather(self, value: object) -> list[object]:
        return [value, None]


def test_a_run_that_hosts_do_not_share_is_refused(tmp_path: Path):
    _require_same_folder(tmp_path, None, Seen(2, 0, 1))
    _require_same_folder(tmp_path, CheckpointState("id", 7, 1.0, []), ALONE)
    with pytest.raises(
        InputError, match=r"different checkpoints \(steps 7, None\)\. Put the run on a folder"
    ):
        _require_same_folder(tmp_path, CheckpointState("id", 7, 1.0, []), Seen(2, 0, 1))


TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "RANK": "2",
    "WORLD_SIZE": "4",
    "GROUP_WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
}
SLURM = {
    "SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_NNODES": "2",
    "SLURM_NTASKS_PER_NODE": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "17",
}  # fmt: skip


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without a launcher, to add one."""
    for name in {*TORCHRUN, *SLURM}:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_launchers_tell_how_many_processes_each_host_has(launched: pytest.MonkeyPatch):
    assert detect_processes() == ALONE
    for variables, rank in ((TORCHRUN, 2), (SLURM, 3)):
        with launched.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            assert detect_processes() == Processes(4, rank, 2)


@pytest.mark.parametrize(
    ("variables", "changed", "message"),
    [
        (
            TORCHRUN,
            {"LOCAL_WORLD_SIZE": "3"},
            r"4 processes on 2 hosts, 3 of them on this one.*--nproc-per-node",
        ),
        (
            SLURM,
            {"SLURM_NTASKS_PER_NODE": "1"},
            r"4 processes on 2 hosts, 1 of them on this one.*--ntasks-per-node",
        ),
        (SLURM, {"SLURM_NTASKS_PER_NODE": None}, "Give `--ntasks-per-node`"),
        (SLURM, {"SLURM_STEP_NUM_TASKS": None}, "started once.*Start it with `srun`"),
    ],
)
def test_a_start_that_would_wait_for_ever_is_refused(
    variables: dict[str, str], changed: dict[str, str | None], message: str, launched: pytest.MonkeyPatch
):
    for name, value in (variables | changed).items():
        if value is not None:
            launched.setenv(name, value)
    with pytest.raises(InputError, match=message):
        detect_processes()


def test_one_task_of_slurm_needs_no_srun(launched: pytest.MonkeyPatch):
    launched.setenv("SLURM_NTASKS", "1")
    assert detect_processes() == ALONE
