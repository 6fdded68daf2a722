"""A Slurm of two nodes on this computer, from Debian's packages slurm-wlm and munge, in a folder of its own."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
_SYSTEM_PATH = "/usr/sbin:/sbin"  # where Debian puts daemons, which a user's PATH may lack
_LONGEST_S = 900.0  # on a busy computer
_ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}

# No cgroups, no accounting; more cores than there may be; a requeued job waits as long as a credential lives.
_CONF = """
ClusterName=tests
SlurmctldHost=localhost
SlurmctldPort={ctld}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool_%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd_%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd_%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
KillWait=5
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=node1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={node1} CPUs=4 RealMemory=12000
NodeName=node2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={node2} CPUs=4 RealMemory=12000
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def absent_programs() -> list[str]:
    """Return the programs of Slurm and MUNGE that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


class SlurmCluster:
    """A running Slurm; jobs are submitted from `work`, with `environment`."""

    def __init__(self, work: Path, environment: dict[str, str]) -> None:
        self.work, self.environment = work, environment
        self.daemons: list[subprocess.Popen[bytes]] = []

    def call(self, *words: object, **more: str) -> str:
        """Run a program of Slurm and return what it prints."""
        result = subprocess.run(
            [str(word) for word in words],
            cwd=self.work, env=self.environment | more, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def submit(
        self,
        script: Path,
        options: list[object],
        arguments: list[object],
        *,
        memory: str | None = "--mem=0",
        **more: str,
    ) -> str:
        """Submit a script with options of sbatch, and return the id of the job; without `memory`, with its own."""
        options = [memory, *options] if memory else options
        return self.call("sbatch", "--parsable", *options, script, *arguments, **more).strip()

    def states(self, job: str) -> dict[str, tuple[str, str]]:
        """Return state and exit code, such as 0:0, of a job's tasks by their number in the array; "" without one."""
        rows = self.call("scontrol", "show", "job", job, "-o").splitlines()
        fields = [dict(re.findall(r"(\w+)=(\S+)", row)) for row in rows]
        return {row.get("ArrayTaskId", ""): (row["JobState"], row["ExitCode"]) for row in fields}

    def limit(self, job: str, minutes: int) -> None:
        """Limit the time of a job to what it has run, in whole minutes, and so many more."""
        (row,) = self.call("squeue", "--noheader", "--array", f"--jobs={job}", "--format=%M %i").splitlines()
        time_run, task = row.split()
        *hours, run_minutes, _ = time_run.split(":")
        assert not hours
        limit = max(1, int(run_minutes) + minutes)
        self.call("scontrol", "update", f"JobId={task}", f"TimeLimit={limit}")

    def wait(self, job: str) -> dict[str, tuple[str, str]]:
        """Return the states of a job when all of its tasks have ended."""
        self.until(lambda: all(state in _ENDED for state, _ in self.states(job).values()), f"job {job} ends")
        return self.states(job)

    def until(self, is_so: Callable[[], object], what: str) -> None:
        """Wait until something is so; else fail with the logs of the jobs and daemons."""
        start = time.monotonic()
        while not is_so():
            ended = [process.args for process in self.daemons if process.poll() is not None]
            if ended or time.monotonic() - start > _LONGEST_S:
                files = [*self.work.glob("*.log"), *self.work.parent.glob("*.out")]
                logs = "\n".join(f"{path.name}:\n{path.read_text()}" for path in files)
                raise AssertionError(f"not so: {what}; ended: {ended}\n{logs}")
            time.sleep(0.3)


@contextmanager
def slurm_cluster(folder: Path, **environment: str) -> Iterator[SlurmCluster]:
    """Start Slurm in a folder with a short path, and end it with all of its jobs."""
    user = os.environ.get("USER", "root") if os.getuid() else "root"
    ports = free_ports(3)
    folder.chmod(0o755)  # munged demands that all may reach its socket
    for name in ("munge", "state", "spool_node1", "spool_node2", "work"):
        (folder / name).mkdir(parents=True)
    conf, key = folder / "slurm.conf", folder / "munge.key"
    conf.write_text(_CONF.format(folder=folder, user=user, ctld=ports[0], node1=ports[1], node2=ports[2]))
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    cluster = SlurmCluster(
        folder / "work", os.environ | {"PATH": _path(), "SLURM_CONF": str(conf)} | environment
    )
    munge = [f"--{kind}-file={folder / 'munge' / kind}" for kind in ("pid", "log", "seed")]
    daemons = [
        ["munged", "--foreground", f"--key-file={key}", f"--socket={folder}/munge/socket", *munge],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-N", "node1"],
        ["slurmd", "-D", "-N", "node2"],
    ]
    running = cluster.daemons
    try:
        for words in daemons:
            with (folder / f"{words[0]}.out").open("ab") as log:
                running.append(
                    subprocess.Popen(words, env=cluster.environment, stdout=log, stderr=log, cwd=folder)
                )
            if words[0] == "munged":
                cluster.until((folder / "munge" / "socket").exists, "munged listens")
        cluster.until(lambda: _num_idle(cluster) == 2, "both nodes are idle")
        yield cluster
    finally:
        with suppress(AssertionError):
            cluster.call("scancel", "--partition=all")
            cluster.until(lambda: not cluster.call("squeue", "--noheader").strip(), "no job is left")
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _num_idle(cluster: SlurmCluster) -> int:
    try:
        return cluster.call("sinfo", "--noheader", "--Node", "--format=%T").split().count("idle")
    except AssertionError:  # slurmctld does not answer yet
        return 0


def _path() -> str:
    return f"{os.environ['PATH']}:{_SYSTEM_PATH}"


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nothing uses."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
