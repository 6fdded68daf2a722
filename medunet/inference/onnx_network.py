"""A network as an ONNX file: written by torch.export, with norms that stay exact, and run by onnxruntime."""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.instancenorm import _InstanceNorm

from medunet.base.errors import InputError

OPSET = 20
_FILE = "network.onnx"
_LARGE_BYTES = 1_500_000_000  # of weights, which then go into a second file: one of ONNX holds 2 GB at most
_log = logging.getLogger(__name__)

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # images (B, C, *patch) to logits (B, K, *output)


def write_onnx(
    network: nn.Module, shape: Sequence[int], folder: Path, *, any_batch: bool = True
) -> int | None:
    """Write a network for inputs of `shape` `(C, *patch)`; return the size of the batches it takes, None if any.

    With `any_batch`, a network that cannot be exported for any batch size is exported for a batch of one.

    Raises:
        InputError: the network cannot be exported.
    """
    network = with_stable_norms(network)
    reason = ""
    for batch in (None, 1) if any_batch else (1,):
        example = torch.zeros((batch or 2, *shape))
        dynamic = ({0: torch.export.Dim("batch", min=1)},) if batch is None else None
        try:
            with _quietly(), torch.no_grad():
                program = torch.onnx.export(
                    torch.export.export(network, (example,), dynamic_shapes=dynamic),
                    dynamo=True,
                    opset_version=OPSET,
                    input_names=["image"],
                    output_names=["logits"],
                    verbose=False,
                )
                assert program is not None
                num_bytes = sum(weight.nbytes for weight in network.state_dict().values())
                program.save(folder / _FILE, external_data=num_bytes > _LARGE_BYTES)
        except OSError:
            raise
        except Exception as error:  # torch.export and torch.onnx raise errors of many kinds
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")
            if batch is None:
                _log.info("The network can be exported for one window at a time only: %s.", reason)
            continue
        return batch
    raise InputError(
        f"the network cannot be exported ({reason})", where="--to onnx", hint="Try --to openvino."
    )


def open_onnx(folder: Path) -> Run:
    """Return a function that computes the exported network in onnxruntime on the CPU, in fp32."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    path = folder / _FILE
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["logits"], {"image": images})[0]


class _StableNorm(nn.Module):
    """Instance or group norm in plain operations, with sums along one axis after the other.

    The sum of a whole window in float32, as onnxruntime and OpenVINO take it, is off by 1e-5 to 1e-4. Where a window
    holds one value throughout, that error is divided by a standard deviation of almost 0: logits differed by 0.1. So
    the mean is taken twice: what the first one is off by is subtracted, too.
    """

    def __init__(self, norm: nn.GroupNorm | _InstanceNorm) -> None:
        super().__init__()
        self.num_groups = norm.num_groups if isinstance(norm, nn.GroupNorm) else norm.num_features
        self.eps, self.weight, self.bias = norm.eps, norm.weight, norm.bias

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        batch, channels, *size = features.shape
        grouped = features.reshape(batch, self.num_groups, channels // self.num_groups, *size)
        centred = grouped - _mean(grouped)
        centred = centred - _mean(centred)
        result = (centred / (_mean(centred * centred) + self.eps).sqrt()).reshape(features.shape)
        if self.weight is None:
            return result
        ones = [1] * len(size)
        return result * self.weight.view(-1, *ones) + self.bias.view(-1, *ones)


def _mean(features: torch.Tensor) -> torch.Tensor:
    """Return the mean over all but the first two axes, which stay as 1."""
    for axis in range(features.ndim - 1, 1, -1):
        if features.shape[axis] > 1:
            features = features.mean(axis, keepdim=True)
    return features


def with_stable_norms(network: nn.Module) -> nn.Module:
    """Return a copy of a network whose instance and group norms are `_StableNorm`."""
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm | _InstanceNorm):
                setattr(module, name, _StableNorm(child))
    return network


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep the libraries' progress and warnings about their own code off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for each in loggers:
            each.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for each, level in zip(loggers, levels, strict=True):
                each.setLevel(level)
