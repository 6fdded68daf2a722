"""The cohorts that the stages of benchmarks/kills.py work on, and the command of each."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np


def prepare(stage: str, folder: Path, cases: int) -> list[str]:
    """Write a small cohort and the folder `before` the stage; return the command, which changes the folder `out`."""
    before, data, out = folder / "before", folder / "data", folder / "out"
    before.mkdir()
    if stage == "import-dicom":
        from dicom_import import write_ct

        for number in range(cases):
            write_ct(data / f"{number}", 8, number)
        return [stage, str(data), str(out / "imported")]
    if stage == "predict":
        from prediction_models import make_model

        make_model(folder / "model", "hippocampus", 3, quick=True)
        write_noise(data, cases)
        return [
            stage,
            str(folder / "model"),
            str(data),
            "--out",
            str(out / "masks"),
            "--backend",
            "torch",
            "--precision",
            "fp32",
        ]
    write_run(stage, before / "run", data, cases)
    return [stage, str(out / "run"), "--data-root", str(data)]


def write_noise(folder: Path, cases: int) -> None:
    """Write scans of smooth noise, in which an initialised network finds something."""
    from scipy.ndimage import gaussian_filter

    from medunet.imaging.nifti import write_volume

    for number in range(cases):
        noise = np.random.default_rng(number).normal(size=(40, 56, 40))
        values = 100 + 2000 * gaussian_filter(noise, 2)
        write_volume(folder / f"noise_{number:03d}.nii.gz", values.astype(np.int16), np.eye(4))


def write_run(stage: str, folder: Path, data: Path, cases: int) -> None:
    """Write phantoms and a run of the stages before this one; its masks are the labels, moved by some voxels."""
    import nibabel as nib

    from medunet.commands.manifest import run_manifest
    from medunet.commands.score import run_score
    from medunet.commands.terminal import console
    from medunet.imaging.nifti import read_header, write_mask, write_volume
    from medunet.phantoms.phantom import write_cohort
    from medunet.runs.run import open_run

    few = 6
    write_cohort(data / "few", num_cases=few)
    finer = 1 if stage == "report" else 2  # of check and score a small case takes but some ms
    affine = np.diag([1 / finer, 1 / finer, 1 / finer, 1])
    run = open_run(folder, data, dataset="phantoms")
    for number in range(cases):
        for part in ("images", "labels"):
            image: Any = nib.load(data / "few" / f"{part}Tr" / f"phantom_{number % few:03d}.nii.gz")
            values = np.asanyarray(image.dataobj).repeat(finer, 0).repeat(finer, 1).repeat(finer, 2)
            values = np.roll(values, 2 * (number // few), axis=1)  # no two cases are alike
            if part == "images":
                noise = np.random.default_rng(number).integers(-9, 10, values.shape)
                values = (values + noise).astype(np.int16)
            path = data / f"{part}Tr" / f"phantom_{number:03d}.nii.gz"
            write_volume(path, values, image.affine @ affine)
        mask = np.roll(values, 1 + number % 3, axis=0)
        write_mask(run.folder.predictions / path.name, mask, read_header(path))
    console.quiet = True
    shutil.rmtree(data / "few")
    run_manifest(run)
    if stage == "report":
        run_score(run)
    console.quiet = False
