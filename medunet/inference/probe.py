"""Choose backend, precision and memory layout for prediction, on a CPU by a benchmark that is cached."""

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medunet.base.errors import InputError, MedunetError
from medunet.base.processor import CoreWatch, is_heavy_load
from medunet.compute.benchmark import Variant, format_seconds
from medunet.compute.choice_cache import Choice, find_choice, read_settings, save_choice
from medunet.compute.choosing import choice_key, choose_on_cpu, requested_options
from medunet.compute.devices import Precision, autocast, check_precision, gpu_precision
from medunet.compute.workloads import make_workloads
from medunet.imaging.volumes import read_header
from medunet.inference.backend import Backend
from medunet.inference.memory import network_grid
from medunet.inference.model import Model
from medunet.inference.openvino_backend import CONVERSION, ConversionError, has_bf16, import_openvino
from medunet.inference.windows import lay_windows
from medunet.networks.builder import build_network
from medunet.records.config import InferenceConfig, WeightsName
from medunet.records.description import Description
from medunet.records.model_card import ModelCard
from medunet.records.plan import Plan, count_outputs, plan_inputs

_log = logging.getLogger(__name__)
_GPU_ROUNDS = 4
_ROUNDS, _TIMED_S = 4, 2.0  # of a window in OpenVINO, the first to warm up
_WORTH_S = 10.0  # of windows in torch: converting and timing takes about as long, once
_GAIN = {"precision": 1.15, "backend": 1.05}  # minimum speed-up over fp32 and over torch
_BUSY_GAIN = {"precision": 1.5, "backend": 1.5}  # times are unreliable while other programs run


