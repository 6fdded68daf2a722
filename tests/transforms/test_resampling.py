"""Scans brought to the plan's grid and back: nothing shifts; old plans give what they gave."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.spatial.dictionary import Orientationd, Resized, Spacingd
from scipy import ndimage

from medunet.imaging.nifti import write_volume
from medunet.records.plan import Intensity, Plan
from medunet.transforms.chain import preprocess_chain, restore_probabilities, run_chain
from medunet.transforms.resampling import size_at_spacing

TILT = nib.affines.from_matvec(
    np.array([[-0.96, 0.28, 0.0], [-0.28, -0.96, 0.0], [0.0, 0.0, 1.0]]), (7.3, -11.0, 23.0)
)


def resample(plan: Plan, image: np.ndarray, affine: np.ndarray, label: np.ndarray | None = None) -> dict:
    """Bring a case in memory to the plan's grid: the chain without reading and normalising."""
    keys = ["image"] if label is None else ["image", "label"]
    chain = preprocess_chain(plan, with_label=label is not None)
    steps = [Orientationd(keys, axcodes=plan.orientation, labels=None), *chain.transforms[3:]]
    case = {"image": MetaTensor(torch.from_numpy(image)[None].float(), affine=torch.from_numpy(affine))}
    if label is not None:
        meta = {"file": "label.nii.gz", "values": np.unique(label).tolist()}
        case["label"] = MetaTensor(torch.from_numpy(label)[None], affine=torch.from_numpy(affine), meta=meta)
    return Compose(steps)(case)


def centroid_mm(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return nib.affines.apply_affine(affine, np.argwhere(mask)).mean(axis=0)


# ---- the grid ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)])
@pytest.mark.parametrize("target_mm", [(2.0, 1.7, 2.4), (0.6, 1.3, 11.0), (90.0, 1.0, 3.0)])
def test_both_ends_of_the_field_of_view_stay_in_place(tiny_plan: Plan, signs, target_mm):
    """An image that is linear in world mm is read back at the new voxels' world positions, tilted and flipped grids
    alike; the corners of the field of view are the same eight points."""
    shape, spacing_mm = (31, 24, 9), (0.9, 1.2, 4.0)
    affine = TILT @ np.diag([*np.multiply(spacing_mm, signs), 1.0])
    slopes = np.array([0.3, -0.7, 0.2])
    image = nib.affines.apply_affine(affine, np.stack(np.indices(shape), -1)) @ slopes
    plan = tiny_plan.model_copy(update={"spacing_mm": target_mm})
    found = resample(plan, image, affine)["image"]
    new = found.affine.numpy()
    size = found.shape[1:]
    assert size == size_at_spacing(shape, spacing_mm, target_mm)
    corners = [
        np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in each], indexing="ij"), -1).reshape(-1, 3)
        for each in (shape, size)
    ]
    old_mm, new_mm = (
        nib.affines.apply_affine(matrix, index) for matrix, index in zip((affine, new), corners, strict=True)
    )
    order = [np.lexsort(places.round(4).T) for places in (old_mm, new_mm)]
    np.testing.assert_allclose(new_mm[order[1]], old_mm[order[0]], atol=1e-4)

    index = np.stack(np.indices(size), -1)
    wanted = nib.affines.apply_affine(new, index) @ slopes
    at_old = nib.affines.apply_affine(np.linalg.inv(affine) @ new, index)
    inner = ((at_old >= 0) & (at_old <= np.array(shape) - 1)).all(
        -1
    )  # beyond, the border's voxels are repeated
    assert inner.any()
    np.testing.assert_allclose(found.as_tensor()[0].numpy()[inner], wanted[inner], atol=1e-3)


def test_sizes_by_hand():
    assert size_at_spacing((35, 51, 20), (1, 1, 1), (2.0, 0.5, 3.0)) == (18, 102, 7)
    assert size_at_spacing((3, 1, 9), (1, 1, 1), (12.0, 4.0, 9.0)) == (1, 1, 1)


