"""Check before training whether it fits into memory, and explain out-of-memory errors."""

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

_CASES_SHARE = 0.5  # of the free memory, if training.ram_gb is not set: as in `load_into_memory`
# Memory of a feature map's element relative to half precision on a GPU. For the CPU measured by the peak resident
# memory of training steps of plain and residual networks: the C library keeps freed memory, and oneDNN makes copies.
_FEATURE_FACTORS: dict[tuple[str, Precision], float] = {
    ("cuda", "bf16"): 1.0,
    ("cuda", "fp16"): 1.0,
    ("cuda", "fp32"): 2.0,
    ("cpu", "bf16"): 1.9,
    ("cpu", "fp32"): 3.4,
}
_HINT = (
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
    """Estimate the memory in GB that one process's share of a training step needs on its device."""
    batch = max(1, plan.batch_size // num_processes)
    factor = _FEATURE_FACTORS[device.type, precision]
    return training_gb(NetworkShape.of_plan(plan, description), batch, feature_factor=factor)


def cases_gb(plan: Plan, description: Description, num_cases: int) -> float:
    """Estimate the memory in GB of preprocessed cases: float32 channels and a uint8 label of the median shape."""
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
    """Check that a training fits into the free memory.

    On a GPU the training step must fit into its memory and the preprocessed cases into main memory; on a CPU both
    must fit together, for all processes of this computer. If the cases exceed the limit `training.ram_gb`, they are
    read from disk and do not count.

    Raises:
        NoMemoryError: states the needed and the free memory, and which key to lower.
    """
    step = step_gb(plan, description, device=device, precision=precision, num_processes=processes.count)
    on_gpu = device.type == "cuda"
    free = free_memory_gb(device)
    if not on_gpu:
        step *= processes.per_node
    if step > free:
        raise NoMemoryError(
            f"a training step with a batch of {plan.batch_size} takes about {step:.1f} GB, but {free:.1f} GB "
            "are free",
            where=str(device),
            hint=_HINT.format(gb=plan.memory_gb, device=device),
        )
    ram = free_memory_gb(torch.device("cpu")) if on_gpu else free
    cases = cases_gb(plan, description, num_cases)  # once, whatever the number of processes
    limit = config.ram_gb or _CASES_SHARE * ram
    left = ram if on_gpu else ram - step
    if cases <= limit and cases > left:
        raise NoMemoryError(
            f"{num_cases} preprocessed cases take about {cases:.1f} GB of memory, but {left:.1f} GB are left next "
            "to the training step",
            where="training.ram_gb",
            hint=f"Set training.ram_gb (--ram-gb) to {0.9 * left:.1f} or less: the cases are then read from disk.",
        )


@contextmanager
def explain_out_of_memory(where: str) -> Iterator[None]:
    """Turn an out-of-memory error, on a GPU or the CPU, into a message with a hint.

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
            "`medunet plan RUN --set KEY=VALUE`, or training.ram_gb (--ram-gb) if preprocessed cases fill memory.",
        ) from error
