"""Section `labels` of benchmarks/prediction.py: every way's labels against float32's, and stored masks."""

import shutil
from functools import partial
from pathlib import Path

from prediction_bench import WAYS, Bench, Contenders, link_files
from prediction_tables import print_row, read_voxels

from medunet.base.errors import InputError
from medunet.records.data_root import case_paths
from medunet.records.manifest import Manifest
from medunet.records.model_card import ModelCard
from medunet.scoring.evaluate import score_pairs
from medunet.scoring.pairs import Pair
from medunet.scoring.summary import mean_dice


def measure_labels(bench: Bench) -> None:
    """Compare the labels of every way with those of float32 on held-out cases, and stored masks with today's."""
    if bench.given.run is None:
        raise InputError("is not given", where="--run", hint="Give a trained run's folder, and --run-data.")
    run_folder: Path = bench.given.run
    manifest = Manifest.read(run_folder / "manifest.json")
    description = manifest.description
    cases = manifest.split_fold(0)[1][: 2 if bench.given.quick else None]
    paths = {case.id: case_paths(case, description, bench.given.run_data) for case in cases}
    scans = link_files([images[0] for images, _ in paths.values()], bench.work / "scans" / "labels")
    labels = {case: label for case, (_, label) in paths.items() if label is not None}
    stored = bench.work / "models" / "labels"
    shutil.rmtree(stored, ignore_errors=True)
    shutil.copytree(run_folder / "folds" / "0" / "model", stored)
    card = ModelCard.read(stored / "model.json")
    plain = bench.work / "models" / "labels_plain"
    shutil.rmtree(plain, ignore_errors=True)
    shutil.copytree(stored, plain)
    settings = card.inference.model_copy(update={"shifts": 1, "mirror": ()})
    card.model_copy(update={"inference": settings}).write(plain / "model.json")

    masks = bench.masks / "labels"
    contenders: Contenders = {
        name: partial(bench.ours, plain, scans, masks / name, *options)
        for name, options in (bench.ways() | {"medunet --fast": WAYS["medunet --fast"]}).items()
    }
    reference = "medunet, PyTorch fp32"
    older = "with the run's own averaging"
    contenders[older] = partial(bench.ours, stored, scans, masks / older, *WAYS[reference])
    bench.compete("labels", contenders, rounds=1)

    def dice(first: dict[str, Path], second: Path) -> float:
        pairs = [Pair(case, path, second / f"{case}.nii.gz") for case, path in first.items()]
        return mean_dice(score_pairs(pairs, description.targets, description.targets))

    def differing(first: Path, second: Path) -> tuple[int, int]:
        pairs = [[read_voxels(folder / f"{case}.nii.gz") for folder in (first, second)] for case in paths]
        return sum(int((one != other).sum()) for one, other in pairs), sum(one.size for one, _ in pairs)

    if ("labels", reference) in bench.failed:
        raise InputError(bench.failed["labels", reference], where=reference)
    print(f"\n### Labels on {len(cases)} held-out cases of {description.name}, no averaging\n")
    print_row("", "Dice against fp32", "voxels that differ", "Dice against the reference", "s")
    print_row(*["---"] * 5)
    for name in contenders:
        records = bench.find("labels", name)
        if not records or name == older:
            if name != older:
                print_row(name, f"failed: {bench.failed['labels', name]}", "", "", "")
            continue
        against = {case: masks / reference / f"{case}.nii.gz" for case in paths}
        wrong, total = differing(masks / reference, masks / name)
        print_row(
            name,
            f"{dice(against, masks / name):.5f}",
            f"{wrong:,} of {total:,}",
            f"{dice(labels, masks / name):.4f}" if labels else "",
            records[0]["seconds"],
        )
    earlier: Path = bench.given.older or run_folder / "predictions"
    if bench.find("labels", older) and all((earlier / f"{case}.nii.gz").exists() for case in paths):
        wrong, total = differing(earlier, masks / older)
        against = {case: earlier / f"{case}.nii.gz" for case in paths}
        how = f"shifts {card.inference.shifts}, mirror {list(card.inference.mirror)}"
        print(
            f"\nMasks that medunet {card.medunet_version} stored against today's in fp32 ({how}): "
            f"Dice {dice(against, masks / older):.5f}, {wrong:,} of {total:,} voxels differ."
        )
