"""Synthetic gliomas: MSD Task01's layout, the contrasts of four modalities, and tumours that no threshold finds."""

import json
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from best_interval import dice_of_intervals
from numpy.typing import NDArray
from scipy import ndimage

from medunet.base.errors import InputError
from medunet.dataset.checks.manifest_checks import check_manifest
from medunet.dataset.manifest import make_manifest
from medunet.imaging.geometry import axis_codes, spacing_of
from medunet.imaging.volumes import read_volume
from medunet.phantoms.brain import MODALITIES, BrainPhantom, make_brain, write_brain_cohort
from medunet.records.description import load_description

COARSE_MM = (4.0, 4.5, 5.0)
FLAIR, T1W, T1GD, T2W = range(4)
NUM_CASES = 4  # ring, patchy, ring, diffuse


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gliomas")
    write_brain_cohort(folder, NUM_CASES, spacing_mm=COARSE_MM)
    return folder


@pytest.fixture(scope="module")
def ring() -> BrainPhantom:
    return make_brain(3, spacing_mm=(2.6, 2.8, 3.0))


@pytest.fixture(scope="module")
def diffuse() -> BrainPhantom:
    return make_brain(4, spacing_mm=(2.6, 2.8, 3.0), kind="diffuse")


def healthy_median(phantom: BrainPhantom, modality: int) -> float:
    """Return the brightness of the brain well away from the tumour and from its surface."""
    inside = ndimage.binary_erosion(phantom.image[..., FLAIR] > 0, iterations=3)
    far = ~ndimage.binary_dilation(phantom.label > 0, iterations=3)
    return float(np.median(phantom.image[..., modality][inside & far]))


def contrast(phantom: BrainPhantom, modality: int, value: int) -> float:
    """Return a label's mean brightness against that of the healthy brain about the tumour."""
    tumour = phantom.label > 0
    inside = ndimage.binary_erosion(phantom.image[..., FLAIR] > 0, iterations=2)
    shell = ndimage.binary_dilation(tumour, iterations=6) & ~ndimage.binary_dilation(tumour, iterations=2)
    frame = phantom.image[..., modality]
    return float(frame[phantom.label == value].mean() / np.median(frame[shell & inside]))


def test_contrasts_of_a_ring(ring: BrainPhantom) -> None:
    """The orders of a real case: oedema bright in FLAIR and T2w, the rim bright in T1gd, the core dark in T1gd."""
    assert contrast(ring, FLAIR, 1) > 1.2
    assert contrast(ring, T2W, 1) > 1.2
    assert contrast(ring, T1W, 1) < 1.0
    assert contrast(ring, T1GD, 1) < 1.1
    assert contrast(ring, T1GD, 3) > 1.15
    assert contrast(ring, T1GD, 3) > contrast(ring, T1W, 3) + 0.25
    assert contrast(ring, T1GD, 2) < 0.85
    assert contrast(ring, T2W, 2) > 1.4


def test_the_rim_encloses_the_core(ring: BrainPhantom) -> None:
    core = ring.label == 2
    around = ndimage.binary_dilation(core) & ~core
    assert (ring.label[around] == 3).mean() > 0.55, "but for gaps"


def test_diffuse_gliomas_do_not_enhance(diffuse: BrainPhantom) -> None:
    assert set(np.unique(diffuse.label)) == {0, 1, 2}
    assert contrast(diffuse, FLAIR, 2) > 1.15
    assert contrast(diffuse, T1GD, 2) < 1.0


def test_ventricles_are_fluid(ring: BrainPhantom) -> None:
    """Far below the surface only the ventricles are dark in FLAIR; there T2w is bright and T1w dark."""
    depth_mm = ndimage.distance_transform_edt(ring.image[..., FLAIR] > 0, sampling=spacing_of(ring.affine))
    dark = ring.image[..., FLAIR] < 0.55 * healthy_median(ring, FLAIR)
    ventricles = (depth_mm > 32) & (ring.label == 0) & dark
    volume_ml = ventricles.sum() * np.prod(spacing_of(ring.affine)) / 1000
    assert 1 < volume_ml < 60
    assert ring.image[..., T2W][ventricles].mean() > 1.4 * healthy_median(ring, T2W)
    assert ring.image[..., T1W][ventricles].mean() < 0.75 * healthy_median(ring, T1W)


def test_heads_are_skull_stripped_and_of_human_size(ring: BrainPhantom, diffuse: BrainPhantom) -> None:
    for phantom in (ring, diffuse):
        filled = phantom.image > 0
        assert (filled == filled[..., :1]).all(), "all modalities share one mask"
        assert not phantom.label[~filled[..., 0]].any()
        volume_ml = filled[..., 0].sum() * np.prod(spacing_of(phantom.affine)) / 1000
        assert 900 < volume_ml < 1700
        assert ndimage.label(filled[..., 0])[1] == 1
        assert not filled[[0, -1]].any()
        assert not filled[:, [0, -1]].any()
        assert axis_codes(phantom.affine) == "LPS"


def test_every_grid_shows_the_same_head(ring: BrainPhantom) -> None:
    other = make_brain(3, spacing_mm=(3.2, 2.6, 4.0), field_of_view_mm=(170.0, 200.0, 150.0))
    assert spacing_of(other.affine) == pytest.approx((3.2, 2.6, 4.0))
    places, volumes_ml = [], []
    for phantom in (ring, other):
        index = np.argwhere(phantom.label > 0)
        places.append(nib.affines.apply_affine(phantom.affine, index).mean(axis=0))
        volumes_ml.append(len(index) * np.prod(spacing_of(phantom.affine)) / 1000)
    np.testing.assert_allclose(places[0], places[1], atol=1.0)
    assert volumes_ml[0] == pytest.approx(volumes_ml[1], rel=0.08)


