"""The Lightning module: network, loss, optimiser, augmentation on the device, and validation in windows.

All random numbers of a step depend only on (seed, epoch, index) or (seed, step). A run that is resumed, or
distributed over several processes, therefore draws the same as an uninterrupted run in one process.
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
from medunet.training.optimisation import learning_rate, make_ema, make_optimizer
from medunet.training.probe import ComputeChoice
from medunet.training.stop_request import StopRequest
from medunet.training.validation import CaseResult, summarise, validate_case, validation_loss
from medunet.training.windows import choose_windows
from medunet.transforms.augment import allowed_mirror_axes, apply_parameters, sample_parameters

_CHECK_EVERY = 10  # steps between checks of the loss, each of which synchronises a GPU


class SegmentationModule(L.LightningModule):
    """Lightning module that trains one fold.

    Callbacks read: `history`, one row of numbers per validation, stored in the checkpoint; `cases`, the results of
    the last validation; `step_losses`, one loss per batch of this epoch; `gradient_norm`; `elapsed_s`; `progress()`.
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
        stop: StopRequest | None = None,
    ) -> None:
        """`identity` is a hash that a checkpoint must have to be resumed.

        `num_windows` is the maximum number of windows validated per case; None: all. A request to `stop` ends a
        validation, which is done again after the resume.
        """
        super().__init__()
        self.identity, self.compute, self.processes = identity, compute, processes
        self.num_windows, self._stop, self._is_cut = num_windows, stop or StopRequest(), False
        self.plan, self.description, self.run_config = plan, description, config
        training = config.training
        self.network = build_network(plan, description)
        if compute.channels_last:
            self.network = to_channels_last(self.network, plan.dimensions)
        if training.freeze_encoder:
            for parameter in encoder_parameters(self.network):
                parameter.requires_grad_(False)
        self.average = make_ema(self.network, training.ema_decay) if training.ema_decay else None
        forward: Any = torch.compile(self.network) if compute.compile else self.network
        self.forward_training = forward.__call__  # a module would be stored in checkpoints a second time
        self.loss = SegmentationLoss(description, training.loss, training.class_weights)
        self.history: list[dict[str, float]] = []
        self.cases: list[CaseResult] = []
        self.step_losses: list[torch.Tensor] = []
        self.gradient_norm: torch.Tensor | None = None
        self.elapsed_s = 0.0
        self._results: dict[int, CaseResult] = {}
        self._clock_s: float | None = None
        self._epoch_start_s = self._train_s = 0.0

    # ---- optimisation -------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the configured optimiser; its learning rate is set before every step."""
        return make_optimizer(self.network.parameters(), self.run_config.training)

    @property
    def predictor(self) -> nn.Module:
        """The network that is validated and exported: with averaged weights if `ema_decay` is set."""
        return self.network if self.average is None else self.average.module

    def progress(self, *, now: bool = False) -> float:
        """Return the progress of training from 0 to 1, by steps or by minutes, whichever is further.

        Time is that of the last update of the clock, which all processes share; with `now` it is this process's time.
        """
        training = self.run_config.training
        by_steps = self.global_step / (training.epochs * training.steps_per_epoch)
        elapsed_s = self.elapsed_s + (time.monotonic() - self._clock_s if now and self._clock_s else 0.0)
        by_time = elapsed_s / (60 * training.max_minutes) if training.max_minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    def on_train_start(self) -> None:
        """Start the clock; the time before a resume is already in `elapsed_s`."""
        self.step_losses = [loss.to(self.device) for loss in self.step_losses]
        for part in self.network.modules():  # a frozen batch norm also keeps its statistics
            if isinstance(part, _BatchNorm) and part.weight is not None and not part.weight.requires_grad:
                part.eval()
        self._clock_s = time.monotonic()

    def on_train_epoch_start(self) -> None:
        """Reset the epoch's losses and time; not called when a run is resumed within an epoch."""
        self._update_clock()  # exclude the time of callbacks since the last epoch
        self.step_losses, self._epoch_start_s = [], self.elapsed_s

    def _update_clock(self) -> None:
        now = time.monotonic()
        self.elapsed_s += now - (self._clock_s or now)
        self._clock_s = now
        if self.run_config.training.max_minutes and self.trainer.world_size > 1:
            shared = torch.tensor([self.elapsed_s], dtype=torch.float64, device=self.device)
            dist.broadcast(shared, src=0)  # one clock for all processes, so that their learning rates agree
            self.elapsed_s = shared.item()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate, and the seed of random numbers within the network (dropout)."""
        torch.manual_seed(
            hash((self.run_config.training_seed, self.current_epoch, batch_idx, self.global_rank))
        )
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = self.current_rate()

    def current_rate(self) -> float:
        """Return the learning rate of the next step."""
        return learning_rate(self.run_config.training, self.progress(), self.global_step)

    def on_before_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Keep the patches' indices on the CPU, since reading them from a GPU would synchronise at every step."""
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
                np.random.default_rng([self.run_config.training_seed, 1, *address]),
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
        """Return the loss of a batch; for an unpadded network the label is cropped to the output size.

        Raises:
            InputError: the loss is not finite.
        """
        label = batch["label"]
        if any(self.plan.valid_margin):
            label = label[(..., *(slice(margin, -margin) for margin in self.plan.valid_margin))]
        loss = self.loss(self.forward_training(self._to_layout(batch["image"])), label)
        self.step_losses.append(loss.detach())
        if batch_idx % _CHECK_EVERY == 0 and not math.isfinite(value := loss.item()):
            self.loss.check_label(label)
            raise self._divergence_error(f"the training loss became {value}")
        return loss

    def _to_layout(self, image: torch.Tensor) -> torch.Tensor:
        return to_channels_last(image, self.plan.dimensions) if self.compute.channels_last else image

    def _divergence_error(self, what: str) -> InputError:
        return InputError(
            f"{what} at step {self.global_step}",
            where="training",
            hint="Lower training.learning_rate, or set training.precision=fp32.",
        )

    @torch.no_grad()
    def _require_finite(self) -> None:
        """Raise an error if weights are NaN or infinite, from which training cannot recover."""
        if not torch.nn.utils.get_total_norm(list(self.network.parameters())).isfinite():
            raise self._divergence_error("the weights are no longer finite")

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient's norm and store the norm before clipping."""
        assert gradient_clip_val is not None
        self.gradient_norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Step the optimiser, then update the average of the weights before callbacks can save them."""
        super().optimizer_step(*arguments, **options)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Update the clock; after the last step or minute stop with a validation, at the end of a full step."""
        self._update_clock()
        if self.progress() >= 1.0 and (batch_idx + 1) % self.run_config.training.accumulate == 0:
            self.trainer.should_stop = True
            self.trainer.check_val_every_n_epoch = 1

    # ---- validation ---------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Record the training time of the epoch before validation starts."""
        self._require_finite()
        self._update_clock()
        self._train_s = max(1e-9, self.elapsed_s - self._epoch_start_s)
        self._results, self._is_cut = {}, False
        self.share_statistics()

    def share_statistics(self) -> None:
        """Give all processes the running statistics of the first one's batch norms, which are those it saves."""
        if self.processes.count > 1:
            for buffer in self.predictor.buffers():
                dist.broadcast(buffer, src=0)

    def validation_step(self, batch: dict[str, int], batch_idx: int) -> None:
        """Validate the windows of one case, given by its number."""
        if self._stop.is_asked:
            self._is_cut = True
            return
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
        """Return float32 logits of `predictor` at the finest scale."""
        with autocast(self.device, self.compute.precision):
            return self.predictor(self._to_layout(image.to(self.device))).float()

    def on_validation_epoch_end(self) -> None:
        """Add a row to the history with means over the cases of all processes; stop if training is finished.

        Raises:
            PreemptedError: the system asked one of the processes to end, and it left out cases.
        """
        mean_loss = float(torch.stack(self.step_losses).double().mean())
        gathered = self.processes.gather((self._results, mean_loss, self._is_cut))
        if any(is_cut for _, _, is_cut in gathered):
            raise self._stop.error("during validation; the last checkpoint is the one to go on from")
        results = {number: result for own_results, *_ in gathered for number, result in own_results.items()}
        self.cases = [results[number] for number in sorted(results)]
        row = summarise(self.cases, self.description)
        self._update_clock()
        self.history.append(
            {
                "epoch": self.current_epoch,
                "step": self.global_step,
                "minutes": round(self.elapsed_s / 60, 3),
                "learning_rate": self.current_rate(),
                "loss": float(np.mean([loss for _, loss, _ in gathered])),
                "validation_loss": validation_loss(self.cases),
                "patches_per_s": round(len(self.step_losses) * self.plan.batch_size / self._train_s, 3),
                **row,
            }
        )
        if self.progress() >= 1.0:
            self.trainer.should_stop = True

    # ---- state --------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store what resuming needs in addition to the weights, as plain values.

        Raises:
            InputError: the weights are not finite; the previous checkpoint is kept.
        """
        self._require_finite()
        losses = torch.stack(self.step_losses).cpu() if self.step_losses else torch.empty(0)
        if self.processes.count > 1:
            losses = torch.stack(self.processes.gather(losses))
        checkpoint["medunet"] = {
            "history": self.history,
            "elapsed_s": self.elapsed_s,
            "epoch_start_s": self._epoch_start_s,
            "step_losses": losses,  # of one process, or a row for each
            "identity": self.identity,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state stored by `on_save_checkpoint`."""
        own = checkpoint["medunet"]
        self.history = list(own["history"])
        self.elapsed_s, self._epoch_start_s = own["elapsed_s"], own["epoch_start_s"]
        losses = own["step_losses"]
        if losses.ndim == 2:
            same = len(losses) == self.processes.count
            losses = losses[self.processes.rank] if same else losses.mean(0)
        self.step_losses = list(losses)
