"""Tables of benchmarks/prediction.py in Markdown, and the agreement of masks."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from prediction_bench import NNUNET, Bench

from medunet.base.processor import is_heavy_load


def print_row(*cells: object) -> None:
    """Print a row of a Markdown table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def print_commands(bench: Bench, section: str, names: Sequence[str], title: str, masks: Path) -> None:
    """Print the table of commands that did the same: seconds, ratios, memory."""
    peers = [name for name in names if not name.startswith("medunet") and bench.find(section, name)]
    print(f"\n### {title[0].upper()}{title[1:]}\n")
    ratios = (f"times as fast as {peer}" for peer in peers)
    shares = (f"of {peer}'s" for peer in peers)
    same = f"same voxels as {NNUNET}"
    print_row("", "best s", "median s", *ratios, "GB", *shares, "all GB", "windows", "first window s", same)
    print_row(*["---"] * (8 + 2 * len(peers)))
    for name in names:
        records = bench.find(section, name)
        if not records:
            print_row(name, f"failed: {bench.failed[section, name]}", *[""] * (6 + 2 * len(peers)))
            continue
        seconds = [record["seconds"] for record in records]
        peak_gb = max(record["peak_gb"] for record in records)
        busy = any(is_heavy_load(record["other_load"]) for record in records)
        first = [record["first_window_s"] for record in records if record.get("first_window_s")]
        print_row(
            name + (" (others used the cores too)" if busy else ""),
            f"{min(seconds):.1f}",
            f"{statistics.median(seconds):.1f}",
            *(_ratio(bench, section, name, peer) for peer in peers),
            f"{peak_gb:.2f}",
            *(
                f"{peak_gb / max(other['peak_gb'] for other in bench.find(section, peer)):.2f}"
                for peer in peers
            ),
            f"{max(record['all_gb'] for record in records):.2f}",
            records[-1].get("windows", ""),
            f"{min(first):.1f}" if first else "",
            _agreement(masks / name, masks / NNUNET),
        )


def _ratio(bench: Bench, section: str, name: str, peer: str) -> str:
    own = {record["round"]: record["seconds"] for record in bench.find(section, name)}
    ratios = [
        record["seconds"] / own[record["round"]]
        for record in bench.find(section, peer)
        if record["round"] in own
    ]
    return f"{statistics.median(ratios):.2f}" if ratios else ""


def _agreement(ours: Path, theirs: Path) -> str:
    """Return the share of voxels with the same label in the masks of two folders."""
    pairs = [(path, theirs / path.name) for path in ours.glob("*.nii.gz") if (theirs / path.name).exists()]
    same = [read_voxels(one) == read_voxels(other) for one, other in pairs]
    return f"{sum(int(each.sum()) for each in same) / sum(each.size for each in same):.4%}" if same else ""


def read_voxels(path: Path) -> Any:
    """Return the labels of a mask."""
    return np.asarray(nib.load(path).dataobj, np.uint8)  # type: ignore[attr-defined]
