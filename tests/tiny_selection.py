"""Runs with labels and held-out masks of many small patients, as if trained and predicted, to select from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medunet.base.files import read_json, write_json
from medunet.imaging.nifti import read_header, write_mask, write_volume
from medunet.inference.mask_index import hash_making_options
from medunet.records.config import Config
from medunet.records.description import Description
from medunet.records.manifest import Case, Manifest
from medunet.records.model_card import ModelCard
from medunet.records.plan import Plan
from medunet.records.run_folder import RunFolder
from medunet.runs.run import Run, member_folders, open_run

Labels = NDArray[np.uint8]
Draw = Callable[[np.random.Generator, Labels], Labels]

DESCRIPTION = Description(
    name="tiny",
    layout="pairs",
    channels={"CT": {"modality": "CT"}},
    labels={"background": 0, "liver": 1, "spleen": 2},
)
SHAPE, SPACING_MM = (24, 20, 10), (2.0, 1.5, 4.0)


def draw_label(rng: np.random.Generator) -> Labels:
    """Return a label map with two boxes of random size."""
    label = np.zeros(SHAPE, np.uint8)
    i, j = rng.integers(1, 4, 2)
    label[i : i + 8, j : j + 9, 2:7] = 1
    label[i + 11 : i + 17, j + 2 : j + 9, 3:8] = 2
    return label


def shift(rng: np.random.Generator, label: Labels) -> Labels:
    """Return a mask that misses its label by a voxel in a random direction, or not."""
    return np.roll(label, int(rng.integers(-1, 2)), axis=int(rng.integers(0, 3)))


def add_specks(rng: np.random.Generator, label: Labels) -> Labels:
    """Return a shifted mask with a speck of liver far from it."""
    mask = shift(rng, label)
    place = int(rng.integers(0, 8))
    mask[21:23, place : place + 2, 8:10] = 1
    return mask


def make_run(
    root: Path,
    data_root: Path,
    plan: Plan,
    draw: Draw,
    *,
    num_patients: int = 16,
    num_tests: int = 0,
    draw_test: Draw | None = None,
    seed: int = 0,
) -> Run:
    """Write labels, a run of two folds with its model cards, and the masks that `draw` makes of the labels.

    Patient p has the scans a and, if p is even, b. The last `num_tests` patients are test cases.
    """
    folder = RunFolder(root)
    affine = np.diag([*SPACING_MM, 1.0])
    cases, entries = [], {}
    for patient in range(num_patients + num_tests):
        for scan in ("a", "b") if patient % 2 == 0 else ("a",):
            case_id = f"p{patient:02d}{scan}"
            number = 2 * patient + (scan == "b")
            label, path = draw_label(np.random.default_rng([9, number])), data_root / f"{case_id}.nii.gz"
            if not path.exists():
                write_volume(path, label, affine)
            is_test = patient >= num_patients
            drawn = draw_test if is_test and draw_test else draw
            mask = drawn(np.random.default_rng([seed, number]), label)
            write_mask(folder.predictions / f"{case_id}.nii.gz", mask, read_header(path))
            fold = None if is_test else patient // 2 % 2
            cases.append(
                Case(
                    id=case_id,
                    patient=f"p{patient:02d}",
                    images={"CT": f"images/{case_id}.nii.gz"},
                    label=path.name,
                    fold=fold,
                    split="test" if is_test else "train",
                )
            )
            entries[case_id] = {
                "model_sha256": f"{root.name}-{0 if fold is None else fold}",
                "options_sha256": hash_making_options(Config(dataset="x").inference, resample=False),
                "window_options": {"overlap": 0.5, "mirror": [], "shifts": 1},
            }
    Manifest(description=DESCRIPTION, cases=tuple(cases)).write(folder.manifest)
    Config(dataset="phantoms").write(folder.config)
    for fold in (0, 1):
        write_card(folder, plan, fold)
    index = {"schema": "medunet.predictions/1", "labels": DESCRIPTION.labels, "cases": entries, "failed": {}}
    targets = {name: list(values) for name, values in DESCRIPTION.targets.items()}
    write_json(folder.predictions / "index.json", {**index, "targets": targets})
    return open_run(root, data_root)


def write_card(folder: RunFolder, plan: Plan, fold: int, member: int = 0) -> None:
    """Write the model card of a network that was not trained."""
    card = ModelCard(
        medunet_version="0",
        description=DESCRIPTION,
        plan=plan,
        fold=fold,
        weights_sha256="best",
        final_weights_sha256=f"{folder.root.name}-{fold}",
    )
    card = card.model_copy(update={"inference": card.inference.model_copy(update={"weights": "final"})})
    card.write(folder.model(fold, member) / "model.json")


def change_index(run: Run, case: str, **changes: object) -> None:
    """Change the entry of a case in the index of a run's masks; None removes a key."""
    path = run.folder.predictions / "index.json"
    index = read_json(path)
    entry = {**index["cases"].get(case, {}), **changes}
    index["cases"][case] = {key: value for key, value in entry.items() if value is not None}
    write_json(path, index)


def predict_by_all(run: Run) -> None:
    """Let the index say that every network of a fold predicted the cases that it holds out."""
    manifest = run.read_manifest()
    path = run.folder.predictions / "index.json"
    index = read_json(path)
    for case in manifest.used:
        fold = 1 if case.fold is None else case.fold
        count = len(member_folders(run.folder, fold))
        entry = index["cases"][case.id]
        sha256 = f"{run.folder.root.name}-{fold}"
        index["cases"][case.id] = entry | {"members": [{"model_sha256": sha256}] * count}
    write_json(path, index)
