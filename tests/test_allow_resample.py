"""Modalities on different grids: refused by measured displacement, and on one grid once the user allows it."""

from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from medunet.base.errors import DataError, FaultsError
from medunet.commands.check import run_check
from medunet.commands.manifest import run_manifest
from medunet.commands.plan import run_plan
from medunet.dataset.checks.manifest_checks import read_faults
from medunet.imaging.nifti import write_volume
from medunet.imaging.volumes import read_channels
from medunet.records.data_root import case_paths
from medunet.records.description import Description
from medunet.reporting.scans import load_scan
from medunet.runs.run import Run, open_run
from medunet.training.cache import prepare_cases

FIRST = np.diag([1.0, 1.0, 2.0, 1.0])
TURNED = np.array(
    [[0, 0, 1.5, 3], [-1.1, 0, 0, 30], [0, 1.2, 0, 1], [0, 0, 0, 1.0]]
)  # axes A, S, R; finer, moved
CENTRE_MM = np.array([14.0, 15.0, 16.0])


def draw_ball(shape: tuple[int, ...], affine: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return a smooth ball at `CENTRE_MM` on a dark, noisy ground."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    distance_mm = np.linalg.norm(nib.affines.apply_affine(affine, index) - CENTRE_MM, axis=-1)
    ground = np.random.default_rng(seed).uniform(0, 5, shape)
    return (1000 * np.exp(-((distance_mm / 5) ** 2)) + ground).astype(np.float32)


def centre_mm(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the centre of mass of what is bright, in mm."""
    return nib.affines.apply_affine(affine, ndimage.center_of_mass(np.where(array > 200, array, 0)))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    root = tmp_path / "data"
    for case in "abcd":
        first = draw_ball((30, 32, 18), FIRST, ord(case))
        shape, affine = ((28, 26, 22), TURNED) if case == "b" else (first.shape, FIRST)
        write_volume(root / f"{case}_t1.nii.gz", first, FIRST)
        write_volume(root / f"{case}_t2.nii.gz", draw_ball(shape, affine, 2 * ord(case)), affine)
        write_volume(root / f"{case}_seg.nii.gz", (first > 100 * (ord(case) - 94)).astype(np.uint8), FIRST)
    description = Description.parse(
        {
            "name": "balls",
            "layout": "brats",
            "channels": {name: {"modality": "MR", "endings": [f"_{name.lower()}"]} for name in ("T1", "T2")},
            "labels": {"background": 0, "ball": 1},
            "folds": 2,
        },
        "test",
    )
    changes = (
        "planning.patch_size=[16,16,8]",
        "planning.base_features=4",
        "planning.batch_size=2",
        "device=cpu",
    )
    opened = open_run(tmp_path / "run", root, dataset=description, changes=changes)
    run_manifest(opened)
    return opened


def test_refused_until_allowed_and_then_on_one_grid(run: Run, tmp_path: Path) -> None:
    (error,) = run_check(run)
    assert (error.code, error.case, error.subject) == ("P004", "b", "T2")
    corners = [
        nib.affines.apply_affine(affine, list(product(*[(0, n - 1) for n in shape])))
        for affine, shape in ((FIRST, (30, 32, 18)), (TURNED, (28, 26, 22)))
    ]
    apart_mm = cdist(*corners)
    farthest_mm = max(apart_mm.min(axis=0).max(), apart_mm.min(axis=1).max())
    assert f"28×26×22, corners up to {farthest_mm:.3g} mm from those of T1" in error.measured
    with pytest.raises(FaultsError, match="b"):
        run_plan(run)
    assert run_check(run, allow_resample=True) == []
    run_manifest(run)  # which is made anew
    assert run_check(run) == []
    (kept,) = [fault for fault in read_faults(run.folder.checks) if fault.code == "P004"]
    assert "resampled" in kept.accepted
    assert [case.id for case in run.read_manifest().cases if case.resample] == ["b"]

    plan = run_plan(run)
    case = run.read_manifest().cases[1]
    images, _ = case_paths(case, run.read_manifest().description, run.data_root)
    with pytest.raises(DataError, match=r"shape \(28, 26, 22\) differs .* `--allow-resample`"):
        read_channels(images)
    volume = read_channels(images, resample=True)
    assert volume.array.shape == (2, 30, 32, 18)
    for channel in volume.array:
        np.testing.assert_allclose(centre_mm(channel, volume.affine), CENTRE_MM, atol=0.15)
    (prepared,) = prepare_cases(
        [case], run.read_manifest().description, plan, run.data_root, tmp_path / "cache", seed=0
    )
    first, second = prepared.image[:]
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.95
    scan = load_scan(case, run.read_manifest().description, run.data_root, None, channel="T2")
    assert scan.image.shape == (30, 32, 18)


def test_modalities_of_one_shape_that_lie_apart_are_refused(tmp_path: Path) -> None:
    for name, shift_mm in (("a", 0.0), ("b", 0.05), ("c", 0.5)):
        affine = FIRST.copy()
        affine[0, 3] = shift_mm
        write_volume(tmp_path / f"{name}.nii.gz", draw_ball((30, 32, 18), affine), affine)
    assert read_channels([tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]).array.shape[0] == 2
    with pytest.raises(DataError, match=r"c.nii.gz: a corner of its grid is 0.5 mm from that of a.nii.gz"):
        read_channels([tmp_path / "a.nii.gz", tmp_path / "c.nii.gz"])


def test_real_modalities_before_registration(shared_data: Path) -> None:
    folder = shared_data / "brats" / "raw_not_coregistered"
    paths = [folder / f"TCGA-FG-6692_raw_{name}.nii.gz" for name in ("flair", "t1", "t1c", "t2")]
    volume = read_channels(paths, resample=True)
    assert volume.array.shape == (4, *nib.load(paths[0]).shape)
    inside = volume.array > volume.array.mean(axis=(1, 2, 3), keepdims=True)
    for other in inside[1:]:  # one head, on one grid
        assert 2 * (inside[0] & other).sum() / (inside[0].sum() + other.sum()) > 0.7
