"""Errors of a case: where SciPy finds them, with the lengths and numbers of the scores."""

import math

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from medunet.records.finding import Finding
from medunet.scoring.findings import find_errors
from medunet.scoring.lesions import score_lesions
from medunet.scoring.masks import score_masks

SPACING_MM = (1.0, 1.5, 3.0)
TARGET = {"organ": (1,)}


def blobs(seed: int, shape: tuple[int, ...], threshold: float = 0.25) -> NDArray[np.uint8]:
    """Return a smooth random label map of 0 and 1."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.2)
    return (noise > threshold).astype(np.uint8)


def of_kind(findings: list[Finding], kind: str) -> list[Finding]:
    """Return the findings of one kind, in their order."""
    return [finding for finding in findings if finding.kind == kind]


def surface_voxels(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the voxels that an erosion removes; outside of the grid is background."""
    return mask & ~ndimage.binary_erosion(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]


def farthest_mm(reference: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> float:
    """Return the Hausdorff distance of the surface voxels by scipy's distance transform."""
    surfaces = [surface_voxels(reference), surface_voxels(prediction)]
    fields = [ndimage.distance_transform_edt(~surface, sampling=SPACING_MM) for surface in surfaces]
    return max(fields[1][surfaces[0]].max(), fields[0][surfaces[1]].max())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.tuples(*[st.integers(3, 14)] * 3))
def test_the_worst_distance_is_that_of_a_distance_transform(seed: int, shape: tuple[int, int, int]) -> None:
    reference, prediction = blobs(seed, shape), blobs(seed + 1, shape)
    found = of_kind(
        find_errors(reference, prediction, TARGET, SPACING_MM, surface="voxel"), "surface_distance"
    )
    if not reference.any() or not prediction.any() or (reference == prediction).all():
        assert found == []
        return
    expected_mm = farthest_mm(reference > 0, prediction > 0)
    if expected_mm == 0:  # masks that differ, with the same surface
        assert found == []
        return
    assert found[0].length_mm == pytest.approx(expected_mm)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.tuples(*[st.integers(1, 12)] * 3),
    st.sampled_from(["area", "voxel"]),
    st.sampled_from(["C", "F"]),
)
def test_distances_are_the_score_and_as_long_as_drawn(
    seed: int, shape: tuple[int, int, int], surface: str, order: str
) -> None:
    reference = np.array(blobs(seed, shape), order=order)
    prediction = np.array(blobs(seed + 1, shape) & np.roll(reference, 1, axis=0), order=order)
    score = score_masks(reference == 1, prediction == 1, SPACING_MM, surface=surface)
    found = of_kind(
        find_errors(reference, prediction, TARGET, SPACING_MM, surface=surface), "surface_distance"
    )
    if not math.isfinite(score.hd_mm) or score.hd_mm == 0:
        assert found == []
        return
    (distance,) = found
    assert distance.length_mm == score.hd_mm
    start, end = np.array(distance.centre), np.array(distance.end)
    assert np.linalg.norm((end - start) * SPACING_MM) == pytest.approx(score.hd_mm)
    assert reference[distance.centre] != prediction[distance.centre]
    assert distance.box == tuple((min(a, b), max(a, b) + 1) for a, b in zip(start, end, strict=True))


def test_a_distance_by_hand() -> None:
    reference = np.zeros((30, 12, 8), np.uint8)
    reference[2:8, 3:8, 2:6] = 1
    prediction = reference.copy()
    prediction[8:15, 5, 4] = 1  # a spike of 7 voxels of 1 mm away from the face at 7.5
    (distance, component) = find_errors(reference, prediction, TARGET, SPACING_MM)
    assert (distance.kind, distance.target) == ("surface_distance", "organ")
    assert distance.length_mm == 7.0
    assert distance.centre[0] - distance.end[0] == 7
    assert distance.centre == (14, 5, 4)
    assert (component.kind, component.box) == ("false_positive", ((8, 15), (5, 6), (4, 5)))
    assert component.volume_ml == pytest.approx(7 * 4.5 / 1000)
    assert component.centre == (11, 5, 4)


@pytest.mark.parametrize("preset", ["lits", "lits_half", "brats2023", "panoptic"])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "SLA", "PIR"])
def test_lesions_are_those_of_the_score(preset: str, codes: str) -> None:
    reference, prediction = blobs(3, (20, 18, 12), 0.3), blobs(4, (20, 18, 12), 0.3)
    found = find_errors(
        reference, prediction, TARGET, SPACING_MM, rules={"organ": preset}, stored_codes=codes
    )

    stored = nib.orientations.axcodes2ornt(tuple(codes))
    change = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt(tuple("RAS")), stored)
    axes = stored[:, 0].astype(int)
    masks = [nib.apply_orientation(labels, change) == 1 for labels in (reference, prediction)]
    slice_axis = axes.tolist().index(2)
    scored = score_lesions(*masks, tuple(SPACING_MM[axis] for axis in axes), preset, slice_axis=slice_axis)
    is_flipped = stored[slice_axis, 1] < 0
    expected = {
        (
            {"missed": "missed_lesion", "false_positive": "false_positive_lesion"}[lesion.status],
            lesion.number,
            round(lesion.reference_ml + lesion.predicted_ml, 9),
            round(lesion.long_axis_mm, 9),
            reference.shape[2] - 1 - lesion.slice_index if is_flipped else lesion.slice_index,
        )
        for lesion in scored.lesions
        if lesion.status != "matched" and lesion.counted
    }
    assert len(expected) == scored.num_missed + scored.num_false_positive > 0
    lesions = [finding for finding in found if finding.lesion is not None]
    assert {
        (each.kind, each.lesion, round(each.volume_ml, 9), round(each.length_mm, 9), each.centre[2])
        for each in lesions
    } == expected
    for lesion in lesions:
        owner = reference if lesion.kind == "missed_lesion" else prediction
        assert owner[lesion.centre] == 1
        assert all(low <= i < end for i, (low, end) in zip(lesion.centre, lesion.box, strict=True))


