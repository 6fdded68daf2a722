"""nnU-Net's checkpoints: read without running code from them, and their weights as those of medunet's networks.

A checkpoint is a pickle. Only tensors, plain Python values and NumPy's numbers, which its log holds, are read from
it; anything else is refused by name.
"""

import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medunet.base.errors import DataError, InputError
from medunet.records.plan import Plan

_NUMBERS = ("float64", "float32", "float16", "int64", "int32", "bool")
_ALLOWED: list[Any] = [  # of NumPy 2 and, under its older name, of NumPy 1
    np.dtype,
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    *(type(np.dtype(name)) for name in _NUMBERS),
]
_KEYS = ("network_weights", "init_args", "trainer_name")
_PREFIX = re.compile(r"^(module\.|_orig_mod\.)+")  # of DistributedDataParallel, and of torch.compile
_NAMES = (  # nnU-Net's weights by ours
    (r"^encoder\.stem\.convs\.0\.", "encoder.0.0.", "block"),
    (r"^encoder\.stages\.(\d+)\.0\.convs\.(\d+)\.", "encoder.{0}.{1}.", "block"),
    (r"^encoder\.stages\.(\d+)\.blocks\.(\d+)\.(conv[12])\.", "encoder.{0}.{1}.{2}.", "residual"),
    (r"^encoder\.stages\.(\d+)\.blocks\.(\d+)\.skip\.(\d+)\.", "encoder.{0}.{1}.shortcut.{2}.", "shortcut"),
    (r"^decoder\.stages\.(\d+)\.convs\.(\d+)\.", "decoder.{0}.{1}.", "block"),
    (r"^decoder\.transpconvs\.(\d+)\.", "upsamplers.{0}.", "plain"),
    (r"^decoder\.seg_layers\.(\d+)\.", "heads.{0}.", "head"),
)
_TWICE = re.compile(r"(^decoder\.encoder\.|\.all_modules\.)")  # second names of the same weights


@dataclass(frozen=True)
class Checkpoint:
    """What prediction needs of a checkpoint."""

    weights: dict[str, torch.Tensor]  # by nnU-Net's names
    trainer: str
    configuration: str
    mirror_axes: tuple[int, ...]  # of nnU-Net's patch


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of nnU-Net v2.

    Raises:
        DataError: it is damaged, or holds anything but tensors and plain values; no code from it is run.
        InputError: it is no checkpoint of nnU-Net v2.
    """
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = (
            f"holds {found[1]}, which could run code"
            if found
            else "is not a checkpoint that can be read safely"
        )
        raise DataError(
            what, where=_short(path), hint="It was not loaded. Get the checkpoint from its authors again."
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"cannot be read ({line[:200]})", where=_short(path), hint="Copy the checkpoint again."
        ) from error
    missing = [key for key in _KEYS if not isinstance(content, dict) or key not in content]
    if missing or "configuration" not in content["init_args"]:
        raise InputError(
            f"has no {', '.join(missing) or 'init_args.configuration'}: it is no checkpoint of nnU-Net v2",
            where=_short(path),
            hint="Give a results folder as nnU-Net v2 writes it.",
        )
    return Checkpoint(
        {_PREFIX.sub("", name): weight for name, weight in content["network_weights"].items()},
        str(content["trainer_name"]),
        str(content["init_args"]["configuration"]),
        tuple(content.get("inference_allowed_mirroring_axes") or ()),
    )


def convert_weights(
    weights: dict[str, torch.Tensor], plan: Plan, permutation: Sequence[int], where: str
) -> dict[str, torch.Tensor]:
    """Return weights by medunet's names, float32, with the axes of kernels in the order of medunet's arrays.

    Args:
        permutation: axis of nnU-Net's network for each axis of ours.

    Raises:
        InputError: some are unknown: the network is not the one that the plans describe.
    """
    num_heads = plan.deep_supervision
    first_head = len(plan.features) - 1 - num_heads
    found, unknown = {}, []
    for name, weight in weights.items():
        if _TWICE.search(name):
            continue
        new = _rename(name, is_residual=bool(plan.encoder_blocks), first_head=first_head)
        if new is None:
            unknown.append(name)
        elif new:
            if weight.ndim == 2 + plan.dimensions:
                weight = weight.permute(0, 1, *(2 + axis for axis in permutation))
            is_count = new.endswith("num_batches_tracked")
            found[new] = (weight if is_count else weight.float()).contiguous().clone()
    if unknown:
        raise InputError(
            f"has {len(unknown)} weights that the network in plans.json does not have, such as {unknown[0]}",
            where=where,
            hint="Its trainer builds another network; medunet cannot run it.",
        )
    return found


def _rename(name: str, *, is_residual: bool, first_head: int) -> str | None:
    """Return our name of a weight; "" for that of a head that is not used, None if it is unknown."""
    for pattern, template, kind in _NAMES:
        match = re.match(pattern, name)
        if match is None:
            continue
        groups, rest = list(match.groups()), name[match.end() :]
        if kind == "plain":
            return template.format(*groups) + rest
        if kind == "head":
            number = int(groups[0]) - first_head
            return template.format(number) + rest if number >= 0 else ""
        part, _, rest = rest.partition(".")
        if part not in ("conv", "norm"):
            return None
        if kind in ("residual", "shortcut") and is_residual and groups[0] == "0":
            groups[1] = str(int(groups[1]) + 1)  # the stem is our first stage's first block
        if kind == "shortcut":
            groups[2] = str(int(groups[2]) + (part == "norm"))
            return template.format(*groups) + rest
        return template.format(*groups) + f"{int(part == 'norm')}.{rest}"
    return None


def _short(path: Path) -> str:
    return "/".join(path.parts[-3:])
