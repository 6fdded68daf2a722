"""Data-parallel training processes, started by torchrun or Slurm and detected by Lightning's environments."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from medunet.base.errors import InputError

_TIMEOUT = timedelta(days=1)  # the others wait while the first process preprocesses


@dataclass(frozen=True)
class Processes:
    """Number of processes that train together, and the rank of this one."""

    count: int = 1
    rank: int = 0
    per_node: int = 1
    group: dist.ProcessGroup | None = None  # with a long timeout

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.rank == 0

    def broadcast(self, value: Any) -> Any:
        """Return the first process's value, a plain object, in every process.

        Raises:
            InputError: another process has ended.
        """
        if self.count == 1:
            return value
        holder = [value]
        with _explain_lost_process():
            dist.broadcast_object_list(holder, src=0, group=self.group)
        return holder[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes in order of rank; plain objects, no GPU tensors.

        Uses the group with the long timeout instead of the one for gradients, because the time of validation may
        differ much between processes.

        Raises:
            InputError: another process has ended.
        """
        values = [value] * self.count
        if self.count > 1:
            with _explain_lost_process():
                dist.all_gather_object(values, value, group=self.group)
        return values

    def wait(self) -> None:
        """Wait until all processes have reached this point.

        Raises:
            InputError: another process has ended.
        """
        if self.count > 1:
            with _explain_lost_process():
                dist.barrier(group=self.group)


ALONE = Processes()


@contextmanager
def _explain_lost_process() -> Iterator[None]:
    """Turn a broken connection into a readable error."""
    try:
        yield
    except RuntimeError as error:
        raise InputError(
            "another process has ended", where="training together", hint="See the message of that process."
        ) from error


def detect_processes() -> Processes:
    """Return the processes that torchrun or `srun` has started; a single one without either."""
    environment = _environment()
    if environment is None or environment.world_size() == 1:
        return ALONE
    slurm = isinstance(environment, SLURMEnvironment)
    per_node = os.environ.get("SLURM_NTASKS_PER_NODE" if slurm else "LOCAL_WORLD_SIZE")
    count = environment.world_size()
    return Processes(count, environment.global_rank(), int(per_node or count))


def init_processes(device: torch.device) -> Processes:
    """Set up communication between the processes (gloo on CPUs, NCCL on GPUs) and return them."""
    processes, environment = detect_processes(), _environment()
    if processes.count == 1 or environment is None:
        return processes
    if not dist.is_initialized():
        os.environ.setdefault("MASTER_ADDR", environment.main_address)
        os.environ.setdefault("MASTER_PORT", str(environment.main_port))
        if device.type == "cuda":
            torch.cuda.set_device(environment.local_rank())
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, rank=processes.rank, world_size=processes.count)
    return replace(processes, group=dist.new_group(backend="gloo", timeout=_TIMEOUT))


def _environment() -> SLURMEnvironment | TorchElasticEnvironment | None:
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    return SLURMEnvironment() if SLURMEnvironment.detect() else None
