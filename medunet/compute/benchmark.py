"""Benchmark of a network's workload in several precisions and memory layouts, within a time budget.

One variant may be a hundred times slower than another (bf16 where the processor has no instructions for it).
Therefore the workloads grow: the time of a workload is estimated from the one before it, and a slow variant is
dropped while its workloads are still small.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medunet.compute.devices import Precision

LONGEST_S = 1.0  # of a step in the default variant
_START_FACTOR = 2.0  # start a workload estimated at up to this many times LONGEST_S: small ones overestimate
_SEARCH_SHARE = 0.5  # of the remaining time, to find the largest workload
_MAX_SLOWDOWN = 1.5  # drop a variant that is this many times slower than the fastest
_FIRST_MAX_SLOWDOWN = 2.0  # the same, after a single measurement
_OVERHEAD_S = 0.005  # shorter measurements show call overhead, not arithmetic: no variant is dropped for them
_ROUNDS = 4  # for the largest workload; the first round also warms up
_SHORT_S, _SHORT_ROUNDS = 0.2, 10  # repeat short workloads: other programs disturb them most
_SAFETY = 4.0  # a network may be this many times slower than a convolution with as many operations


@dataclass(frozen=True)
class Variant:
    """Precision and memory layout to compute in."""

    precision: Precision = "fp32"
    channels_last: bool = False

    def __str__(self) -> str:
        return f"{self.precision}, channels-last" if self.channels_last else self.precision


@dataclass(frozen=True)
class Workload:
    """Work of one size: `prepare` returns, for a variant, a function that does the work once."""

    name: str  # "a small convolution", "a step on 1/8 of the patch"
    gflop: float
    prepare: Callable[[Variant], Callable[[], None]]
    of_network: bool = True


class Benchmark:
    """Time variants on growing workloads.

    `best` holds the shortest time in seconds of each variant on each workload, `dropped` why variants were dropped.
    """

    def __init__(
        self, variants: Sequence[Variant], budget_s: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """The first variant is the default: it is never dropped."""
        self.default, self.remaining, self.clock = variants[0], list(variants), clock
        self.end = clock() + budget_s
        self.best: dict[str, dict[Variant, float]] = {}
        self.dropped: dict[Variant, str] = {}
        self.last_compared: Workload | None = None  # the largest workload that the variants were compared on
        self.largest_timed: Workload | None = None  # the largest workload that the default was timed on

    def run(self, workloads: Sequence[Workload]) -> None:
        """Compare all variants on the first two workloads, then on the largest that takes the default at most 1 s.

        The slowest variant must finish the first workload in a tenth of a second, since its time is not known
        beforehand. The largest workload is found with the default alone: small patches may take five times as long
        per voxel, so that they are not representative. There the variants are timed in turn, four times each or
        until the budget is spent.
        """
        self._compare(workloads[0], rounds=2)
        if len(workloads) > 1 and self._estimate_s(workloads[1]) * _SAFETY <= self.end - self.clock():
            self._compare(workloads[1], rounds=2)
            if (largest := self._find_largest(workloads[2:])) is not None:
                self._compare(largest, rounds=_ROUNDS)

    def seconds(self, variant: Variant) -> float | None:
        """Return the shortest time of a variant on the last compared workload; None if it was dropped before."""
        return None if self.last_compared is None else self.best[self.last_compared.name].get(variant)

    def _find_largest(self, workloads: Sequence[Workload]) -> Workload | None:
        """Time the default on growing workloads; return the largest that takes at most LONGEST_S, if any."""
        until = self.clock() + _SEARCH_SHARE * (self.end - self.clock())
        largest, factor = None, _START_FACTOR
        while workloads:
            estimates = [self._estimate_s(workload) for workload in workloads]
            longest_s = min(factor * LONGEST_S, until - self.clock())
            fitting = [number for number, estimate_s in enumerate(estimates) if estimate_s <= longest_s]
            if not fitting:
                break
            workload = workloads[fitting[-1]]
            took_s = self._measure(workload.prepare(self.default))
            self.best[workload.name] = {self.default: took_s}
            self.largest_timed = workload
            if took_s <= LONGEST_S:
                largest, workloads = workload, workloads[fitting[-1] + 1 :]
            else:
                factor, workloads = 1.0, workloads[: fitting[-1]]
        return largest

    def _estimate_s(self, workload: Workload) -> float:
        """Estimate the default's time on a workload from the largest one that it was timed on."""
        assert self.largest_timed is not None
        return self.best[self.largest_timed.name][self.default] * workload.gflop / self.largest_timed.gflop

    def _compare(self, workload: Workload, *, rounds: int) -> None:
        """Time in turn all variants that should finish within the budget, judged by the last compared workload."""
        known = self.best.setdefault(workload.name, {})
        slowdown = dict.fromkeys(self.remaining, 1.0)
        if self.last_compared is not None:
            before = self.best[self.last_compared.name]
            slowdown = {variant: before[variant] / before[self.default] for variant in self.remaining}
        calls: dict[Variant, Callable[[], None]] = {}
        start = self.clock()
        for variant in list(self.remaining):
            if self.last_compared is not None:
                estimate_s = slowdown[variant] * known.get(self.default, self._estimate_s(workload))
                if self.clock() + estimate_s > self.end and variant != self.default:
                    self._drop(variant, "not compared: the time budget was spent")
                    continue
            calls[variant] = workload.prepare(variant)
            if variant not in known:
                known[variant] = self._measure(calls[variant])
                if self.last_compared is None:
                    # The first call compiles kernels, and may take 20 times as long.
                    known[variant] = min(known[variant], self._measure(calls[variant]))
            self._drop_slow(workload, _FIRST_MAX_SLOWDOWN)  # the first measurement includes the warm-up
        self.last_compared = workload
        if self.largest_timed is None or self.largest_timed.gflop < workload.gflop:
            self.largest_timed = workload
        for _ in range(rounds - 1):
            self._time_round(calls, workload)
            self._drop_slow(workload)
        for _ in range(_SHORT_ROUNDS):
            if self.clock() - start < _SHORT_S:
                self._time_round(calls, workload)
        self._drop_slow(workload)

    def _time_round(self, calls: dict[Variant, Callable[[], None]], workload: Workload) -> None:
        """Time each variant once, in turn, if it should finish within the budget."""
        known = self.best[workload.name]
        for variant in [variant for variant in calls if variant in self.remaining]:
            if self.clock() + known[variant] <= self.end:
                known[variant] = min(known[variant], self._measure(calls[variant]))

    def _drop_slow(self, workload: Workload, max_slowdown: float = _MAX_SLOWDOWN) -> None:
        known = self.best[workload.name]
        timed = [variant for variant in self.remaining if variant in known]
        best_s = min(known[variant] for variant in timed)
        for variant in [variant for variant in timed if variant != self.default]:
            if known[variant] > max(max_slowdown * best_s, _OVERHEAD_S):
                took, best = format_seconds(known[variant]), format_seconds(best_s)
                self._drop(variant, f"{workload.name} took {took} in {variant}, {best} at best")

    def _drop(self, variant: Variant, why: str) -> None:
        self.remaining.remove(variant)
        self.dropped[variant] = why

    def _measure(self, call: Callable[[], None]) -> float:
        start = self.clock()
        call()
        return self.clock() - start


def format_seconds(seconds: float) -> str:
    """Return a time as short text: `2.3 s`, `456 ms` or `1.2 ms`."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.1 else f"{seconds * 1e3:.1f} ms"
