"""Scans brought to the plan's grid: nothing shifts, grows or vanishes; old plans give what they gave."""

import tracemalloc

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
from medunet.transforms.resampling import resample_labels, share_weights, size_at_spacing

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


def ellipsoid(rng: np.random.Generator, shape: tuple[int, ...], radii: tuple[float, float]) -> np.ndarray:
    """A turned ellipsoid at a random place near the middle, as a uint8 label map."""
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    places = np.indices(shape).reshape(3, -1).T - np.array(shape) / 2 - rng.uniform(-3, 3, 3)
    inside = (((places @ turn) / rng.uniform(*radii, 3)) ** 2).sum(1) < 1
    return inside.reshape(shape).astype(np.uint8)


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


def volume_change(label: np.ndarray, size: tuple[int, ...]) -> float:
    voxel = np.prod(np.divide(label.shape, size))
    return float((resample_labels(label, size) > 0).sum() * voxel / (label > 0).sum() - 1)


def test_volumes_are_kept_over_random_shapes_and_ratios():
    """A tenth of the axes is halved, a tenth doubled, exactly; the others shrink or grow by up to 2.5.

    The mean is -0.1%, its standard error 0.1%.
    """
    rng = np.random.default_rng(0)
    changes = []
    for _ in range(150):
        shape = tuple(2 * rng.integers(22, 28, 3))
        ratios = [
            (2.0, 0.5, float(np.exp(rng.uniform(-0.9, 0.9))))[kind]
            for kind in rng.choice(3, size=3, p=(0.1, 0.1, 0.8))
        ]
        size = tuple(max(1, round(n / ratio)) for n, ratio in zip(shape, ratios, strict=True))
        changes.append(volume_change(ellipsoid(rng, shape, (6, 18)), size))
    assert abs(np.mean(changes)) < 0.01


def test_doubling_keeps_volumes():
    rng = np.random.default_rng(1)
    labels = [ellipsoid(rng, (40, 41, 44), (5, 15)) for _ in range(20)]
    assert abs(np.mean([volume_change(label, (80, 82, 88)) for label in labels])) < 0.01


@pytest.mark.parametrize("steps", [(2, 2, 2), (2, 1, 1), (2, 2, 1)])
def test_what_halving_adds_are_the_ties_alone(steps):
    """By hand: a voxel whose eight (four, two) old ones are label by half or more is label. Half of the ties would
    keep volumes; all of them are given, as nnU-Net does, so that thin structures survive."""
    rng = np.random.default_rng(2)
    kept = []
    for _ in range(20):
        label = ellipsoid(rng, (40, 44, 48), (8, 18))
        size = tuple(n // step for n, step in zip(label.shape, steps, strict=True))
        share = label.reshape(size[0], steps[0], size[1], steps[1], size[2], steps[2]).mean((1, 3, 5))
        assert np.array_equal(resample_labels(label, size), share >= 0.5)
        kept.append(((share > 0.5) + 0.5 * (share == 0.5)).sum() * np.prod(steps) / label.sum() - 1)
    assert abs(np.mean(kept)) < 0.01


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("at", [0, 7, 8, 19])
def test_a_structure_of_one_slice_survives_halving(axis, at):
    """On background, and within another label."""
    for around in (0, 3):
        label = np.full((20, 20, 20), around, np.uint8)
        np.moveaxis(label, axis, 0)[at] = 2
        found = resample_labels(label, tuple(10 if each == axis else 20 for each in range(3)))
        wanted = np.full(found.shape, around, np.uint8)
        np.moveaxis(wanted, axis, 0)[at // 2] = 2
        assert np.array_equal(found, wanted)


def test_ties_go_to_the_rarer_label_and_never_to_background():
    label = np.array([0, 1, 2, 1, 2, 0, 1, 1, 0, 0, 0, 0], np.uint8).reshape(-1, 1, 1)
    assert resample_labels(label, (6, 1, 1)).ravel().tolist() == [1, 2, 2, 1, 0, 0]
    thirds = np.array([0, 1, 2, 0, 0, 1], np.uint8).reshape(1, -1, 1)
    assert resample_labels(thirds, (1, 2, 1)).ravel().tolist() == [2, 0]
    # By equal counts the larger value wins.
    assert resample_labels(np.array([1, 2], np.uint8).reshape(1, 1, -1), (1, 1, 1)).ravel().tolist() == [2]


@pytest.mark.parametrize("size", [(11, 40, 20), (31, 9, 13), (23, 31, 17), (7, 16, 9)])
def test_labels_equal_the_largest_share_of_all_labels_at_once(size):
    """An oracle that holds every label's share of every voxel; of the labels 9 is ignored and 255 an instance's."""
    rng = np.random.default_rng(0)
    values = np.array([0, 1, 2, 9, 255], np.uint8)
    noise = ndimage.gaussian_filter(rng.normal(size=(5, 23, 31, 17)), (0, 2, 2, 2))
    labels = values[noise.argmax(0)]
    weights = [share_weights(n, m).astype(float) for n, m in zip(labels.shape, size, strict=True)]
    masks = (labels == values[:, None, None, None]).astype(float)
    shares = np.einsum("vijk,ai,bj,ck->vabc", masks, *weights, optimize=True)
    found = resample_labels(labels, size)
    top = np.sort(shares, axis=0)
    clear = top[-1] - top[-2] > 1e-4
    assert clear.mean() > 0.8
    assert np.array_equal(found[clear], values[shares.argmax(0)][clear])
    chosen = np.take_along_axis(shares, np.searchsorted(values, found)[None], 0)[0]
    assert (top[-1] - chosen).max() < 1e-4


def test_weights_by_hand():
    np.testing.assert_allclose(share_weights(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]], atol=1e-6)
    np.testing.assert_allclose(share_weights(2, 4), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    for old, new in ((7, 7), (50, 13), (13, 50), (100, 1), (1, 5)):
        np.testing.assert_allclose(share_weights(old, new).sum(1), 1, atol=1e-6)
    assert np.array_equal(share_weights(7, 7), np.eye(7))


@pytest.mark.parametrize("size", [(60, 70, 50), (130, 150, 110)])
def test_three_float_volumes_are_held_at_most(size):
    """Many labels, each filling the whole volume's box: the worst that can be."""
    labels = np.random.default_rng(0).integers(0, 40, (120, 140, 100)).astype(np.uint8)
    volume = 4 * max(labels.size, int(np.prod(size)))
    tracemalloc.start()
    resample_labels(labels, size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3.6 * volume  # beside them, one of bytes for the result and one of truth values


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
