"""Steps per second, time to the 50th step and peak memory of `medunet train` compared with nnU-Net's trainer.

python benchmarks/against_nnunet.py --peer-python PEER/bin/python --work DIR --data-root DIR --folds-file FILE \
    [--rounds 3] [--steps 50] [--patch 40 56 40] [--batch 6]

See benchmarks/nnunet_peer.py for how to create PEER, nnU-Net's environment. Both train the same cases on the CPU
with the same patch size, batch size, channels and list of augmentations, and with deep supervision; nnU-Net in fp32,
its precision on a CPU, medunet with the precision and layout that its benchmark chooses. A round runs each once, as
a user would, in a separate process, with preprocessed cases, for twice `--steps` steps.

- "time to step": from the start of the process, including imports, benchmark and data loaders, until the table that
  it writes shows `--steps` steps. medunet writes it after the validation at the end of an epoch, nnU-Net immediately.
- "steps a second": of the second half. medunet's figure includes data loading, augmentation, logging, validation of
  one case, checkpoint and curves; nnU-Net's only data loading and augmentation, as it does the rest every 250 steps.
- "peak memory": the peak resident memory of the process.

The ratios are medians over the rounds, with their range.
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
    """The measurements of one training process."""

    reached_s: float  # from the process's start to the last step of the first half
    steps_per_s: float  # of the second half
    peak_gb: float

    @classmethod
    def of(cls, watched: Watched, rows: Sequence[dict[str, float]], num_steps: int) -> "Measured":
        """Compute the measurements from a process and its table rows (step, minutes)."""
        first, last = (next(row for row in rows if row["step"] == n) for n in (num_steps, 2 * num_steps))
        seconds = 60 * (last["minutes"] - first["minutes"])
        assert watched.reached_s is not None, "the table was never seen to reach the step"
        return cls(watched.reached_s, num_steps / seconds, watched.peak_gb)


@dataclass(frozen=True)
class Ours:
    """A medunet run with checked, planned and preprocessed cases, in which training is repeated from scratch."""

    folder: Path
    data_root: Path
    fold: int

    def call(self, command: str, *arguments: str, num_steps: int = 0) -> Watched:
        """Run a medunet command; its output goes to `medunet_<command>.log` next to the run's folder."""
        table = self.folder / "folds" / str(self.fold) / "training.csv"
        return watch(
            [sys.executable, "-m", "medunet.cli", command, *arguments, "--data-root", str(self.data_root)],
            os.environ,
            self.folder.parent / f"medunet_{command}.log",
            lambda: any(row["step"] >= num_steps for row in read_rows(table)),
        )

    def prepare(self, given: argparse.Namespace) -> None:
        """Make manifest and plan, and train two steps, which preprocesses every case."""
        shutil.rmtree(self.folder, ignore_errors=True)
        run, patch = str(self.folder), list(given.patch)
        self.call("manifest", given.dataset, "--run", run, "--folds-file", str(given.folds_file.absolute()))
        self.call("check", run)
        changes = [f"planning.patch_size={patch}", f"planning.batch_size={given.batch}"]
        self.call("plan", run, "--device", "cpu", *(f"--set={change}" for change in changes))
        self.train(1)

    def train(self, num_steps: int) -> tuple[Watched, list[dict[str, float]]]:
        """Train two epochs of `num_steps` steps from scratch; return the process and a table row per epoch."""
        fold, provenance = self.folder / "folds" / str(self.fold), self.folder / "provenance.json"
        shutil.rmtree(fold, ignore_errors=True)
        kept = read_json_object(provenance)
        kept.pop("folds", None)  # the result of the benchmark
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
    """Prepare both trainers, measure them in turn, and print figures and ratios."""
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
