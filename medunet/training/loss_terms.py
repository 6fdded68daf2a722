"""Terms of the losses, each one value per sample.

A sample's value does not depend on other samples. A batch that is divided among processes, whose gradients are
averaged, is therefore trained on in the same way as in one process.

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
    """A network's logits at one output scale, with the reference.

    With softmax the channels are background and the mutually exclusive targets, otherwise only the targets.
    """

    logits: torch.Tensor  # float32 (B, C, *size)
    reference: (
        torch.Tensor
    )  # float32 (B, C, *size): 1 in voxels of the channel's class, 0 elsewhere and if ignored
    valid: (
        torch.Tensor | None
    )  # float32 (B, 1, *size): 0 in ignored voxels, otherwise 1; None: no voxel is ignored
    weights: torch.Tensor  # float32 (C,)
    softmax: bool

    @property
    def first_target(self) -> int:
        """Channel of the first target."""
        return 1 if self.softmax else 0

    @property
    def target_reference(self) -> torch.Tensor:
        """Reference of the targets, `(B, T, *size)`."""
        return self.reference[:, self.first_target :]

    @cached_property
    def log_softmax(self) -> torch.Tensor:
        """Log-probabilities of all classes, `(B, C, *size)`."""
        return torch.log_softmax(self.logits, 1)

    @cached_property
    def probabilities(self) -> torch.Tensor:
        """Probabilities of the targets, `(B, T, *size)`; 0 in ignored voxels."""
        all_classes = self.log_softmax.exp() if self.softmax else self.logits.sigmoid()
        targets = all_classes[:, self.first_target :]
        return targets if self.valid is None else targets * self.valid

    def mean_over_targets(self, values: torch.Tensor) -> torch.Tensor:
        """Return the weighted means over targets `(B,)` of one value per sample and target, `(B, T)`."""
        weights = self.weights[self.first_target :]
        return (values * weights).sum(1) / weights.sum()

    def mean_over_voxels(self, values: torch.Tensor) -> torch.Tensor:
        """Return the means `(B,)` over valid voxels of one value per voxel and channel, `(B, C, *size)`.

        With softmax each voxel has the value and weight of its own class, and the weights of a sample are normalised
        to a sum of one, as `torch.nn.CrossEntropyLoss` does for a batch; the loss of a sample without any weight is
        0. With sigmoid the means of the targets are weighted as in `mean_over_targets`.
        """
        if self.softmax:
            sums = (values * self.reference).flatten(2).sum(2)
            counts = self.reference.flatten(2).sum(2)
            return (sums * self.weights).sum(1) / (counts * self.weights).sum(1).clamp_min(1e-12)
        if self.valid is None:
            return self.mean_over_targets(values.flatten(2).mean(2))
        counts = self.valid.flatten(2).sum(2).clamp_min(1)
        return self.mean_over_targets((values * self.valid).flatten(2).sum(2) / counts)


def cross_entropy(scale: Scale) -> torch.Tensor:
    """Return the cross-entropy of mutually exclusive classes."""
    return scale.mean_over_voxels(-scale.log_softmax)


def binary_cross_entropy(scale: Scale) -> torch.Tensor:
    """Return the binary cross-entropy of each region."""
    return scale.mean_over_voxels(
        F.binary_cross_entropy_with_logits(scale.logits, scale.reference, reduction="none")
    )


def focal(scale: Scale) -> torch.Tensor:
    """Return MONAI's focal loss with gamma 2 (Lin et al. 2017): cross-entropy with a low weight of easy voxels.

    It is scaled to equal the cross-entropy for gamma 0: with softmax it is C times MONAI's mean, which also divides
    by the number of classes.
    """
    voxel_loss = _FOCAL_SOFTMAX if scale.softmax else _FOCAL_SIGMOID
    return scale.mean_over_voxels(voxel_loss(scale.logits, scale.reference))


def dice(scale: Scale) -> torch.Tensor:
    """Return one minus the soft Dice of the targets, by MONAI with its smoothing of 1e-5, without background."""
    return scale.mean_over_targets(_DICE(scale.probabilities, scale.target_reference).flatten(1))


def tversky(scale: Scale) -> torch.Tensor:
    """Return MONAI's Tversky loss; false positives weigh 0.3, false negatives 0.7 (Salehi et al. 2017)."""
    return scale.mean_over_targets(_TVERSKY(scale.probabilities, scale.target_reference))


def focal_tversky(scale: Scale) -> torch.Tensor:
    """Return the focal Tversky loss: each target's to the power 3/4 (Abraham and Khan 2018, arXiv:1810.07842).

    The power below one keeps the gradient of nearly correct targets large. Its slope is infinite at 0, so that a
    target's loss is clamped to at least 1e-6.
    """
    losses = _TVERSKY(scale.probabilities, scale.target_reference).clamp_min(1e-6)
    return scale.mean_over_targets(losses ** (1 / _FOCAL_TVERSKY_GAMMA))


def hausdorff(scale: Scale) -> torch.Tensor:
    """Return MONAI's Hausdorff loss: squared errors weighted by squared distances in voxels to both surfaces.

    Karimi and Salcudean 2019, arXiv:1904.10030, with their alpha of 2. The distance transforms are computed on the
    CPU, sample by sample; an empty mask has no surface and adds no distance.
    """
    return scale.mean_over_targets(_HAUSDORFF(scale.probabilities, scale.target_reference).flatten(1))
