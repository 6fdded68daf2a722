"""Choice of the device, its precisions, threads and memory allocation."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from medunet.base.errors import InputError
from medunet.base.processor import num_threads

Precision = Literal["fp32", "bf16", "fp16", "int8"]  # int8: a quantised network in OpenVINO
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def choose_device(name: str) -> torch.device:
    """Return the device of a name; "auto" is a CUDA GPU if one is available, otherwise the CPU.

    Raises:
        InputError: the device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(
            f"no such device '{name}'", where="--device", hint="Use auto, cpu or cuda."
        ) from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device '{name}' is not supported", where="--device", hint="Use auto, cpu or cuda.")
    if device.type == "cuda" and (
        not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()
    ):
        raise InputError(
            f"device '{name}' is not available: torch sees {torch.cuda.device_count()} CUDA device(s)",
            where="--device",
            hint="Use --device cpu, or install a CUDA build of torch and its driver.",
        )
    return device


def gpu_precision(device: torch.device) -> Precision:
    """Return the mixed precision of a GPU: bf16, or fp16 if it has no bf16."""
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def check_precision(name: str, device: torch.device) -> None:
    """Check that the device can compute in a precision.

    Raises:
        InputError: fp16 on a CPU, where it is slow and has no loss scaler.
    """
    if name == "fp16" and device.type == "cpu":
        raise InputError("fp16 cannot be used on a CPU", where="precision", hint="Use auto or bf16.")


def may_have_bf16() -> bool:
    """Return whether oneDNN may have bf16 instructions on this processor: False is certain, True is not.

    torch only checks AVX512BW, VL and DQ and ignores the limits set in the environment, so True must be benchmarked.
    """
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a build of torch without oneDNN
        return False


def use_cores() -> None:
    """Set torch's number of threads: OMP_NUM_THREADS if it is set, otherwise one for each usable core."""
    torch.set_num_threads(num_threads())


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let torch compute in the calling thread alone.

    After each operation in several threads those of OpenMP wait in a loop for the next one, for some milliseconds in
    which they take cores from other libraries' threads.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for reuse; return whether that worked (False with another C library).

    By default glibc returns large blocks to the system at once, so that every training step on a CPU allocates new
    pages, which takes over a third of the step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the autocast context for a precision; fp32 changes nothing."""
    return torch.autocast(device.type, dtype=_DTYPES.get(precision), enabled=precision != "fp32")
