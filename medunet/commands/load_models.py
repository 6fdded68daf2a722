"""Trained networks as a command is to use them: averaged if there are several, with what computes them chosen."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from medunet.base.errors import InputError
from medunet.commands.parts import ALL_CASES, CaseChoice
from medunet.commands.terminal import console
from medunet.records.config import InferenceConfig, MapName
from medunet.records.costs import FasterWay
from medunet.records.model_card import ModelCard
from medunet.runs.members import find_members

if TYPE_CHECKING:
    import torch

    from medunet.inference.model import Model
    from medunet.inference.predictor import Predictor
    from medunet.inference.scan import Scan


@dataclass(frozen=True)
class RoiOptions:
    """Where a region of interest is found, in which alone scans are predicted, see `with_roi`."""

    coarse: Path  # folder of a model, or of a run
    targets: tuple[str, ...] = ()  # of the coarse model; () for all
    margin_mm: float | None = None  # around them; None: the default


@dataclass(frozen=True)
class PredictOptions:
    """How scans are predicted, as asked for on the command line."""

    precision: str = "auto"  # this and `backend`: see `choose_for_model`
    backend: str = "auto"
    fast: bool = False  # larger steps of the window and no averaging, see `InferenceConfig.fast`
    ram_gb: float | None = None  # the most memory of this process
    maps: tuple[MapName, ...] = ()  # that are written beside the masks, see `CaseMaps`
    roi: RoiOptions | None = None
    cases: CaseChoice = ALL_CASES


AS_USUAL = PredictOptions()
_UNKNOWN = "not measured for these weights and options; `medunet calibrate RUN` measures it"


def load_models(
    folders: Sequence[Path],
    device: "torch.device",
    scans: Sequence["Scan"],
    out: Path,
    inference: InferenceConfig,
    options: PredictOptions,
) -> "Predictor":
    """Load networks as they are to predict scans into the folder `out`, averaged if there are several.

    Args:
        inference: options of the first one's plan; other plans have those that they were trained with.
    """
    from medunet.inference.ensemble import Ensemble, group_by_plan
    from medunet.inference.model_folder import read_card

    if "agreement" in options.maps and len(folders) == 1:
        raise InputError(
            "one network alone has none to agree with",
            where="--agreement",
            hint="Add --fold each, or --with another model.",
        )
    groups = group_by_plan(folders)
    models, own = [], []
    for group in groups:
        config = inference if group is groups[0] else _options_of(read_card(group[0]), inference, options)
        models.append(_load_group(group, device, scans, out, config, options))
        own.append(config)
    return models[0] if len(models) == 1 else Ensemble(tuple(models), tuple(own[1:]))


def in_roi(
    fine: "Predictor",
    scans: Sequence["Scan"],
    out: Path,
    options: PredictOptions,
    *,
    fold: int | str | None = None,
    held_out: bool = False,
) -> "Predictor":
    """Return a model that predicts in the region of interest of the options alone; without one, the model itself.

    The coarse model has its own options of inference, and backend and precision as for the fine one, other than int8.
    Of a run it is the model of the same `fold`, so that it has not seen the cases either that are `held_out`.

    Raises:
        InputError: the coarse model is not trained, was trained on held-out cases, or does not fit the fine one;
            networks of several plans, or maps, are asked for in a region.
    """
    from medunet.inference.model import Model
    from medunet.inference.model_folder import read_card
    from medunet.inference.roi_model import MARGIN_MM, with_roi

    roi = options.roi
    if roi is None:
        return fine
    if options.maps:
        raise InputError(
            "maps are written of whole scans only", where="--roi", hint="Leave one of the options out."
        )
    folders = find_members(roi.coarse, None if fold is None else str(fold))
    known = {scan.case for scan in scans} & {
        case for folder in folders for case in read_card(folder).training_cases
    }
    if held_out and known and not fine.card.train_is_validation:
        raise InputError(
            f"the coarse model was trained on {len(known)} of the held-out cases",
            where=f"--roi {roi.coarse}",
            hint="Give a run with the same folds: the cases of a fold are predicted by both models of this fold.",
        )
    how = replace(options, fast=False, roi=None)
    if options.precision == "int8":
        how = replace(how, precision="auto", backend="auto")
    card = read_card(folders[0])
    coarse = load_models(folders, fine.backend.device, scans, out, card.inference, how)
    if not isinstance(fine, Model) or not isinstance(coarse, Model):
        raise InputError(
            "networks of different plans cannot be averaged in a region of interest",
            where="--roi",
            hint="Give a coarse and a fine model of one plan each.",
        )
    margin_mm = MARGIN_MM if roi.margin_mm is None else roi.margin_mm
    predictor = with_roi(fine, coarse, roi.targets, margin_mm)
    text = f"{', '.join(predictor.targets)} with {margin_mm:g} {fine.card.description.unit}"
    console.print(f"  region of interest: {escape(text)}", highlight=False, soft_wrap=True)
    return predictor


def _options_of(card: ModelCard, inference: InferenceConfig, options: PredictOptions) -> InferenceConfig:
    """Return the options of a plan that is not the first one's: its own, and what is asked for now."""
    config = card.inference.fast() if options.fast else card.inference
    return config.model_copy(update={"weights": inference.weights or config.weights})


