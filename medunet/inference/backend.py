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

    @property
    def num_members(self) -> int:
        """The number of networks; of several, `forward` returns the mean of their probabilities."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 logits `(B, K, *output)` for float32 images `(B, C, *patch)`, both on `device`.

        K is the number of the network's outputs. Several networks return probabilities instead, and if they were
        asked for apart, those of each network after the mean: `(1 + N) * K` channels.
        """


@dataclass(frozen=True)
class TorchBackend:
    """A network in PyTorch, in evaluation mode; in the channels-last layout if `channels_last` is set."""

    network: nn.Module
    device: torch.device
    precision: Precision
    channels_last: bool = False
    name: BackendName = "torch"
    num_members: int = 1

    @torch.inference_mode()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 logits, see `Backend`."""
        if self.channels_last:
            images = to_channels_last(images, images.ndim - 2)
        with autocast(self.device, self.precision):
            return self.network(images).float()


def window_probabilities(logits: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """Return the probabilities of logits `(B, K, *size)`; NaN where a logit is infinite."""
    probabilities = logits.sigmoid() if regions else logits.softmax(1)
    return probabilities.add_(logits, alpha=0)
