"""Section `ensemble` of benchmarks/prediction.py: five networks of one plan beside one of them."""

import json
import shutil
import statistics
from functools import partial
from pathlib import Path

from prediction_bench import WAYS, Bench, Contenders, link_files
from prediction_tables import print_row

from medunet.base.files import hash_file

NUM_MEMBERS = 5
_WAYS = ("medunet, PyTorch fp32", "medunet, OpenVINO fp32", "medunet, OpenVINO bf16")


def measure_ensemble(bench: Bench) -> None:
    """Measure whole commands on a large scan and on many small ones, and print their tables."""
    model = bench.model("hippocampus")
    members = [
        model,
        *(make_member(bench.work / "models", model, number) for number in range(1, NUM_MEMBERS)),
    ]
    more = [part for member in members[1:] for part in ("--with", str(member))]
    shape = (60, 70, 50) if bench.given.quick else (160, 200, 155)
    files = bench.hippocampi()[: 3 if bench.given.quick else 40]
    folder = link_files(files, bench.work / "scans" / "cohort")
    scans = {
        f"{'×'.join(map(str, shape))} voxels": bench.scan("hippocampus", shape)[0],
        f"{len(files)} hippocampi": folder,
    }
    for title, scan in scans.items():
        section = f"ensemble of {title}"
        contenders: Contenders = {}
        for way in bench.ways(*_WAYS):
            out = bench.masks / section / way
            contenders[f"one, {way}"] = partial(bench.ours, model, scan, out / "one", *WAYS[way])
            contenders[f"five, {way}"] = partial(bench.ours, model, scan, out / "five", *WAYS[way], *more)
        small = bench.scan("hippocampus", (35, 50, 35))[0]
        for way in bench.ways(*_WAYS):  # so that all networks are converted
            call = partial(bench.ours, model, small, bench.masks / "warm", *WAYS[way], *more)
            bench.compete(f"first call of {len(members)}", {way: call}, rounds=1)
        bench.compete(section, contenders)
        print(f"\n### {title}: {len(members)} networks and one\n")
        print_row("", "one s", "five s", "times", "one GB", "five GB", "times")
        print_row(*["---"] * 7)
        for way in bench.ways(*_WAYS):
            one, five = (bench.find(section, f"{which}, {way}") for which in ("one", "five"))
            if not one or not five:
                continue
            seconds = [statistics.median(record["seconds"] for record in each) for each in (one, five)]
            ratio = statistics.median(b["seconds"] / a["seconds"] for a, b in zip(one, five, strict=False))
            memory = [max(record["peak_gb"] for record in each) for each in (one, five)]
            print_row(
                way,
                *(f"{value:.1f}" for value in seconds),
                f"{ratio:.2f}",
                *(f"{value:.2f}" for value in memory),
                f"{memory[1] / memory[0]:.2f}",
            )


def make_member(folder: Path, model: Path, number: int) -> Path:
    """Return a copy of a model with other weights of the same size."""
    import torch
    from safetensors.torch import load_file, save_file

    copy = folder / f"{model.name}_member{number}"
    if (copy / "model.json").exists():
        return copy
    shutil.copytree(model, copy, dirs_exist_ok=True)
    card = json.loads((model / "model.json").read_text()) | {"fold": number}
    rng = torch.Generator().manual_seed(number)
    for name, key in (("weights", "weights_sha256"), ("weights_final", "final_weights_sha256")):
        path = copy / f"{name}.safetensors"
        if path.exists():
            weights = load_file(path)
            save_file(
                {
                    each: value * (1 + 0.01 * torch.randn(value.shape, generator=rng))
                    for each, value in weights.items()
                },
                path,
            )
            card[key] = hash_file(path)
    (copy / "model.json").write_text(json.dumps(card))
    return copy
