"""`medunet train`: one fold, or each, trained or resumed."""

from medunet.base.errors import StoppedError
from medunet.commands.terminal import console, say
from medunet.records.model_card import ModelCard
from medunet.runs.checked import require_clean
from medunet.runs.computing import begin_computing, choose_compute_of, device_name, require_planned_for
from medunet.runs.run import TRAIN_IS_VALIDATION, Run, each_fold


def run_train(run: Run) -> list[ModelCard]:
    """Train the configured fold, or each one after the other, or go on with it; return the cards of the best weights.

    Under torchrun or Slurm all processes train together on each batch; the first one writes and speaks.
    """
    from medunet.compute.devices import choose_device
    from medunet.compute.processes import init_processes
    from medunet.training.checkpoints import find_resume_checkpoint
    from medunet.training.train import train_fold

    require_clean(run)
    device = choose_device(run.config.device)
    processes = init_processes(device)
    console.quiet = not processes.is_first
    require_planned_for(run, device)
    begin_computing(device)
    cards = []
    for one in each_fold(run):
        manifest, plan = one.read_manifest(), one.read_plan()
        find_resume_checkpoint(one.folder, manifest, plan, one.config)
        compute = processes.broadcast(choose_compute_of(one, device) if processes.is_first else None)
        if processes.is_first:
            run.save()
        fold, name = one.config.training.fold, device_name(device)
        many = f" in {processes.count} processes" if processes.count > 1 else ""
        layout = ", channels-last" if compute.channels_last else ""
        console.print(
            f"Training fold {fold} on {name}{many} in {compute.precision}{layout}: {compute.why}",
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
            )
        except KeyboardInterrupt as stop:
            raise StoppedError("stopped", hint="The same command goes on from the last checkpoint.") from stop
        if card.train_is_validation:
            console.print(f"[yellow]{TRAIN_IS_VALIDATION}[/]")
        dice = ", ".join(
            f"{key.removeprefix('dice_') if key != 'dice' else 'mean'} {value:.3f}"
            for key, value in card.validation_dice.items()
            if value is not None
        )
        say("Train", f"best validation Dice: {dice}", one.folder.model(fold))
        cards.append(card)
    return cards
