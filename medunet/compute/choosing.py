"""Choose precision and memory layout for a network: as configured, as cached, or by a benchmark on the CPU."""

import logging
import time
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch

from medunet.base.processor import CoreWatch, is_heavy_load, num_threads, read_processor
from medunet.compute.benchmark import Benchmark, Variant, Workload, format_seconds
from medunet.compute.choice_cache import Choice, Purpose, find_choice, read_settings, save_choice
from medunet.compute.devices import check_precision, may_have_bf16

_log = logging.getLogger(__name__)
_BENCHMARK = 2  # increment it when the benchmark compares otherwise, so that choices are made again
BUDGET_S = 10.0  # for training and prediction together
_SHARE = {"training": 0.65, "inference": 0.35}
_GAIN = {"precision": 1.15, "layout": 1.05}  # minimum speed-up over the default
_BUSY_GAIN = {"precision": 1.5, "layout": 1.5}  # times are unreliable while other programs run
_NAMES = {"training": "a training step", "inference": "a prediction"}
Requested = tuple[str, str]  # precision, and channels-last: "auto" or a value
Sources = tuple[str, str]  # of both: "asked for" in the configuration, or "set by you"

MakeWorkloads = Callable[[], Sequence[Workload]]  # called only if a benchmark is needed


def requested_options(
    purpose: Purpose, precision: str = "auto", channels_last: str = "auto"
) -> tuple[Requested, Sources]:
    """Return the requested precision and layout, and where each comes from: configuration first, then settings."""
    settings, values, sources = read_settings(), [], []
    for option, given in (("precision", precision), ("channels_last", channels_last)):
        values.append(settings.get(f"{purpose}.{option}", "auto") if given == "auto" else given)
        sources.append("set by you" if given == "auto" else "asked for")
    return (values[0], values[1]), (sources[0], sources[1])


def choice_key(
    purpose: Purpose, requested: Requested, network: dict[str, Any], patch: Sequence[int], batch: int
) -> dict[str, Any]:
    """Return the cache key of a choice: processor, thread count, torch version, network, patch and batch size."""
    return {
        "purpose": purpose,
        "benchmark": _BENCHMARK,
        "asked": list(requested),
        **read_processor().to_dict(),
        "threads": num_threads(),
        "torch": torch.__version__,
        "network": network,
        "patch": list(patch),
        "batch": batch,
    }


def choose_on_cpu(
    key: dict[str, Any],
    sources: Sources,
    make_workloads: MakeWorkloads,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Choice:
    """Return precision and layout to compute in on the CPU: from the cache, or from a benchmark that is logged.

    The last of the workloads is the whole work. The choice is cached unless other programs used the cores during the
    benchmark or the network itself could not be timed.

    Raises:
        InputError: the requested precision cannot be used on a CPU.
    """
    purpose, requested = key["purpose"], (key["asked"][0], key["asked"][1])
    check_precision(requested[0], torch.device("cpu"))
    if (cached := find_choice(key)) is not None:
        return cached
    budget_s = BUDGET_S * _SHARE[purpose]
    variants = _variants(requested)
    if len(variants) > 1:
        _log.info(
            "Benchmarking precision and memory layout for %s: %g seconds at most.", _NAMES[purpose], budget_s
        )
    watch, benchmark = CoreWatch(), Benchmark(variants, budget_s, clock)
    workloads = make_workloads()
    benchmark.run(workloads)
    taken = watch.other_load()
    busy = is_heavy_load(taken)
    choice = _conclude(benchmark, workloads[-1], requested, sources, _BUSY_GAIN if busy else _GAIN)
    if len(variants) > 1:
        layout = "channels-last" if choice.channels_last else "the default layout"
        because = "; ".join(dict.fromkeys(why for why in (choice.why, choice.channels_last_why) if why))
        _log.info("Chosen for %s: %s in %s (%s).", _NAMES[purpose], choice.precision, layout, because)
    if busy:
        _log.warning(
            "Other programs used %.1f cores during the benchmark: its result is used now but not cached.",
            taken,
        )
    elif (
        benchmark.last_compared is not None
        and benchmark.last_compared.of_network
        and (why := save_choice(key, choice))
    ):
        _log.info("The choice could not be cached: %s.", why)
    return choice


def _variants(requested: Requested) -> list[Variant]:
    precisions: list[Any] = [requested[0]] if requested[0] != "auto" else ["fp32"]
    if requested[0] == "auto" and may_have_bf16():
        precisions.append("bf16")
    layouts = [False, True] if requested[1] == "auto" else [requested[1] == "on"]
    return [Variant(precision, layout) for precision, layout in product(precisions, layouts)]


def _conclude(
    benchmark: Benchmark, whole: Workload, requested: Requested, sources: Sources, gain: dict[str, float]
) -> Choice:
    """Return the default variant, unless another one is faster by at least `gain`."""
    last, default = benchmark.last_compared, benchmark.default
    assert last is not None
    times = {
        variant: seconds
        for variant in benchmark.remaining
        if (seconds := benchmark.seconds(variant)) is not None
    }
    precision = default.precision
    best_s = {
        name: min(seconds for variant, seconds in times.items() if variant.precision == name)
        for name in {variant.precision for variant in times}
    }
    if "bf16" in best_s and best_s[precision] > gain["precision"] * best_s["bf16"]:
        precision = "bf16"
    same, other = Variant(precision, default.channels_last), Variant(precision, not default.channels_last)
    chosen = same
    if other in times and (same not in times or times[same] > gain["layout"] * times[other]):
        chosen = other
    why, layout_why = sources
    if requested[0] == "auto":
        why = "oneDNN has no bf16 for this processor"
        if "bf16" in best_s:
            bf16, fp32 = format_seconds(best_s["bf16"]), format_seconds(best_s["fp32"])
            why = f"{last.name} took {bf16} in bf16, {fp32} in fp32"
        elif dropped := [why for variant, why in benchmark.dropped.items() if variant.precision == "bf16"]:
            why = dropped[0]
    if requested[1] == "auto":
        layout_why = benchmark.dropped.get(other, benchmark.dropped.get(same, ""))
        if same in times and other in times:
            with_s, without_s = format_seconds(times[other]), format_seconds(times[same])
            layout_why = f"{last.name} took {with_s} with it, {without_s} without"
    if not last.of_network:
        why += "; the network itself was not timed: even its smallest part would take too long"
    # The default was timed on a larger workload than the other variants.
    assert benchmark.largest_timed is not None
    default_s = benchmark.best[benchmark.largest_timed.name][default]
    default_s = default_s * whole.gflop / benchmark.largest_timed.gflop
    seconds = default_s * times[chosen] / benchmark.best[last.name][default]
    return Choice(chosen.precision, chosen.channels_last, round(seconds, 6), why, layout_why)
