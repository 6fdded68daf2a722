"""Sections `long`, `chest` and `gpu` of benchmarks/prediction.py: the seconds of a CT by part."""

import statistics
from collections.abc import Sequence
from functools import partial

from prediction_bench import MONAI, NNUNET, Bench, Contenders
from prediction_tables import print_row


def measure_long(bench: Bench) -> None:
    """Measure a long CT with a stand-in for the network."""
    quick = bench.given.quick
    shape = (96, 80, 120) if quick else (512, 512, 1000)
    scan, _ = bench.scan("ct", shape)
    rows: dict[str, str] = {}
    for classes in (4, 9) if quick else (15, 118):
        largest = {f"label{value}": ({"keep_largest": True},) for value in range(1, classes)}
        for stand_in, steps in (("smooth", largest), ("noise", {})):
            model = bench.model("ct", classes, postprocess=steps)
            name = f"{classes} classes, {stand_in}"
            bench.warm_up("long", model, ["medunet"], "ct")
            call = partial(
                bench.ours, model, scan, bench.masks / "long", *bench.given.long_options.split(),
                stand_in=stand_in,
            )  # fmt: skip
            bench.compete("long", {name: call}, rounds=1)
            rows[name] = f"{classes} classes, " + (
                "confident logits, the largest component of every class kept"
                if stand_in == "smooth"
                else "random logits, nothing tidied"
            )
    size = "×".join(map(str, shape))
    print(f"\n### CT of {size} voxels, a stand-in for the network\n")
    parts = ("read", "prepare", "windows", "restore", "tidy", "write")
    print_row(
        *("", "GB", "all but the network, s", "start", *map(_title, parts)),
        *("windows", "s a window", "the network, estimated, s"),
    )
    print_row(*["---"] * (7 + len(parts)))
    for name, text in rows.items():
        for record in bench.find("long", name):
            seconds = record["seconds_by_part"]
            network = seconds.get("network", 0.0)
            print_row(
                text,
                f"{record['peak_gb']:.2f}",
                f"{record['seconds'] - network:.1f}",
                f"{record['start_s']:.1f}",
                *(f"{seconds.get(part, 0.0):.1f}" for part in parts),
                record["windows"],
                f"{record['window_s']:.3f}",
                f"{record['windows'] * record['window_s']:.0f}",
            )
        if ("long", name) in bench.failed:
            print_row(text, f"failed: {bench.failed['long', name]}", *[""] * (5 + len(parts)))


def measure_gpu(bench: Bench) -> None:
    """Measure a CT by part: medunet, a script of MONAI and nnU-Net's command."""
    shape = (96, 80, 60) if bench.given.quick else (512, 512, 400)
    model = bench.model("ct", 4 if bench.given.quick else 15)
    scan, folder = bench.scan("ct", shape)
    masks = bench.masks / "gpu"
    bench.warm_up("gpu", model, ["medunet"], "ct")
    contenders: Contenders = {
        "medunet": partial(bench.ours, model, scan, masks / "medunet"),
        "medunet, waiting for the card after each part": partial(
            bench.ours, model, scan, masks / "sync", sync=bench.given.device == "cuda"
        ),
        MONAI: partial(bench.monai, model, scan, masks / MONAI),
    }
    if bench.peer is not None:
        name = bench.nnunet(model, "Dataset002_ct")
        contenders[NNUNET] = partial(bench.theirs, name, folder, masks / NNUNET)
    bench.compete("gpu", contenders)
    print(f"\n### CT of {'×'.join(map(str, shape))} voxels on {bench.given.device}\n")
    _print_parts(bench, "gpu", list(contenders))


def measure_chest(bench: Bench) -> None:
    """Measure a CT of the chest as screening takes it, with every precision that OpenVINO has here."""
    shape = (96, 80, 60) if bench.given.quick else (512, 512, 170)
    model = bench.model("ct", 4 if bench.given.quick else 15)
    scan, _ = bench.scan("chest", shape)
    ways = bench.ways("medunet, OpenVINO fp32", "medunet, OpenVINO bf16")
    bench.warm_up("chest", model, ways, "ct")
    contenders: Contenders = {
        name: partial(bench.ours, model, scan, bench.masks / "chest" / name, *options)
        for name, options in ways.items()
    }
    bench.compete("chest", contenders)
    print(f"\n### CT of {'×'.join(map(str, shape))} voxels of 0.7×0.7×2 mm\n")
    _print_parts(bench, "chest", list(contenders))


def _print_parts(bench: Bench, section: str, names: Sequence[str]) -> None:
    parts = ("read", "prepare", "windows", "network", "restore", "write")
    print_row("", "whole command, best s", "median s", *map(_title, parts), "first window s", "windows", "GB")
    print_row(*["---"] * (6 + len(parts)))
    for name in names:
        if records := bench.find(section, name):
            best = min(records, key=lambda record: record["seconds"])
            seconds = best.get("seconds_by_part", {})
            print_row(
                name,
                best["seconds"],
                f"{statistics.median(record['seconds'] for record in records):.2f}",
                *(f"{seconds[part]:.2f}" if part in seconds else "" for part in parts),
                best.get("first_window_s", ""),
                best.get("windows", ""),
                f"{best['peak_gb']:.2f}",
            )
        else:
            print_row(name, f"failed: {bench.failed[section, name]}", *[""] * (4 + len(parts)))


def _title(part: str) -> str:
    return "cut and add windows" if part == "windows" else part
