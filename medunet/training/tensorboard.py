"""TensorBoard log of a training: losses, scores, speed, memory, curves, images, network graph and settings."""

import json
import math
import warnings
from collections.abc import Mapping
from typing import Any

import lightning as L
import numpy as np
import psutil
import torch
import yaml
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from medunet.drawing.png import to_png
from medunet.drawing.slice_picture import draw_slices
from medunet.records.plan import Plan, count_inputs
from medunet.records.unpadded import unpadded_size
from medunet.training.module import SegmentationModule
from medunet.training.validation import NUM_BINS, CaseResult, dice_text, precision_recall

_EVERY = 10  # steps between entries


class TensorBoardLog(L.Callback):
    """Write the training to TensorBoard's event files; of patients they contain only the case ids."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write plan, configuration and network graph once per training."""
        module, writer = _module(pl_module), _writer(pl_module)
        if module.history:
            return
        plan = json.dumps(module.plan.to_dict(), indent=2)
        config = yaml.safe_dump(module.run_config.to_dict(), sort_keys=False)
        for tag, text in (("plan", plan), ("config", config)):
            writer.add_text(tag, f"```\n{text}\n```")
        _add_graph(writer, module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a step's losses by head and by term, learning rate, gradient norm and memory."""
        module = _module(pl_module)
        if module.global_step % _EVERY or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        values = {
            "train/loss": module.step_losses[-1],
            "train/learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "train/gradient_norm": module.gradient_norm,
            "train/memory_gb": _memory_gb(module.device),
            **{f"loss_by_head/{number}": value for number, value in enumerate(module.loss.last_scales)},
            **{f"loss_by_term/{name}": value for name, value in module.loss.last_terms.items()},
        }
        _add_scalars(_writer(pl_module), values, module.global_step)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write an epoch's losses and scores, precision-recall curves, and images of the first and the worst case."""
        module, writer = _module(pl_module), _writer(pl_module)
        row, step = module.history[-1], module.global_step
        scores = {key: value for key, value in row.items() if key.startswith(_SCORES)}
        _add_scalars(writer, {f"validation/{key}": value for key, value in scores.items()}, step)
        epoch = {"epoch/training_loss": row["loss"], "epoch/validation_loss": row["validation_loss"]}
        _add_scalars(writer, {**epoch, "epoch/patches_per_s": row["patches_per_s"]}, step)
        for target in module.description.targets:
            _add_precision_recall(writer, module.cases, target, step)
        worst = min(module.cases, key=lambda case: math.inf if math.isnan(case.dice) else case.dice)
        for title, case in (("first", module.cases[0]), ("worst", worst)):
            text = f"{case.case}: {dice_text(case.dice)}"
            writer.add_text(f"validation_{title}", text, step)
            picture = draw_slices(case.slices, module.description.targets, text)
            _add_picture(writer, f"validation_{title}", picture, step)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Flush the log, because a training resumed from this checkpoint does not log these steps again."""
        _writer(pl_module).flush()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the settings with the best Dice for the HParams view."""
        module, writer = _module(pl_module), _writer(pl_module)
        best = [row["dice"] for row in module.history if not math.isnan(row["dice"])]
        training = module.run_config.training.model_dump(mode="json")
        settings = {
            key: value for key, value in training.items() if isinstance(value, int | float | str | bool)
        }
        settings |= {
            "network": module.plan.network.name,
            "patch_size": "×".join(map(str, module.plan.patch_size)),
            "batch_size": module.plan.batch_size,
            "base_features": module.plan.features[0],
        }
        results = {"best validation Dice": max(best)} if best else {}
        for summary in hparams(settings, results):
            writer._get_file_writer().add_summary(summary)
        _add_scalars(writer, results, module.global_step)
        writer.flush()


_SCORES = ("dice", "iou", "precision", "recall", "hd95_mm")


def _add_graph(writer: SummaryWriter, module: SegmentationModule) -> None:
    """Write the network's graph, traced with a small image, or a note if it cannot be traced."""
    network = module.network
    channels = count_inputs(module.description, module.plan.context_slices)
    image = torch.zeros((1, channels, *_smallest_input(module.plan)), device=module.device)
    was_training = network.training
    network.eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            # Traced here, because `add_graph` would also check the trace, which doubles the time.
            traced = torch.jit.trace(network, image, strict=False, check_trace=False)
            writer.add_graph(traced, image)
    except Exception:  # a failed trace must not stop the training
        writer.add_text("graph", "This network cannot be traced.")
    finally:
        network.train(was_training)


def _smallest_input(plan: Plan) -> tuple[int, ...]:
    """Return the smallest input size of a network; if padded, with two voxels per axis at the coarsest stage."""
    if not plan.padded:
        one = (1,) * plan.dimensions
        return unpadded_size(one, plan.kernel_sizes, plan.strides, plan.convolutions_per_stage, up=True)
    divisors = (math.prod(steps) for steps in zip(*plan.strides, strict=True))
    return tuple(min(size, 2 * divisor) for size, divisor in zip(plan.patch_size, divisors, strict=True))


def _add_picture(writer: SummaryWriter, tag: str, picture: Image.Image, step: int) -> None:
    """Write an image with its palette; `add_image` would convert it to RGB."""
    image = Summary.Image(
        height=picture.height, width=picture.width, colorspace=3, encoded_image_string=to_png(picture)
    )
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def _add_precision_recall(writer: SummaryWriter, cases: list[CaseResult], target: str, step: int) -> None:
    """Write the precision-recall curve over all cases' voxels, by rising threshold as TensorBoard expects."""
    negatives, positives = np.sum([case.targets[target].histogram for case in cases], axis=0)
    above = [counts[::-1].cumsum()[::-1] for counts in (positives, negatives)]
    precision, recall = (values[::-1] for values in precision_recall(cases, target))
    writer.add_pr_curve_raw(
        f"precision_recall/{target}",
        true_positive_counts=above[0],
        false_positive_counts=above[1],
        true_negative_counts=negatives.sum() - above[1],
        false_negative_counts=positives.sum() - above[0],
        precision=precision,
        recall=recall,
        global_step=step,
        num_thresholds=NUM_BINS,
    )


def _add_scalars(writer: SummaryWriter, values: Mapping[str, Any], step: int) -> None:
    for tag, value in values.items():
        if value is not None and math.isfinite(number := float(value)):
            writer.add_scalar(tag, number, step)


def _memory_gb(device: torch.device) -> float:
    """Return this process's peak GPU memory, or on a CPU its current resident memory, in GB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return psutil.Process().memory_info().rss / 1e9


def _module(pl_module: L.LightningModule) -> SegmentationModule:
    assert isinstance(pl_module, SegmentationModule)
    return pl_module


def _writer(pl_module: L.LightningModule) -> SummaryWriter:
    return pl_module.logger.experiment  # type: ignore[union-attr]
