"""Phantoms: plausible numbers, exact geometry on every grid, and a cohort that no threshold solves."""

import json
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import pytest
from best_interval import dice_of_intervals
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.distance import pdist

from medunet.base.errors import InputError
from medunet.imaging.geometry import axis_codes, shear_degrees, spacing_of
from medunet.imaging.volumes import read_label, read_volume
from medunet.phantoms.body import MAX_TUMOURS
from medunet.phantoms.phantom import Phantom, make_phantom, write_cohort

NUM_CASES = 7


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, num_cases=NUM_CASES)
    return folder


@pytest.fixture(scope="module")
def scans(cohort: Path) -> list[Phantom]:
    """The cohort as it is read from disk."""
    read = []
    for image_path in sorted((cohort / "imagesTr").iterdir()):
        image = read_volume(image_path)
        label = read_label(cohort / "labelsTr" / image_path.name)
        np.testing.assert_array_equal(image.affine, label.affine)
        read.append(Phantom(image.array.astype(np.int16), label.array, image.affine))
    return read


def liver_in_world(phantom: Phantom) -> tuple[NDArray[np.float64], float]:
    """Return the centroid in world mm and the volume in ml of the liver with its tumours."""
    index = np.argwhere(phantom.label > 0)
    centroid = nib.affines.apply_affine(phantom.affine, index).mean(axis=0)
    return centroid, len(index) * np.prod(spacing_of(phantom.affine)) / 1000


def interior(phantom: Phantom, value: int, margin_mm: float) -> NDArray[np.bool_]:
    """Return the voxels of a label that lie deeper than `margin_mm` in it."""
    spacing = spacing_of(phantom.affine)
    return ndimage.distance_transform_edt(phantom.label == value, sampling=spacing) > margin_mm


