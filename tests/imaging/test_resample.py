"""Label maps on another grid: each voxel holds the label nearest to it in the world, whatever the grids' axes."""

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.imaging.geometry import Affine
from medunet.imaging.resample import resample_labels

SHAPE = (7, 9, 11)
AFFINE = np.array(
    [[0, 1.5, 0, -40], [-2, 0, 0, 25], [0, 0, 3, 10], [0, 0, 0, 1]], dtype=float
)  # axes P, R, S


@pytest.fixture
def labels() -> NDArray[np.uint8]:
    """Labels 0 to 4 at random, so that every voxel that comes from a wrong place is likely to show."""
    return np.random.default_rng(3).integers(0, 5, SHAPE, dtype=np.uint8)


def oblique(spacing_mm: tuple[float, float, float], origin_mm: tuple[float, float, float]) -> Affine:
    """Return an affine of axes turned by 20 degrees about S, then by 35 degrees about R."""
    about_s, about_r = np.deg2rad([20, 35])
    turn_s = [[np.cos(about_s), -np.sin(about_s), 0], [np.sin(about_s), np.cos(about_s), 0], [0, 0, 1]]
    turn_r = [[1, 0, 0], [0, np.cos(about_r), -np.sin(about_r)], [0, np.sin(about_r), np.cos(about_r)]]
    return nib.affines.from_matvec(np.array(turn_r) @ turn_s @ np.diag(spacing_mm), origin_mm)


def nearest_in_world(labels: NDArray, affine: Affine, shape: tuple[int, int, int], onto: Affine) -> NDArray:
    """Return for each voxel of a grid the label of the nearest voxel, if it lies in that voxel's own cuboid."""
    index = np.indices(labels.shape).reshape(3, -1).T
    places_mm = nib.affines.apply_affine(affine, index)
    expected = np.zeros(shape, labels.dtype)
    half_mm = nib.affines.voxel_sizes(affine) / 2
    directions = affine[:3, :3] / (2 * half_mm)
    for voxel in np.ndindex(shape):
        place_mm = nib.affines.apply_affine(onto, voxel)
        nearest = np.linalg.norm(places_mm - place_mm, axis=1).argmin()
        offsets_mm = np.abs((place_mm - places_mm[nearest]) @ directions)  # along the old grid's own axes
        if (offsets_mm < half_mm).all():
            expected[voxel] = labels[tuple(index[nearest])]
    return expected


