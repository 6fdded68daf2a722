"""Augmentation: probabilities by count, batch equal to one-by-one, replayed from parameters, inputs untouched."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from medunet.transforms.augment import (
    SampleParameters,
    allowed_mirror_axes,
    apply_parameters,
    margin_size,
    sample_parameters,
)

PATCH = (12, 8, 10)
SPACING_MM = (1.0, 2.0, 3.0)
EXTENT_MM = (12.0, 16.0, 30.0)
EVERYTHING: dict[str, Any] = {"elastic": True, "brightness_jitter": 0.5}


def make_batch(num_samples: int = 1, num_channels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn((num_samples, num_channels, *margin_size(PATCH)), generator=generator)
    return image, (image[:, :1] > 0.5).to(torch.uint8)


def draw(rng: np.random.Generator, **given: Any) -> SampleParameters:
    usual = {
        "dimensions": 3,
        "num_channels": 2,
        "mirror_axes": (0, 1, 2),
        "patch_extent_mm": EXTENT_MM,
    }
    return sample_parameters(rng, **(usual | given))


def centre(array: torch.Tensor) -> torch.Tensor:
    starts = [(n - size) // 2 for n, size in zip(array.shape[2:], PATCH, strict=True)]
    return array[(..., *(slice(s, s + n) for s, n in zip(starts, PATCH, strict=True)))]


def test_nothing_drawn_is_the_centre_of_the_cut() -> None:
    image, label = make_batch(3)
    drawn = [SampleParameters(), SampleParameters(matrix=np.eye(3) * 1.3), SampleParameters()]
    out, out_label = apply_parameters(image, label, drawn, PATCH, SPACING_MM)
    assert torch.equal(out[::2], centre(image)[::2])
    assert torch.equal(out_label[::2], centre(label)[::2])
    assert not torch.equal(out[1], centre(image)[1])


def test_a_batch_is_its_samples_one_by_one() -> None:
    image, label = make_batch(6)
    rng = np.random.default_rng(0)
    for _ in range(10):
        drawn = [draw(rng, **EVERYTHING) for _ in image]
        together, labels = apply_parameters(image, label, drawn, PATCH, SPACING_MM)
        for i, sample in enumerate(drawn):
            alone, its_label = apply_parameters(
                image[i : i + 1], label[i : i + 1], [sample], PATCH, SPACING_MM
            )
            assert torch.allclose(together[i], alone[0], atol=1e-4)
            assert torch.equal(labels[i], its_label[0])


def test_inputs_are_not_changed_and_a_replay_is_equal() -> None:
    image, label = make_batch(4)
    before, label_before = image.clone(), label.clone()
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = [draw(rng, **EVERYTHING) for _ in image]
        first = apply_parameters(image, label, drawn, PATCH, SPACING_MM)
        second = apply_parameters(image, label, drawn, PATCH, SPACING_MM)
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])
        assert torch.isfinite(first[0]).all()
        assert first[0].shape == (4, 2, *PATCH)
    assert torch.equal(image, before)
    assert torch.equal(label, label_before)


def test_patches_without_a_margin_leave_the_inputs_alone() -> None:
    image = torch.ones(1, 1, *PATCH)
    drawn = [SampleParameters(brightness={0: 1.2}, mirrored=(0,))]
    out, _ = apply_parameters(image, image.byte(), drawn, PATCH, SPACING_MM)
    assert torch.all(image == 1)
    assert torch.allclose(out, torch.tensor(1.2))


def test_labels_keep_their_values_and_follow_the_image() -> None:
    _, marked = make_batch(1, 1)
    label = marked * 255  # 255: to be ignored by the loss
    rng = np.random.default_rng(3)
    for _ in range(20):
        drawn = draw(rng, num_channels=1, elastic=True)
        only_moved = SampleParameters(
            matrix=drawn.matrix, control_points_mm=drawn.control_points_mm, mirrored=drawn.mirrored
        )
        out, out_label = apply_parameters(marked.float(), label, [only_moved], PATCH, SPACING_MM)
        assert out_label.dtype == torch.uint8
        assert set(out_label.unique().tolist()) <= {0, 255}
        sure = (out < 0.01) | (out > 0.99)
        assert torch.equal(out[sure].round() * 255, out_label[sure].float())


def test_probabilities_and_ranges_are_nnunets() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw(rng, num_channels=1, mirror_axes=(1, 2)) for _ in range(6000)]

    def share(chosen: list[bool]) -> float:
        return sum(chosen) / len(chosen)

    assert share([d.matrix is not None for d in drawn]) == pytest.approx(1 - 0.8 * 0.8, abs=0.02)
    assert share([d.noise is not None for d in drawn]) == pytest.approx(0.1, abs=0.02)
    assert share([bool(d.blur) for d in drawn]) == pytest.approx(0.2 * 0.5, abs=0.02)
    assert share([bool(d.brightness) for d in drawn]) == pytest.approx(0.15, abs=0.02)
    assert share([bool(d.contrast) for d in drawn]) == pytest.approx(0.15, abs=0.02)
    assert share([bool(d.low_resolution) for d in drawn]) == pytest.approx(0.25 * 0.5, abs=0.02)
    assert share([bool(d.gamma) for d in drawn]) == pytest.approx(0.3, abs=0.02)
    assert share([bool(d.gamma_inverted) for d in drawn]) == pytest.approx(0.1, abs=0.02)
    assert share([1 in d.mirrored for d in drawn]) == pytest.approx(0.5, abs=0.03)
    assert not any(0 in d.mirrored for d in drawn)
    assert all(d.control_points_mm is None and not d.brightness_shift for d in drawn)

    matrices = [d.matrix for d in drawn if d.matrix is not None]
    zooms = [np.linalg.det(matrix) ** (1 / 3) for matrix in matrices]
    assert 0.7 - 1e-9 <= min(zooms) < 0.72
    assert 1.38 < max(zooms) <= 1.4 + 1e-9
    assert share([abs(zoom - 1) < 1e-9 for zoom in zooms]) == pytest.approx(0.16 / 0.36, abs=0.04)
    deviations = [d.noise[0] for d in drawn if d.noise is not None]
    assert max(deviations) <= 0.1
    assert np.mean(deviations) == pytest.approx(0.05, abs=0.005)
    exponents = np.array([d.gamma[0] for d in drawn if d.gamma])
    assert share(list(exponents < 1)) == pytest.approx(0.5, abs=0.05)
    assert exponents.min() >= 0.7
    assert exponents.max() <= 1.5
    sigmas = np.array([d.blur[0] for d in drawn if d.blur])
    assert sigmas.min() >= 0.5
    assert sigmas.max() <= 1
    assert np.all(sigmas[:, 0] != sigmas[:, 1])
    assert all(len(set(d.low_resolution[0])) == 1 for d in drawn if d.low_resolution)


def test_options_are_drawn_at_their_probabilities_and_change_nothing_else() -> None:
    without = [draw(np.random.default_rng([0, i])) for i in range(3000)]
    having = [draw(np.random.default_rng([0, i]), **EVERYTHING) for i in range(3000)]
    assert np.mean([d.control_points_mm is not None for d in having]) == pytest.approx(0.2, abs=0.02)
    shifts = [d.brightness_shift for d in having if d.brightness_shift]
    assert len(shifts) / 3000 == pytest.approx(0.15, abs=0.02)
    assert all(set(each) == {0, 1} and each[0] != each[1] for each in shifts)
    amounts = [amount for each in shifts for amount in each.values()]
    assert -0.5 <= min(amounts) < -0.45
    assert 0.45 < max(amounts) <= 0.5
    shared = [
        f.name for f in fields(SampleParameters) if f.name not in ("control_points_mm", "brightness_shift")
    ]
    for one, other in zip(without, having, strict=True):
        for name in shared:
            np.testing.assert_equal(getattr(one, name), getattr(other, name))


def test_coarse_slices_are_changed_in_plane_alone() -> None:
    rng = np.random.default_rng(0)
    zoomed, turned = 0, 0
    for _ in range(300):
        drawn = draw(rng, plane_only=1, elastic=True)
        if drawn.matrix is not None:
            assert drawn.matrix[1].tolist() == [0, 1, 0]
            assert drawn.matrix[:, 1].tolist() == [0, 1, 0]
            zoomed += abs(np.linalg.det(drawn.matrix) - 1) > 1e-6
            turned += abs(drawn.matrix[0, 2]) > np.sin(np.pi / 6) * 1.4
        if drawn.control_points_mm is not None:
            assert np.all(drawn.control_points_mm[1] == 0)
        for zooms in drawn.low_resolution.values():
            assert zooms[1] == 1
            assert zooms[0] == zooms[2] < 1
    assert zoomed > 30
    assert turned > 10


def test_long_2d_patches_turn_less() -> None:
    def angles(extent_mm: tuple[float, ...]) -> list[float]:
        rng = np.random.default_rng(0)
        given = {"dimensions": 2, "mirror_axes": (), "plane_only": 2, "patch_extent_mm": extent_mm}
        matrices = [draw(rng, **given).matrix for _ in range(500)]
        return [abs(np.degrees(np.arctan2(m[1, 0], m[0, 0]))) for m in matrices if m is not None]

    assert max(angles((20.0, 20.0))) > 150
    assert 10 < max(angles((20.0, 40.0))) <= 15 + 1e-9


@pytest.mark.parametrize(
    ("dimensions", "slice_axis", "sided", "expected"),
    [
        (3, 2, False, (0, 1, 2)),
        (3, 2, True, (1, 2)),
        (2, 2, False, (0, 1)),
        (2, 2, True, (1,)),  # axial slices: left-right is their first axis
        (2, 1, True, (1,)),  # coronal slices
        (2, 0, True, (0, 1)),  # sagittal slices have no left and right
    ],
)
def test_sided_labels_are_never_mirrored_left_to_right(
    dimensions: int, slice_axis: int, sided: bool, expected: tuple[int, ...]
) -> None:
    assert allowed_mirror_axes(dimensions, slice_axis, sided=sided, mirror=True) == expected
    assert allowed_mirror_axes(dimensions, slice_axis, sided=sided, mirror=False) == ()


def test_only_the_named_axes_of_the_body_are_mirrored() -> None:
    assert allowed_mirror_axes(3, 2, sided=False, mirror=("left_right", "inferior_superior")) == (0, 2)
    assert allowed_mirror_axes(2, 0, sided=False, mirror=("inferior_superior",)) == (1,)
    assert allowed_mirror_axes(3, 2, sided=True, mirror=("left_right",)) == ()


def test_mirroring_is_each_samples_own() -> None:
    image, label = make_batch(3)
    drawn = [SampleParameters(mirrored=axes) for axes in ((0, 2), (), (1,))]
    out, out_label = apply_parameters(image, label, drawn, PATCH, SPACING_MM)
    for i, axes in enumerate(((2, 4), (), (3,))):
        assert torch.equal(out[i], centre(image).flip(axes)[i])
        assert torch.equal(out_label[i], centre(label).flip(axes)[i])


def test_changes_reach_their_sample_and_channel_in_order() -> None:
    image, label = make_batch(2)
    middle = centre(image)
    drawn = [
        SampleParameters(brightness={1: 1.2}, brightness_shift={1: 0.3}),
        SampleParameters(contrast={0: 0.8}),
    ]
    out, _ = apply_parameters(image, label, drawn, PATCH, SPACING_MM)
    assert torch.equal(out[0, 0], middle[0, 0])
    assert torch.allclose(out[0, 1], middle[0, 1] * 1.2 + 0.3)
    assert torch.allclose(
        out[1, 0], (middle[1, 0] - middle[1, 0].mean()) * 0.8 + middle[1, 0].mean(), atol=1e-5
    )
    assert torch.equal(out[1, 1], middle[1, 1])


def test_noise_has_its_deviation_and_differs_between_channels() -> None:
    image = torch.zeros(2, 2, *margin_size(PATCH))
    drawn = [SampleParameters(noise=(0.1, 5)), SampleParameters()]
    out, _ = apply_parameters(image, image[:, :1].byte(), drawn, PATCH, SPACING_MM)
    assert float(out[0].std()) == pytest.approx(0.1, rel=0.1)
    assert abs(float(torch.corrcoef(out[0].flatten(1))[0, 1])) < 0.2
    assert torch.all(out[1] == 0)


def test_slices_seen_as_channels_change_together() -> None:
    """Two real channels of three slices each; slices of one channel that are equal stay equal."""
    patch, spacing_mm = (16, 12), (1.0, 1.5)
    image = torch.randn(4, 6, *margin_size(patch))
    image[:, 2], image[:, 5] = image[:, 0], image[:, 3]
    given = {"dimensions": 2, "num_channels": 6, "context_slices": 3, "mirror_axes": (0, 1)}
    rng = np.random.default_rng(0)
    for _ in range(15):
        drawn = [draw(rng, **given, patch_extent_mm=(16.0, 18.0), **EVERYTHING) for _ in image]
        assert all(set(each.gamma) <= {0, 1} for each in drawn)
        quiet = [replace(each, noise=None) for each in drawn]
        out, _ = apply_parameters(image, image[:, :1] > 0, quiet, patch, spacing_mm)
        assert torch.equal(out[:, 0], out[:, 2])
        assert torch.equal(out[:, 3], out[:, 5])


def test_contrast_of_a_channel_is_about_the_mean_of_all_its_slices() -> None:
    image = torch.randn(1, 6, *margin_size((16, 12)))
    middle = image[..., 2:-2, 2:-2]
    drawn = SampleParameters(context_slices=3, contrast={1: 0.8})
    out, _ = apply_parameters(image, image[:, :1] > 0, [drawn], (16, 12), (1.0, 1.5))
    mean = middle[:, 3:].mean()
    assert torch.allclose(out[:, 3:], (middle[:, 3:] - mean) * 0.8 + mean, atol=1e-5)
    assert torch.equal(out[:, :3], middle[:, :3])
