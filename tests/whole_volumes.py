"""A stream's slabs put together to the logits of the whole volume, in 3D and 2D."""

import torch
from torch import nn

from medunet.inference.backend import TorchBackend
from medunet.inference.stream import WindowStream, open_stream
from medunet.records.config import InferenceConfig
from medunet.records.plan import Plan

CPU = torch.device("cpu")
SLICES = {"dimensions": 2, "patch_size": (16, 16), "kernel_sizes": ((3, 3),) * 2, "strides": ((1, 1), (2, 2))}


def as_2d(plan: Plan, **changes) -> Plan:
    """Return the plan of a 2D network."""
    return plan.model_copy(update=SLICES | changes)


def whole_logits(stream: WindowStream) -> torch.Tensor:
    """Return logits `(K, I, J, K)`; every slice comes once, in order."""
    parts: list[torch.Tensor] = []
    for slab in stream.slabs():
        assert slab.start == sum(part.shape[1] for part in parts)
        assert slab.logits.dtype == torch.float32
        parts.append(slab.logits.clone())
        slab.logits.fill_(7)  # whoever gets a slab may change it
    logits = torch.cat(parts, 1).movedim(1, 1 + stream.axis)
    assert logits.shape[1:] == stream.shape
    assert stream.num_done == stream.num_windows
    return logits


def stream_of(
    network: nn.Module, image: torch.Tensor, plan: Plan, batch: int = 4, *, regions: bool = False, **config
) -> WindowStream:
    """Return the stream of an image `(C, I, J, K)` through a network in fp32 on the CPU."""
    backend = TorchBackend(network, CPU, "fp32")
    options = InferenceConfig.parse(config, "test")
    return open_stream(backend, image, plan, options, regions=regions, batch=batch)


def logits_of(network: nn.Module, image: torch.Tensor, plan: Plan, batch: int = 4, **config) -> torch.Tensor:
    """Return the logits `(K, I, J, K)` of an image, as `stream_of`."""
    return whole_logits(stream_of(network, image, plan, batch, **config))
