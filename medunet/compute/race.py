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
_HOPED = 2.0  # a trial is begun that should take so many times as long: by a smaller one it seems longer than it is
_CLIMB = 0.5  # of the time that is left, to find the largest trial
_BEHIND = 1.5  # a way that is so many times slower than the best is left
_FIRST_BEHIND = 2.0  # the same, when it was timed once
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
        self.last: Trial | None = None  # the largest trial that the ways were compared at
        self.largest: Trial | None = None  # the largest that the default was timed at

    def run(self, trials: Sequence[Trial]) -> None:
        """Compare all ways at the first two trials, then at the largest that the default ends within a second.

        The first trial must be so small that the slowest way ends it in a tenth of a second: it alone is begun
        without knowing what it takes. The largest is found by the default alone, since what a part takes says little
        of the whole: small parts may take five times as long for each voxel. There the ways are timed in turn until
        each was timed four times or the budget is spent.
        """
        self._compare(trials[0], rounds=2)
        if len(trials) > 1 and self._expected_s(trials[1]) * _CAUTION <= self.end - self.clock():
            self._compare(trials[1], rounds=2)
            if (reached := self._climb(trials[2:])) is not None:
                self._compare(reached, rounds=_ROUNDS)

    def seconds(self, way: Way) -> float | None:
        """Return the best seconds of a way at the last trial; None if it was left before."""
        return None if self.last is None else self.best[self.last.name].get(way)

    def _climb(self, trials: Sequence[Trial]) -> Trial | None:
        """Time the default at growing trials; return the largest that it ends in time, if there is one."""
        until = self.clock() + _CLIMB * (self.end - self.clock())
        reached, hoped = None, _HOPED
        while trials:
            expected = [self._expected_s(trial) for trial in trials]
            longest_s = min(hoped * LONGEST_S, until - self.clock())
            fitting = [number for number, expected_s in enumerate(expected) if expected_s <= longest_s]
            if not fitting:
                break
            trial = trials[fitting[-1]]
            took_s = self._time(trial.prepare(self.default))
            self.best[trial.name] = {self.default: took_s}
            self.largest = trial
            if took_s <= LONGEST_S:
                reached, trials = trial, trials[fitting[-1] + 1 :]
            else:
                hoped, trials = 1.0, trials[: fitting[-1]]
        return reached

    def _expected_s(self, trial: Trial) -> float:
        """Return what the default should take, by the largest trial that it was timed at."""
        assert self.largest is not None
        return self.best[self.largest.name][self.default] * trial.gflop / self.largest.gflop

    def _compare(self, trial: Trial, *, rounds: int) -> None:
        """Time all ways in turn; a way joins if it should end within the budget, by its pace at the last trial."""
        known = self.best.setdefault(trial.name, {})
        pace = dict.fromkeys(self.alive, 1.0)
        if self.last is not None:
            before = self.best[self.last.name]
            pace = {way: before[way] / before[self.default] for way in self.alive}
        calls: dict[Way, Callable[[], None]] = {}
        begun = self.clock()
        for way in list(self.alive):
            if self.last is not None:
                expected_s = pace[way] * known.get(self.default, self._expected_s(trial))
                if self.clock() + expected_s > self.end and way != self.default:
                    self._leave(way, "not compared: the time for it was over")
                    continue
            calls[way] = trial.prepare(way)
            if way not in known:
                known[way] = self._time(calls[way])
            self._leave_slow(trial, _FIRST_BEHIND)  # the first time also makes what later ones use
        self.last = trial
        if self.largest is None or self.largest.gflop < trial.gflop:
            self.largest = trial
        for _ in range(rounds - 1):
            self._round(calls, trial)
            self._leave_slow(trial)
        for _ in range(_SHORT_ROUNDS):
            if self.clock() - begun < _SHORT_S:
                self._round(calls, trial)
        self._leave_slow(trial)

    def _round(self, calls: dict[Way, Callable[[], None]], trial: Trial) -> None:
        """Time each way once, in turn, where it is expected to end within the budget."""
        known = self.best[trial.name]
        for way in [way for way in calls if way in self.alive]:
            if self.clock() + known[way] <= self.end:
                known[way] = min(known[way], self._time(calls[way]))

    def _leave_slow(self, trial: Trial, behind: float = _BEHIND) -> None:
        known = self.best[trial.name]
        timed = [way for way in self.alive if way in known]
        best_s = min(known[way] for way in timed)
        for way in [way for way in timed if way != self.default]:
            if known[way] > max(behind * best_s, _ARITHMETIC_S):
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
