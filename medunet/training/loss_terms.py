"""The terms that losses add up, each one value per sample.

A sample's value depends on that sample alone, so that a batch divided among processes, whose gradients are
averaged, trains as it would whole.

Legend: `B` batch, `C` output channels, `T` targets; `*size` is `I J K`, in 2D two of them.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from monai.losses.dice import DiceLoss
from monai.losses.focal_loss import FocalLoss
from monai.losses.hausdorff_loss import HausdorffDTLoss
from monai.losses.tversky import TverskyLoss

_FOCAL_TVERSKY_GAMMA = 4 / 3
_DICE = DiceLoss(reduction="none")
_TVERSKY = TverskyLoss(alpha=0.3, beta=0.7, reduction="none")
_HAUSDORFF = HausdorffDTLoss(include_background=True, reduction="none")
_FOCAL_SOFTMAX = FocalLoss(gamma=2.0, use_softmax=True, reduction="none")
_FOCAL_SIGMOID = FocalLoss(gamma=2.0, reduction="none")


@dataclass(frozen=True)
class Scale:
    """What a network said at one scale, beside the reference.

    With softmax the channels are background and targets, which exclude one another; else targets alone.
    """

    logits: torch.Tensor  # float32 (B, C, *size)
    reference: (
        torch.Tensor
    )  # float32 (B, C, *size): 1 in the voxels of a channel's class, 0 in all that are ignored
    counted: torch.Tensor | None  # float32 (B, 1, *size): 0 in voxels that are ignored; None where all count
    weights: torch.Tensor  # float32 (C,)
    softmax: bool

    @property
    def first(self) -> int:
        """The first target's channel."""
        return 1 if self.softmax else 0

    @property
    def members(self) -> torch.Tensor:
        """Reference of the targets, `(B, T, *size)`."""
        return self.reference[:, self.first :]

    @cached_property
    def log_softmax(self) -> torch.Tensor:
        """Logarithms of the probabilities of all classes, `(B, C, *size)`."""
        return torch.log_softmax(self.logits, 1)

    @cached_property
    def probabilities(self) -> torch.Tensor:
        """Probabilities of the targets, `(B, T, *size)`, 0 in voxels that are ignored."""
        all_classes = self.log_softmax.exp() if self.softmax else self.logits.sigmoid()
        of_targets = all_classes[:, self.first :]
        return of_targets if self.counted is None else of_targets * self.counted

    def mean_over_targets(self, values: torch.Tensor) -> torch.Tensor:
        """Return the weighted means `(B,)` of one value per sample and target, `(B, T)`."""
        weights = self.weights[self.first :]
        return (values * weights).sum(1) / weights.sum()

    def mean_over_voxels(self, values: torch.Tensor) -> torch.Tensor:
        """Return the means `(B,)` over counted voxels of a value per voxel and channel, `(B, C, *size)`.

        With softmax a voxel has the value and the weight of its own class, and weights are normalised to a sum of
        one in each sample, as `torch.nn.CrossEntropyLoss` does in a batch; a sample without any weight costs
        nothing. Without, the mean of each target is weighted as in `mean_over_targets`.
        """
        if self.softmax:
            sums = (values * self.reference).flatten(2).sum(2)
            counts = self.reference.flatten(2).sum(2)
            return (sums * self.weights).sum(1) / (counts * self.weights).sum(1).clamp_min(1e-12)
        if self.counted is None:
            return self.mean_over_targets(values.flatten(2).mean(2))
        counts = self.counted.flatten(2).sum(2).clamp_min(1)
        return self.mean_over_targets((values * self.counted).flatten(2).sum(2) / counts)


def cross_entropy(scale: Scale) -> torch.Tensor:
    """Cross-entropy of classes that exclude one another."""
    return scale.mean_over_voxels(-scale.log_softmax)


def binary_cross_entropy(scale: Scale) -> torch.Tensor:
    """Cross-entropy of each region with its complement."""
    return scale.mean_over_voxels(
        F.binary_cross_entropy_with_logits(scale.logits, scale.reference, reduction="none")
    )


def focal(scale: Scale) -> torch.Tensor:
    """Focal loss with gamma 2 (Lin et al. 2017), by MONAI: cross-entropy in which easy voxels count little.

    At gamma 0 it would be the cross-entropy, hence C times MONAI's own mean with softmax, which divides by the
    number of classes too.
    """
    of_voxels = _FOCAL_SOFTMAX if scale.softmax else _FOCAL_SIGMOID
    return scale.mean_over_voxels(of_voxels(scale.logits, scale.reference))


def dice(scale: Scale) -> torch.Tensor:
    """One minus the soft Dice of each target, by MONAI with its smoothing of 1e-5; background is no target."""
    return scale.mean_over_targets(_DICE(scale.probabilities, scale.members).flatten(1))


def tversky(scale: Scale) -> torch.Tensor:
    """Tversky loss, by MONAI: Dice in which false positives weigh 0.3, false negatives 0.7 (Salehi et al. 2017)."""
    return scale.mean_over_targets(_TVERSKY(scale.probabilities, scale.members))


def focal_tversky(scale: Scale) -> torch.Tensor:
    """Tversky loss of each target to the power 1 / gamma, gamma 4/3 (Abraham and Khan 2018, arXiv:1810.07842).

    A power below one lets what is nearly right still count. Its slope is infinite at 0, so a target's loss below
    1e-6 counts as 1e-6.
    """
    losses = _TVERSKY(scale.probabilities, scale.members).clamp_min(1e-6)
    return scale.mean_over_targets(losses ** (1 / _FOCAL_TVERSKY_GAMMA))


def hausdorff(scale: Scale) -> torch.Tensor:
    """Squared errors weighted by squared distances in voxels to both outlines, by MONAI.

    Karimi and Salcudean 2019, arXiv:1904.10030, with their alpha of 2. The distances are computed on the CPU, sample
    by sample; a mask that is empty has no outline and adds none.
    """
    return scale.mean_over_targets(_HAUSDORFF(scale.probabilities, scale.members).flatten(1))
