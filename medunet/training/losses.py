"""Dice with cross-entropy for exclusive labels, Dice with binary cross-entropy for regions; MONAI's Dice."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.losses.dice import DiceLoss
from torch import nn

from medunet.records import Description


class SegmentationLoss(nn.Module):
    """Mean of the Dice loss of each sample and target, plus cross-entropy, over one or several output scales.

    Logits are `(B, C, *size)`, labels `(B, 1, *size)` with the dataset's own values. Scales weigh 1, 1/2, 1/4, ...
    normalised to a sum of one; a coarser scale sees the label at its nearest voxels.
    """

    def __init__(self, description: Description) -> None:
        super().__init__()
        self.targets = tuple(description.targets.values())
        self.overlapping = bool(description.regions)
        self.dice = DiceLoss(
            sigmoid=self.overlapping, softmax=not self.overlapping, include_background=self.overlapping
        )

    def forward(self, logits: Sequence[torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss; `logits` are finest first."""
        weights = [0.5**scale for scale in range(len(logits))]
        total = logits[0].new_zeros((), dtype=torch.float32)
        for weight, output in zip(weights, logits, strict=True):
            size = output.shape[2:]
            scaled = label if label.shape[2:] == size else _nearest(label, size)
            total = total + weight / sum(weights) * self._one(output.float(), scaled)
        return total

    def _one(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        values = [torch.tensor(value, device=label.device, dtype=label.dtype) for value in self.targets]
        members = torch.cat([torch.isin(label, value) for value in values], 1).float()
        if self.overlapping:
            return self.dice(logits, members) + F.binary_cross_entropy_with_logits(logits, members)
        onehot = torch.cat([1 - members.sum(1, keepdim=True), members], 1)
        classes = sum(index * members[:, index - 1] for index in range(1, onehot.shape[1]))
        return self.dice(logits, onehot) + F.cross_entropy(logits, torch.as_tensor(classes).long())


def _nearest(label: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return F.interpolate(label.float(), tuple(size), mode="nearest-exact").to(label.dtype)
