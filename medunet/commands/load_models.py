"""Trained networks as a command is to use them: averaged if there are several, with what computes them chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from medunet.base.errors import InputError
from medunet.commands.terminal import console
from medunet.records.config import InferenceConfig, MapName
from medunet.records.model_card import ModelCard

if TYPE_CHECKING:
    import torch

    from medunet.inference.model import Model
    from medunet.inference.predictor import Predictor
    from medunet.inference.scan import Scan


@dataclass(frozen=True)
class PredictOptions:
    """How scans are predicted, as asked for on the command line."""

    precision: str = "auto"  # this and `backend`: see `choose_for_model`
    backend: str = "auto"
    fast: bool = False  # larger steps of the window and no averaging, see `InferenceConfig.fast`
    ram_gb: float | None = None  # the most memory of this process
    maps: tuple[MapName, ...] = ()  # that are written beside the masks, see `CaseMaps`


AS_USUAL = PredictOptions()


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
