"""The window that a scan is first shown in, and those to choose from."""

import numpy as np
import pytest

from medunet.drawing.presets import Preset, display_presets

CT = np.zeros((4, 5, 6), np.int16)


@pytest.mark.parametrize(
    ("targets", "window"),
    [
        (["left_lung", "right_lung"], "lung"),
        (["lung", "lung_tumour"], "lung"),
        (["lung", "lung_tumour", "necrotic_core"], "lung"),
        (["lung_upper_lobe_left", "trachea"], "lung"),
        (["liver", "tumour"], "liver"),
        (["hepatic_vessel", "liver tumour"], "liver"),
        (["femur_left", "hip_right", "vertebrae_L1", "rib_left_4"], "bone"),
        (["intracranial haemorrhage"], "brain"),
        (["liver", "spleen"], "soft tissue"),
        (["lung", "liver"], "soft tissue"),
        (["tumour"], "soft tissue"),
        (["pancreas", "pancreas_tumour"], "soft tissue"),
        (["hippocampus"], "brain"),  # no hip
        (["thyroid_nodule"], "soft tissue"),
        (["vertebrae_L1", "sacrum"], "bone"),
        (["ribosome"], "soft tissue"),
        ([], "soft tissue"),
    ],
)
def test_the_window_of_a_ct_follows_the_targets(targets: list[str], window: str) -> None:
    presets = display_presets(CT, "CT", targets)
    assert presets[0].name == window
    assert sorted(preset.name for preset in presets) == ["bone", "brain", "liver", "lung", "soft tissue"]


@pytest.mark.parametrize(
    ("pictured", "targets", "window"),
    [
        ("tumour", ["liver", "tumour"], "liver"),  # its name does not tell a body part: that of all
        ("tumour", ["lung", "liver", "tumour"], "soft tissue"),
        ("lung", ["lung", "liver", "tumour"], "lung"),
        ("pancreas", ["liver", "pancreas"], "soft tissue"),
        (None, ["liver", "tumour"], "liver"),
    ],
)
def test_the_window_of_a_picture_is_that_of_its_target(
    pictured: str | None, targets: list[str], window: str
) -> None:
    assert display_presets(CT, "CT", targets, pictured)[0].name == window


def test_ct_windows_are_those_of_the_field() -> None:
    windows = {
        preset.name: ((preset.low + preset.high) / 2, preset.high - preset.low)
        for preset in display_presets(CT, "CT", [])
    }
    assert windows == {
        "soft tissue": (40, 400),
        "lung": (-600, 1500),
        "bone": (480, 2500),
        "liver": (90, 150),
        "brain": (40, 80),
    }


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_other_modalities_get_percentiles_without_the_background(dtype: type) -> None:
    image = np.zeros((10, 11, 12), dtype)
    image[2:8] = np.arange(6 * 11 * 12).reshape(6, 11, 12) + 1
    standard, contrast, full = display_presets(image, "MR", ["tumour"])
    values = np.arange(1, 793)
    assert (standard.low, standard.high) == pytest.approx(np.percentile(values, (0.5, 99.5)))
    assert (contrast.low, contrast.high) == pytest.approx(np.percentile(values, (10, 98)))
    assert (full.low, full.high) == (0, 792)
    assert [preset.low for preset in display_presets(image, "PET", ["tumour"])] == [0, 0, 0]


def test_odd_images_have_windows_too() -> None:
    flat = np.full((3, 4, 5), 7.0)
    assert all(preset.low < 7 < preset.high for preset in display_presets(flat, "MR", []))
    assert all(preset.low < preset.high for preset in display_presets(0 * flat, "PET", []))
    image = np.arange(60.0).reshape(3, 4, 5)
    image[0, 0, :3] = np.nan, np.inf, -np.inf
    full = display_presets(image, "MR", [])[-1]
    assert full == Preset("full range", 3, 59)
    nothing = np.full((3, 4, 5), np.nan)
    assert all(np.isfinite((each.low, each.high)).all() for each in display_presets(nothing, "MR", []))


def test_large_images_are_sampled() -> None:
    image = np.random.default_rng(0).normal(1000, 50, (200, 210, 190)).astype(np.float32)
    standard = display_presets(image, "MR", [])[0]
    assert (standard.low, standard.high) == pytest.approx(np.percentile(image, (0.5, 99.5)), abs=2)
