"""Slices resized to a fixed size: image and label alike, back to the scan's own grid, no label value made up."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.spatial.array import Resize
from PIL import Image
from scipy import ndimage

from medunet.base.errors import DataError
from medunet.imaging.nifti import write_volume
from medunet.records.label_rules import LabelRules
from medunet.records.plan import Intensity, Plan
from medunet.transforms.chain import (
    check_label_values,
    preprocess_chain,
    restore_probabilities,
    run_chain,
)
from medunet.transforms.resampling import ResampleToPland, resample_linearly

SHAPE, SPACING_MM = (60, 44, 17), (0.8, 1.3, 4.0)
AFFINE = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])  # L P S: the chain turns it


@pytest.fixture
def plan(tiny_plan: Plan) -> Plan:
    zscore = {"CT": Intensity(scheme="zscore")}
    return tiny_plan.model_copy(update={"dimensions": 2, "intensities": zscore, "resize_to": (32, 48)})


@pytest.fixture
def files(tmp_path):
    """An off-centre ellipsoid of 255 with a core of 7: image and label."""
    grid = np.indices(SHAPE).astype(float)
    distance = np.sqrt(
        sum(((g - c) / r) ** 2 for g, c, r in zip(grid, (38, 17, 6), (15, 12, 5), strict=True))
    )
    label = np.where(distance < 1, 255, 0).astype(np.uint8)
    label[distance < 0.4] = 7
    image = 100 * (label > 0) + np.random.default_rng(0).normal(0, 3, SHAPE)
    write_volume(tmp_path / "scan.nii.gz", image.astype(np.float32), AFFINE)
    write_volume(tmp_path / "label.nii.gz", label, AFFINE)
    return tmp_path / "scan.nii.gz", tmp_path / "label.nii.gz", label


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("size", [(32, 48), (80, 20), (64, 64)])
def test_image_and_label_are_resized_alike_and_come_back(plan: Plan, files, axis, size):
    scan, label_file, label = files
    plan = plan.model_copy(update={"resize_to": size, "slice_axis": axis})
    chain = preprocess_chain(plan, with_label=True)
    case = run_chain(chain, [scan], label_file)
    image, resized = case["image"].as_tensor()[0], case["label"].as_tensor()[0]
    wanted = list(size)
    wanted.insert(axis, SHAPE[axis])
    assert list(image.shape) == list(resized.shape) == wanted
    assert set(resized.unique().tolist()) == {0.0, 7.0, 255.0}

    inside = resized > 0
    bright = image > (image.min() + image.max()) / 2
    assert 2 * (inside & bright).sum() / (inside.sum() + bright.sum()) > 0.93
    offset = np.subtract(ndimage.center_of_mass(inside.numpy()), ndimage.center_of_mass(bright.numpy()))
    assert np.abs(offset).max() < 0.25, "half a voxel off"

    prediction_chain = preprocess_chain(plan, with_label=False)
    case = run_chain(prediction_chain, [scan])
    restored = next(restore_probabilities(inside[None].float(), case, prediction_chain)).numpy()
    assert restored.shape == SHAPE
    found, reference = restored > 0.5, label > 0
    assert 2 * (found & reference).sum() / (found.sum() + reference.sum()) > 0.93
    offset = np.subtract(ndimage.center_of_mass(found), ndimage.center_of_mass(reference))
    assert np.abs(offset).max() < 0.25


def test_up_to_0_4_0_the_nearest_voxel_was_taken_as_computed_by_hand(plan: Plan, tmp_path):
    """Centres of 3 rows in 9 fall on rows 1, 4, 7; of 8 columns in 4 twice on each; in RAS, of an RAS scan."""
    image = np.random.default_rng(0).normal(size=(9, 4, 2)).astype(np.float32)
    label = np.random.default_rng(1).integers(0, 3, (9, 4, 2)).astype(np.uint8)
    write_volume(tmp_path / "scan.nii.gz", image, np.eye(4))
    write_volume(tmp_path / "label.nii.gz", label, np.eye(4))
    plan = plan.model_copy(update={"resize_to": (3, 8), "slice_axis": 2, "grid": "first_voxel"})
    case = run_chain(
        preprocess_chain(plan, with_label=True), [tmp_path / "scan.nii.gz"], tmp_path / "label.nii.gz"
    )
    assert np.array_equal(case["label"].as_tensor()[0], label[[1, 4, 7]].repeat(2, axis=1))


def test_noise_is_smoothed_before_slices_shrink(plan: Plan, tmp_path):
    """A Gaussian of sigma (4 - 1) / 2 leaves 0.19 of white noise; linear interpolation alone would leave 0.5."""
    noise = np.random.default_rng(0).normal(size=(128, 128, 3)).astype(np.float32)
    write_volume(tmp_path / "scan.nii.gz", noise, np.eye(4))
    plan = plan.model_copy(update={"resize_to": (32, 32), "slice_axis": 2})
    image = run_chain(preprocess_chain(plan, with_label=False), [tmp_path / "scan.nii.gz"])["image"]
    assert float(image.std()) == pytest.approx(0.19, abs=0.03)


@pytest.mark.parametrize("shape", [(60, 44, 17), (1, 90, 33), (31, 20, 5)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_resized_as_by_monai(plan: Plan, axis: int, shape: tuple[int, int, int]):
    image = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    size = [32, 24]
    size.insert(axis, shape[axis])
    monais = Resize(tuple(size), mode="trilinear", align_corners=False, anti_aliasing=True)
    expected = monais(MetaTensor(image.clone(), affine=torch.from_numpy(AFFINE)))
    plan = plan.model_copy(update={"resize_to": (32, 24), "slice_axis": axis})
    in_files_order = image.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)
    given = MetaTensor(in_files_order, affine=torch.from_numpy(AFFINE))
    found = ResampleToPland(["image"], plan)({"image": given})
    torch.testing.assert_close(found["image"].as_tensor(), expected.as_tensor(), atol=1e-4, rtol=0)
    torch.testing.assert_close(found["image"].affine, expected.affine)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 3, 2, 1), (3, 1, 2, 0)])
def test_an_image_is_copied_once_at_most(order: tuple[int, ...]):
    values = torch.randn((2, 9, 7, 5), generator=torch.Generator().manual_seed(0))
    image = values.permute(order).contiguous().permute(np.argsort(order).tolist())
    same = resample_linearly(image, (9, 7, 5))
    assert torch.equal(same, values)
    assert same.is_contiguous()
    assert (same.data_ptr() == image.data_ptr()) is image.is_contiguous()
    larger = resample_linearly(image, (9, 14, 5))
    assert larger.is_contiguous()
    expected = torch.nn.functional.interpolate(values[None], (9, 14, 5), mode="trilinear")[0]
    torch.testing.assert_close(larger, expected)


def test_volumes_cut_to_their_signal_come_back_at_full_size(plan: Plan, tmp_path):
    image = np.zeros((40, 50, 9), np.float32)
    image[10:30, 15:40, 2:8] = np.random.default_rng(0).uniform(50, 150, (20, 25, 6))
    write_volume(tmp_path / "scan.nii.gz", image, AFFINE)
    plan = plan.model_copy(update={"crop_nonzero": True, "slice_axis": 2})
    chain = preprocess_chain(plan, with_label=False)
    case = run_chain(chain, [tmp_path / "scan.nii.gz"])
    assert case["image"].shape == (1, 32, 48, 6)
    restored = next(restore_probabilities(torch.ones(1, 32, 48, 6), case, chain)).numpy()
    assert np.array_equal(restored > 0.5, image > 0)


@pytest.mark.parametrize("grid", ["first_voxel", "extent"])
@pytest.mark.parametrize("resize_to", [None, (32, 48)])
def test_an_interpolated_label_is_refused(plan: Plan, files, resize_to, grid, monkeypatch):
    """The chain's own check, made to see what linear interpolation does."""
    scan, label_file, _ = files
    changes = {"resize_to": resize_to, "grid": grid}
    chain = preprocess_chain(plan.model_copy(update=changes), with_label=True)
    if grid == "extent":
        monkeypatch.setattr(
            "medunet.transforms.resampling.resample_labels",
            lambda labels, size: ndimage.zoom(labels, np.divide(size, labels.shape), order=1),
        )
    else:
        chain.transforms[-2].mode = ("bilinear",) * 2 if resize_to is None else ("trilinear",) * 2
    with pytest.raises(
        DataError, match=r"^label\.nii\.gz: preprocessing added .* \[0, 7, 255\].*nearest neighbour"
    ):
        run_chain(chain, [scan], label_file)


