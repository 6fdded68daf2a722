"""Slabs put together to the logits of whole volumes, in 2D and 3D; networks for it, and MONAI's logits."""

import torch
from monai.inferers.utils import sliding_window_inference
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


def monais(network: nn.Module, image: torch.Tensor, plan: Plan, overlap: float = 0.5) -> torch.Tensor:
    """Return MONAI's logits `(K, I, J, K)` of an image; of a 2D network for every slice."""
    batch = image[None] if plan.dimensions == 3 else image.movedim(1 + plan.slice_axis, 0)
    with torch.inference_mode():
        logits = sliding_window_inference(
            batch, plan.patch_size, 4, network, overlap, mode="gaussian", sigma_scale=0.125,
            padding_mode="replicate",
        )  # fmt: skip
    assert isinstance(logits, torch.Tensor)
    return logits[0] if plan.dimensions == 3 else logits.movedim(0, 1 + plan.slice_axis)


def convolve(dimensions: int, num_channels: int = 1, num_classes: int = 2) -> nn.Module:
    """Return a network that sees its surroundings, and the whole window by its norm."""
    torch.manual_seed(0)
    kind, norm = (nn.Conv3d, nn.InstanceNorm3d) if dimensions == 3 else (nn.Conv2d, nn.InstanceNorm2d)
    return nn.Sequential(
        kind(num_channels, 4, 3, padding=1), norm(4), nn.ReLU(), kind(4, num_classes, 5, padding=2)
    ).eval()


class Counting(nn.Module):
    """Gives two logits for each voxel from its own values, and notes what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(image.shape))
        return torch.cat([image.mean(1, keepdim=True), -image[:, :1]], 1)