def test_components_are_the_largest_of_scipy() -> None:
    reference, prediction = blobs(5, (20, 18, 12)), blobs(6, (20, 18, 12))
    found = find_errors(reference, prediction, TARGET, SPACING_MM)
    for kind, wrong in (
        ("false_negative", reference > prediction),
        ("false_positive", prediction > reference),
    ):
        (component,) = of_kind(found, kind)
        numbers, _ = ndimage.label(wrong, np.ones((3, 3, 3)))
        sizes = np.bincount(numbers.ravel())[1:]
        assert component.volume_ml == pytest.approx(sizes.max() * 4.5 / 1000)
        box = ndimage.find_objects(numbers)[numbers[component.centre] - 1]
        assert component.box == tuple((side.start, side.stop) for side in box)
        assert sizes[numbers[component.centre] - 1] == sizes.max()


def test_components_repeat_no_lesion() -> None:
    reference = np.zeros((30, 20, 10), np.uint8)
    reference[2:12, 2:12, 2:8] = 1
    reference[20:26, 12:18, 3:7] = 1  # missed
    prediction = np.zeros_like(reference)
    prediction[4:12, 2:12, 2:8] = 1  # the first one, cut by two voxels
    found = find_errors(reference, prediction, TARGET, SPACING_MM, rules={"organ": "lits"})
    assert [(each.kind, each.lesion) for each in found] == [
        ("missed_lesion", 2),
        ("surface_distance", None),
        ("false_negative", None),
    ]
    assert found[2].box == ((2, 4), (2, 12), (2, 8))


def test_the_worst_comes_first() -> None:
    reference, prediction = np.zeros((40, 20, 10), np.uint8), np.zeros((40, 20, 10), np.uint8)
    reference[2:14, 2:12, 2:8] = prediction[2:11, 2:12, 2:8] = 1  # an organ cut by 3 mm
    reference[16:20, 2:6, 2:6] = 2  # a large lesion, missed
    prediction[16:18, 14:16, 2:4] = 2  # a smaller one, invented
    reference[30:34, 10:14, 3:7] = prediction[30:34, 10:14, 3:7] = 2  # one that was found
    prediction[36, 16, 4] = 3  # a target that is not there
    targets = {"organ": (1,), "lesion": (2,), "stone": (3,)}
    found = find_errors(reference, prediction, targets, SPACING_MM, rules={"lesion": "lits"})
    assert [(each.target, each.kind) for each in found] == [
        ("stone", "false_positive"),
        ("lesion", "missed_lesion"),
        ("lesion", "false_positive_lesion"),
        ("lesion", "surface_distance"),
        ("organ", "surface_distance"),
        ("organ", "false_negative"),
    ]


def test_empty_equal_and_ignored_masks() -> None:
    labels = blobs(7, (9, 8, 7))
    empty = np.zeros_like(labels)
    assert find_errors(empty, empty, TARGET, SPACING_MM) == []
    assert find_errors(labels, labels, TARGET, SPACING_MM, rules={"organ": "lits"}) == []
    whole = find_errors(labels, empty, TARGET, SPACING_MM)
    assert [each.kind for each in whole] == ["false_negative"]
    ignored = np.where(labels == 1, 9, 0)
    assert find_errors(ignored, labels, TARGET, SPACING_MM, ignore_value=9) == []


def test_pictures_have_lesions_without_volume() -> None:
    reference, prediction = np.zeros((30, 20, 1), np.uint8), np.zeros((30, 20, 1), np.uint8)
    reference[3:9, 4:8] = 1
    prediction[20:22, 10:15] = 1
    found = find_errors(reference, prediction, TARGET, (1.0, 1.0, 1.0), rules={"organ": "lits"}, unit="px")
    assert [(each.kind, each.lesion) for each in found] == [
        ("missed_lesion", 1),
        ("false_positive_lesion", 2),
        ("surface_distance", None),
    ]
    assert all(math.isnan(each.volume_ml) for each in found)
    assert found[0].length_mm == pytest.approx(math.hypot(6, 4), abs=1.2)
    assert (
        found[2].length_mm == score_masks(reference[..., 0] == 1, prediction[..., 0] == 1, (1.0, 1.0)).hd_mm
    )


def test_objects_keep_their_numbers() -> None:
    numbers = np.zeros((20, 20, 1), np.int32)
    numbers[2:8, 2:8], numbers[8:14, 2:8] = 1, 2  # they touch
    prediction = (numbers == 1).astype(np.int32)
    labels = [(each > 0).astype(np.uint8) for each in (numbers, prediction)]
    found = find_errors(
        *labels,
        TARGET,
        (1.0, 1.0, 1.0),
        rules={"organ": "panoptic"},
        unit="px",
        numbers_reference=numbers,
        numbers_prediction=prediction,
    )
    assert [(each.kind, each.lesion, each.box[0]) for each in found[:1]] == [("missed_lesion", 2, (8, 14))]


def test_label_values_of_any_size_are_found_alike() -> None:
    labels = [blobs(seed, (16, 15, 14)).astype(np.int32) for seed in (8, 9)]
    near = find_errors(*labels, TARGET, SPACING_MM)
    far = find_errors(*(100_000 * each for each in labels), {"organ": (100_000,)}, SPACING_MM)
    assert len(near) == 3
    assert list(map(str, near)) == list(map(str, far))  # NaN differs from itself, its text does not
