"""Backends: what computes a network's logits. One interface, so that prediction does not depend on the library."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from medunet.compute.choice_cache import BackendName
from medunet.compute.devices import Precision, autocast
from medunet.compute.workloads import to_channels_last


class Backend(Protocol):
    """A network that is ready to compute. Its name and precision are part of what a mask is made from."""

    @property
    def name(self) -> BackendName:
        """The library that computes."""

    @property
    def precision(self) -> Precision:
        """The precision that it computes in."""

    @property
    def device(self) -> torch.device:
        """Where it wants images and returns logits."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 logits `(B, K, *output)` for float32 images `(B, C, *patch)`, both on `device`."""


@dataclass(frozen=True)
class TorchBackend:
    """A network in PyTorch, in evaluation mode; in the channels-last layout if `channels_last` is set."""

    network: nn.Module
    device: torch.device
    precision: Precision
    channels_last: bool = False
    name: BackendName = "torch"

    @torch.inference_mode()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 logits, see `Backend`."""
        if self.channels_last:
            images = to_channels_last(images, images.ndim - 2)
        with autocast(self.device, self.precision):
            return self.network(images).float()
