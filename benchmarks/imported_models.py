"""`medunet predict` with a model imported from nnU-Net, compared with nnU-Net's own command: time, memory, masks.

python benchmarks/imported_models.py --peer-python PEER/bin/python --results FOLDER --scans DIR --work DIR \
    [--folds 0] [--way "--backend openvino --precision fp32"] [--disable-tta] [--rounds 3]

FOLDER is nnU-Net's `Dataset…/Trainer__Plans__Configuration`, DIR a folder of scans named as nnU-Net wants
(CASE_0000.nii.gz). See benchmarks/nnunet_peer.py for how to create PEER.

- Each `--way` is the options of one contender, by default PyTorch and OpenVINO in fp32 and what medunet chooses.
- Each command is started in turn, every second round backwards; all of medunet's have been run once before, so that
  networks are converted. nnU-Net runs in one process, and with its default of three and three workers.
- `--disable-tta` leaves out mirror images in both.
- Prints a Markdown table: median seconds, nnU-Net's time in one process divided by them, peak memory of the largest
  process, and the voxels that differ from nnU-Net's masks, of all that are foreground in either.
"""

import argparse
import os
import shlex
import shutil
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from nnunet_peer import Peer, Watched, watch

from medunet.imaging.volumes import read_label
from medunet.inference.nnunet.import_model import import_model
from medunet.records.model_card import ModelCard
from medunet.records.run_folder import RunFolder

NNUNET = "nnU-Net"
WAYS = ("--backend torch --precision fp32", "--backend openvino --precision fp32", "")


def run_ours(given: argparse.Namespace, model: Path, way: str, out: Path) -> Watched:
    """Run `medunet predict` on all scans."""
    shutil.rmtree(out, ignore_errors=True)
    folds = ["--fold", given.folds[0]] if len(given.folds) == 1 else ["--fold", "each"]
    command = [
        sys.executable,
        "-m",
        "medunet",
        "predict",
        model,
        given.scans,
        "--out",
        out,
        "--device",
        "cpu",
    ]
    environment = {**os.environ, "XDG_CACHE_HOME": str(given.work / "cache")}
    log = given.work / "medunet.log"
    return watch([*map(str, command), *folds, *shlex.split(way)], environment, log, lambda: False)


def run_theirs(given: argparse.Namespace, peer: Peer, out: Path, workers: int) -> Watched:
    """Run nnU-Net's command on all scans."""
    shutil.rmtree(out, ignore_errors=True)
    trainer, plans, configuration = given.results.name.split("__")
    return peer.run(
        "nnUNetv2_predict",
        *("-i", str(given.scans), "-o", str(out), "-f", *given.folds, "-d", given.results.parent.name),
        *("-tr", trainer, "-p", plans, "-c", configuration),
        *("-device", "cpu", "-npp", str(workers), "-nps", str(workers)),
        *(["--disable_tta"] if given.disable_tta else []),
    )


def without_mirrors(model: Path) -> None:
    """Set the imported models to predict without mirror images."""
    for path in model.rglob("model.json"):
        card = ModelCard.read(path)
        plain = card.inference.model_copy(update={"mirror": ()})
        card.model_copy(update={"inference": plain}).write(path)


def difference(ours: Path, theirs: Path) -> str:
    """Return how many voxels differ between the masks of two folders, of those that are foreground in either."""
    differing = foreground = 0
    for path in sorted(theirs.iterdir()):
        if not path.name.endswith((".nii.gz", ".png")):
            continue
        one, other = read_label(ours / path.name).array, read_label(path).array
        differing += int((one != other).sum())
        foreground += int(((one > 0) | (other > 0)).sum())
    return f"{differing:,} of {foreground:,}"


def main() -> None:
    """Import the model, run all contenders, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--scans", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--folds", nargs="+", default=["0"])
    parser.add_argument("--way", action="append", help="options of medunet predict; may be repeated")
    parser.add_argument("--disable-tta", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    given.work, given.results = given.work.absolute(), given.results.absolute()
    dataset = given.work / "nnunet" / "results" / given.results.parent.name
    dataset.mkdir(parents=True, exist_ok=True)
    shutil.copytree(given.results, dataset / given.results.name, dirs_exist_ok=True)
    model = given.work / "model"
    done = import_model(given.results, model)
    assert set(given.folds) <= set(done.folds), f"trained folds: {done.folds}"
    for fold in set(done.folds) - set(given.folds):
        shutil.rmtree(RunFolder(model).fold(fold))
    if given.disable_tta:
        without_mirrors(model)
    peer = Peer(given.peer_python.absolute(), given.work / "nnunet")
    ways = given.way or WAYS
    contenders: dict[str, Callable[[Path], Watched]] = {
        **{f"medunet {way}".strip(): partial(run_ours, given, model, way) for way in ways},
        f"{NNUNET}, one process": lambda out: run_theirs(given, peer, out, 0),
        f"{NNUNET}, 3 + 3 workers": lambda out: run_theirs(given, peer, out, 3),
    }
    for name in [name for name in contenders if name.startswith("medunet")]:
        contenders[name](given.work / "masks" / name)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    memory: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(given.rounds):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            watched = contenders[name](given.work / "masks" / name)
            seconds[name].append(watched.total_s)
            memory[name].append(watched.peak_gb)
            print(f"round {number + 1}, {name}: {watched.total_s:.1f} s", file=sys.stderr)
    reference = f"{NNUNET}, one process"
    print("| command | s | times as fast | GB | voxels that differ |\n|---|---|---|---|---|")
    for name in contenders:
        ratios = [theirs / ours for theirs, ours in zip(seconds[reference], seconds[name], strict=True)]
        other = difference(given.work / "masks" / name, given.work / "masks" / reference)
        print(
            f"| {name} | {statistics.median(seconds[name]):.1f} | {statistics.median(ratios):.2f} | "
            f"{max(memory[name]):.2f} | {other} |"
        )


if __name__ == "__main__":
    main()