def test_same_seed_same_voxels_and_other_seed_other_body() -> None:
    first, again, other = (make_phantom(seed, spacing_mm=(3.0, 4.0, 5.0)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.label, again.label)
    np.testing.assert_array_equal(first.affine, again.affine)
    assert first.label.shape != other.label.shape or not np.array_equal(first.label, other.label)


def test_types_and_values() -> None:
    phantom = make_phantom(1, spacing_mm=(3.0, 3.0, 5.0))
    assert phantom.image.dtype == np.int16
    assert phantom.label.dtype == np.uint8
    assert set(np.unique(phantom.label)) == {0, 1, 2}
    assert phantom.image.shape == phantom.label.shape
    corner = phantom.image[:8, -8:, :]
    assert corner.mean() == pytest.approx(-1000, abs=5)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_liver_and_tumour_hu(seed: int) -> None:
    phantom = make_phantom(seed, spacing_mm=(1.6, 1.7, 3.2), num_tumours=2)
    # Vessels are brighter: the median and a spread about it that a few outliers do not move.
    values = phantom.image[interior(phantom, 1, 6.0)]
    assert np.median(values) == pytest.approx(111, abs=11)
    low, high = np.percentile(values, [15.87, 84.13])
    assert 15 <= (high - low) / 2 <= 25
    components, _ = ndimage.label(interior(phantom, 2, 3.0))
    sizes = np.bincount(components.ravel())[1:]
    largest = phantom.image[components == 1 + int(np.argmax(sizes))]
    assert largest.mean() == pytest.approx(65, abs=15 + 3)  # the blur lets some of the liver in


def test_noise_has_a_standard_deviation_of_at_least_15_hu() -> None:
    """Air shows the noise alone. The scan stops at -1024 HU, so only the values above -1000 tell its spread."""
    phantom = make_phantom(7, spacing_mm=(2.0, 2.0, 3.0))
    air = phantom.image[:6, :6, :].astype(float)
    assert air.mean() < -990
    assert np.sqrt(np.mean((air[air >= -1000] + 1000) ** 2)) >= 15


@pytest.mark.parametrize("seed", range(4))
def test_tumours_are_8_to_40_mm_across_and_apart(seed: int) -> None:
    phantom = make_phantom(seed, spacing_mm=(1.7, 1.7, 1.7), num_tumours=4)
    components, num = ndimage.label(phantom.label == 2, np.ones((3, 3, 3)))
    assert num == 4
    for number in range(1, num + 1):
        mask = components == number
        shell = np.argwhere(mask & ~ndimage.binary_erosion(mask))
        across_mm = 1.7 * (pdist(shell).max() + 1)
        assert 8 <= across_mm <= 40 + 1.7
        around = ndimage.binary_dilation(mask, iterations=2) & ~mask
        assert (phantom.label[around] == 1).mean() > 0.5, "mostly within the liver"


def test_a_tumour_more_leaves_the_body_as_it_was() -> None:
    grid = {"spacing_mm": (3.0, 4.0, 5.0), "orientation": "RAS"}
    none, one, two = (make_phantom(3, num_tumours=n, **grid) for n in range(3))
    assert not (none.label == 2).any()
    np.testing.assert_array_equal(none.label > 0, two.label > 0)
    assert ((two.label == 2)[one.label == 2]).all()
    assert (two.label == 2).sum() > (one.label == 2).sum() > 0


def test_number_of_tumours_is_bounded() -> None:
    full = make_phantom(0, spacing_mm=(2.5, 2.5, 2.5), num_tumours=MAX_TUMOURS)
    assert ndimage.label(full.label == 2, np.ones((3, 3, 3)))[1] == MAX_TUMOURS
    with pytest.raises(ValueError, match="choose 0 to 8"):
        make_phantom(0, num_tumours=MAX_TUMOURS + 1)


@pytest.mark.parametrize(
    ("spacing_mm", "orientation", "oblique_degrees"),
    [
        ((2.2, 3.0, 2.5), "RAS", 0.0),
        ((2.2, 4.0, 2.5), "PIR", 0.0),
        ((2.0, 2.4, 5.0), "LPI", 5.0),
        ((2.4, 2.2, 3.0), "LAS", 15.0),
    ],
)
def test_every_grid_shows_the_same_body(
    spacing_mm: tuple[float, float, float], orientation: str, oblique_degrees: float
) -> None:
    reference = make_phantom(11, spacing_mm=(2.0, 2.5, 3.0), orientation="LPS")
    phantom = make_phantom(
        11, spacing_mm=spacing_mm, orientation=orientation, oblique_degrees=oblique_degrees
    )
    assert axis_codes(phantom.affine) == orientation
    assert spacing_of(phantom.affine) == pytest.approx(spacing_mm)
    assert (nib.affines.obliquity(phantom.affine).max() > 1e-3) == (oblique_degrees > 0)
    assert shear_degrees(phantom.affine) < 1e-4
    centroid, volume_ml = liver_in_world(phantom)
    expected_centroid, expected_ml = liver_in_world(reference)
    np.testing.assert_allclose(centroid, expected_centroid, atol=0.5)
    assert volume_ml == pytest.approx(expected_ml, rel=0.02)
    # The image agrees with the label: the liver's middle has the liver's HU, the outside does not.
    assert np.median(phantom.image[interior(phantom, 1, 5.0)]) == pytest.approx(
        np.median(reference.image[interior(reference, 1, 5.0)]), abs=3
    )


def test_oblique_turns_by_the_degrees_asked() -> None:
    straight = make_phantom(2, spacing_mm=(4.0, 4.0, 5.0)).affine[:3, :3]
    turned = make_phantom(2, spacing_mm=(4.0, 4.0, 5.0), oblique_degrees=12.0).affine[:3, :3]
    rotation = turned @ np.linalg.inv(straight)
    assert np.rad2deg(np.arccos((np.trace(rotation) - 1) / 2)) == pytest.approx(12.0)


def test_cohort_has_thick_slices_oblique_scans_and_a_case_without_tumour(scans: list[Phantom]) -> None:
    assert len(scans) == NUM_CASES
    spacings = [spacing_of(scan.affine) for scan in scans]
    assert any(max(spacing) == pytest.approx(5.0) for spacing in spacings)
    assert all(1.45 <= min(spacing) <= max(spacing) <= 5.05 for spacing in spacings)
    assert any(np.rad2deg(nib.affines.obliquity(scan.affine)).max() > 4 for scan in scans)
    assert {"LPS", "RAS", "LAS", "PIR"} <= {axis_codes(scan.affine) for scan in scans}
    num_tumours = {ndimage.label(scan.label == 2, np.ones((3, 3, 3)))[1] for scan in scans}
    assert {0, 1, 2, 3} <= num_tumours
    for scan in scans:
        _, volume_ml = liver_in_world(scan)
        assert 600 < volume_ml < 1600
        assert ndimage.label(scan.label > 0)[1] == 1, "the liver is one piece"


def test_cohort_livers_differ_within_their_range(scans: list[Phantom]) -> None:
    medians = [np.median(scan.image[interior(scan, 1, 6.0)]) for scan in scans]
    assert 99 <= min(medians) < max(medians) <= 123
    assert max(medians) - min(medians) > 4


@pytest.mark.parametrize("smoothing_mm", [0.0, 2.5])
def test_no_threshold_nor_interval_finds_the_tumours(scans: list[Phantom], smoothing_mm: float) -> None:
    """The best Dice of any interval of HU, one for all cases, stays below 0.4; so does it after smoothing."""
    edges = np.concatenate([[-2000], np.arange(-150, 400, 2), [4000]])
    dices = []
    for scan in scans:
        tumour = scan.label == 2
        if not tumour.any():
            continue
        sigma = [smoothing_mm / step for step in spacing_of(scan.affine)]
        image = ndimage.gaussian_filter(scan.image.astype(np.float32), sigma)
        dices.append(dice_of_intervals(image, tumour, edges))
    best = np.mean(dices, axis=0).max()
    assert 0.005 < best < 0.4


def test_msd_layout(cohort: Path) -> None:
    index = json.loads((cohort / "dataset.json").read_text())
    assert index["labels"] == {"0": "background", "1": "liver", "2": "tumour"}
    assert index["modality"] == {"0": "CT"}
    assert index["numTraining"] == len(index["training"]) == NUM_CASES
    for entry in index["training"]:
        assert (cohort / entry["image"]).is_file()
        assert (cohort / entry["label"]).is_file()
    assert index["training"][3]["image"] == "./imagesTr/phantom_003.nii.gz"
    stored = nib.load(cohort / "imagesTr/phantom_001.nii.gz")
    assert stored.get_data_dtype() == np.int16
    assert nib.load(cohort / "labelsTr/phantom_001.nii.gz").get_data_dtype() == np.uint8


def test_lits_layout_holds_the_same_cases(tmp_path: Path, scans: list[Phantom]) -> None:
    write_cohort(tmp_path, num_cases=2, layout="lits")
    assert {path.name for path in tmp_path.iterdir()} == {
        *("volume-0.nii", "volume-1.nii", "segmentation-0.nii", "segmentation-1.nii", "phantoms.json")
    }
    image = read_volume(tmp_path / "volume-1.nii")
    np.testing.assert_array_equal(image.array, scans[1].image)
    np.testing.assert_array_equal(read_label(tmp_path / "segmentation-1.nii").array, scans[1].label)
    np.testing.assert_array_equal(image.affine, scans[1].affine)


def test_a_second_run_goes_on_where_the_first_stopped(tmp_path: Path) -> None:
    write_cohort(tmp_path, num_cases=2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    write_cohort(tmp_path, num_cases=2)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before

    lost = tmp_path / "labelsTr/phantom_001.nii.gz"
    content = lost.read_bytes()
    lost.unlink()
    write_cohort(tmp_path, num_cases=2)
    assert lost.read_bytes() == content
    kept = tmp_path / "imagesTr/phantom_000.nii.gz"
    assert kept.stat().st_mtime_ns == before[kept]


def test_another_seed_replaces_the_cohort(tmp_path: Path) -> None:
    write_cohort(tmp_path, num_cases=1, seed=0)
    image = tmp_path / "imagesTr/phantom_000.nii.gz"
    first = image.read_bytes()
    write_cohort(tmp_path, num_cases=1, seed=1)
    assert image.read_bytes() != first
    write_cohort(tmp_path, num_cases=1, seed=0)
    assert image.read_bytes() == first


@pytest.mark.parametrize("layout", ["msd", "lits"])
def test_a_real_dataset_is_never_written_over(tmp_path: Path, layout: Literal["msd", "lits"]) -> None:
    stranger = tmp_path / ("dataset.json" if layout == "msd" else "volume-0.nii")
    stranger.write_text('{"name": "Liver"}')
    with pytest.raises(InputError, match="other than phantoms"):
        write_cohort(tmp_path, num_cases=1, layout=layout)
    assert stranger.read_text() == '{"name": "Liver"}'
