"""Folders of tiny scans and labels in any layout, and what they are taken for."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from conftest import REPOSITORY

from medunet.dataset.layouts.detection import Recognised, recognise
from medunet.dataset.manifest import make_manifest
from medunet.imaging.nifti import write_volume
from medunet.records.description import load_description

SHIPPED = [load_description(path.stem) for path in sorted((REPOSITORY / "data_manifests").glob("*.yaml"))]
SHAPE, AFFINE = (6, 5, 4), np.diag([2.0, 1.0, 3.0, 1.0])


def put(root: Path, *paths: str, low: float = 0, values: Sequence[int] = (1, 2)) -> Path:
    """Write small volumes: scans down to `low`, and label maps of `values` where the name says so."""
    for seed, path in enumerate(paths):
        is_label = any(word in path.lower() for word in ("label", "seg", "mask", "gt"))
        scan = np.random.default_rng(seed).integers(low, 900, SHAPE).astype(np.int16)
        scan.flat[0] = low
        label = np.resize(np.array((0, *values), np.uint16), SHAPE)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith((".nrrd", ".mha")):
            sitk.WriteImage(sitk.GetImageFromArray((label if is_label else scan).T), str(root / path))
        else:
            write_volume(root / path, label if is_label else scan, AFFINE)
    return root


def ask(root: Path, place: str = "") -> Recognised:
    """Return what a folder, or a place in it, is taken for."""
    return recognise(root / place, root, SHIPPED)


def cases(found: Recognised, root: Path) -> dict[str, tuple[str, str | None, str]]:
    """First image, label and split of each case, as the manifest will have them."""
    listed = make_manifest(found.description, root).cases
    return {case.id: (next(iter(case.images.values())), case.label, case.split) for case in listed}


def write_json(path: Path, plain: dict[str, Any]) -> None:
    path.write_text(json.dumps(plain))
