"""The processes that benchmarks/prediction.py starts, so that each has its own time and peak memory.

python prediction_processes.py model FOLDER --kind hippocampus|ct [--classes N] [--quick]
python prediction_processes.py scan FILE --kind hippocampus|ct|chest --shape I J K [--source FILE]
python prediction_processes.py nnunet MODEL FOLDER --name DATASET
PEER/bin/python prediction_processes.py checkpoint FOLDER
python prediction_processes.py command [--stand-in smooth|noise] [--sync] REPORT predict MODEL SCAN --out FOLDER
python prediction_processes.py monai REPORT MODEL SCAN MASK [--mirror] [--device cuda]

- `model` writes the model folder of a network as it is initialised: nnU-Net's topology for hippocampus (32 to 256
  features, patch 40×56×40), or one of 32 to 320 features with a patch of 96³ at 1.5 mm for CT.
- `scan` writes a scan: mirror images of a real one side by side, or a body with organs and noise in air. The grey
  value of an organ encodes a class, so that the stand-in below can tell it.
- `nnunet` and `checkpoint` write the folder of a trained nnU-Net with the same network, weights and preprocessing.
- `command` runs `medunet` in this process and reports the seconds until the first part began, in each part and in the
  network, the number of windows that it computed, and when it began the first. The part "windows" is cutting them and
  adding them up. A stand-in answers instead of the network from the third batch on: the first two batches go through
  the network, for the time of a window and for its memory. "smooth" are confident logits that change with the image,
  "noise" are random ones, among which no class dominates.
- `monai` is the script that a user of MONAI would write, in eager float32.

Seconds of a part exclude those of parts within it. Each process imports only what it needs: nnU-Net's environment has
no medunet, and the start of a command is measured.
"""

import argparse
import os
import time
from pathlib import Path


def main() -> None:
    """Run one of the processes."""
    started_s = float(os.environ.get("BENCHMARK_STARTED_S", time.monotonic()))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_subparsers(dest="which", required=True)
    model = which.add_parser("model")
    model.add_argument("folder", type=Path)
    model.add_argument("--kind", choices=("hippocampus", "ct"), required=True)
    model.add_argument("--classes", type=int, default=3)
    model.add_argument("--quick", action="store_true")
    scan = which.add_parser("scan")
    scan.add_argument("file", type=Path)
    scan.add_argument("--kind", choices=("hippocampus", "ct", "chest"), required=True)
    scan.add_argument("--shape", type=int, nargs=3, required=True)
    scan.add_argument("--source", type=Path)
    nnunet = which.add_parser("nnunet")
    nnunet.add_argument("model", type=Path)
    nnunet.add_argument("folder", type=Path)
    nnunet.add_argument("--name", required=True)
    checkpoint = which.add_parser("checkpoint")
    checkpoint.add_argument("folder", type=Path)
    command = which.add_parser("command")
    command.add_argument("report", type=Path)
    command.add_argument("--stand-in", choices=("smooth", "noise"))
    command.add_argument("--sync", action="store_true")
    command.add_argument("arguments", nargs=argparse.REMAINDER)
    monai = which.add_parser("monai")
    for name in ("report", "model", "scan", "mask"):
        monai.add_argument(name, type=Path)
    monai.add_argument("--mirror", action="store_true")
    monai.add_argument("--device", default="cpu")
    given = parser.parse_args()
    if given.which == "model":
        from prediction_models import make_model

        make_model(given.folder, given.kind, given.classes, quick=given.quick)
    elif given.which == "scan":
        from prediction_models import make_scan

        make_scan(given.file, given.kind, tuple(given.shape), given.source)
    elif given.which == "nnunet":
        from prediction_models import describe_to_nnunet

        describe_to_nnunet(given.model, given.folder, given.name)
    elif given.which == "checkpoint":
        from prediction_models import make_checkpoint

        make_checkpoint(given.folder)
    elif given.which == "command":
        from prediction_timing import run_command

        run_command(given.report, started_s, given.stand_in, sync=given.sync, arguments=given.arguments)
    else:
        from prediction_monai import run_monai

        run_monai(
            given.report,
            started_s,
            given.model,
            given.scan,
            given.mask,
            mirror=given.mirror,
            device_name=given.device,
        )


if __name__ == "__main__":
    main()
