"""Free memory of a device: GPU memory, or main memory for the CPU."""

import ctypes
import mmap
from collections.abc import Collection
from pathlib import Path

import torch

from medunet.base.free_memory import free_bytes


def free_memory_gb(device: torch.device) -> float:
    """Return the memory in GB that this process can still allocate on a device.

    GPU memory that torch has reserved but does not use counts as free. On the CPU, freed memory that the C library
    holds is first returned to the system. The memory limit of a container or batch job is respected.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (torch.cuda.mem_get_info(device)[0] + unused) / 1e9
    return_freed_memory()
    return free_bytes() / 1e9


def return_freed_memory() -> None:
    """Return freed memory that the C library holds to the system."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (
        OSError,
        AttributeError,
    ):  # a C library other than glibc, which `keep_freed_memory` does not affect
        return


def release_mapped(files: Collection[Path]) -> None:
    """Let the system drop the pages of files that are mapped for reading; they are read again where they are needed.

    Does nothing where the system does not list its maps as Linux does.
    """
    names = {str(file.resolve()) for file in files}
    try:
        library, maps = ctypes.CDLL(None), Path("/proc/self/maps").read_text().splitlines()
        advise, advice = library.madvise, mmap.MADV_DONTNEED
    except (OSError, AttributeError):
        return
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in maps:
        addresses, rights, *_, name = line.split(maxsplit=5)
        if name in names and "w" not in rights:
            start, stop = (int(each, 16) for each in addresses.split("-"))
            advise(start, stop - start, advice)
