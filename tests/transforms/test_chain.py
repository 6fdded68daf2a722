"""Network grid and back: a mask predicted for any scan overlays it, in shape, affine and world mm."""

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from medunet.imaging.nifti import read_header, write_mask, write_volume
from medunet.records.plan import Intensity, Plan
from medunet.transforms.chain import normalise, preprocess_chain, restore_probabilities, run_chain

CENTRE_MM, RADIUS_MM = np.array([13.0, -21.0, 40.0]), 22.0


def scan_affine(codes: str, spacing_mm: tuple[float, float, float], tilt_degrees: float) -> np.ndarray:
    """An affine whose axes run along `codes`, tilted about two world axes."""
    ornt = nib.orientations.axcodes2ornt(codes)
    axes = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(ornt):
        axes[int(world), axis] = sign
    a = np.deg2rad(tilt_degrees)
    tilt_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    tilt_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = tilt_z @ tilt_x @ axes @ np.diag(spacing_mm)
    return affine


def write_ball(folder, codes, spacing_mm, tilt_degrees, extent_mm=(110.0, 90.0, 100.0)):
    """Write a bright ball at a known world position, in any grid; return its path and where it is."""
    affine = scan_affine(codes, spacing_mm, tilt_degrees)
    shape = tuple(int(extent / mm) for extent, mm in zip(extent_mm, spacing_mm, strict=True))
    affine[:3, 3] = CENTRE_MM - affine[:3, :3] @ (np.array(shape) / 2)  # the ball lies in the middle
    world = nib.affines.apply_affine(affine, np.stack(np.indices(shape), -1))
    inside = np.linalg.norm(world - CENTRE_MM, axis=-1) < RADIUS_MM
    image = np.where(inside, 100, 0) + np.random.default_rng(0).normal(0, 5, shape)
    write_volume(folder / "scan.nii.gz", image.astype(np.float32) + 1, affine)
    return folder / "scan.nii.gz", inside


def bright(image: torch.Tensor) -> torch.Tensor:
    """Tell the ball from its surroundings: what lies above the middle of the grey values."""
    return image > (image.min() + image.max()) / 2


GRIDS = [
    ("RAS", (1.0, 1.0, 1.0), 0.0),
    ("LPS", (0.9, 0.9, 5.0), 0.0),
    ("LAS", (1.5, 1.5, 3.0), 12.0),
    ("PIR", (1.0, 4.0, 1.2), 0.0),
    ("SRA", (2.5, 1.1, 1.3), 20.0),
    ("ILP", (5.0, 1.0, 1.0), 8.0),
]


@pytest.mark.parametrize(("codes", "spacing_mm", "tilt"), GRIDS)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_mask_lies_on_its_structure_in_world_mm(
    tmp_path, tiny_plan: Plan, codes, spacing_mm, tilt, dimensions
):
    """A network that marks what is bright stands in for a trained one: all else is geometry."""
    path, inside = write_ball(tmp_path, codes, spacing_mm, tilt)
    plan = tiny_plan.model_copy(
        update={"spacing_mm": (2.0, 1.7, 2.4), "dimensions": dimensions, "slice_axis": 2}
    )
    chain = preprocess_chain(plan, with_label=False)
    case = run_chain(chain, [path])
    image = case["image"]
    if dimensions == 3:  # as near as a whole number of voxels over the same extent comes
        assert nib.affines.voxel_sizes(image.affine.numpy()) == pytest.approx((2.0, 1.7, 2.4), rel=0.03)
    assert nib.aff2axcodes(image.affine.numpy()) == ("R", "A", "S")
    probability = bright(image.as_tensor()).float()
    restored = next(restore_probabilities(probability, case, chain)).numpy()
    header = read_header(path)
    assert restored.shape == header.shape
    write_mask(tmp_path / "mask.nii.gz", (restored > 0.5).astype(np.uint8), header)

    mask = nib.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(mask.affine, nib.load(path).affine)
    found = np.asarray(mask.dataobj) > 0
    centre = nib.affines.apply_affine(mask.affine, ndimage.center_of_mass(found))
    assert np.linalg.norm(centre - CENTRE_MM) < 0.5
    dice = 2 * (found & inside).sum() / (found.sum() + inside.sum())
    assert dice > 0.93, f"Dice {dice:.3f}"


def test_cropped_scans_come_back_at_full_size_with_nothing_outside(tmp_path, tiny_plan: Plan):
    image = np.zeros((40, 50, 30), np.float32)
    image[10:30, 15:40, 5:20] = np.random.default_rng(0).uniform(50, 150, (20, 25, 15))
    affine = scan_affine("LPS", (2, 2, 3), 0)
    write_volume(tmp_path / "scan.nii.gz", image, affine)
    plan = tiny_plan.model_copy(update={"crop_nonzero": True, "spacing_mm": (2.0, 2.0, 3.0)})
    chain = preprocess_chain(plan, with_label=False)
    case = run_chain(chain, [tmp_path / "scan.nii.gz"])
    assert case["image"].shape == (1, 20, 25, 15)
    restored = list(restore_probabilities(torch.ones(2, 20, 25, 15), case, chain))
    assert [channel.shape for channel in restored] == [(40, 50, 30)] * 2
    assert np.array_equal(restored[0] > 0.5, image > 0)


def test_label_and_image_are_cut_and_turned_alike(tmp_path, tiny_plan: Plan):
    path, inside = write_ball(tmp_path, "PIR", (1.0, 4.0, 1.2), 15.0)
    write_mask(tmp_path / "label.nii.gz", inside.astype(np.uint8) * 2, read_header(path))
    case = run_chain(preprocess_chain(tiny_plan, with_label=True), [path], tmp_path / "label.nii.gz")
    image, label = case["image"].as_tensor()[0], case["label"].as_tensor()[0]
    assert image.shape == label.shape
    assert set(label.unique().tolist()) == {0.0, 2.0}
    found = bright(image)
    assert 2 * (found & (label > 0)).sum() / (found.sum() + (label > 0).sum()) > 0.93


def test_intensity_schemes_by_hand():
    ct = torch.tensor([[[-1000.0, 0.0, 100.0, 3000.0]]])
    normalise(ct, Intensity(scheme="ct", clip_low=-50, clip_high=150, mean=50, std=25))
    assert ct.flatten().tolist() == [-4.0, -2.0, 2.0, 4.0]
    mr = torch.tensor([[[0.0, 10.0, 20.0, 30.0]]])
    normalise(mr, Intensity(scheme="zscore_nonzero"))
    assert mr.flatten().tolist() == pytest.approx([0.0, -1.2247, 0.0, 1.2247], abs=1e-4)
    whole = torch.tensor([[[0.0, 10.0, 20.0, 30.0]]])
    normalise(whole, Intensity(scheme="zscore"))
    assert float(whole.mean()) == pytest.approx(0, abs=1e-6)
    assert float(whole.std(correction=0)) == pytest.approx(1)
