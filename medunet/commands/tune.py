"""`medunet tune`: search for better settings; each trial is its own run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medunet.base.errors import InputError
from medunet.base.files import hash_value
from medunet.base.lock import hold
from medunet.commands.terminal import console, print_stage
from medunet.records.config import change_config
from medunet.records.run_folder import RunFolder
from medunet.runs.check_status import require_passed_check
from medunet.runs.computing import choose_run_compute, plan_for, require_plan_for, set_up_cpu
from medunet.runs.run import Run

_FREE = {
    "tuning": {"trials", "prune"},
    "training": {"ram_gb", "workers"},
}  # may be changed when a search is resumed


def run_tune(run: Run, *, storage_url: str | None = None) -> Any:
    """Search for better settings in trials of the configured fold; return the table of trials, best first.

    Each trial is its own run in `tuning/`, with the same manifest; preprocessed cases are shared. Writes
    `tuning/trials.csv` and `tuning/best.yaml`, the configuration to train with.

    Raises:
        InputError: Optuna is not installed, the search space is not valid, no trial was completed, or another
            search is running in the folder without a `storage_url`, the URL of a server or the path of a journal
            that processes share which search together.
        PreemptedError: the system asked to end (SIGTERM or SIGUSR1); the same command goes on.
    """
    from medunet.training.stop_request import StopRequest

    with (
        hold(run.folder.root, "tune", None if storage_url is None else ()),
        StopRequest().listening() as stop,
    ):
        return _search(run, storage_url, stop)


def _search(run: Run, storage_url: str | None, stop: Any) -> Any:
    from medunet.compute.devices import choose_device
    from medunet.inference.model_folder import read_card
    from medunet.training.train import train_fold
    from medunet.training.tuning import search
    from medunet.training.tuning_space import check_space
    from medunet.training.validation_plan import plan_validation

    require_passed_check(run)
    device = choose_device(run.config.device)
    require_plan_for(run, device)
    check_space(run.config)
    folder, manifest, base_plan = run.folder.root / "tuning", run.read_manifest(), run.read_plan()
    set_up_cpu(device)
    run.save()
    plain = run.config.to_dict()
    settings = run.config.model_dump(mode="json", exclude=_FREE)
    made_from = {"plan_sha256": hash_value(base_plan.hash_input)}
    if run.config.training.init_from is not None:
        made_from["initial_weights_sha256"] = read_card(Path(run.config.training.init_from)).weights_sha256
    # All trials, on all machines, are compared on the same voxels. These must not depend on timings of this machine
    # or on the patch size of a trial, which determines its windows.
    validation = plan_validation(
        manifest, base_plan, run.config, run.data_root, step_s=0.0, window_s=0.0, whole_cases=True
    )
    plain["training"]["init_from"] = run.config.training.init_from  # is excluded from to_dict()

    def train(name: str, changes: list[str], callbacks: Sequence[Any]) -> float:
        config = change_config(plain, changes, "tuning.space")
        trial = Run(RunFolder(folder / name), config, run.data_root)
        with hold(trial.folder.root, "train", [f"fold {config.training.fold}"]):
            print_stage("Trial", ", ".join(changes), trial.folder.root)
            if (
                not trial.folder.plan.exists()
            ):  # a resumed trial keeps its plan, even if the free memory has changed
                plan = base_plan
                if config.planning != run.config.planning:
                    plan = plan_for(config, manifest.description, base_plan.fingerprint, device)
                manifest.write(trial.folder.manifest)
                trial.save()
                plan.write(trial.folder.plan)
            card = train_fold(
                trial.folder,
                manifest,
                trial.read_plan(),
                config,
                run.data_root,
                device=device,
                compute=choose_run_compute(trial, device),
                cache=run.folder.cache,
                callbacks=callbacks,
                validation=validation,
                stop=stop,
            )
        if (dice := card.validation_dice["dice"]) is None:
            raise InputError(
                f"none of the {len(card.validation_cases)} validation cases has foreground to find",
                where=f"fold {config.training.fold}",
                hint="Search on another fold.",
            )
        return dice

    table = search(
        run.config,
        folder,
        train,
        study_name=f"medunet-{hash_value([manifest.to_dict(), settings, bool(run.config.training.init_from)])[:16]}",
        storage_url=storage_url,
        made_from=made_from,
    )
    console.print(table.head(10).to_string(index=False), markup=False, soft_wrap=True)
    if not (folder / "best.yaml").exists():
        raise InputError(
            "no trial was completed",
            where=str(folder),
            hint="See the reasons in trials.csv and change tuning.space.",
        )
    best = table.iloc[0]
    print_stage("Tune", f"best validation Dice {best['dice']:.3f} in {best['trial']}", folder / "best.yaml")
    train_with = f"medunet run {folder / 'best.yaml'} --run {run.folder.root}"
    watch = f"tensorboard --logdir {folder / 'tensorboard'}"
    console.print(
        f"Train with it: {train_with}\nCompare trials: {watch}", highlight=False, soft_wrap=True, markup=False
    )
    return table
