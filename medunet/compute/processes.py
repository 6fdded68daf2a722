"""Data-parallel training processes, started by torchrun or Slurm and detected by Lightning's environments."""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from medunet.base.errors import InputError
from medunet.base.words import list_some

_log = logging.getLogger(__name__)
_AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"  # set by torchrun, whose agents have met already
_TIMEOUT = timedelta(days=1)  # the others wait while the first process preprocesses
_STEP_TIMEOUT = timedelta(minutes=30)  # within a step all processes are at the same place
_MEETING_MINUTES = 10.0  # started together, they need the time of their imports
_QUIET_S = 30.0  # before it is said who is missing
_LOST = ("gloo", "NCCL", "connection")  # parts of the messages of torch's distributed backends


class LostProcessError(InputError):
    """Another process that trains together with this one has ended, or cannot be reached."""


@dataclass(frozen=True)
class Processes:
    """Number of processes that train together, and the rank of this one."""

    count: int = 1
    rank: int = 0
    per_node: int = 1
    group: dist.ProcessGroup | None = None  # with a long timeout
    step_group: dist.ProcessGroup | None = None  # between the CPUs, whatever computes the gradients

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.rank == 0

    def broadcast(self, value: Any) -> Any:
        """Return the first process's value, a plain object, in every process.

        Raises:
            LostProcessError: another process has ended.
        """
        if self.count == 1:
            return value
        holder = [value]
        with explain_lost_process():
            dist.broadcast_object_list(holder, src=0, group=self.group)
        return holder[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes in order of rank; plain objects, no GPU tensors.

        Uses the group with the long timeout instead of the one for gradients, because the time of validation may
        differ much between processes.

        Raises:
            LostProcessError: another process has ended.
        """
        values = [value] * self.count
        if self.count > 1:
            with explain_lost_process():
                dist.all_gather_object(values, value, group=self.group)
        return values

    def any_of(self, flags: Sequence[bool]) -> list[bool]:
        """Return, in every process, which of the flags is set in at least one; cheap enough for every step.

        Raises:
            LostProcessError: another process has ended.
        """
        if self.count == 1:
            return list(flags)
        shared = torch.tensor(flags, dtype=torch.uint8)
        with explain_lost_process():
            dist.all_reduce(shared, dist.ReduceOp.MAX, group=self.step_group)
        return [bool(flag) for flag in shared.tolist()]

    def wait(self) -> None:
        """Wait until all processes have reached this point.

        Raises:
            LostProcessError: another process has ended.
        """
        if self.count > 1:
            with explain_lost_process():
                dist.barrier(group=self.group)


ALONE = Processes()


@contextmanager
def explain_lost_process() -> Iterator[None]:
    """Turn a broken connection to another process into a readable error.

    Raises:
        LostProcessError: another process has ended, or did not answer within the time limit.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(word in str(error) for word in _LOST):
            raise
        raise _lost() from error


def _lost() -> LostProcessError:
    return LostProcessError(
        "another process has ended, or its host cannot be reached",
        where="training together",
        hint="See the message of that process, and run the same command to resume from the last checkpoint.",
    )


def detect_processes() -> Processes:
    """Return the processes that torchrun or `srun` has started; a single one without either.

    Raises:
        InputError: Slurm has several tasks, but `srun` did not start them or not on each node as many.
    """
    environment = _environment()
    if environment is None or environment.world_size() == 1:
        return ALONE
    slurm = isinstance(environment, SLURMEnvironment)
    count = environment.world_size()
    per_node = int(os.environ.get("SLURM_NTASKS_PER_NODE" if slurm else "LOCAL_WORLD_SIZE", count))
    num_nodes = int(os.environ.get("SLURM_NNODES" if slurm else "GROUP_WORLD_SIZE", count // per_node))
    if per_node * num_nodes != count:
        option = "`srun --ntasks-per-node`" if slurm else "`torchrun --nproc-per-node`"
        raise InputError(
            f"{count} processes on {num_nodes} hosts, {per_node} of them on this one",
            where="training together",
            hint=f"Start as many on each host: {option}.",
        )
    return Processes(count, environment.global_rank(), per_node)


def init_processes(device: torch.device, joining: AbstractContextManager[object] | None = None) -> Processes:
    """Set up communication between the processes (gloo on CPUs, NCCL on GPUs) and return them.

    Those that have met connect to one another within `joining`. One that ends there leaves the others deaf.

    Raises:
        InputError: the first process cannot listen on its port, or Slurm's tasks are uneven.
        LostProcessError: some processes do not come, or end while the others wait.
    """
    processes, environment = detect_processes(), _environment()
    if processes.count == 1 or environment is None:
        return processes
    is_first_call = not dist.is_initialized()
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(environment.local_rank())
    with explain_lost_process():
        meets = is_first_call and os.environ.get(_AGENT_STORE) != "True"
        store = _meet(processes, environment) if meets else None
        with joining or nullcontext():
            if is_first_call:
                dist.init_process_group(backend, store=store, rank=processes.rank, world_size=processes.count)
            group = dist.new_group(backend="gloo", timeout=_TIMEOUT)
            step_group = dist.new_group(backend="gloo", timeout=_STEP_TIMEOUT)
    return replace(processes, group=group, step_group=step_group)


def _meet(processes: Processes, environment: ClusterEnvironment) -> Any:
    """Return the store (`torch.distributed.Store`) by which processes find one another, once all have come to it.

    In torch's own rendezvous a process is deaf to signals, and waits half an hour for one that has died already.
    """
    address, port = environment.main_address, environment.main_port
    if not processes.is_first:
        _wait_for(lambda: [] if _listens(address, port) else [f"the first one at {address}:{port}"])
    at_once = timedelta(seconds=10)  # somebody listens
    try:
        store = dist.TCPStore(  # type: ignore[attr-defined]
            address, port, processes.count, processes.is_first, timeout=at_once, wait_for_workers=False
        )
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise InputError(
            f"port {port} of {socket.gethostname()} is in use",
            where="training together",
            hint="Set the environment variable MASTER_PORT to a free port for all processes.",
        ) from None
    store.set_timeout(_STEP_TIMEOUT)  # of what torch does with it
    job = os.environ.get("SLURM_JOB_ID", "")  # another one may have chosen this port
    store.set(f"{job} rank {processes.rank}", "is here")

    def missing() -> list[str]:
        ranks = range(processes.count)
        absent = [f"rank {rank}" for rank in ranks if not store.check([f"{job} rank {rank}"])]
        if store.check([f"{job} left"]):
            raise _lost()
        return absent

    try:
        _wait_for(missing)
    except BaseException:
        with suppress(RuntimeError):
            store.set(f"{job} left", "")
        raise
    return store


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _wait_for(missing: Callable[[], list[str]]) -> None:
    """Wait until no process is missing; meanwhile signals are answered."""
    start = time.monotonic()
    is_said = False
    while names := missing():
        waited_s = time.monotonic() - start
        if waited_s > 60 * _MEETING_MINUTES:
            raise LostProcessError(
                f"waited {_MEETING_MINUTES:g} minutes in vain for {list_some(names)} of the processes",
                where="training together",
                hint="See the messages of those processes, and run the same command again.",
            )
        if waited_s > _QUIET_S and not is_said:
            is_said = True
            _log.info("Waiting up to %g minutes for %s.", _MEETING_MINUTES, list_some(names))
        time.sleep(0.1)


def cluster_environment() -> ClusterEnvironment:
    """Return the environment for Lightning, which on its own would detect others and requeue jobs of Slurm."""
    return _environment() or LightningEnvironment()


def _environment() -> SLURMEnvironment | TorchElasticEnvironment | None:
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if int(os.environ.get("SLURM_NTASKS", 1)) == 1 or not SLURMEnvironment.detect():
        return None
    if "SLURM_STEP_NUM_TASKS" not in os.environ:
        raise InputError(
            f"Slurm gave {os.environ['SLURM_NTASKS']} tasks, but the command was started once",
            where="training together",
            hint="Start it with `srun`, or ask for one task: `--ntasks=1 --cpus-per-task=N`.",
        )
    if "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise InputError(
            f"Slurm started {os.environ['SLURM_NTASKS']} processes, and does not say how many on each node",
            where="training together",
            hint="Give `--ntasks-per-node` instead of `--ntasks`.",
        )
    return SLURMEnvironment(auto_requeue=False)  # the job's script requeues, see docs/training.md
