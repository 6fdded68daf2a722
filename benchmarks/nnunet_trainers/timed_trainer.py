"""nnU-Net's trainer, limited by minutes or steps instead of epochs; it runs in nnU-Net's environment.

nnU-Net finds it by name in the folder given by the environment variable `nnUNet_extTrainer`. The limits are the
environment variables PEER_MINUTES and PEER_STEPS, since nnU-Net's command line has no options for them.
"""

import os
from pathlib import Path
from time import monotonic

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class TimedTrainer(nnUNetTrainer):
    """nnU-Net's trainer with unchanged data, augmentation, network, loss and optimiser, but another end of training.

    - The learning rate follows nnU-Net's polynomial schedule over the minutes (or steps), updated at every step, so
      that it reaches zero at the end as it would after 1000 epochs.
    - The clock starts before the first training step, after imports, planning and the start of the data loaders. It
      includes data loading, augmentation, one validation batch (instead of 50) every 250 steps, and checkpoints.
    - `steps.csv` has a row for each step: its number and the minutes elapsed at its end.
    - nnU-Net's final validation on whole volumes is skipped; use `nnUNetv2_predict` to make masks.
    """

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_val_iterations_per_epoch = 1
        self.max_minutes = float(os.environ.get("PEER_MINUTES", "inf"))
        self.max_steps = float(os.environ.get("PEER_STEPS", "inf"))

    def run_training(self) -> None:
        """Train until the limit of minutes or steps is reached."""
        self.on_train_start()
        self.started_s, self.num_steps = monotonic(), 0
        with Path(self.output_folder, "steps.csv").open("w") as self.steps_csv:
            self.steps_csv.write("step,minutes\n")
            while self.progress() < 1:
                self.train_epoch()
        self.on_train_end()

    def train_epoch(self) -> None:
        """Train one of nnU-Net's epochs of 250 steps, or fewer if the limit is reached."""
        self.on_epoch_start()
        self.on_train_epoch_start()
        outputs = []
        for _ in range(self.num_iterations_per_epoch):
            for group in self.optimizer.param_groups:
                group["lr"] = self.initial_lr * (1 - self.progress()) ** 0.9
            outputs.append(self.train_step(next(self.dataloader_train)))
            self.num_steps += 1
            self.steps_csv.write(f"{self.num_steps},{self.minutes():.5f}\n")
            self.steps_csv.flush()
            if self.progress() == 1:
                break
        self.on_train_epoch_end(outputs)
        with torch.no_grad():
            self.on_validation_epoch_start()
            self.on_validation_epoch_end([self.validation_step(next(self.dataloader_val))])
        self.on_epoch_end()

    def minutes(self) -> float:
        """Return the minutes since the start of the first step."""
        return (monotonic() - self.started_s) / 60

    def progress(self) -> float:
        """Return the fraction of the training that is done, 0 to 1."""
        return min(1.0, max(self.minutes() / self.max_minutes, self.num_steps / self.max_steps))

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Skip nnU-Net's final validation."""
