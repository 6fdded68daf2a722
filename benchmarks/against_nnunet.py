"""Steps per second, time to the 50th step and peak memory of `medunet train` beside nnU-Net's trainer, in turn.

python benchmarks/against_nnunet.py --peer-python PEER/bin/python --work DIR --data-root DIR --folds-file FILE \
    [--rounds 3] [--steps 50] [--patch 40 56 40] [--batch 6]

benchmarks/nnunet_peer.py says how PEER, nnU-Net's environment, is made. Both train the same cases on the CPU with
the same patch, batch, channels and list of augmentations, and with deep supervision; nnU-Net in fp32, as it
does on a CPU, medunet as its probe finds best. A round starts each once as its user does, in a process of its own,
with the cases preprocessed before, for twice `--steps` steps.

- "time to step": from the process's start, imports, probes and loaders included, until the table that it writes
  shows `--steps` steps. medunet's shows them after the validation that ends the epoch, nnU-Net's at once.
- "steps a second": of the second half. medunet's figure counts data, augmentation, logging, one validated case,
  checkpoint and curves; nnU-Net's counts data and augmentation alone: the rest it does every 250 steps.
- "peak memory": the largest resident size of the process.

The ratios are medians over the rounds' ratios, with their range.
"""

import argparse
import os
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_peer import Peer, Watched, add_arguments, read_cases, read_rows, watch

from medunet.base.files import read_json_object, write_json
from medunet.base.processor import read_processor


@dataclass(frozen=True)
class Measured:
    """What one start of one trainer came to."""

    reached_s: float  # from the process's start to the last step of the first half
    steps_per_s: float  # of the second half
    peak_gb: float

    @classmethod
    def of(cls, watched: Watched, rows: Sequence[dict[str, float]], num_steps: int) -> "Measured":
        """Read the figures off a process and its rows (step, minutes), of which one ends each half."""
        first, last = (next(row for row in rows if row["step"] == n) for n in (num_steps, 2 * num_steps))
        seconds = 60 * (last["minutes"] - first["minutes"])
        assert watched.reached_s is not None, "the table was never seen to reach the step"
        return cls(watched.reached_s, num_steps / seconds, watched.peak_gb)


@dataclass(frozen=True)
class Ours:
    """A medunet run, checked, planned and with its cases preprocessed, on which training is started anew."""

    folder: Path
    data_root: Path
    fold: int

    def call(self, command: str, *arguments: str, num_steps: int = 0) -> Watched:
        """Run one of medunet's commands; its output goes to `medunet_<command>.log` beside the run."""
        table = self.folder / "folds" / str(self.fold) / "training.csv"
        return watch(
            [sys.executable, "-m", "medunet.cli", command, *arguments, "--data-root", str(self.data_root)],
            os.environ,
            self.folder.parent / f"medunet_{command}.log",
            lambda: any(row["step"] >= num_steps for row in read_rows(table)),
        )

    def prepare(self, given: argparse.Namespace) -> None:
        """Make manifest and plan, and train two steps, so that every case is preprocessed."""
        shutil.rmtree(self.folder, ignore_errors=True)
        run, patch = str(self.folder), list(given.patch)
        self.call("manifest", given.dataset, "--run", run, "--folds-file", str(given.folds_file.absolute()))
        self.call("check", run)
        changes = [f"planning.patch_size={patch}", f"planning.batch_size={given.batch}"]
        self.call("plan", run, "--device", "cpu", *(f"--set={change}" for change in changes))
        self.train(1)

    def train(self, num_steps: int) -> tuple[Watched, list[dict[str, float]]]:
        """Train two epochs of so many steps from scratch, probe included; return the process and a row an epoch."""
        fold, provenance = self.folder / "folds" / str(self.fold), self.folder / "provenance.json"
        shutil.rmtree(fold, ignore_errors=True)
        kept = read_json_object(provenance)
        kept.pop("folds", None)  # what the probe found
        write_json(provenance, kept)
        changes = [
            "training.epochs=2",
            f"training.steps_per_epoch={num_steps}",
            "training.validation_cases=1",
        ]
        watched = self.call(
            "train",
            *(str(self.folder), "--fold", str(self.fold), "--device", "cpu"),
            *(f"--set={change}" for change in changes),
            num_steps=num_steps,
        )
        return watched, read_rows(fold / "training.csv")


def main() -> None:
    """Prepare both, measure in turn, print figures and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--patch", type=int, nargs=3, default=(40, 56, 40))
    parser.add_argument("--batch", type=int, default=6)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)

    peer = Peer(given.peer_python.absolute(), given.work.absolute())
    peer.prepare(read_cases(given), given.data_root)
    configuration, plan = peer.configure(given.batch)
    if tuple(plan["patch_size"]) != tuple(given.patch):
        parser.error(f"nnU-Net planned patch {plan['patch_size']}; give it as --patch")
    ours = Ours(given.work.absolute() / "medunet_run", given.data_root.absolute(), given.fold)
    ours.prepare(given)

    print(read_processor().describe(), flush=True)
    rounds = []
    for number in range(1, given.rounds + 1):
        pair = (
            Measured.of(*ours.train(given.steps), given.steps),
            Measured.of(
                *peer.train(configuration, given.fold, reached_step=given.steps, steps=2 * given.steps),
                given.steps,
            ),
        )
        rounds.append(pair)
        for name, measured in zip(("medunet", "nnU-Net"), pair, strict=True):
            print(
                f"round {number}  {name}: {measured.steps_per_s:.3f} steps/s, step {given.steps} after "
                f"{measured.reached_s:.1f} s, peak {measured.peak_gb:.2f} GB",
                flush=True,
            )
    ratios = {
        "steps a second, medunet / nnU-Net": [a.steps_per_s / b.steps_per_s for a, b in rounds],
        f"time to step {given.steps}, nnU-Net / medunet": [b.reached_s / a.reached_s for a, b in rounds],
        "peak memory, medunet / nnU-Net": [a.peak_gb / b.peak_gb for a, b in rounds],
    }
    for name, values in ratios.items():
        print(f"{name}: {statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})")


if __name__ == "__main__":
    main()