@pytest.mark.parametrize("size", [(50, 12, 20), (9, 40, 20), (24, 31, 7)])
def test_images_equal_scipys_linear_interpolation(tiny_plan: Plan, size):
    image = np.random.default_rng(0).normal(size=(23, 31, 10)).astype(np.float32)
    plan = tiny_plan.model_copy(update={"spacing_mm": tuple(np.divide(image.shape, size))})
    found = resample(plan, image, np.eye(4))["image"].as_tensor()[0]
    places = [(np.arange(m) + 0.5) * n / m - 0.5 for n, m in zip(image.shape, size, strict=True)]
    wanted = ndimage.map_coordinates(image, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_planes_keep_the_scans_own_slices(tiny_plan: Plan):
    plan = tiny_plan.model_copy(update={"dimensions": 2, "slice_axis": 1, "spacing_mm": (2.0, 3.0, 2.0)})
    image = np.random.default_rng(0).normal(size=(20, 7, 30))
    found = resample(plan, image, np.diag([1.0, 5.0, 1.0, 1.0]))["image"]
    assert found.shape == (1, 10, 7, 15)
    assert nib.affines.voxel_sizes(found.affine.numpy()) == pytest.approx((2, 5, 2))


# ---- labels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (-1, -1)])
@pytest.mark.parametrize(
    ("spacing_mm", "shape"),
    [
        ((3.0, 3.0, 3.0), (25, 24, 23)),
        ((1.5, 1.5, 6.0), (41, 40, 16)),
        ((1.0, 1.0, 1.0), (60, 60, 61)),
        ((0.75, 0.75, 1.5), (80, 81, 40)),
        ((2.1, 1.9, 4.0), (30, 31, 20)),
    ],
)
@pytest.mark.parametrize("target_mm", [(2.0, 2.0, 2.0), (1.5, 1.5, 3.0)])
def test_labels_do_not_shift(tiny_plan: Plan, spacing_mm, shape, signs, target_mm):
    """Mean over balls in mirrored pairs of places: what is left is bias, not chance. 0.4.0: up to 0.36 mm."""
    rng = np.random.default_rng(0)
    plan = tiny_plan.model_copy(update={"spacing_mm": target_mm})
    affine = np.diag([signs[0] * spacing_mm[0], signs[1] * spacing_mm[1], spacing_mm[2], 1.0])
    affine[:3, 3] = (7.3, -11, 23)
    world = nib.affines.apply_affine(affine, np.stack(np.indices(shape), -1))
    middle = nib.affines.apply_affine(affine, (np.array(shape) - 1) / 2)
    shifts = []
    for offset in rng.uniform(-6, 6, (8, 3)):
        for side in (-1, 1):
            label = (np.linalg.norm(world - middle - side * offset, axis=-1) < 12).astype(np.uint8)
            found = resample(plan, label, affine, label)["label"]
            new = centroid_mm(found.as_tensor()[0].numpy() > 0, found.affine.numpy())
            shifts.append(new - centroid_mm(label > 0, affine))
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.02


# ---- and back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"dimensions": 2}, {"dimensions": 2, "resize_to": (32, 48)}])
def test_probabilities_come_back_to_the_scans_voxels(tiny_plan: Plan, tmp_path, changes):
    """A probability that is linear in world mm is read back at the scan's own voxels; what was cut away is 0."""
    shape = (50, 40, 13)
    affine = TILT @ np.diag([-0.9, 1.2, -4.0, 1.0])
    image = np.zeros(shape, np.float32)
    image[5:45, 3:37, 2:12] = np.random.default_rng(0).uniform(1, 2, (40, 34, 10))
    write_volume(tmp_path / "scan.nii.gz", image, affine)
    zscore = {"CT": Intensity(scheme="zscore_nonzero")}
    plan = tiny_plan.model_copy(update={"crop_nonzero": True, "intensities": zscore, **changes})
    chain = preprocess_chain(plan, with_label=False)
    case = run_chain(chain, [tmp_path / "scan.nii.gz"])
    slopes = np.array([0.3, -0.7, 0.2])
    new = case["image"].affine.numpy()
    values = nib.affines.apply_affine(new, np.stack(np.indices(case["image"].shape[1:]), -1)) @ slopes
    given = torch.from_numpy(np.stack([values, -values]))
    restored = [channel.numpy() for channel in restore_probabilities(given, case, chain)]
    assert len(restored) == 2
    wanted = nib.affines.apply_affine(affine, np.stack(np.indices(shape), -1)) @ slopes
    inner = (slice(8, 42), slice(6, 34), slice(4, 10))
    np.testing.assert_allclose(restored[0][inner], wanted[inner], atol=2e-3)
    np.testing.assert_array_equal(restored[1], -restored[0])
    assert np.array_equal(restored[0] != 0, image > 0)


# ---- plans of 0.4.0 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize_to", [None, (32, 48)])
def test_a_plan_without_a_grid_gives_what_monais_transforms_gave(tiny_plan: Plan, tmp_path, resize_to):
    """Bit by bit: the steps of 0.4.0, written out."""
    plain = tiny_plan.to_dict()
    assert plain.pop("grid")["value"] == "extent"
    plan = Plan.parse(plain, "plan.json")
    assert plan.grid == "first_voxel"
    if resize_to is not None:
        plan = plan.model_copy(update={"resize_to": resize_to, "dimensions": 2})

    rng = np.random.default_rng(0)
    image = rng.normal(50, 40, (41, 34, 13)).astype(np.float32)
    label = rng.integers(0, 3, (41, 34, 13)).astype(np.uint8)
    affine = TILT @ np.diag([0.9, 1.2, 4.4, 1.0])
    write_volume(tmp_path / "scan.nii.gz", image, affine)
    write_volume(tmp_path / "label.nii.gz", label, affine)
    chain = preprocess_chain(plan, with_label=True)
    found = run_chain(chain, [tmp_path / "scan.nii.gz"], tmp_path / "label.nii.gz")

    keys = ["image", "label"]
    affine = torch.from_numpy(nib.load(tmp_path / "scan.nii.gz").affine)
    clipped = (torch.from_numpy(image).clamp(-50, 200) - 90) / 40
    steps = Compose(
        [
            Orientationd(keys, axcodes="RAS", labels=None),
            Spacingd(
                keys, plan.spacing_mm, mode=("bilinear", "nearest"), padding_mode="border", dtype=np.float32
            )
            if resize_to is None
            else Resized(
                keys,
                (32, 48, -1),
                mode=("trilinear", "nearest-exact"),
                align_corners=(False, None),
                anti_aliasing=(True, False),
            ),
        ]
    )
    wanted = steps(
        {
            "image": MetaTensor(clipped[None], affine=affine),
            "label": MetaTensor(torch.from_numpy(label)[None].float(), affine=affine),
        }
    )
    for key in keys:
        assert torch.equal(found[key].as_tensor(), wanted[key].as_tensor())
        assert torch.equal(found[key].affine, wanted[key].affine)
    prediction_chain = preprocess_chain(plan, with_label=False)
    case = run_chain(prediction_chain, [tmp_path / "scan.nii.gz"])
    restored = next(restore_probabilities(wanted["image"].as_tensor(), case, prediction_chain))
    assert torch.equal(restored, steps.inverse(wanted)["image"].as_tensor()[0])
