"""Whether a training fits into memory, said before it begins; and the message where memory ran out after all."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from medunet.base.errors import NoMemoryError, is_out_of_memory
from medunet.compute.device_memory import free_memory_gb
from medunet.compute.devices import Precision
from medunet.compute.processes import Processes
from medunet.planning.memory import NetworkShape, training_gb
from medunet.records.config import TrainingConfig
from medunet.records.description import Description
from medunet.records.plan import Plan

_SHARE_HELD = 0.5  # of the free memory, where training.ram_gb is not given: as `hold_in_memory` has it
# What a feature map's element takes against half precision on a card. On a CPU as measured, by peak resident memory
# in training steps of plain and residual networks: there the C library keeps what is freed, and oneDNN reorders.
_FEATURE_FACTORS: dict[tuple[str, Precision], float] = {
    ("cuda", "bf16"): 1.0,
    ("cuda", "fp16"): 1.0,
    ("cuda", "fp32"): 2.0,
    ("cpu", "bf16"): 1.9,
    ("cpu", "fp32"): 3.4,
}
_SMALLER = (
    "Lower planning.batch_size, planning.patch_size or planning.memory_gb (now {gb:g}) with "
    "`medunet plan RUN --set KEY=VALUE`, or free memory on {device}."
)


def step_gb(
    plan: Plan,
    description: Description,
    *,
    device: torch.device,
    precision: Precision,
    num_processes: int = 1,
) -> float:
    """Estimate what one process's share of a training step takes on its device, in GB."""
    batch = max(1, plan.batch_size // num_processes)
    factor = _FEATURE_FACTORS[device.type, precision]
    return training_gb(NetworkShape.of_plan(plan, description), batch, feature_factor=factor)


def held_gb(plan: Plan, description: Description, num_cases: int) -> float:
    """Estimate what preprocessed cases take in memory: float32 channels and a uint8 label of the median shape."""
    return num_cases * math.prod(plan.median_shape) * (4 * len(description.channels) + 1) / 1e9


def require_memory(
    plan: Plan,
    description: Description,
    config: TrainingConfig,
    *,
    num_cases: int,
    precision: Precision,
    device: torch.device,
    processes: Processes,
) -> None:
    """Refuse a training that does not fit the memory that is free now.

    On a card the step must fit there, and the held cases into the computer's memory; on a CPU both together, for all
    processes of this computer. Cases that are too many for `training.ram_gb` are read from disk and do not count.

    Raises:
        NoMemoryError: says what is needed, what is free, and which key to lower.
    """
    step = step_gb(plan, description, device=device, precision=precision, num_processes=processes.count)
    on_card = device.type == "cuda"
    free = free_memory_gb(device)
    if not on_card:
        step *= processes.per_node
    if step > free:
        raise NoMemoryError(
            f"a training step with a batch of {plan.batch_size} takes about {step:.1f} GB, but {free:.1f} GB "
            "are free",
            where=str(device),
            hint=_SMALLER.format(gb=plan.memory_gb, device=device),
        )
    ram = free_memory_gb(torch.device("cpu")) if on_card else free
    held = held_gb(plan, description, num_cases)  # once, whatever the number of processes
    limit = config.ram_gb or _SHARE_HELD * ram
    left = ram if on_card else ram - step
    if held <= limit and held > left:
        raise NoMemoryError(
            f"{num_cases} preprocessed cases take about {held:.1f} GB of memory, but {left:.1f} GB are left beside "
            "the training step",
            where="training.ram_gb",
            hint=f"Set training.ram_gb (--ram-gb) to {0.9 * left:.1f} or less: the cases are then read from disk.",
        )


@contextmanager
def naming_out_of_memory(where: str) -> Iterator[None]:
    """Turn memory that ran out, on a card or on the computer, into a message with how to fix it.

    Raises:
        NoMemoryError: memory ran out.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise NoMemoryError(
            f"memory ran out ({str(error).splitlines()[0][:200] if str(error) else type(error).__name__})",
            where=where,
            hint="Lower planning.batch_size, planning.patch_size or planning.memory_gb with "
            "`medunet plan RUN --set KEY=VALUE`; where held cases fill the memory, training.ram_gb (--ram-gb).",
        ) from error
