"""Coverage and width of 95% intervals of the mean and median on simulated scores, by method and number of patients.

python benchmarks/interval_coverage.py [--repeats 1000] [--patients 5 10 20 29]

Each cell is the share of simulated cohorts whose interval holds the true mean (or median), and the mean width of the
intervals. Student's interval and SciPy's BCa (the method of medunet up to 0.6) stand beside medunet's bootstrap-t.
With fewer than 10 patients medunet gives no interval; the benchmark lifts that limit to show why. The last lines are
cohorts with two scans of each patient, whose scores are alike.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import bootstrap, t

from medunet.scoring import intervals
from medunet.scoring.intervals import bootstrap_intervals

Draw = Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]

DICE, DISTANCE, DIFFERENCE = (0.0, 1.0), (0.0, np.inf), (-1.0, 1.0)
_NUM_TRUTH = 2_000_000  # draws behind the true mean and median


def mixed(share: float, usual: Draw, other: Draw) -> Draw:
    """Return draws of which `share` are `usual`."""

    def draw(generator: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
        is_usual = generator.random(shape) < share
        return np.where(is_usual, usual(generator, shape), other(generator, shape))

    return draw


def beta(a: float, b: float) -> Draw:
    """Return draws of a beta distribution."""
    return lambda generator, shape: generator.beta(a, b, shape)


def lognormal(sigma: float) -> Draw:
    """Return draws of a lognormal distribution with median e mm."""
    return lambda generator, shape: generator.lognormal(1.0, sigma, shape)


def normal(mean: float, deviation: float) -> Draw:
    """Return draws of a normal distribution."""
    return lambda generator, shape: generator.normal(mean, deviation, shape)


def zeros(_: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return zeros, the Dice of misses."""
    return np.zeros(shape)


DISTRIBUTIONS: dict[str, tuple[Draw, tuple[float, float]]] = {
    "Dice near 0.9: beta(18, 2)": (beta(18, 2), DICE),
    "Dice, skewed: beta(9, 1)": (beta(9, 1), DICE),
    "Dice, very skewed: beta(4.5, 0.5)": (beta(4.5, 0.5), DICE),
    "Dice, 20% in a tail around 0.5": (mixed(0.8, beta(27, 3), beta(4, 4)), DICE),
    "Dice, 10% in a tail around 0.5": (mixed(0.9, beta(27, 3), beta(4, 4)), DICE),
    "Dice, 20% missed (0)": (mixed(0.8, beta(27, 3), zeros), DICE),
    "Dice, 10% missed (0)": (mixed(0.9, beta(27, 3), zeros), DICE),
    "HD95 in mm: lognormal, sigma 0.6": (lognormal(0.6), DISTANCE),
    "HD95 in mm: lognormal, sigma 1": (lognormal(1.0), DISTANCE),
    "difference in Dice: normal": (normal(0.01, 0.03), DIFFERENCE),
    "difference in Dice, 20% large": (mixed(0.8, normal(0.01, 0.02), normal(0.1, 0.1)), DIFFERENCE),
}


METHODS = ("Student", "BCa", "bootstrap-t (medunet)", "median (medunet)")


def intervals_of(sample: NDArray[np.float64], bounds: tuple[float, float]) -> list[tuple[float, float]]:
    """Return the intervals of a sample by each of the methods."""
    if np.ptp(sample) == 0:
        return [(np.nan, np.nan)] * len(METHODS)
    half = t.ppf(0.975, sample.size - 1) * sample.std(ddof=1) / np.sqrt(sample.size)
    generator = np.random.default_rng(0)
    bca = bootstrap((sample,), np.mean, n_resamples=1000, method="BCa", rng=generator).confidence_interval
    ours = bootstrap_intervals(sample, None, bounds)
    return [(sample.mean() - half, sample.mean() + half), (bca.low, bca.high), ours.mean, ours.median]


def cover(found: NDArray[np.float64], truth: float) -> str:
    """Return the share of intervals `(repeats, 2)` that hold the truth and their mean width, as text.

    A sample without an interval, as all its values are equal, does not count as covered.
    """
    share = np.mean((found[:, 0] <= truth) & (truth <= found[:, 1]))
    return f"{share:.3f} ({np.nanmean(found[:, 1] - found[:, 0]):.3f})"


def print_table(sizes: Sequence[int], repeats: int, seed: int) -> None:
    """Print coverage and width of each method for each distribution and number of patients."""
    generator = np.random.default_rng(seed)
    print("| distribution | patients | " + " | ".join(METHODS) + " |")
    print("|---" * (2 + len(METHODS)) + "|")
    for name, (draw, bounds) in DISTRIBUTIONS.items():
        truths = draw(generator, (1, _NUM_TRUTH))
        for size in sizes:
            samples = draw(generator, (repeats, size))
            found = np.array([intervals_of(sample, bounds) for sample in samples])
            centres = [truths.mean()] * (len(METHODS) - 1) + [np.median(truths)]
            cells = [cover(found[:, index], truth) for index, truth in enumerate(centres)]
            print(f"| {name} | {size} | " + " | ".join(cells) + " |", flush=True)


def print_patients(num_patients: int, num_scans: int, repeats: int, seed: int) -> None:
    """Print the coverage over patients with several scans each, taken as single cases and together.

    The Dice of a scan is beta(9, 1). Four fifths of its variance, as a normal deviate, are the patient's.
    """
    generator = np.random.default_rng(seed)
    units = np.repeat(np.arange(num_patients), num_scans)
    quantiles = np.sort(generator.beta(9, 1, _NUM_TRUTH))
    own = generator.normal(size=(repeats, num_patients, 1))
    deviates = np.sqrt(0.8) * own + np.sqrt(0.2) * generator.normal(size=(repeats, num_patients, num_scans))
    shares = np.searchsorted(_NORMAL, deviates.reshape(repeats, -1)) / len(_NORMAL)
    samples = quantiles[np.minimum((shares * _NUM_TRUTH).astype(int), _NUM_TRUTH - 1)]
    for name, grouped in (("cases", None), ("patients", units.tolist())):
        found = np.array([bootstrap_intervals(sample, grouped, DICE).mean for sample in samples])
        print(f"{num_patients} patients x {num_scans} scans, resampling {name}: {cover(found, 0.9)}")


_NORMAL = ndtri((np.arange(100_000) + 0.5) / 100_000)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000, help="samples for each row")
    parser.add_argument("--patients", type=int, nargs="+", default=[5, 10, 20, 29])
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    intervals.MIN_UNITS = 2  # to show why medunet gives none below 10
    started = time.perf_counter()
    print(f"coverage (mean width) of 95% intervals, {arguments.repeats} samples a row\n")
    print_table(arguments.patients, arguments.repeats, arguments.seed)
    print()
    print_patients(20, 2, arguments.repeats, arguments.seed)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
