"""`medunet predict`: segment a run's held-out cases, or any scans, with a trained model."""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from medunet.base.errors import InputError
from medunet.commands.terminal import console, print_stage
from medunet.records.config import WeightsName
from medunet.records.data_root import case_paths, resolve_data_root
from medunet.records.description import Description
from medunet.records.manifest import Manifest
from medunet.runs.computing import (
    precision_for,
    require_one_process,
    set_up_cpu,
)
from medunet.runs.run import Run, describe_untrained, held_out_cases, trained_cards


def run_predict(
    run: Run, *, model: Path | None = None, fold: int | str | None = None, overwrite: bool = False
) -> dict[str, str]:
    """Predict the held-out cases of a run and return the failed ones with their reasons.

    The model of every trained fold predicts the cases that it holds out, the last one the test cases too; folds that
    are not trained are named on the console. `fold` predicts those of one fold alone ("each": of every trained one).
    With the `model` folder of another run, all cases are predicted.

    Raises:
        InputError: No fold is trained, or a model was trained on some of these held-out cases, or on other channels.
    """
    if model is not None or fold not in (None, "each"):
        return _predict_cases(run, model=model, fold=fold, overwrite=overwrite)
    folds = list(trained_cards(run))
    if not folds:
        raise InputError("no fold is trained", where=str(run.folder.root), hint="Run `medunet train` first.")
    failed: dict[str, str] = {}
    for one in folds:
        is_last = one == folds[-1]
        failed |= _predict_cases(run, fold=one, with_tests=is_last, overwrite=overwrite)
    if text := describe_untrained(run, folds, "predicted"):
        console.print(f"  [yellow]{text}[/]", highlight=False, soft_wrap=True)
    return failed


def _predict_cases(
    run: Run,
    *,
    model: Path | None = None,
    fold: int | str | None = None,
    with_tests: bool = True,
    overwrite: bool = False,
) -> dict[str, str]:
    """Predict the cases that a fold holds out, test cases only if `with_tests`; with `model`, all cases."""
    require_one_process()
    from medunet.compute.devices import choose_device
    from medunet.inference.model import Model, read_card
    from medunet.inference.predict import Scan, predict_scans
    from medunet.inference.probe import choose_prediction

    manifest = run.read_manifest()
    if model is not None:
        cases, folder = list(manifest.used), model
    else:
        assert fold is not None
        cases, folder = held_out_cases(run, fold), run.folder.model(fold)
        cases = [case for case in cases if with_tests or case.split != "test"]
    device = choose_device(run.config.device)
    set_up_cpu(device)
    card = read_card(folder)
    how = choose_prediction(card.plan, card.description, device, precision_for(run.config, device))
    loaded = Model.load(
        folder,
        device=device,
        precision=how.precision,
        channels_last=how.channels_last,
        weights=run.config.inference.weights,
    )
    known = {case.id for case in cases} & set(loaded.card.training_cases)
    if model is None and known and not loaded.card.train_is_validation:
        raise InputError(
            f"its model was trained on {len(known)} of the held-out cases",
            where=f"fold {fold}",
            hint="The folds were changed after training. Restore them, or train in another run folder.",
        )
    require_same_channels(loaded.card.description, manifest.description)
    scans = [
        Scan(case.id, case_paths(case, manifest.description, run.data_root)[0], case.resample)
        for case in cases
    ]
    failed = predict_scans(loaded, scans, run.folder.predictions, run.config.inference, overwrite=overwrite)
    print_predicted(len(scans), failed, run.folder.predictions)
    return failed


def predict_images(
    folder: Path,
    images: Sequence[Path],
    out: Path,
    data_root: Path | None,
    *,
    device_name: str,
    overwrite: bool,
    weights: WeightsName | None = None,
) -> dict[str, str]:
    """Predict image files and folders, or the cases of one manifest.json, with a trained model.

    Returns the failed cases with their reasons. For `weights`, see `Model.load`.
    """
    from medunet.compute.devices import choose_device
    from medunet.inference.model import Model, read_card
    from medunet.inference.predict import Scan, predict_scans, scans_from_files
    from medunet.inference.probe import choose_prediction

    device = choose_device(device_name)
    set_up_cpu(device)
    card = read_card(folder)
    how = choose_prediction(card.plan, card.description, device)
    model = Model.load(
        folder, device=device, precision=how.precision, channels_last=how.channels_last, weights=weights
    )
    if len(images) == 1 and images[0].suffix == ".json":
        listed, root = Manifest.read(images[0]), resolve_data_root(data_root)
        require_same_channels(model.card.description, listed.description)
        scans = [
            Scan(case.id, case_paths(case, listed.description, root)[0], case.resample)
            for case in listed.used
        ]
    else:
        scans = scans_from_files(images, model.card.description)
    failed = predict_scans(model, scans, out, model.card.inference, overwrite=overwrite)
    print_predicted(len(scans), failed, out)
    return failed


def require_same_channels(trained: Description, given: Description) -> None:
    """Check that scans have the number of channels and the modalities that a model was trained on.

    Raises:
        InputError: They differ; the message names the channels of both.
    """
    ours, theirs = (
        {name: channel.modality for name, channel in each.channels.items()} for each in (trained, given)
    )
    pairs = zip(ours.values(), theirs.values(), strict=False)
    foreign = any(one != other and "other" not in (one, other) for one, other in pairs)
    if len(ours) != len(theirs) or foreign:
        texts = [", ".join(f"{name} ({kind})" for name, kind in each.items()) for each in (ours, theirs)]
        raise InputError(
            f"the model was trained on {texts[0]}, but the dataset has {texts[1]}",
            where="channels",
            hint="Choose a model that was trained on scans with these channels.",
        )


def print_predicted(num_scans: int, failed: dict[str, str], folder: Path) -> None:
    """Print how many cases were predicted, and every failed case with its reason."""
    print_stage("Predict", f"{num_scans - len(failed)} of {num_scans} cases", folder)
    for case, reason in failed.items():
        console.print(f"  [red]failed[/] {escape(case)}: {escape(reason)}", highlight=False, soft_wrap=True)