def test_values_are_compared_with_those_of_the_file():
    label = torch.tensor([0.0, 255.0, 7.0])
    check_label_values(label, [0, 7, 255], "a.nii.gz")
    check_label_values(label[:2], [0, 7, 255], "a.nii.gz")
    with pytest.raises(DataError, match=r"a\.nii\.gz: .* the values 7 to the label; its file has \[0, 255\]"):
        check_label_values(label, [0, 255], "a.nii.gz")
    with pytest.raises(DataError, match=r"the values 127\.5 to the label"):
        check_label_values(torch.tensor([0.0, 127.5, 255.0]), [0, 255], "a.nii.gz")


def test_numbered_objects_become_the_one_label(plan: Plan, tmp_path):
    numbers = np.zeros(SHAPE, np.int16)
    numbers[10:20, 10:20, 5], numbers[30:50, 5:30, 8] = 3, 700
    write_volume(tmp_path / "scan.nii.gz", numbers + np.float32(1), AFFINE)
    write_volume(tmp_path / "label.nii.gz", numbers, AFFINE)
    paths = [tmp_path / "scan.nii.gz"], tmp_path / "label.nii.gz"
    case = run_chain(preprocess_chain(plan, with_label=True, rules=LabelRules(instances_as=255)), *paths)
    assert set(case["label"].unique().tolist()) == {0.0, 255.0}
    with pytest.raises(DataError, match="label values above 255"):
        run_chain(preprocess_chain(plan, with_label=True), *paths)


