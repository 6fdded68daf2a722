"""The Lightning module: a network, its loss, its optimiser, and validation in windows.

Every random draw of a step is a function of (seed, epoch, index) or (seed, step): a run that is killed and resumed,
or spread over several processes, sees what an undisturbed one sees.
"""

import math
import time
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from medunet.base.errors import InputError
from medunet.compute.devices import autocast
from medunet.compute.processes import ALONE, Processes
from medunet.compute.workloads import to_channels_last
from medunet.networks.builder import build_network, encoder_parameters
from medunet.records.config import Config
from medunet.records.description import Description
from medunet.records.plan import Plan
from medunet.training.data import FoldData
from medunet.training.losses import SegmentationLoss
from medunet.training.optimisation import average_of, learning_rate, make_optimizer
from medunet.training.probe import ComputeChoice
from medunet.training.validation import CaseResult, summarise, validate_case
from medunet.training.windows import choose_windows
from medunet.transforms.augment import allowed_mirror_axes, apply_parameters, sample_parameters

_CHECK_EVERY = 10  # steps between looks at the loss: a look makes a card wait


class SegmentationModule(L.LightningModule):
    """Trains one fold; `history` holds one row of plain numbers per validation and travels in the checkpoint.

    What callbacks read: `history`; `cases`, the newest validation case by case; `step_losses`, one loss a batch of
    this epoch; `gradient_norm`; `elapsed_s`; `progress()`.
    """

    def __init__(
        self,
        plan: Plan,
        description: Description,
        config: Config,
        compute: ComputeChoice,
        identity: str,
        processes: Processes = ALONE,
        *,
        num_windows: int | None = None,
    ) -> None:
        """`identity` is a hash of what a checkpoint must agree with to be resumed.

        `num_windows` is how many of a case's windows are validated at most; None: all.
        """
        super().__init__()
        self.identity, self.compute, self.processes = identity, compute, processes
        self.num_windows = num_windows
        self.plan, self.description, self.run_config = plan, description, config
        training = config.training
        self.network = build_network(plan, description)
        if compute.channels_last:
            self.network = to_channels_last(self.network, plan.dimensions)
        if training.freeze_encoder:
            for parameter in encoder_parameters(self.network):
                parameter.requires_grad_(False)
        self.average = average_of(self.network, training.ema_decay) if training.ema_decay else None
        forward: Any = torch.compile(self.network) if compute.compile else self.network
        self.forward_training = forward.__call__  # a module here would be kept in checkpoints a second time
        self.loss = SegmentationLoss(description, training.loss, training.class_weights)
        self.history: list[dict[str, float]] = []
        self.cases: list[CaseResult] = []
        self.step_losses: list[torch.Tensor] = []
        self.gradient_norm: torch.Tensor | None = None
        self.elapsed_s = 0.0
        self._results: dict[int, CaseResult] = {}
        self._last_tick: float | None = None
        self._epoch_start_s = self._train_s = 0.0

    # ---- optimisation -------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the configured optimiser; its rate is set at every step."""
        return make_optimizer(self.network.parameters(), self.run_config.training)

    @property
    def predictor(self) -> nn.Module:
        """The network that is validated and kept: the average of the weights where one is asked for."""
        return self.network if self.average is None else self.average.module

    def progress(self, *, now: bool = False) -> float:
        """Return how far training has come, 0 to 1: by steps, or by minutes if those end first.

        As all processes agree on, when the clock was last read; with `now` by this process's own clock.
        """
        training = self.run_config.training
        by_steps = self.global_step / (training.epochs * training.steps_per_epoch)
        elapsed_s = self.elapsed_s + (time.monotonic() - self._last_tick if now and self._last_tick else 0.0)
        by_time = elapsed_s / (60 * training.max_minutes) if training.max_minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    def on_train_start(self) -> None:
        """Start the clock; time before a resume is already in `elapsed_s`."""
        self.step_losses = [loss.to(self.device) for loss in self.step_losses]
        for part in self.network.modules():  # a frozen batch norm keeps its statistics, too
            if isinstance(part, _BatchNorm) and part.weight is not None and not part.weight.requires_grad:
                part.eval()
        self._last_tick = time.monotonic()

    def on_train_epoch_start(self) -> None:
        """Begin an epoch's bookkeeping; not called where a run goes on in the middle of one."""
        self._tick()  # what callbacks wrote since the last epoch is no part of this one
        self.step_losses, self._epoch_start_s = [], self.elapsed_s

    def _tick(self) -> None:
        now = time.monotonic()
        self.elapsed_s += now - (self._last_tick or now)
        self._last_tick = now
        if self.run_config.training.max_minutes and self.trainer.world_size > 1:
            shared = torch.tensor([self.elapsed_s], dtype=torch.float64, device=self.device)
            dist.broadcast(shared, src=0)  # one clock for all, or their learning rates would part
            self.elapsed_s = shared.item()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate, and the seed of what is drawn within the network (dropout)."""
        torch.manual_seed(hash((self.run_config.seed, self.current_epoch, batch_idx, self.global_rank)))
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = self.current_rate()

    def current_rate(self) -> float:
        """Return the learning rate of the step to come."""
        return learning_rate(self.run_config.training, self.progress(), self.global_step)

    def on_before_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Keep the patches' addresses off the card: to read them back would make it wait at every step."""
        return {**batch, "address": batch["address"].tolist()} if "address" in batch else batch

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Augment training batches on the device, from parameters drawn by (seed, epoch, index)."""
        training, plan = self.run_config.training, self.plan
        if not self.trainer.training or not training.augment:
            return batch
        axes = [axis for axis in range(3) if plan.dimensions == 3 or axis != plan.slice_axis]
        spacing = tuple(plan.spacing_mm[axis] for axis in axes)
        parameters = [
            sample_parameters(
                np.random.default_rng([self.run_config.seed, 1, *address]),
                dimensions=plan.dimensions,
                num_channels=batch["image"].shape[1],
                context_slices=plan.context_slices,
                mirror_axes=allowed_mirror_axes(
                    plan.dimensions, plan.slice_axis, sided=self.description.sided, mirror=training.mirror
                ),
                plane_only=plan.slice_axis if plan.anisotropic else None,
                elastic=training.elastic,
                brightness_jitter=training.brightness_jitter,
                patch_extent_mm=tuple(n * mm for n, mm in zip(plan.patch_size, spacing, strict=True)),
            )
            for address in batch["address"]
        ]
        image, label = apply_parameters(batch["image"], batch["label"], parameters, plan.patch_size, spacing)
        return {**batch, "image": image, "label": label}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch; the label of an unpadded network is cut to what it outputs.

        Raises:
            InputError: the loss is no longer finite, so that going on would only waste time.
        """
        label = batch["label"]
        if any(self.plan.valid_margin):
            label = label[(..., *(slice(margin, -margin) for margin in self.plan.valid_margin))]
        loss = self.loss(self.forward_training(self._laid_out(batch["image"])), label)
        self.step_losses.append(loss.detach())
        if batch_idx % _CHECK_EVERY == 0 and not math.isfinite(value := loss.item()):
            self.loss.check_label(label)
            raise self._diverged(f"the training loss became {value}")
        return loss

    def _laid_out(self, image: torch.Tensor) -> torch.Tensor:
        return to_channels_last(image, self.plan.dimensions) if self.compute.channels_last else image

    def _diverged(self, what: str) -> InputError:
        return InputError(
            f"{what} at step {self.global_step}",
            where="training",
            hint="Lower training.learning_rate, or set training.precision=fp32.",
        )

    @torch.no_grad()
    def _require_finite(self) -> None:
        """Refuse to go on with weights that are NaN or infinite, which no further step would repair."""
        if not torch.nn.utils.get_total_norm(list(self.network.parameters())).isfinite():
            raise self._diverged("the weights are no longer finite")

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient's norm and keep what it was."""
        assert gradient_clip_val is not None
        self.gradient_norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Step, then average the weights: before any callback may save them."""
        super().optimizer_step(*arguments, **options)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keep the time, and stop behind a whole step when steps or minutes are over, with a validation."""
        self._tick()
        if self.progress() >= 1.0 and (batch_idx + 1) % self.run_config.training.accumulate == 0:
            self.trainer.should_stop = True
            self.trainer.check_val_every_n_epoch = 1

    # ---- validation ---------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Note how long the epoch's training took, before validation takes its time."""
        self._require_finite()
        self._tick()
        self._train_s = max(1e-9, self.elapsed_s - self._epoch_start_s)
        self._results = {}

    def validation_step(self, batch: dict[str, int], batch_idx: int) -> None:
        """Validate one case, given by its number, in its windows."""
        data: FoldData = self.trainer.datamodule  # type: ignore[attr-defined]
        case = data.validation[batch["number"]]
        self._results[batch["number"]] = validate_case(
            case,
            choose_windows(case, self.plan, self.num_windows, self.run_config.seed),
            self._predict,
            self.loss,
            self.plan,
            self.description,
            batch_size=data.batch_size,
        )

    def _predict(self, image: torch.Tensor) -> torch.Tensor:
        """Return float32 logits of the network that is kept, the finest scale alone."""
        with autocast(self.device, self.compute.precision):
            return self.predictor(self._laid_out(image.to(self.device))).float()

    def on_validation_epoch_end(self) -> None:
        """Add a row to the history: means over all processes' cases, each counted once; stop if time is over."""
        mean_loss = float(torch.stack(self.step_losses).double().mean())
        shares = self.processes.gather((self._results, mean_loss))
        results = {number: result for share, _ in shares for number, result in share.items()}
        self.cases = [results[number] for number in sorted(results)]
        row = summarise(self.cases, self.description)
        self._tick()
        self.history.append(
            {
                "epoch": self.current_epoch,
                "step": self.global_step,
                "minutes": round(self.elapsed_s / 60, 3),
                "learning_rate": self.current_rate(),
                "loss": float(np.mean([loss for _, loss in shares])),
                "validation_loss": float(np.mean([case.loss for case in self.cases])),
                "patches_per_s": round(len(self.step_losses) * self.plan.batch_size / self._train_s, 3),
                **row,
            }
        )
        if self.progress() >= 1.0:
            self.trainer.should_stop = True

    # ---- state --------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what resuming needs beside the weights, as plain values.

        Raises:
            InputError: the weights are no longer finite: the checkpoint before is the better one.
        """
        self._require_finite()
        checkpoint["medunet"] = {
            "history": self.history,
            "elapsed_s": self.elapsed_s,
            "epoch_start_s": self._epoch_start_s,
            "step_losses": torch.stack(self.step_losses).cpu() if self.step_losses else torch.empty(0),
            "identity": self.identity,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up where the checkpoint left off."""
        own = checkpoint["medunet"]
        self.history = list(own["history"])
        self.elapsed_s, self._epoch_start_s = own["elapsed_s"], own["epoch_start_s"]
        self.step_losses = list(own["step_losses"])