def test_the_grid_of_brats_can_be_asked_for() -> None:
    phantom = make_brain(0, spacing_mm=(6.0, 6.0, 5.0), field_of_view_mm=(240.0, 240.0, 155.0))
    assert phantom.image.shape == (40, 40, 31, 4)


def test_same_seed_same_voxels_and_other_seed_other_head() -> None:
    first, again, other = (make_brain(seed, spacing_mm=(6.0, 5.0, 7.0)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.label, again.label)
    assert not np.array_equal(first.image[..., FLAIR] > 0, other.image[..., FLAIR] > 0)
    assert not np.array_equal(first.label, other.label)


def test_foci_are_apart() -> None:
    phantom = make_brain(8, spacing_mm=(3.0, 3.0, 3.0), num_foci=3)
    _, num_cores = ndimage.label(ndimage.binary_closing(phantom.label >= 2), np.ones((3, 3, 3)))
    assert num_cores >= 2


def test_cohort_is_read_as_msd_task01_and_has_no_faults(cohort: Path) -> None:
    description = load_description("msd_task01_brain_tumour")
    manifest = make_manifest(description, cohort, seed=0)
    assert [case.id for case in manifest.cases] == ["BRATS_001", "BRATS_002", "BRATS_003", "BRATS_004"]
    assert [case.patient for case in manifest.cases] == ["001", "002", "003", "004"]
    assert [fault for fault in check_manifest(manifest, cohort) if fault.severity == "error"] == []
    index = json.loads((cohort / "dataset.json").read_text())
    assert tuple(index["modality"].values()) == tuple(description.channels) == MODALITIES
    assert list(index["labels"].values()) == [
        "background",
        "edema",
        "non-enhancing tumor",
        "enhancing tumour",
    ]
    assert index["numTraining"] == len(index["training"]) == NUM_CASES
    assert all((cohort / entry["image"]).is_file() for entry in index["training"])


def test_values_on_disk(cohort: Path) -> None:
    values = []
    for number in range(1, NUM_CASES + 1):
        image = read_volume(cohort / f"imagesTr/BRATS_{number:03d}.nii.gz")
        label = read_volume(cohort / f"labelsTr/BRATS_{number:03d}.nii.gz")
        assert image.array.shape == (38, 40, 28, 4)
        assert label.array.shape == (38, 40, 28)
        np.testing.assert_array_equal(image.affine, label.affine)
        values.append(set(np.unique(label.array)))
    assert values == [{0, 1, 2, 3}, {0, 1, 2, 3}, {0, 1, 2, 3}, {0, 1, 2}]


def test_brightness_has_no_unit(cohort: Path) -> None:
    medians = []
    for path in sorted((cohort / "imagesTr").iterdir()):
        frame = read_volume(path).array[..., T1W]
        medians.append(float(np.median(frame[frame > 0])))
    assert all(high / low > 1.02 for low, high in pairwise(sorted(medians)))
    assert max(medians) / min(medians) > 1.5


@pytest.mark.parametrize(("modality", "labels"), [(FLAIR, (1, 2, 3)), (T2W, (1, 2, 3)), (T1GD, (3,))])
def test_no_threshold_finds_the_tumours(cohort: Path, modality: int, labels: tuple[int, ...]) -> None:
    """The best interval of a modality, normalised and smoothed, one for all cases, stays below a Dice of 0.75."""
    edges = np.concatenate([[-99], np.arange(-4, 8, 0.05), [99]])
    dices: list[NDArray] = []
    for path in sorted((cohort / "imagesTr").iterdir()):
        frame = read_volume(path).array[..., modality]
        inside = frame > 0
        wanted = np.isin(read_volume(cohort / "labelsTr" / path.name).array, labels)[inside]
        if not wanted.any():
            continue
        smooth = ndimage.gaussian_filter(frame, 0.5)[inside]
        normal = (smooth - smooth.mean()) / smooth.std()
        dices.append(dice_of_intervals(normal, wanted, edges))
    best = np.mean(dices, axis=0).max()
    assert 0.02 < best < 0.75


def test_a_second_run_goes_on_where_the_first_stopped(cohort: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in cohort.rglob("*") if path.is_file()}
    write_brain_cohort(cohort, NUM_CASES, spacing_mm=COARSE_MM)
    assert {path: path.stat().st_mtime_ns for path in cohort.rglob("*") if path.is_file()} == before

    lost = cohort / "imagesTr/BRATS_002.nii.gz"
    content = lost.read_bytes()
    lost.unlink()
    write_brain_cohort(cohort, NUM_CASES, spacing_mm=COARSE_MM)
    assert lost.read_bytes() == content
    kept = cohort / "labelsTr/BRATS_001.nii.gz"
    assert kept.stat().st_mtime_ns == before[kept]


def test_another_seed_or_grid_replaces_the_cohort(tmp_path: Path) -> None:
    image = tmp_path / "imagesTr/BRATS_001.nii.gz"
    contents = []
    for seed, spacing_mm in ((0, (7.0, 7.0, 8.0)), (1, (7.0, 7.0, 8.0)), (1, (8.0, 7.0, 8.0))):
        write_brain_cohort(tmp_path, 1, seed=seed, spacing_mm=spacing_mm)
        contents.append(image.read_bytes())
    assert len(set(contents)) == 3


def test_a_real_dataset_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"name": "BRATS"}')
    with pytest.raises(InputError, match="other than phantoms"):
        write_brain_cohort(tmp_path, 1, spacing_mm=(7.0, 7.0, 8.0))
    assert (tmp_path / "dataset.json").read_text() == '{"name": "BRATS"}'
    assert not (tmp_path / "imagesTr").exists()
