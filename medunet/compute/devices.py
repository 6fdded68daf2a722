"""The device to compute on, its memory, its threads, and the precisions that it knows."""

import ctypes
from typing import Literal

import torch

from medunet.base.errors import InputError
from medunet.base.processor import num_threads

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def choose_device(name: str) -> torch.device:
    """Return the device: "auto" takes a CUDA card if one can be used, else the CPU.

    Raises:
        InputError: the device asked for is not there.
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
            f"device '{name}' was asked for, but torch sees {torch.cuda.device_count()} CUDA card(s)",
            where="--device",
            hint="Use --device cpu, or install a CUDA build of torch and its driver.",
        )
    return device


def card_precision(device: torch.device) -> Precision:
    """Return the precision that a card computes in: bf16, or fp16 where it has none."""
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def check_precision(name: str, device: torch.device) -> None:
    """Refuse a precision that the device cannot compute in.

    Raises:
        InputError: fp16 on a CPU, which has neither the speed nor a loss scaler.
    """
    if name == "fp16" and device.type == "cpu":
        raise InputError("fp16 cannot be used on a CPU", where="training.precision", hint="Use auto or bf16.")


def may_have_bf16() -> bool:
    """Say whether oneDNN may have bf16 instructions here: a "no" is certain, a "yes" is not.

    It looks at AVX512BW, VL and DQ alone, and past the limits that the environment sets: what it affirms is tried.
    """
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a build of torch without oneDNN
        return False


def use_cores() -> None:
    """Let torch compute on the cores that this process may use, or on OMP_NUM_THREADS where the user sets it."""
    torch.set_num_threads(num_threads())


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, where the C library is glibc; say whether it could.

    By default glibc gives large blocks back to the system at once, and every training step on a CPU pays for fresh
    pages again: over a third of a step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the autocast context for a precision; fp32 leaves everything as it is."""
    return torch.autocast(device.type, dtype=_DTYPES.get(precision), enabled=precision != "fp32")