def simpleitk_image(array: NDArray, affine: Affine):  # type: ignore[no-untyped-def]
    """Return an array `(I, J, K)` as an image of SimpleITK, whose world is LPS."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    to_lps = np.diag([-1.0, -1.0, 1.0])
    spacing_mm = nib.affines.voxel_sizes(affine)
    image.SetSpacing(spacing_mm.tolist())
    image.SetDirection((to_lps @ affine[:3, :3] / spacing_mm).ravel().tolist())
    image.SetOrigin((to_lps @ affine[:3, 3]).tolist())
    return image


def resample_by_simpleitk(
    labels: NDArray, affine: Affine, shape: tuple[int, int, int], onto: Affine
) -> NDArray:
    import SimpleITK as sitk

    image = simpleitk_image(labels, affine)
    wanted = simpleitk_image(np.zeros(shape, labels.dtype), onto)
    moved = sitk.Resample(image, wanted, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    return sitk.GetArrayFromImage(moved).transpose(2, 1, 0)


def test_its_own_grid_changes_nothing(labels: NDArray[np.uint8]) -> None:
    for affine in (np.eye(4), AFFINE, oblique((0.7, 2.1, 5.0), (-7.1, -20.2, 5.3))):
        before = labels.copy()
        assert np.array_equal(resample_labels(labels, affine, SHAPE, affine), before)
        assert np.array_equal(labels, before)


@pytest.mark.parametrize("codes", ["LPS", "SAR", "IRP", "ASL", "RAS"])
@pytest.mark.parametrize(
    "affine", [AFFINE, oblique((0.7, 2.1, 5.0), (-7.1, -20.2, 5.3))], ids=["straight", "oblique"]
)
def test_axes_in_another_order_and_direction_are_exact(
    labels: NDArray[np.uint8], affine: Affine, codes: str
) -> None:
    stored = nib.io_orientation(affine)
    turn = nib.orientations.ornt_transform(stored, nib.orientations.axcodes2ornt(codes))
    turned = nib.apply_orientation(labels, turn)
    onto = affine @ nib.orientations.inv_ornt_aff(turn, SHAPE)
    assert "".join(nib.aff2axcodes(onto)) == codes
    assert np.array_equal(resample_labels(labels, affine, turned.shape, onto), turned)
    assert np.array_equal(resample_labels(turned, onto, SHAPE, affine), labels)


def test_a_finer_grid_repeats_and_a_coarser_one_picks(labels: NDArray[np.uint8]) -> None:
    # Each voxel of 2×3×4 mm holds 2×3×4 of 1 mm, whose first centres are 0.5, 1 and 1.5 mm before its own.
    coarse = nib.affines.from_matvec(np.diag([2.0, 3.0, 4.0]), (10, 20, 30))
    fine = nib.affines.from_matvec(np.eye(3), (9.5, 19, 28.5))
    repeated = labels.repeat(2, axis=0).repeat(3, axis=1).repeat(4, axis=2)
    assert np.array_equal(resample_labels(labels, coarse, repeated.shape, fine), repeated)
    # A grid of every third voxel along one axis takes these and asks none between them.
    thick = nib.affines.from_matvec(np.diag([2.0, 9.0, 4.0]), (10, 23, 30))
    assert np.array_equal(resample_labels(labels, coarse, (7, 3, 11), thick), labels[:, 1::3])


GRIDS = {  # of no voxel whose centre is midway between two of the other grid
    "coarser": ((5, 4, 6), nib.affines.from_matvec(np.diag([2.9, 3.7, 5.3]), (-38.8, 9.6, 10.9))),
    "finer": ((13, 16, 15), nib.affines.from_matvec(np.diag([0.83, 0.61, 1.27]), (-39.3, 14.2, 9.1))),
    "flipped": ((9, 8, 7), nib.affines.from_matvec(np.diag([-1.31, -1.93, -4.43]), (-29.17, 25.71, 39.29))),
    "oblique": ((12, 9, 10), oblique((1.1, 1.7, 2.3), (-38.3, 15.1, 12.7))),
    "larger": ((14, 13, 9), nib.affines.from_matvec(np.diag([1.7, 2.3, 5.9]), (-45.7, 4.1, 0.3))),
}


@pytest.mark.parametrize("name", GRIDS)
def test_other_grids_are_those_of_simpleitk_and_of_the_nearest_place(
    labels: NDArray[np.uint8], name: str
) -> None:
    shape, onto = GRIDS[name]
    for source, target_shape, target, old in (
        (labels, shape, onto, AFFINE),
        (resample_by_simpleitk(labels, AFFINE, shape, onto), SHAPE, AFFINE, onto),  # and back again
    ):
        resampled = resample_labels(source, old, target_shape, target)
        assert resampled.any()
        assert np.array_equal(resampled, nearest_in_world(source, old, target_shape, target))
        assert np.array_equal(resampled, resample_by_simpleitk(source, old, target_shape, target))


def test_outside_is_background_up_to_half_a_voxel_from_the_last_centre() -> None:
    full = np.full((4, 3, 2), 7, np.uint8)
    onto = nib.affines.from_matvec(np.diag([0.4, 1, 1]), (-1, -1, -1))  # -1, -0.6, -0.2, ... 4.2
    resampled = resample_labels(full, np.eye(4), (14, 5, 4), onto)
    centres = -1 + 0.4 * np.arange(14)
    assert np.array_equal(resampled[:, 1, 1] > 0, (centres > -0.5) & (centres < 3.5))
    assert np.array_equal(resampled[3], np.pad(full[0], 1))
    assert set(np.unique(resampled)) == {0, 7}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_type_and_every_digit_are_kept(dtype: type[np.integer]) -> None:
    largest = min(np.iinfo(dtype).max, 2**31 - 1)
    labels = np.array([0, 1, largest - 1, largest], dtype).reshape(4, 1, 1)
    onto = nib.affines.from_matvec(np.diag([0.5, 1, 1]), (-0.25, 0, 0))
    resampled = resample_labels(labels, np.eye(4), (8, 1, 1), onto)
    assert resampled.dtype == dtype
    assert resampled.ravel().tolist() == np.repeat(labels.ravel(), 2).tolist()


def test_memory_order_changes_nothing(labels: NDArray[np.uint8]) -> None:
    shape, onto = GRIDS["oblique"]
    expected = resample_labels(np.ascontiguousarray(labels), AFFINE, shape, onto)
    assert np.array_equal(resample_labels(np.asfortranarray(labels), AFFINE, shape, onto), expected)


@pytest.mark.parametrize("is_own", [True, False], ids=["own", "target"])
@pytest.mark.parametrize("fault", ["singular", "flat", "infinite"])
def test_an_affine_that_spans_no_volume_is_refused(
    labels: NDArray[np.uint8], fault: str, is_own: bool
) -> None:
    broken = AFFINE.copy()
    if fault == "singular":
        broken[:3, 1] = broken[:3, 0]
    else:
        broken[2, 2] = 0.0 if fault == "flat" else np.inf
    own, onto = (broken, AFFINE) if is_own else (AFFINE, broken)
    with pytest.raises(DataError, match=r"a grid's affine is singular\. Export the file again\."):
        resample_labels(labels, own, SHAPE, onto)


def test_grids_that_do_not_meet_are_refused(labels: NDArray[np.uint8]) -> None:
    sizes_mm = np.array(SHAPE) * nib.affines.voxel_sizes(AFFINE)
    directions = AFFINE[:3, :3] / nib.affines.voxel_sizes(AFFINE)
    for axis in range(3):
        for sign in (-1, 1):
            beside, over = AFFINE.copy(), AFFINE.copy()
            beside[:3, 3] += sign * (sizes_mm[axis] + 0.01) * directions[:, axis]
            with pytest.raises(DataError, match=r"do not overlap\. Check that both belong to one scan"):
                resample_labels(labels, AFFINE, SHAPE, beside)
            over[:3, 3] += (
                sign * (sizes_mm[axis] - 2.0) * directions[:, axis]
            )  # the last voxels, over each other
            assert resample_labels(labels, AFFINE, SHAPE, over).any()


def test_a_turned_grid_past_a_corner_does_not_meet() -> None:
    # A square of 10×10 mm and one turned by 45°, whose corners at (6.6, 13) and (13, 6.6) lie within reach of the
    # first one's faces, while its nearest side runs through (9.8, 9.8).
    full = np.ones((10, 10, 3), np.uint8)
    half = np.sqrt(0.5)
    turn = np.array([[half, -half, 0], [half, half, 0], [0, 0, 1]])
    beside = nib.affines.from_matvec(turn, (13, 13 - 9 * half, 0))
    for old, new in ((np.eye(4), beside), (beside, np.eye(4))):
        with pytest.raises(DataError, match="do not overlap"):
            resample_labels(full, old, full.shape, new)
    over = nib.affines.from_matvec(turn, (12, 12 - 9 * half, 0))
    assert resample_labels(full, np.eye(4), full.shape, over).any()


def test_a_thin_slice_within_a_thick_one_meets_it() -> None:
    thick = nib.affines.from_matvec(np.diag([1.0, 1.0, 10.0]), (0, 0, 0))
    thin = nib.affines.from_matvec(np.eye(3), (0, 0, 4))  # 4 mm above the centre, within 5 mm
    full = np.ones((5, 6, 1), np.uint8)
    assert resample_labels(full, thick, (5, 6, 1), thin).all()
