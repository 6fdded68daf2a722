"""The losses by name, over one or several output scales, with ignored voxels and class weights.

| name | terms | head |
|---|---|---|
| ce, dice_ce | cross-entropy, with Dice | softmax: labels that exclude one another |
| bce, dice_bce | binary cross-entropy, with Dice | sigmoid: regions |
| dice, focal, dice_focal, tversky, focal_tversky | as named | both |
| hausdorff_dt | Dice and distances from the outlines; slow, the distances are computed on the CPU | both |
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
_LEAST_HAUSDORFF = 1e-3  # below which the distances' share fades


class SegmentationLoss(nn.Module):
    """Mean over samples of a loss of each sample by itself, summed over one or several output scales.

    Scales weigh 1, 1/2, 1/4, ... normalised to a sum of one; a coarser scale sees the label at its nearest voxels.
    Voxels of the description's `ignore` label add nothing at any scale. Class weights multiply each target's part
    (and the background's, where the loss counts it) of a weighted mean.

    After a call `last_scales` holds the loss of each scale, finest first, and `last_terms` each term at the finest
    scale, detached and on the device, so that reading them is what waits.
    """

    def __init__(
        self, description: Description, name: LossName = "auto", class_weights: Mapping[str, float] = {}
    ) -> None:
        """Choose the loss by name; "auto" is dice_bce for regions, else dice_ce.

        Raises:
            InputError: loss, labels and class weights do not fit one another.
        """
        super().__init__()
        check_loss(name, description, class_weights)
        self.terms = _TERMS[resolve_loss(name, description)]
        self.softmax = not description.regions
        self.declared = sorted(description.labels.values())
        channels = {"background": (0,), **description.targets} if self.softmax else description.targets
        table = [_mark(values) for values in channels.values()]
        if description.ignore_value is not None:
            table.append(1 - _mark([description.ignore_value]))
        # Table (C, 256): which label values each channel unites; where some are ignored, one row more: which are not.
        self.table: torch.Tensor
        self.undeclared: torch.Tensor
        self.weights: torch.Tensor
        self.register_buffer("table", torch.stack(table), persistent=False)
        self.register_buffer("undeclared", _mark(self.declared) == 0, persistent=False)
        weights = torch.tensor([class_weights.get(channel, 1.0) for channel in channels])
        self.register_buffer("weights", weights, persistent=False)
        self.last_scales: list[torch.Tensor] = []
        self.last_terms: dict[str, torch.Tensor] = {}

    def forward(self, logits: Sequence[torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss.

        Args:
            logits: `(B, C, *size)` each, finest first; in half precision they are computed with in float32.
            label: `(B, 1, *size)` with the dataset's own values, 0 to 255.

        Raises:
            DataError: on a CPU, the label holds values that are not declared. On a card, where looking would make
                it wait at every step, the loss is then NaN, and `check_label` says why.
        """
        if label.device.type == "cpu":
            self.check_label(label)
        scales = []
        for number, output in enumerate(logits):
            size = output.shape[2:]
            scale = self._compare(output.float(), label if label.shape[2:] == size else _nearest(label, size))
            values = {name: term(scale) for name, term in self.terms.items()}
            scales.append(_sum_of(values).mean())
            if number == 0:
                self.last_terms = {name: value.detach().mean() for name, value in values.items()}
        self.last_scales = [value.detach() for value in scales]
        weights = [0.5**number for number in range(len(scales))]
        total = sum(
            (weight / sum(weights) * value for weight, value in zip(weights, scales, strict=True)),
            start=torch.zeros((), device=label.device),
        )
        return total if label.device.type == "cpu" else total.masked_fill(self._is_strange(label), torch.nan)

    def check_label(self, label: torch.Tensor) -> None:
        """Check that a label holds declared values only.

        Raises:
            DataError: it holds others; names them.
        """
        if self._is_strange(label):
            strange = sorted(set(label.unique().int().tolist()) - set(self.declared))
            raise DataError(
                f"label values {strange} are not among the declared {self.declared}",
                where="training",
                hint="Run the check again, and correct the label or declare its values.",
            )

    def _is_strange(self, label: torch.Tensor) -> torch.Tensor:
        return self.undeclared.to(label.device).index_select(0, label.flatten().int()).any()

    def _compare(self, logits: torch.Tensor, label: torch.Tensor) -> Scale:
        channels, table = len(self.weights), self.table.to(label.device)
        rows = table.index_select(1, label.flatten().int()).unflatten(1, (len(label), *label.shape[2:]))
        found = rows.transpose(0, 1)
        counted = found[:, channels:] if len(table) > channels else None
        return Scale(logits, found[:, :channels], counted, self.weights.to(label.device), self.softmax)


def _mark(values: Sequence[int]) -> torch.Tensor:
    """Return float32 `(256,)`: 1 at the given label values."""
    marks = torch.zeros(256)
    marks[list(values)] = 1
    return marks


def _sum_of(values: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the sum of the terms of each sample.

    Distances weigh as much as Dice, as their authors advise: they are multiplied by the ratio of the two, taken as a
    constant. The authors take it from the means of an epoch; each sample's own needs nothing to be remembered.
    """
    if "hausdorff" in values:
        dice, distance = values["dice"], values["hausdorff"]
        return dice + dice.detach() / distance.detach().clamp_min(_LEAST_HAUSDORFF) * distance
    return torch.stack(list(values.values())).sum(0)


def _nearest(label: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return F.interpolate(label.float(), tuple(size), mode="nearest-exact").to(label.dtype)
