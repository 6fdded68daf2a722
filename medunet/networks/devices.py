"""Which device and which precision to compute in: asked for by name, or found out by a timed probe."""

import ctypes
import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from medunet.errors import InputError

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
_ROUNDS = 6
_MIN_GAIN = 1.15  # half precision must be this much faster to be chosen


@dataclass(frozen=True)
class PrecisionChoice:
    """The precision chosen and why, in one sentence for logs and provenance."""

    precision: Precision
    why: str


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
            f"no such device '{name}'", where="--device", mend="Use auto, cpu or cuda."
        ) from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device '{name}' is not supported", where="--device", mend="Use auto, cpu or cuda.")
    if device.type == "cuda" and (
        not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()
    ):
        raise InputError(
            f"device '{name}' was asked for, but torch sees {torch.cuda.device_count()} CUDA card(s)",
            where="--device",
            mend="Use --device cpu, or install a CUDA build of torch and its driver.",
        )
    return device


def choose_precision(name: str, device: torch.device) -> PrecisionChoice:
    """Return the precision asked for, or with "auto" half precision where it pays.

    A card computes in bf16, or in fp16 where it has none; on a CPU a timed training step decides.

    Raises:
        InputError: fp16 on a CPU, which has neither the speed nor a loss scaler.
    """
    if name == "fp16" and device.type == "cpu":
        raise InputError("fp16 cannot be used on a CPU", where="training.precision", mend="Use auto or bf16.")
    if name in ("fp32", "bf16", "fp16"):
        return PrecisionChoice(name, "asked for")  # type: ignore[arg-type]
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        why = f"this card {'computes in' if has_bf16 else 'has no'} bf16"
        return PrecisionChoice("bf16" if has_bf16 else "fp16", why)
    single, half = _step_seconds()
    gain = single / half
    chosen: Precision = "bf16" if gain > _MIN_GAIN else "fp32"
    return PrecisionChoice(
        chosen, f"a probe step took {half * 1e3:.1f} ms in bf16, {single * 1e3:.1f} ms in fp32"
    )


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


def _step_seconds() -> tuple[float, float]:
    """Return the best times of a small network's training step on the CPU, in fp32 and in bf16.

    Taken in turn and often enough that a moment of other work on the machine does not decide.
    """
    network = nn.Sequential(nn.Conv3d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv3d(32, 32, 3, padding=1))
    image = torch.ones((2, 32, 32, 32, 32))
    best: dict[Precision, float] = {"fp32": float("inf"), "bf16": float("inf")}
    for _ in range(_ROUNDS):
        for precision in best:
            start = time.perf_counter()
            with autocast(image.device, precision):
                loss = network(image).float().mean()
            loss.backward()
            best[precision] = min(best[precision], time.perf_counter() - start)
    return best["fp32"], best["bf16"]
