"""`medunet devices`: show hardware, chosen backend, precision and layout with reasons, and the user's settings."""

from pathlib import Path
from typing import Any

import psutil
from rich.markup import escape
from rich.table import Table

from medunet.base.errors import InputError
from medunet.base.processor import CoreWatch, num_threads, read_processor, usable_cores
from medunet.commands.terminal import console
from medunet.runs.computing import choose_run_compute, precision_for, set_up_cpu
from medunet.runs.run import Run


def show_computer() -> None:
    """Show processor, cores, memory and GPUs, and the user's settings for this computer."""
    import torch

    from medunet.compute.choice_cache import cache_folder, read_settings

    processor, memory = read_processor(), psutil.virtual_memory()
    _print_line("Processor", processor.name)
    _print_line(
        "Kind", f"{processor.kind}: {' '.join(processor.instruction_sets) or 'no instruction sets known'}"
    )
    for limit in processor.limits:
        _print_line("Limited by", limit)
    load = CoreWatch().other_load()
    _print_line(
        "Cores", f"{usable_cores()} usable, {num_threads()} threads; other processes use {load:.1f} now"
    )
    _print_line("Memory", f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free")
    cards = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
    _print_line(
        "GPUs", ", ".join(f"{card.name} ({card.total_memory / 1e9:.0f} GB)" for card in cards) or "none"
    )
    _print_line("OpenVINO", _openvino_version())
    for key, value in read_settings().items():
        _print_line("Set by you", f"{key}={value}")
    _print_line("Choices cached in", str(cache_folder() or "nothing: there is no home folder"))


def show_cached_choices() -> None:
    """Show all cached choices of precision and memory layout, including those for other processors or settings."""
    from medunet.compute.benchmark import format_seconds
    from medunet.compute.choice_cache import list_choices

    here = {**read_processor().to_dict(), "threads": num_threads()}
    table = Table("for", "network", "patch", "computed in", "takes", "why", "here")
    for kept in list_choices():
        key, choice = kept.key, kept.choice
        layout = ", channels-last" if choice.channels_last else ""
        layout += ", OpenVINO" if choice.backend == "openvino" else ""
        whys = (choice.why, choice.channels_last_why, choice.backend_why)
        reasons = dict.fromkeys(why for why in whys if why)
        network = f"{key['network'].get('network', {}).get('name', '?')} {key['network'].get('features', '')}"
        patch = f"{key['batch']} × {'×'.join(map(str, key['patch']))}"
        same = all(key.get(name) == value for name, value in here.items())
        cells = (
            key["purpose"],
            network,
            patch,
            f"{choice.precision}{layout}",
            format_seconds(choice.seconds),
        )
        table.add_row(*map(escape, (*cells, "; ".join(reasons), "yes" if same else "no")))
    if table.row_count:
        console.print(table)


def show_run(run: Run, device_name: str) -> None:
    """Show how this computer trains a run's fold and predicts with its network; benchmark them if not yet known.

    OpenVINO is compared where a model of the run is trained.
    """
    from medunet.compute.devices import choose_device
    from medunet.inference.model_folder import read_card
    from medunet.inference.probe import choose_for_model, choose_prediction

    device = choose_device(device_name)
    if run.config.training.fold == "each":
        training = run.config.training.model_copy(update={"fold": 0})
        run = Run(run.folder, run.config.model_copy(update={"training": training}), run.data_root)
    set_up_cpu(device)
    choice = choose_run_compute(run, device, keep=False)
    _print_line(f"Training fold {run.config.training.fold}", _sentence(choice, choice.step_s, "batch"))
    _print_line("Compiled", f"{'yes' if choice.compile else 'no'} ({choice.compile_why})")
    precision = precision_for(run.config, device)
    if (folder := run.folder.model(run.config.training.fold)).is_dir():
        how = choose_for_model(folder, read_card(folder), device, precision, timed=True)
    else:
        how = choose_prediction(
            run.read_plan(), run.read_manifest().description, device, precision, timed=True
        )
    _print_line("Prediction", _sentence(how, how.seconds, "window"))


def show_model(folder: Path, device_name: str) -> None:
    """Show how this computer predicts with a model; benchmark it if not yet known."""
    from medunet.compute.devices import choose_device
    from medunet.inference.model_folder import read_card
    from medunet.inference.probe import choose_for_model

    card, device = read_card(folder), choose_device(device_name)
    set_up_cpu(device)
    how = choose_for_model(folder, card, device, timed=True)
    _print_line("Prediction", _sentence(how, how.seconds, "window"))


def _sentence(choice: Any, seconds: float, unit: str) -> str:
    """Return a description of a choice with its reasons."""
    from medunet.compute.benchmark import format_seconds

    layout = "channels-last" if choice.channels_last else "the default layout"
    reasons = f"{choice.why}; layout: {choice.channels_last_why}" if choice.channels_last_why else choice.why
    if because := getattr(choice, "backend_why", ""):  # of a prediction
        layout = "OpenVINO" if choice.backend == "openvino" else f"torch, {layout}"
        reasons = f"{reasons}; {because}" if because != reasons else reasons
    return f"{choice.precision} in {layout}, about {format_seconds(seconds)} per {unit} ({reasons})"


def _print_line(what: str, text: str) -> None:
    console.print(f"[bold]{escape(what)}[/]: {escape(text)}", highlight=False, soft_wrap=True)


def _openvino_version() -> str:
    from medunet.inference.openvino_backend import import_openvino

    try:
        return str(import_openvino().__version__)
    except InputError:
        return "not installed: `pip install 'medunet[openvino]'` speeds up prediction on a CPU"
