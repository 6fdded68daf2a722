"""A handful of small scans that a network learns in seconds: bright boxes with a dark core, in many grids."""

from pathlib import Path

import numpy as np

from medunet.imaging.nifti import write_volume

GRIDS = (
    np.diag([2.0, 2.0, 4.0, 1.0]),
    np.diag([-2.0, -2.0, 4.0, 1.0]),
    np.array([[1.9, 0.3, 0, 5], [-0.3, 1.9, 0, -9], [0, 0, 4.2, 3], [0, 0, 0, 1]]),
    np.array([[0, 0, -4.0, 7], [2.0, 0, 0, 1], [0, -2.0, 0, 2], [0, 0, 0, 1]]),
)


def write_tiny_cohort(folder: Path, num_cases: int = 6) -> Path:
    """Write cases in MSD's layout with labels 1 (liver) and 2 (tumour); the last one has no tumour."""
    for number in range(num_cases):
        rng = np.random.default_rng(number)
        affine = GRIDS[number % len(GRIDS)]
        shape = (30, 26, 12) if abs(affine[0, 0]) > 1 else (30, 26, 14)
        label = np.zeros(shape, np.uint8)
        i, j, k = rng.integers(3, 6), rng.integers(3, 6), rng.integers(1, 3)
        label[i : i + 18, j : j + 16, k : k + 8] = 1
        if number < num_cases - 1:
            label[i + 5 : i + 11, j + 5 : j + 11, k + 2 : k + 6] = 2
        image = np.choose(label, [-80, 110, 40]) + rng.normal(0, 8, shape)
        write_volume(folder / f"imagesTr/case_{number:02d}.nii.gz", image.astype(np.int16), affine)
        write_volume(folder / f"labelsTr/case_{number:02d}.nii.gz", label, affine)
    return folder
