"""The processes that train together: started by torchrun or Slurm, known through Lightning's environments."""

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

_PATIENCE = timedelta(days=1)  # the others wait while the first one preprocesses


@dataclass(frozen=True)
class Processes:
    """How many processes train together, and which of them this one is."""

    count: int = 1
    rank: int = 0
    per_node: int = 1
    group: dist.ProcessGroup | None = None  # the line on which they wait for one another, patiently

    @property
    def is_first(self) -> bool:
        """Say whether this is the one that writes files and speaks."""
        return self.rank == 0

    def share(self, value: Any) -> Any:
        """Return the first process's value in all of them; a plain object.

        Raises:
            InputError: another process has ended.
        """
        if self.count == 1:
            return value
        holder = [value]
        with _named_loss():
            dist.broadcast_object_list(holder, src=0, group=self.group)
        return holder[0]

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value in all of them, in order of rank; plain objects, no tensors of a card.

        Waits on the patient line, not on that of the gradients: of validations one may take far longer than another.

        Raises:
            InputError: another process has ended.
        """
        values = [value] * self.count
        if self.count > 1:
            with _named_loss():
                dist.all_gather_object(values, value, group=self.group)
        return values

    def wait(self) -> None:
        """Wait until all have come here.

        Raises:
            InputError: another process has ended.
        """
        if self.count > 1:
            with _named_loss():
                dist.barrier(group=self.group)


ALONE = Processes()


@contextmanager
def _named_loss() -> Iterator[None]:
    """Turn a broken line into a message: the process that has ended says itself why."""
    try:
        yield
    except RuntimeError as error:
        raise InputError(
            "another process has ended", where="training together", hint="Its own message says why."
        ) from error


def processes_here() -> Processes:
    """Return the processes that torchrun or `srun` has started; one where there is neither."""
    environment = _environment()
    if environment is None or environment.world_size() == 1:
        return ALONE
    slurm = isinstance(environment, SLURMEnvironment)
    per_node = os.environ.get("SLURM_NTASKS_PER_NODE" if slurm else "LOCAL_WORLD_SIZE")
    count = environment.world_size()
    return Processes(count, environment.global_rank(), int(per_node or count))


def join(device: torch.device) -> Processes:
    """Let the processes find one another (gloo on CPUs, NCCL on cards) and return them."""
    processes, environment = processes_here(), _environment()
    if processes.count == 1 or environment is None:
        return processes
    if not dist.is_initialized():
        os.environ.setdefault("MASTER_ADDR", environment.main_address)
        os.environ.setdefault("MASTER_PORT", str(environment.main_port))
        if device.type == "cuda":
            torch.cuda.set_device(environment.local_rank())
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, rank=processes.rank, world_size=processes.count)
    return replace(processes, group=dist.new_group(backend="gloo", timeout=_PATIENCE))


def _environment() -> SLURMEnvironment | TorchElasticEnvironment | None:
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    return SLURMEnvironment() if SLURMEnvironment.detect() else None
