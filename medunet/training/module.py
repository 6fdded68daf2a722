"""The Lightning module: a network, its loss, its optimiser, and validation on whole volumes."""

import math
import time
from typing import Any

import lightning as L
import numpy as np
import torch

from medunet.config import Config
from medunet.errors import InputError
from medunet.inference.sliding_window import predict_probabilities, to_label_map
from medunet.networks.builder import build_network
from medunet.networks.devices import Precision
from medunet.plans import Plan
from medunet.records import Description
from medunet.training.losses import SegmentationLoss
from medunet.transforms.augment import apply_parameters, sample_parameters


class SegmentationModule(L.LightningModule):
    """Trains one fold; `history` holds one row of plain numbers per epoch and travels in the checkpoint."""

    def __init__(
        self, plan: Plan, description: Description, config: Config, precision: Precision, identity: str
    ) -> None:
        """`identity` is a hash of what a checkpoint must agree with to be resumed."""
        super().__init__()
        self.identity = identity
        self.plan, self.description, self.run_config = plan, description, config
        self.compute_precision: Precision = precision
        self.network = build_network(plan, description)
        self.loss = SegmentationLoss(description)
        self.history: list[dict[str, float]] = []
        self.elapsed_s = 0.0
        self._epoch_losses: list[float] = []
        self._validation: list[dict[str, float]] = []
        self._last_tick: float | None = None
        self._epoch_start_s = self._patches_per_s = 0.0
        self.shown: tuple[str, torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    # ---- optimisation -------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, or SGD with Nesterov momentum 0.99 as nnU-Net."""
        training = self.run_config.training
        if training.optimizer == "adamw":
            return torch.optim.AdamW(
                self.network.parameters(), training.learning_rate, weight_decay=training.weight_decay
            )
        return torch.optim.SGD(
            self.network.parameters(),
            training.learning_rate,
            momentum=0.99,
            nesterov=True,
            weight_decay=training.weight_decay,
        )

    def progress(self) -> float:
        """Return how far training has come, 0 to 1: by steps, or by minutes if those end first."""
        training = self.run_config.training
        by_steps = self.global_step / (training.epochs * training.steps_per_epoch)
        by_time = self.elapsed_s / (60 * training.max_minutes) if training.max_minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    def on_train_start(self) -> None:
        """Start the clock; time before a resume is already in `elapsed_s`."""
        self._last_tick = time.monotonic()

    def on_train_epoch_start(self) -> None:
        """Begin an epoch's bookkeeping."""
        self._epoch_losses, self._epoch_start_s = [], self.elapsed_s

    def _tick(self) -> None:
        """Add the time since the last tick to the time that training has taken in all its sessions."""
        now = time.monotonic()
        self.elapsed_s += now - (self._last_tick or now)
        self._last_tick = now

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate: polynomial decay to zero, power 0.9."""
        rate = self.run_config.training.learning_rate * (1 - self.progress()) ** 0.9
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = rate

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Augment training batches on the device, from parameters drawn by (seed, epoch, index)."""
        training = self.run_config.training
        if not self.trainer.training or not training.augment:
            return batch
        plan = self.plan
        axes = [axis for axis in range(3) if plan.dimensions == 3 or axis != plan.slice_axis]
        # Axis 0 runs from left to right in RAS: mirroring it would swap sided labels.
        allowed = tuple(i for i, axis in enumerate(axes) if axis != 0 or not self.description.sided)
        parameters = [
            sample_parameters(
                np.random.default_rng([self.run_config.seed, 1, *address]),
                dimensions=plan.dimensions,
                num_channels=batch["image"].shape[1],
                mirror_axes=allowed if training.mirror else (),
                plane_only=plan.slice_axis if plan.anisotropic else None,
            )
            for address in batch["address"].tolist()
        ]
        spacing = tuple(plan.spacing_mm[axis] for axis in axes)
        image, label = apply_parameters(batch["image"], batch["label"], parameters, plan.patch_size, spacing)
        return {**batch, "image": image, "label": label}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch.

        Raises:
            InputError: the loss is no longer finite, so that going on would only waste time.
        """
        loss = self.loss(self.network(batch["image"]), batch["label"])
        value = loss.item()
        if not math.isfinite(value):
            raise InputError(
                f"the training loss became {value} at step {self.global_step}",
                where="training",
                mend="Lower training.learning_rate, or set training.precision=fp32.",
            )
        self._epoch_losses.append(value)
        self.log("loss", value, prog_bar=True, logger=False)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keep the time, log every tenth step, and stop when the minutes are over."""
        self._tick()
        if self.global_step % 10 == 0 or batch_idx == 0:
            self._scalar("train/loss", self._epoch_losses[-1])
            self._scalar("train/learning_rate", self._learning_rate())
        if self.progress() >= 1.0:
            self.trainer.should_stop = True

    # ---- validation ---------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Note how fast the epoch's training went, before validation takes its time."""
        self._tick()
        seconds = max(1e-9, self.elapsed_s - self._epoch_start_s)
        self._patches_per_s = len(self._epoch_losses) * self.plan.batch_size / seconds

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Predict one whole volume on the network's grid and keep its Dice per target."""
        probabilities = predict_probabilities(
            self.network,
            batch["image"],
            self.plan,
            self.description,
            device=self.device,
            precision=self.compute_precision,
            overlap=self.run_config.inference.overlap,
        )
        prediction, label = to_label_map(probabilities, self.description), batch["label"].cpu()
        if batch_idx == 0:
            self.shown = (batch["id"], batch["image"].cpu(), label, prediction)
        dice = {}
        for name, values in self.description.targets.items():
            members = torch.tensor(values, dtype=torch.uint8)
            reference, predicted = torch.isin(label, members), torch.isin(prediction, members)
            total = int(reference.sum() + predicted.sum())
            dice[name] = 2 * int((reference & predicted).sum()) / total if total else math.nan
        self._validation.append(dice)

    def on_validation_epoch_end(self) -> None:
        """Log Dice per target and their mean: over cases, of the mean over targets; undefined ones left out."""
        cases, self._validation = self._validation, []
        row = {f"dice_{name}": _mean([case[name] for case in cases]) for name in self.description.targets}
        row["dice"] = _mean([_mean(list(case.values())) for case in cases])
        self._tick()
        self.history.append(
            {
                "epoch": self.current_epoch,
                "step": self.global_step,
                "minutes": round(self.elapsed_s / 60, 3),
                "learning_rate": self._learning_rate(),
                "loss": _mean(self._epoch_losses),
                "patches_per_s": round(self._patches_per_s, 3),
                **row,
            }
        )
        for name, value in row.items():
            self._scalar(f"validation/{name}", value)
        self._scalar("train/patches_per_s", self.history[-1]["patches_per_s"])
        self.log("val_dice", 0.0 if math.isnan(row["dice"]) else row["dice"], prog_bar=True, logger=False)

    # ---- state --------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what resuming needs beside the weights, as plain values."""
        checkpoint["medunet"] = {
            "history": self.history,
            "elapsed_s": self.elapsed_s,
            "identity": self.identity,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up where the checkpoint left off."""
        self.history = list(checkpoint["medunet"]["history"])
        self.elapsed_s = checkpoint["medunet"]["elapsed_s"]

    def _learning_rate(self) -> float:
        return float(self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]

    def _scalar(self, tag: str, value: float) -> None:
        writer = getattr(self.logger, "experiment", None)
        if writer is not None and math.isfinite(value):
            writer.add_scalar(tag, value, self.global_step)


def _mean(values: list[float]) -> float:
    """Mean of the defined values; NaN where there is none."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
