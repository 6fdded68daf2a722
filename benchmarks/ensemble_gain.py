"""What an ensemble gains over its members: mean Dice of each, and the paired gain over the members' mean.

python benchmarks/ensemble_gain.py ENSEMBLE/scores.csv MEMBER0/scores.csv MEMBER1/scores.csv ...

Each table is that of `medunet score`, of the same cases. Prints the mean difference of the cases with its 95% t
interval and the p value of Wilcoxon's signed-rank test; each case counts as one patient.
"""

import argparse
from pathlib import Path

import pandas as pd
from scipy import stats


def read_dice(path: Path) -> pd.Series:
    """Return the mean Dice over targets of each case of a score table."""
    return pd.read_csv(path, dtype={"case": str}).groupby("case")["dice"].mean()


def main() -> None:
    """Compare the tables that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ensemble", type=Path)
    parser.add_argument("members", type=Path, nargs="+")
    given = parser.parse_args()
    ensemble = read_dice(given.ensemble)
    members = pd.concat([read_dice(path) for path in given.members], axis=1)
    if not ensemble.index.sort_values().equals(members.index.sort_values()) or members.isna().any(axis=None):
        raise SystemExit("The tables have different cases.")
    gain = ensemble - members.mean(axis=1)
    low, high = stats.t.interval(0.95, len(gain) - 1, gain.mean(), stats.sem(gain))
    print(f"{len(gain)} cases: ensemble {ensemble.mean():.4f}, members {members.mean().round(4).tolist()}")
    p_value = stats.wilcoxon(gain).pvalue
    print(f"gain {gain.mean():.4f} ({low:.4f} to {high:.4f}), p {p_value:.1g}, better in {sum(gain > 0)}")


if __name__ == "__main__":
    main()
