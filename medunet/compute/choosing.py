"""How to compute one network in training or in prediction: asked for, kept from before, or found by a race."""

import logging
import time
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch

from medunet.base.processor import CoreWatch, is_heavy_load, num_threads, read_processor
from medunet.compute.devices import check_precision, may_have_bf16
from medunet.compute.kept import Choice, Purpose, find, keep, read_settings
from medunet.compute.race import Race, Trial, Way, told

_log = logging.getLogger(__name__)
BUDGET_S = 10.0  # for training and prediction together
_SHARE = {"training": 0.65, "inference": 0.35}
_GAIN = {"precision": 1.15, "layout": 1.05}  # so much faster a way must be to take the default's place
_BUSY_GAIN = {"precision": 1.5, "layout": 1.5}  # what is timed beside other work says little
_NAMES = {"training": "a training step", "inference": "a prediction"}
Asked = tuple[str, str]  # precision, and channels-last: "auto" or a value
Whose = tuple[str, str]  # of both: "asked for" in the configuration, or "set by you"

Trials = Callable[[], Sequence[Trial]]  # made only if they are run


def asked_for(purpose: Purpose, precision: str = "auto", channels_last: str = "auto") -> tuple[Asked, Whose]:
    """Return what the configuration asks for, else what the user set for this computer; and whose word each is."""
    settings, words, whose = read_settings(), [], []
    for what, given in (("precision", precision), ("channels_last", channels_last)):
        words.append(settings.get(f"{purpose}.{what}", "auto") if given == "auto" else given)
        whose.append("set by you" if given == "auto" else "asked for")
    return (words[0], words[1]), (whose[0], whose[1])


def choice_key(
    purpose: Purpose, asked: Asked, network: dict[str, Any], patch: Sequence[int], batch: int
) -> dict[str, Any]:
    """Return what a choice on this processor holds for; another torch, thread count or plan is another key."""
    return {
        "purpose": purpose,
        "asked": list(asked),
        **read_processor().to_dict(),
        "threads": num_threads(),
        "torch": torch.__version__,
        "network": network,
        "patch": list(patch),
        "batch": batch,
    }


def choose_on_cpu(
    key: dict[str, Any], asked_by: Whose, trials: Trials, *, clock: Callable[[], float] = time.perf_counter
) -> Choice:
    """Return how to compute on the CPU: as kept for the key, else found by a race, which is announced, and kept.

    `trials` makes the trials, the largest of which is the whole work. A choice that was made while other work took
    cores, or that could not time the network, is used once and not kept.

    Raises:
        InputError: the precision asked for cannot be used on a CPU.
    """
    purpose, asked = key["purpose"], (key["asked"][0], key["asked"][1])
    check_precision(asked[0], torch.device("cpu"))
    if (kept := find(key)) is not None:
        return kept
    budget_s = BUDGET_S * _SHARE[purpose]
    ways = _ways(asked)
    if len(ways) > 1:
        _log.info("Trying how %s is computed fastest here: %g seconds at most.", _NAMES[purpose], budget_s)
    watch, race = CoreWatch(), Race(ways, budget_s, clock)
    ladder = trials()
    race.run(ladder)
    taken = watch.other_load()
    busy = is_heavy_load(taken)
    choice = _conclude(race, ladder[-1], asked, asked_by, _BUSY_GAIN if busy else _GAIN)
    if len(ways) > 1:
        layout = "channels-last" if choice.channels_last else "the default layout"
        because = "; ".join(dict.fromkeys(why for why in (choice.why, choice.channels_last_why) if why))
        _log.info("Chosen for %s: %s in %s (%s).", _NAMES[purpose], choice.precision, layout, because)
    if busy:
        _log.warning("Other work took %.1f cores meanwhile: the choice is used now, and not kept.", taken)
    elif race.last is not None and race.last.of_network and (why := keep(key, choice)):
        _log.info("How to compute could not be kept for the next time: %s.", why)
    return choice


def _ways(asked: Asked) -> list[Way]:
    precisions: list[Any] = [asked[0]] if asked[0] != "auto" else ["fp32"]
    if asked[0] == "auto" and may_have_bf16():
        precisions.append("bf16")
    layouts = [False, True] if asked[1] == "auto" else [asked[1] == "on"]
    return [Way(precision, layout) for precision, layout in product(precisions, layouts)]


def _conclude(race: Race, whole: Trial, asked: Asked, asked_by: Whose, gain: dict[str, float]) -> Choice:
    """Return what a race's times say: the default way, unless another one is faster by more than chance."""
    last, default = race.last, race.default
    assert last is not None
    times = {way: seconds for way in race.alive if (seconds := race.seconds(way)) is not None}
    precision = default.precision
    best_s = {
        name: min(seconds for way, seconds in times.items() if way.precision == name)
        for name in {way.precision for way in times}
    }
    if "bf16" in best_s and best_s[precision] > gain["precision"] * best_s["bf16"]:
        precision = "bf16"
    plain, turned = Way(precision, default.channels_last), Way(precision, not default.channels_last)
    chosen = plain
    if turned in times and (plain not in times or times[plain] > gain["layout"] * times[turned]):
        chosen = turned
    why, layout_why = asked_by
    if asked[0] == "auto":
        why = "oneDNN has no bf16 for this processor"
        if "bf16" in best_s:
            why = f"{last.name} took {told(best_s['bf16'])} in bf16, {told(best_s['fp32'])} in fp32"
        elif left := [why for way, why in race.left.items() if way.precision == "bf16"]:
            why = left[0]
    if asked[1] == "auto":
        layout_why = race.left.get(turned, race.left.get(plain, ""))
        if plain in times and turned in times:
            layout_why = f"{last.name} took {told(times[turned])} with it, {told(times[plain])} without"
    if not last.of_network:
        why += "; the network itself was not timed: even its smallest part would take too long"
    # What the default takes is known at a larger trial than what the others take.
    assert race.largest is not None
    default_s = race.best[race.largest.name][default] * whole.gflop / race.largest.gflop
    seconds = default_s * times[chosen] / race.best[last.name][default]
    return Choice(chosen.precision, chosen.channels_last, round(seconds, 6), why, layout_why)
