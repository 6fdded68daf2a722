"""Segmentation losses by name, over one or several output scales, with an ignore label and class weights.

| name | terms | head |
|---|---|---|
| ce, dice_ce | cross-entropy, with Dice | softmax: mutually exclusive labels |
| bce, dice_bce | binary cross-entropy, with Dice | sigmoid: regions |
| dice, focal, dice_focal, tversky, focal_tversky | as named | both |
| hausdorff_dt | Dice and surface distances; slow, the distance transforms are computed on the CPU | both |
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from medunet.base.errors import DataError
from medunet.records.config import LossName
from medunet.records.description import Description
from medunet.records.loss_checks import check_loss, resolve_loss
from medunet.training import loss_terms as terms
from medunet.training.loss_terms import Scale

_TERMS: dict[str, dict[str, Callable[[Scale], torch.Tensor]]] = {
    "ce": {"ce": terms.cross_entropy},
    "bce": {"bce": terms.binary_cross_entropy},
    "dice": {"dice": terms.dice},
    "dice_ce": {"dice": terms.dice, "ce": terms.cross_entropy},
    "dice_bce": {"dice": terms.dice, "bce": terms.binary_cross_entropy},
    "focal": {"focal": terms.focal},
    "dice_focal": {"dice": terms.dice, "focal": terms.focal},
    "tversky": {"tversky": terms.tversky},
    "focal_tversky": {"focal_tversky": terms.focal_tversky},
    "hausdorff_dt": {"dice": terms.dice, "hausdorff": terms.hausdorff},
}
_MIN_HAUSDORFF = 1e-3  # below it the weight of the distances no longer grows


class SegmentationLoss(nn.Module):
    """Segmentation loss: mean over samples, weighted sum over one or several output scales.

    Scales have the weights 1, 1/2, 1/4, ... normalised to a sum of one; for coarser scales the label is resampled by
    nearest neighbour. Voxels of the description's `ignore` label are excluded at every scale. Class weights are the
    weights of the targets (and of background, if the loss includes it) in a weighted mean.

    After a call `last_scales` holds the loss of each scale, finest first, and `last_terms` each term at the finest
    scale. They are detached and stay on the device, so that only reading them synchronises.
    """

    def __init__(
        self, description: Description, name: LossName = "auto", class_weights: Mapping[str, float] = {}
    ) -> None:
        """Choose the loss by name; "auto" is dice_bce for regions, otherwise dice_ce.

        Raises:
            InputError: loss, labels and class weights are incompatible.
        """
        super().__init__()
        check_loss(name, description, class_weights)
        self.terms = _TERMS[resolve_loss(name, description)]
        self.softmax = not description.regions
        self.declared = sorted(description.labels.values())
        channels = {"background": (0,), **description.targets} if self.softmax else description.targets
        table = [_indicator(values) for values in channels.values()]
        if description.ignore_value is not None:
            table.append(1 - _indicator([description.ignore_value]))
        # Table (C, 256): 1 for the label values of each channel; an ignore label adds a row: 1 for valid values.
        self.table: torch.Tensor
        self.undeclared: torch.Tensor
        self.weights: torch.Tensor
        self.register_buffer("table", torch.stack(table), persistent=False)
        self.register_buffer("undeclared", _indicator(self.declared) == 0, persistent=False)
        weights = torch.tensor([class_weights.get(channel, 1.0) for channel in channels])
        self.register_buffer("weights", weights, persistent=False)
        self.last_scales: list[torch.Tensor] = []
        self.last_terms: dict[str, torch.Tensor] = {}

    def forward(self, logits: Sequence[torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss.

        Args:
            logits: `(B, C, *size)` each, finest first; half precision is converted to float32.
            label: `(B, 1, *size)` with the dataset's own values, 0 to 255.

        Raises:
            DataError: on a CPU, the label has undeclared values. On a GPU, where this check would synchronise at
                every step, the loss is NaN instead, and `check_label` raises the error.
        """
        if label.device.type == "cpu":
            self.check_label(label)
        scales = []
        for number, output in enumerate(logits):
            size = output.shape[2:]
            scale = self._make_scale(
                output.float(), label if label.shape[2:] == size else _nearest(label, size)
            )
            values = {name: term(scale) for name, term in self.terms.items()}
            scales.append(_sum_terms(values).mean())
            if number == 0:
                self.last_terms = {name: value.detach().mean() for name, value in values.items()}
        self.last_scales = [value.detach() for value in scales]
        weights = [0.5**number for number in range(len(scales))]
        total = sum(
            (weight / sum(weights) * value for weight, value in zip(weights, scales, strict=True)),
            start=torch.zeros((), device=label.device),
        )
        return (
            total if label.device.type == "cpu" else total.masked_fill(self._has_undeclared(label), torch.nan)
        )

    def check_label(self, label: torch.Tensor) -> None:
        """Check that a label has declared values only.

        Raises:
            DataError: it has other values; lists them.
        """
        if self._has_undeclared(label):
            undeclared = sorted(set(label.unique().int().tolist()) - set(self.declared))
            raise DataError(
                f"label values {undeclared} are not among the declared {self.declared}",
                where="training",
                hint="Run the check again, and correct the label or declare its values.",
            )

    def _has_undeclared(self, label: torch.Tensor) -> torch.Tensor:
        return self.undeclared.to(label.device).index_select(0, label.flatten().int()).any()

    def _make_scale(self, logits: torch.Tensor, label: torch.Tensor) -> Scale:
        channels, table = len(self.weights), self.table.to(label.device)
        rows = table.index_select(1, label.flatten().int()).unflatten(1, (len(label), *label.shape[2:]))
        reference = rows.transpose(0, 1)
        valid = reference[:, channels:] if len(table) > channels else None
        return Scale(logits, reference[:, :channels], valid, self.weights.to(label.device), self.softmax)


def _indicator(values: Sequence[int]) -> torch.Tensor:
    """Return float32 `(256,)`: 1 at the given label values, otherwise 0."""
    indicator = torch.zeros(256)
    indicator[list(values)] = 1
    return indicator


def _sum_terms(values: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the sum of the terms of each sample.

    The Hausdorff term has the same weight as Dice, as its authors recommend: it is multiplied by the ratio of the
    two, taken as a constant. The authors compute the ratio from the means of an epoch, here from each sample.
    """
    if "hausdorff" in values:
        dice, distance = values["dice"], values["hausdorff"]
        return dice + dice.detach() / distance.detach().clamp_min(_MIN_HAUSDORFF) * distance
    return torch.stack(list(values.values())).sum(0)


def _nearest(label: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return F.interpolate(label.float(), tuple(size), mode="nearest-exact").to(label.dtype)
