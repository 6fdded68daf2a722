"""How often `medunet select` chooses something: where nothing gains on average, and where one of the steps does.

python benchmarks/selection_errors.py
"""

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from medunet.scoring.gains import choose_each, measure_gains, round_level

Floats = NDArray[np.float64]

NUM_STEPS = 14  # as of two targets
DIFFERENCES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "symmetric (normal)": lambda rng, shape: rng.normal(0, 0.02, shape),
    "6 of 10 patients unchanged": lambda rng, shape: rng.normal(0, 0.02, shape) * (rng.random(shape) < 0.4),
    "many small gains, few large losses (exponential)": lambda rng, shape: (
        0.02 * (1 - rng.exponential(1, shape))
    ),
    "the same, heavier (log-normal)": lambda rng, shape: 0.02 * (np.exp(0.5) - rng.lognormal(0, 1, shape)),
    "1 of 20 patients loses 0.19, the others gain 0.01": lambda rng, shape: (
        np.where(rng.random(shape) < 0.05, -0.19, 0.01) + rng.normal(0, 0.002, shape)
    ),
}


def share_chosen(
    draw: Callable[[np.random.Generator, tuple[int, int]], Floats],
    num_patients: int,
    num_selections: int,
    gain: float = 0.0,
) -> float:
    """Return the share of first rounds that choose a step; one of the steps gains `gain`, all others nothing."""
    rng, num_chosen = np.random.default_rng(num_patients), 0
    for _ in range(num_selections):
        differences = draw(rng, (NUM_STEPS, num_patients))
        differences[0] += gain
        before = [np.zeros(num_patients)] * NUM_STEPS
        level = round_level(1)
        chosen = choose_each([""] * NUM_STEPS, measure_gains(before, list(differences), level), level)
        num_chosen += bool(chosen)
    return num_chosen / num_selections


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--selections", type=int, default=1000)
    parser.add_argument("--patients", type=int, nargs="+", default=[10, 20, 40, 100])
    options = parser.parse_args()
    print(f"| differences | {' | '.join(f'{count} patients' for count in options.patients)} |")
    print("|---|" + "---|" * len(options.patients))
    rows = [(name, draw, 0.0) for name, draw in DIFFERENCES.items()]
    normal = DIFFERENCES["symmetric (normal)"]
    rows += [(f"symmetric, one step gains {gain:g}", normal, gain) for gain in (0.01, 0.02)]
    for name, draw, gain in rows:
        shares = [share_chosen(draw, count, options.selections, gain) for count in options.patients]
        print(f"| {name} | {' | '.join(f'{share:.3f}' for share in shares)} |", flush=True)


if __name__ == "__main__":
    main()
