"""Ways to compute the same work, timed against each other within a budget of seconds.

A way may be a hundred times slower than another (bf16 where the processor has no instructions for it). So trials
grow: what a step would take is known from the trial before it, and a way that falls behind is left where its trials
are still small.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medunet.compute.devices import Precision

LONGEST_S = 1.0  # of a step in the default way
_BEHIND = 1.5  # a way that is so many times slower than the best is left
_ARITHMETIC_S = 0.005  # below this a trial times calls rather than arithmetic, and no way is left for it
_ROUNDS = 4  # at the last trial; the first of them also makes what the others use
_SHORT_S, _SHORT_ROUNDS = 0.2, 10  # short trials are repeated: other work disturbs them most
_CAUTION = 4.0  # a network may be so many times slower than a convolution of as many operations


@dataclass(frozen=True)
class Way:
    """A precision and a memory layout."""

    precision: Precision = "fp32"
    channels_last: bool = False

    def __str__(self) -> str:
        return f"{self.precision}, channels-last" if self.channels_last else self.precision


@dataclass(frozen=True)
class Trial:
    """Work of one size: `prepare` gives, for a way, the call that does it once; `gflop` says how much it is."""

    name: str  # "a small convolution", "a step on 1/8 of the patch"
    gflop: float
    prepare: Callable[[Way], Callable[[], None]]
    of_network: bool = True


class Race:
    """Times ways at growing trials; `best` holds the seconds of each way at each trial, `left` why ways were left."""

    def __init__(
        self, ways: Sequence[Way], budget_s: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """The first of the ways is the default: it is never left."""
        self.default, self.alive, self.clock = ways[0], list(ways), clock
        self.end = clock() + budget_s
        self.best: dict[str, dict[Way, float]] = {}
        self.left: dict[Way, str] = {}
        self.last: Trial | None = None  # the largest trial that was done
        self._first_extra_s: dict[Way, float] = {}  # what a first step took more than a later one

    def run(self, trials: Sequence[Trial]) -> None:
        """Do the first trial, the smallest one of the network, and the largest that the default ends within a second.

        The first trial must be so small that the slowest way ends it in a tenth of a second: it alone is begun
        without knowing what it takes. At the last trial the ways are timed in turn until it was done four times or
        the budget is spent.
        """
        while (trial := self._next(trials)) is not None:
            calls = self._enter(trial)
            if self.default not in calls:
                return
            self.last = trial
        assert self.last is not None
        for _ in range(_ROUNDS - 2):
            self._round(calls, self.last)
            self._leave_slow(self.last)

    def seconds(self, way: Way) -> float | None:
        """Return the best seconds of a way at the last trial; None if it was left before."""
        return None if self.last is None else self.best[self.last.name].get(way)

    def _next(self, trials: Sequence[Trial]) -> Trial | None:
        if self.last is None:
            return trials[0]
        following = trials[trials.index(self.last) + 1 :]
        left_s = self.end - self.clock()
        longest_s = min(
            LONGEST_S, left_s / len(self.alive) / (_ROUNDS - 1)
        )  # all ways must have their rounds
        if not self.last.of_network:
            following, longest_s = following[:1], min(LONGEST_S, left_s)
        fitting = [trial for trial in following if self.expected_s(self.default, trial) <= longest_s]
        return fitting[-1] if fitting else None

    def expected_s(self, way: Way, trial: Trial) -> float:
        """Return what a step of a trial should take, by the last one."""
        if self.last is None:
            return 0.0
        if trial.name in self.best and way in self.best[trial.name]:
            return self.best[trial.name][way]
        caution = _CAUTION if trial.of_network and not self.last.of_network else 1.0
        before_s = self.best[self.last.name][way]
        return before_s * trial.gflop / self.last.gflop * caution

    def _enter(self, trial: Trial) -> dict[Way, Callable[[], None]]:
        """Begin a trial: two rounds of all ways that are expected to end within the budget; return their calls."""
        calls: dict[Way, Callable[[], None]] = {}
        self.best[trial.name], first_s = {}, {}
        for way in list(self.alive):
            before_s = self.expected_s(way, trial) + self._first_extra_s.get(way, 0.0)
            if self.clock() + before_s > self.end:
                if way != self.default:
                    self._leave(way, "not compared: the time for it was over")
                    continue
                return {}
            call = trial.prepare(way)
            first_s[way] = self._time(call)
            self.best[trial.name][way] = first_s[way]
            calls[way] = call
        known, begun = self.best[trial.name], self.clock()
        self._round(calls, trial)
        for _ in range(_SHORT_ROUNDS):
            if self.clock() - begun < _SHORT_S:
                self._round(calls, trial)
        self._leave_slow(trial)
        self._first_extra_s = {way: first_s[way] - known[way] for way in first_s}
        return calls

    def _round(self, calls: dict[Way, Callable[[], None]], trial: Trial) -> None:
        """Time each way once, in turn, where it is expected to end within the budget."""
        known = self.best[trial.name]
        for way in [way for way in calls if way in self.alive]:
            if self.clock() + known[way] <= self.end:
                known[way] = min(known[way], self._time(calls[way]))

    def _leave_slow(self, trial: Trial) -> None:
        known = self.best[trial.name]
        best_s = min(known[way] for way in self.alive)
        for way in [way for way in self.alive if way != self.default]:
            if known[way] > max(_BEHIND * best_s, _ARITHMETIC_S):
                self._leave(way, f"{trial.name} took {told(known[way])} in {way}, {told(best_s)} at best")

    def _leave(self, way: Way, why: str) -> None:
        self.alive.remove(way)
        self.left[way] = why

    def _time(self, call: Callable[[], None]) -> float:
        start = self.clock()
        call()
        return self.clock() - start


def told(seconds: float) -> str:
    """Return seconds as people read them."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.1 else f"{seconds * 1e3:.1f} ms"
