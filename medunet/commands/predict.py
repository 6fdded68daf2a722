"""`medunet predict`: segment a run's held-out cases, or any scans, with a trained model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from medunet.base.errors import InputError
from medunet.base.files import read_json_object
from medunet.base.words import list_some
from medunet.commands.terminal import console, print_stage
from medunet.dataset.checks.acceptance import EVERY_CASE, GRID_CODES, parse_accepted
from medunet.dataset.checks.fault_catalogue import FAULT_KINDS
from medunet.records.config import InferenceConfig, WeightsName
from medunet.records.costs import FasterWay
from medunet.records.data_root import case_paths, resolve_data_root
from medunet.records.description import Description
from medunet.records.manifest import Accepted, Case, Manifest
from medunet.records.model_card import ModelCard
from medunet.records.selection import Selection
from medunet.runs.computing import (
    precision_for,
    require_one_process,
    set_up_cpu,
)
from medunet.runs.run import Run, describe_untrained, held_out_cases, trained_cards
from medunet.runs.selection import apply_steps

if TYPE_CHECKING:
    import torch

    from medunet.inference.model import Model
    from medunet.inference.scan import Scan

_MOST_NAMES = 20
_UNKNOWN = "not measured for these weights and options; `medunet calibrate RUN` measures it"


@dataclass(frozen=True)
class PredictOptions:
    """How scans are predicted, as asked for on the command line."""

    precision: str = "auto"  # this and `backend`: see `choose_for_model`
    backend: str = "auto"
    fast: bool = False  # larger steps of the window and no averaging, see `InferenceConfig.fast`
    ram_gb: float | None = None  # the most memory of this process


def run_predict(
    run: Run,
    *,
    model: Path | None = None,
    fold: int | str | None = None,
    overwrite: bool = False,
    options: PredictOptions = PredictOptions(),
) -> dict[str, str]:
    """Predict the held-out cases of a run and return the failed ones with their reasons.

    The model of every trained fold predicts the cases that it holds out, the last one the test cases too; folds that
    are not trained are named on the console. `fold` predicts those of one fold alone ("each": of every trained one).
    With the `model` folder of another run, all cases are predicted. The configuration's precision is the default.

    Raises:
        InputError: No fold is trained, or a model was trained on some of these held-out cases, or on other channels.
    """
    if model is not None or fold not in (None, "each"):
        return _predict_cases(run, options, model=model, fold=fold, overwrite=overwrite)
    folds = list(trained_cards(run))
    if not folds:
        raise InputError("no fold is trained", where=str(run.folder.root), hint="Run `medunet train` first.")
    failed: dict[str, str] = {}
    for one in folds:
        is_last = one == folds[-1]
        failed |= _predict_cases(run, options, fold=one, with_tests=is_last, overwrite=overwrite)
    if text := describe_untrained(run, folds, "predicted"):
        console.print(f"  [yellow]{text}[/]", highlight=False, soft_wrap=True)
    return failed


def _predict_cases(
    run: Run,
    options: PredictOptions,
    *,
    model: Path | None = None,
    fold: int | str | None = None,
    with_tests: bool = True,
    overwrite: bool = False,
) -> dict[str, str]:
    """Predict the cases that a fold holds out, test cases only if `with_tests`; with `model`, all cases."""
    require_one_process()
    from medunet.compute.devices import choose_device
    from medunet.inference.model import read_card
    from medunet.inference.predict import predict_scans

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
    scans = scans_of(cases, manifest, run.data_root)
    if options.precision == "auto":
        options = replace(options, precision=precision_for(run.config, device))
    loaded = _load(folder, card, device, scans, run.folder.predictions, run.config.inference, options)
    known = {case.id for case in cases} & set(loaded.card.training_cases)
    if model is None and known and not loaded.card.train_is_validation:
        raise InputError(
            f"its model was trained on {len(known)} of the held-out cases",
            where=f"fold {fold}",
            hint="The folds were changed after training. Restore them, or train in another run folder.",
        )
    require_same_channels(loaded.card.description, manifest.description)
    inference = choose_options(loaded, run.config.inference, fast=options.fast)
    failed = predict_scans(loaded, scans, run.folder.predictions, inference, overwrite=overwrite)
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
    accept: Sequence[str] = (),
    allow_resample: bool = False,
    options: PredictOptions = PredictOptions(),
    selection: Selection | None = None,
) -> dict[str, str]:
    """Predict image files and folders, or the cases of one manifest.json, with a trained model.

    Returns the failed cases with their reasons. For `weights`, see `Model.load`.

    Args:
        accept: faults with which scans are predicted, as 'CODE' or 'CODE:CASE', beside those of a manifest.
        allow_resample: resample the channels of a case that are on different grids to the grid of the first one.
        selection: what `medunet select` chose for this model's run; its postprocessing is applied.
    """
    from medunet.compute.devices import choose_device
    from medunet.inference.given_scans import find_scans
    from medunet.inference.model import read_card
    from medunet.inference.predict import predict_scans

    card = read_card(folder)
    if len(images) == 1 and images[0].suffix == ".json":
        listed, root = Manifest.read(images[0]), resolve_data_root(data_root)
        require_same_channels(card.description, listed.description)
        scans = scans_of(listed.used, listed, root)
    else:
        given = find_scans(images, card)
        scans = given.scans
        print_left_out(given.left_out, given.notes)
    accepted = parse_accepted(accept, [scan.case for scan in scans], new_scans=True)
    scans = [_with_accepted(scan, accepted, allow_resample=allow_resample) for scan in scans]
    device = choose_device(device_name)
    set_up_cpu(device)
    inference = card.inference.model_copy(update={"weights": weights or card.inference.weights})
    model = _load(folder, card, device, scans, out, inference, options)
    inference = choose_options(model, card.inference, fast=options.fast)
    if selection is not None:
        inference, text = apply_steps(inference, selection)
        console.print(f"  [yellow]selection[/]: {escape(text)}", highlight=False, soft_wrap=True)
    failed = predict_scans(model, scans, out, inference, overwrite=overwrite)
    print_warnings([scan.case for scan in scans], accepted, out)
    print_predicted(len(scans), failed, out)
    return failed


def choose_options(model: "Model", options: InferenceConfig, *, fast: bool) -> InferenceConfig:
    """Return the options, or those of `--fast`; print what int8 and `--fast` cost in Dice, by the model card.

    Raises:
        InputError: the cost of the model's int8 network is not measured.
    """
    from medunet.inference.quantised import require_measured

    require_measured(model)
    used: dict[FasterWay, bool] = {"int8": model.backend.precision == "int8", "fast": fast}
    for way in (way for way, is_used in used.items() if is_used):
        cost = model.card.cost_of(way, model.weights, options)
        text = cost.describe() if cost else f"its cost in Dice is {_UNKNOWN}"
        name = way if way == "int8" else f"--{way}"
        console.print(f"  [yellow]{name}[/]: {escape(text)}", highlight=False, soft_wrap=True)
    if all(used.values()):
        text = "int8 and --fast were measured one by one: together they may cost more"
        console.print(f"  [yellow]{text}[/]", highlight=False, soft_wrap=True)
    return options.fast() if fast else options


def _load(
    folder: Path,
    card: ModelCard,
    device: "torch.device",
    scans: Sequence["Scan"],
    out: Path,
    inference: InferenceConfig,
    options: PredictOptions,
) -> "Model":
    """Load a model as it is to predict scans into the folder `out`: as asked for, as before, or as is fastest."""
    from medunet.compute.choice_cache import read_settings
    from medunet.inference.model import Model
    from medunet.inference.openvino_backend import ConversionError
    from medunet.inference.probe import choose_for_model, count_windows

    precision, backend = _go_on_in(out, card, device, options.precision, options.backend)
    images = (scan.images[0] for scan in scans if scan.images)
    weights = inference.weights
    how = choose_for_model(
        *(folder, card, device, precision, backend),
        weights=weights,
        num_windows=count_windows(images, card, inference.fast() if options.fast else inference),
    )
    load = partial(Model.load, folder, device=device, weights=weights, ram_gb=options.ram_gb)
    try:
        return load(precision=how.precision, channels_last=how.channels_last, backend=how.backend)
    except ConversionError as error:  # the choice was made for other weights
        if backend != "auto" or precision == "int8" or "inference.backend" in read_settings():
            raise
        console.print(f"  [yellow]in torch[/]: {escape(error.what)}", highlight=False, soft_wrap=True)
    how = choose_for_model(folder, card, device, precision, "torch")
    return load(precision=how.precision, channels_last=how.channels_last)


def _go_on_in(
    folder: Path, card: ModelCard, device: "torch.device", precision: str, backend: str
) -> tuple[str, str]:
    """Return precision and backend of the model's masks in a folder, so that a benchmark under load repeats none.

    What is asked for comes first. They are not bf16 on a CPU, which may be another one that computes bf16 very
    slowly, nor OpenVINO where it is not installed.
    """
    from medunet.compute.choice_cache import read_settings
    from medunet.compute.choosing import requested_options
    from medunet.inference.mask_index import backend_of_masks
    from medunet.inference.openvino_backend import import_openvino

    is_asked = requested_options("inference", precision)[0][0] != "auto" or backend != "auto"
    earlier = backend_of_masks(folder, card, device.type)
    if earlier is None or is_asked or "inference.backend" in read_settings():
        return precision, backend
    if earlier[1] == "bf16" and device.type == "cpu":
        return precision, backend
    if earlier[0] == "openvino":
        try:
            import_openvino()
        except InputError:
            return precision, backend
    return earlier[1], earlier[0]


def scans_of(cases: Sequence[Case], manifest: Manifest, data_root: Path) -> list["Scan"]:
    """Return cases of a manifest as scans, with the faults that it accepts."""
    from medunet.inference.scan import Scan

    scans = []
    for case in cases:
        images, _ = case_paths(case, manifest.description, data_root)
        accepted = tuple(entry for entry in manifest.accepted if entry.case == case.id)
        scans.append(Scan(case.id, images, case.resample, accepted))
    return scans


def _with_accepted(scan: "Scan", accepted: Sequence[Accepted], *, allow_resample: bool) -> "Scan":
    """Return a scan with the accepted faults that concern it; it is resampled if different grids are accepted."""
    own = tuple(entry for entry in accepted if entry.case in (scan.case, EVERY_CASE))
    resample = scan.resample or allow_resample or any(entry.code in GRID_CODES for entry in own)
    return replace(scan, accepted=(*scan.accepted, *own), resample=resample)


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


def print_left_out(left_out: Mapping[str, Sequence[str]], notes: Sequence[str]) -> None:
    """Print the names of the given files that are not predicted, by the reason, and how files were understood."""
    for note in notes:
        console.print(f"  [yellow]note[/] {escape(note)}", highlight=False, soft_wrap=True)
    for reason, names in left_out.items():
        text = f"{list_some(names, _MOST_NAMES)}: {reason}"
        console.print(f"  [yellow]left out[/] {escape(text)}", highlight=False, soft_wrap=True)


def print_warnings(cases: Sequence[str], accepted: Sequence[Accepted], folder: Path) -> None:
    """Print the warnings and accepted faults of predicted cases, by code, from the index beside the masks."""
    entries = read_json_object(folder / "index.json")["cases"]
    rows = [(case, row) for case in cases for row in entries.get(case, {}).get("faults", ())]
    for code in dict.fromkeys(row["code"] for _, row in rows):
        ours = [
            (case, row)
            for case, row in rows
            if row["code"] == code and (row["severity"] == "warning" or row.get("accepted"))
        ]
        for accepting in (False, True):
            each = [
                f"{case} ({row['measured']})" for case, row in ours if bool(row.get("accepted")) is accepting
            ]
            if each:
                word = "accepted" if accepting else "warning"
                kind = FAULT_KINDS[code]
                text = f"{code} {kind.title}: {list_some(each, _MOST_NAMES)}" + (
                    "" if accepting else f". {kind.hint}"
                )
                console.print(f"  [yellow]{word}[/] {escape(text)}", highlight=False, soft_wrap=True)
    for code in dict.fromkeys(entry.code for entry in accepted):
        if not any(row["code"] == code for _, row in rows):
            console.print(f"  [yellow]accepted[/] {code}, but no predicted scan has it", highlight=False)


def print_predicted(num_scans: int, failed: dict[str, str], folder: Path) -> None:
    """Print how many cases were predicted, and every failed case with its reason."""
    print_stage("Predict", f"{num_scans - len(failed)} of {num_scans} cases", folder)
    for case, reason in failed.items():
        console.print(f"  [red]failed[/] {escape(case)}: {escape(reason)}", highlight=False, soft_wrap=True)
