"""`medunet train`: train or resume one fold or all folds, each with one or several seeds, one after the other."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from medunet.base.errors import StoppedError
from medunet.base.lock import hold
from medunet.commands.terminal import console, print_stage
from medunet.records.model_card import TRAIN_IS_VALIDATION, ModelCard
from medunet.runs.check_status import require_passed_check
from medunet.runs.computing import choose_run_compute, device_name, require_plan_for, set_up_cpu
from medunet.runs.run import Run, each_member

_TESTED_APART = (
    "Dice during this training is of cases that it is trained on. The test cases are scored apart."
)


def run_train(run: Run) -> list[ModelCard]:
    """Train or resume the configured fold, or each fold one after the other; return the model cards.

    With `training.seeds` above 1, each fold trains as many networks, one after the other.

    Under torchrun or Slurm the processes train data-parallel, and only the first one writes files and prints.

    Raises:
        PreemptedError: the system asked to end (SIGTERM or SIGUSR1); the same command goes on.
    """
    from medunet.training.stop_request import StopRequest

    with StopRequest().listening() as stop:
        return _train(run, stop)


def _train(run: Run, stop: Any) -> list[ModelCard]:
    from medunet.compute.devices import choose_device
    from medunet.compute.processes import init_processes
    from medunet.training.checkpoints import find_resume_checkpoint
    from medunet.training.train import train_fold

    require_passed_check(run)
    device = choose_device(run.config.device)
    processes = init_processes(device, stop.held())
    console.quiet = not processes.is_first
    require_plan_for(run, device)
    set_up_cpu(device)
    cards = []
    for one in each_member(run):
        with _alone(one, processes):
            manifest, plan = one.read_manifest(), one.read_plan()
            find_resume_checkpoint(one.folder, manifest, plan, one.config)
            compute = processes.broadcast(choose_run_compute(one, device) if processes.is_first else None)
            if processes.is_first:
                run.save()
            training, name = one.config.training, device_name(device)
            many = f" in {processes.count} processes" if processes.count > 1 else ""
            layout = ", channels-last" if compute.channels_last else ""
            console.print(
                f"Training {training.describe()} on {name}{many} in {compute.precision}{layout}: {compute.why}",
                soft_wrap=True,
            )
            try:
                card = train_fold(
                    one.folder,
                    manifest,
                    plan,
                    one.config,
                    one.data_root,
                    device=device,
                    compute=compute,
                    processes=processes,
                    stop=stop,
                )
            except KeyboardInterrupt as interrupt:
                raise StoppedError(
                    "stopped", hint="Run the same command to resume from the last checkpoint."
                ) from interrupt
            if card.train_is_validation:
                has_tests = any(case.split == "test" for case in manifest.used)
                console.print(f"[yellow]{_TESTED_APART if has_tests else TRAIN_IS_VALIDATION}[/]")
            print_stage("Train", describe_dice(card), one.folder.model(training.fold, training.member))
            cards.append(card)
    return cards


def _alone(run: Run, processes: Any) -> AbstractContextManager[object]:
    """Hold the lock of a network; of several processes that train it, the first one, which writes, holds it."""
    if not processes.is_first:
        return nullcontext()
    return hold(run.folder.root, "train", [run.config.training.describe()])


def describe_dice(card: ModelCard) -> str:
    """Return a model's best validation Dice as text: the mean and each target's; undefined ones are named."""
    dice = card.validation_dice
    if dice.get("dice") is None:
        weights = f"the {card.inference.weights} weights are used"
        count = len(card.validation_cases)
        return f"no validation Dice: none of the {count} validation cases has foreground to find; {weights}"
    names = {key: "mean" if key == "dice" else key.removeprefix("dice_") for key in dice}
    return "best validation Dice: " + ", ".join(
        f"{names[key]} {'undefined' if value is None else f'{value:.3f}'}" for key, value in dice.items()
    )