def test_a_colour_picture_and_its_mask_of_0_and_255(plan: Plan, tmp_path):
    """Rows are axis 1: what lies at the top right of the picture lies there in image, label and what comes back."""
    pixels = np.full((30, 40, 3), 240, np.uint8)  # rows, columns
    pixels[2:10, 25:38, 1] = 20
    mask = np.where(pixels[..., 1] < 100, 255, 0).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cells.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    schemes = dict.fromkeys(("red", "green", "blue"), Intensity(scheme="zscore"))
    plan = plan.model_copy(update={"intensities": schemes, "resize_to": (64, 64), "slice_axis": 2})
    chain = preprocess_chain(plan, with_label=True)
    scan = [tmp_path / "cells.png"] * 3
    case = run_chain(chain, scan, tmp_path / "mask.png")
    assert case["image"].shape == (3, 64, 64, 1)
    label = case["label"].as_tensor()
    assert set(label.unique().tolist()) == {0.0, 255.0}
    green = case["image"].as_tensor()[1]
    inside = label[0] > 0
    assert green[inside].mean() < green[~inside].mean() - 1
    assert nib.aff2axcodes(case["image"].affine.numpy()) == ("R", "A", "S")

    chain = preprocess_chain(plan, with_label=False)
    restored = next(restore_probabilities(inside[None].float(), run_chain(chain, scan), chain)).numpy()
    assert np.array_equal(restored[:, :, 0].T > 0.5, mask > 0)


def test_an_empty_picture_and_an_empty_channel_of_a_scan_are_refused(plan: Plan, tmp_path):
    Image.fromarray(np.full((30, 40, 3), 9, np.uint8)).save(tmp_path / "blank.png")
    noise = np.random.default_rng(0).normal(size=(*SHAPE, 3)).astype(np.float32)
    noise[..., 1] = 4
    write_volume(tmp_path / "empty.nii.gz", noise, AFFINE)
    schemes = dict.fromkeys(("a", "b", "c"), Intensity(scheme="zscore"))
    chain = preprocess_chain(plan.model_copy(update={"intensities": schemes}), with_label=False)
    for name in ("blank.png", "empty.nii.gz"):
        with pytest.raises(DataError, match=f"{name}: all voxels have the same value"):
            run_chain(chain, [tmp_path / name] * 3)