def choose_for_model(
    folder: Path,
    card: ModelCard,
    device: torch.device,
    precision: str = "auto",
    backend: str = "auto",
    *,
    weights: WeightsName | None = None,
    num_windows: float = math.inf,
    timed: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> Choice:
    """Return backend, precision and layout for predicting with a model; `seconds` is the time of one window.

    On a CPU torch is benchmarked as by `choose_prediction`. If the windows would take it more than ten seconds and
    OpenVINO is installed, the network is converted, which is kept, and its windows are timed: about two of each
    precision. The choice is cached for this network, processor and these versions, and used for short jobs as well.

    Args:
        precision: auto, fp32, bf16, fp16 or int8.
        backend: auto, torch or openvino; auto: as set by the user.
        num_windows: expected number of windows in all.
        timed: estimate `seconds` also where no benchmark is needed.

    Raises:
        InputError: the options contradict one another or the device, or openvino is asked for and not installed.
        ConversionError: openvino is asked for, and cannot compute this network.
    """
    asked, source = backend, "asked for"
    if backend == "auto" and precision == "int8":
        asked = "openvino"
    elif backend == "auto" and device.type == "cpu":
        asked, source = read_settings().get("inference.backend", "auto"), "set by you"
    _check_options(backend, precision, device)

    def load(name: Precision) -> Backend:
        return Model.load(folder, device=device, precision=name, backend="openvino", weights=weights).backend

    torch_precision = "auto" if precision == "int8" else precision
    (requested, layout), sources = requested_options("inference", torch_precision)
    precision = requested if precision == "auto" else precision
    if asked == "openvino" and (precision != "auto" or not has_bf16()):
        name: Any = "fp32" if precision == "auto" else precision
        seconds = _time_window(load(name), card, clock) if timed else 0.0
        why = sources[0] if precision != "auto" else "OpenVINO has no bf16 for this processor"
        return Choice(name, False, seconds, why, backend="openvino", backend_why=source)
    if asked != "openvino":
        known = choose_prediction(card.plan, card.description, device, precision, timed=timed)
        if asked == "torch" or device.type != "cpu":
            return replace(known, backend_why=source if asked == "torch" else "")
        try:
            version = import_openvino().__version__
        except InputError:
            return replace(known, backend_why="OpenVINO is not installed")
    else:
        known, version = None, import_openvino().__version__
    network = network_key(card.plan, card.description)
    key = choice_key("inference", (precision, layout), network, card.plan.patch_size, 1)
    key |= {"backend": asked, "openvino": version, "conversion": CONVERSION}
    if (cached := find_choice(key)) is not None:
        return cached
    if known is not None and known.seconds * num_windows < _WORTH_S:
        return replace(known, backend_why="OpenVINO was not tried: the job is short")
    return _compare(key, known, load, card, source, clock)


def count_windows(scans: Iterable[Path], card: ModelCard, config: InferenceConfig) -> int:
    """Return about how many windows scans have, by their headers, averaging included; unreadable ones have none."""
    plan, total = card.plan, 0
    for path in scans:
        try:
            shape = network_grid(read_header(path), plan)
        except (MedunetError, OSError):
            continue
        grid = lay_windows(shape, (0, 0, 0), plan, config.overlap)
        total += math.prod(map(len, grid))
    return total * config.shifts * 2 ** len(set(config.mirror))


def _check_options(backend: str, precision: str, device: torch.device) -> None:
    check_precision(precision, device)
    if backend == "openvino" and device.type != "cpu":
        raise InputError("OpenVINO computes on the CPU", where="--backend openvino", hint="Add --device cpu.")
    if precision == "int8" and (backend == "torch" or device.type != "cpu"):
        raise InputError(
            "int8 is computed by OpenVINO on the CPU",
            where="--precision int8",
            hint="Use --device cpu and --backend openvino.",
        )


def _compare(
    key: dict[str, Any],
    known: Choice | None,
    load: Callable[[Precision], Backend],
    card: ModelCard,
    source: str,
    clock: Callable[[], float],
) -> Choice:
    """Time the network in OpenVINO, in fp32 and bf16 as far as they are asked for, and choose among it and torch."""
    asked = key["asked"][0]
    names: list[Precision] = [name for name in ("fp32", "bf16") if asked in ("auto", name)]
    watch = CoreWatch()
    times: dict[Precision, float] = {}
    for name in names:
        if name == "bf16" and not has_bf16():
            continue
        try:
            times[name] = _time_window(load(name), card, clock)
        except ConversionError as error:
            if times:
                _log.warning("%s It is not used in %s.", error, name)
            elif known is None:
                raise
            else:
                _log.warning("%s Prediction goes on in torch.", error)
                known = replace(known, backend_why=error.what)
                break
    taken = watch.other_load()
    busy = is_heavy_load(taken)
    choice = _fastest(known, times, _BUSY_GAIN if busy else _GAIN, source)
    if times:
        _log.info(
            "Chosen for a prediction: %s in %s (%s).", choice.precision, choice.backend, choice.backend_why
        )
    if busy:
        _log.warning(
            "Other programs used %.1f cores during the benchmark: its result is used now but not cached.",
            taken,
        )
    elif why := save_choice(key, choice):
        _log.info("The choice could not be cached: %s.", why)
    return choice


def _fastest(
    known: Choice | None, openvino: dict[Precision, float], gain: dict[str, float], source: str
) -> Choice:
    """Return torch's choice, unless OpenVINO or a precision is faster by at least `gain`."""
    why = source
    if known is not None:
        why = known.backend_why
        if openvino:
            times = format_seconds(min(openvino.values())), format_seconds(known.seconds)
            why = f"a window took {times[0]} in OpenVINO, {times[1]} in torch"
    best: dict[str, Choice] = {} if known is None else {known.precision: replace(known, backend_why=why)}
    for name, seconds in openvino.items():
        if name not in best or best[name].seconds > gain["backend"] * seconds:
            best[name] = Choice(name, False, round(seconds, 6), backend="openvino", backend_why=why)
    if len(best) == 1:
        return next(iter(best.values()))
    fp32, bf16 = best["fp32"], best["bf16"]
    precision_why = (
        f"a window took {format_seconds(bf16.seconds)} in bf16, {format_seconds(fp32.seconds)} in fp32"
    )
    return replace(bf16 if fp32.seconds > gain["precision"] * bf16.seconds else fp32, why=precision_why)


def _time_window(backend: Backend, card: ModelCard, clock: Callable[[], float]) -> float:
    """Return the shortest time of a window in seconds: of four, or of as many as start within two seconds."""
    channels = plan_inputs(card.plan, card.description)
    image = torch.randn((1, channels, *card.plan.patch_size), generator=torch.Generator().manual_seed(0))
    best_s, end = math.inf, clock() + _TIMED_S
    for _ in range(_ROUNDS):
        start = clock()
        if start > end:
            break
        backend.forward(image)
        best_s = min(best_s, clock() - start)
    return best_s


def choose_prediction(
    plan: Plan,
    description: Description,
    device: torch.device,
    precision: str = "auto",
    *,
    timed: bool = False,
) -> Choice:
    """Return precision and layout for predicting with a plan's network; `seconds` is the time of one window.

    On a GPU no benchmark is needed: `seconds` is 0 there unless `timed`.

    Raises:
        InputError: fp16 on a CPU.
    """
    requested, sources = requested_options("inference", precision)
    if device.type == "cpu":
        key = choice_key("inference", requested, network_key(plan, description), plan.patch_size, 1)
        num_inputs = plan_inputs(plan, description)
        return choose_on_cpu(
            key,
            sources,
            lambda: make_workloads(
                plan, num_inputs, 1, lambda: build_network(plan, description), _predict, training=False
            ),
        )
    variant = Variant(gpu_precision(device) if requested[0] == "auto" else requested[0], requested[1] == "on")  # type: ignore[arg-type]
    why = f"this GPU computes in {variant.precision}" if requested[0] == "auto" else sources[0]
    seconds = _gpu_seconds(plan, description, device, variant) if timed else 0.0
    return Choice(variant.precision, variant.channels_last, seconds, why)


def network_key(plan: Plan, description: Description) -> dict[str, object]:
    """Return the part of a plan that defines its network, for the cache key of a choice."""
    keys = {"network", "dimensions", "features", "kernel_sizes", "strides", "convolutions_per_stage",
            "encoder_blocks", "deep_supervision", "context_slices"}  # fmt: skip
    defining = {key: value for key, value in plan.model_dump(mode="json").items() if key in keys}
    return defining | {"inputs": len(description.channels), "outputs": count_outputs(description)}


@torch.inference_mode()
def _predict(network: nn.Module, image: torch.Tensor, variant: Variant) -> None:
    with autocast(image.device, variant.precision):
        network(image)


def _gpu_seconds(plan: Plan, description: Description, device: torch.device, variant: Variant) -> float:
    network = build_network(plan, description).to(device).eval()
    channels = plan_inputs(plan, description)
    image = torch.zeros((1, channels, *plan.patch_size), device=device)
    best_s = float("inf")
    for _ in range(_GPU_ROUNDS):
        start = time.perf_counter()
        _predict(network, image, variant)
        torch.cuda.synchronize(device)
        best_s = min(best_s, time.perf_counter() - start)
    return best_s