def _load_group(
    folders: Sequence[Path],
    device: "torch.device",
    scans: Sequence["Scan"],
    out: Path,
    inference: InferenceConfig,
    options: PredictOptions,
) -> "Model":
    """Load networks of one plan as they are to predict scans: as asked for, as before, or as is fastest."""
    from medunet.compute.choice_cache import read_settings
    from medunet.inference.model import Model
    from medunet.inference.model_folder import read_card
    from medunet.inference.openvino_backend import ConversionError
    from medunet.inference.probe import choose_for_model, count_windows

    card = read_card(folders[0])
    precision, backend = _go_on_in(out, card, device, options.precision, options.backend)
    images = (scan.images[0] for scan in scans if scan.images)
    weights = inference.weights
    num_windows = count_windows(images, card, inference.fast() if options.fast else inference)
    how = choose_for_model(
        *(folders[0], card, device, precision, backend),
        weights=weights,
        num_windows=len(folders) * num_windows,
    )
    apart = "agreement" in options.maps
    load = partial(Model.load, folders, device=device, weights=weights, ram_gb=options.ram_gb, apart=apart)
    try:
        return load(precision=how.precision, channels_last=how.channels_last, backend=how.backend)
    except ConversionError as error:  # the choice was made for other weights
        if backend != "auto" or precision == "int8" or "inference.backend" in read_settings():
            raise
        console.print(f"  [yellow]in torch[/]: {escape(error.what)}", highlight=False, soft_wrap=True)
    how = choose_for_model(folders[0], card, device, precision, "torch")
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


def choose_options(model: "Predictor", options: InferenceConfig, *, fast: bool) -> InferenceConfig:
    """Return the options, or those of `--fast`; print what int8 and `--fast` cost in Dice, by the model cards.

    Raises:
        InputError: the cost of a network's int8 form is not measured.
    """
    from medunet.inference.quantised import require_measured

    used: dict[FasterWay, bool] = {"int8": False, "fast": fast}
    first, *_ = (each for each, _ in model.models(options))
    for each, _ in model.models(options):
        require_measured(each)
        used["int8"] |= each.backend.precision == "int8"
        for way in (way for way in used if (way == "fast" and fast) or each.backend.precision == way):
            name = way if way == "int8" else f"--{way}"
            measured = options if each is first else each.card.inference  # the others' are fast already
            for member in each.members:
                cost = member.card.cost_of(way, member.weights, measured)
                text = cost.describe() if cost else f"its cost in Dice is {_UNKNOWN}"
                if len(model.members) > 1:
                    text = f"fold {member.card.fold} alone: {text}"
                console.print(f"  [yellow]{name}[/]: {escape(text)}", highlight=False, soft_wrap=True)
    if all(used.values()):
        text = "int8 and --fast were measured one by one: together they may cost more"
        console.print(f"  [yellow]{text}[/]", highlight=False, soft_wrap=True)
    return options.fast() if fast else options


def print_members(model: "Predictor") -> None:
    """Print which networks are averaged."""
    if len(model.members) > 1:
        folds = [str(member.card.fold) for member in model.members]
        text = f"{len(folds)} networks averaged: of folds {', '.join(folds)}"
        console.print(f"  [yellow]ensemble[/] {escape(text)}", highlight=False, soft_wrap=True)
