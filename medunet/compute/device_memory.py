"""How much memory is free on a device: on a card, or the computer's for what is computed on the CPU."""

import ctypes

import torch

from medunet.base.free_memory import free_bytes


def free_memory_gb(device: torch.device) -> float:
    """Return the memory in GB that this process can still take on a device now.

    What torch holds of a card without using it counts as free; so does what the C library kept of the computer's,
    which is given back first. A container's or a batch job's limit counts.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (torch.cuda.mem_get_info(device)[0] + kept) / 1e9
    _give_back_freed_memory()
    return free_bytes() / 1e9


def _give_back_freed_memory() -> None:
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # another C library than glibc keeps none that we asked it to
        return
