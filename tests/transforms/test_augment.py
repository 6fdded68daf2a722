"""Augmentation: geometry by hand, probabilities by count, replayed from parameters, inputs untouched."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from medunet.transforms.augment import SampleParameters, apply_parameters, margin_size, sample_parameters

PATCH = (12, 8, 10)
SPACING_MM = (1.0, 2.0, 3.0)


def make_batch(num_channels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn((1, num_channels, *margin_size(PATCH)), generator=generator)
    return image, (image[:, :1] > 0.5).to(torch.uint8)


def centre(array: torch.Tensor) -> torch.Tensor:
    starts = [(n - size) // 2 for n, size in zip(array.shape[2:], PATCH, strict=True)]
    return array[(..., *(slice(s, s + n) for s, n in zip(starts, PATCH, strict=True)))]


def test_nothing_drawn_is_the_centre_of_the_cut():
    image, label = make_batch()
    out, out_label = apply_parameters(image, label, [SampleParameters()], PATCH, SPACING_MM)
    assert torch.equal(out, centre(image))
    assert torch.equal(out_label, centre(label))


def test_identity_matrix_moves_nothing():
    image, label = make_batch()
    drawn = SampleParameters(matrix=np.eye(3))
    out, out_label = apply_parameters(image, label, [drawn], PATCH, SPACING_MM)
    assert torch.allclose(out, centre(image), atol=1e-5)
    assert torch.equal(out_label, centre(label))


def test_rotation_is_scipys_in_mm():
    """30 degrees in the plane of axes 0 and 2, whose voxels are 1 and 3 mm."""
    size = margin_size(PATCH)
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=size), 2) * 10
    angle = np.deg2rad(30)
    matrix = np.eye(3)
    matrix[np.ix_([0, 2], [0, 2])] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    image = torch.from_numpy(smooth).float()[None, None]
    drawn = SampleParameters(matrix=matrix)
    out, _ = apply_parameters(image, image[:, :1] > 0, [drawn], PATCH, SPACING_MM)

    voxels = np.diag(1 / np.array(SPACING_MM)) @ matrix @ np.diag(SPACING_MM)
    middle_in, middle_out = (np.array(size) - 1) / 2, (np.array(PATCH) - 1) / 2
    expected = ndimage.affine_transform(
        smooth, voxels, offset=middle_in - voxels @ middle_out, output_shape=PATCH, order=1, mode="nearest"
    )
    assert np.abs(out[0, 0].numpy() - expected).max() < 1e-4


def test_labels_keep_their_values_and_follow_the_image():
    _, label = make_batch(1)
    rng = np.random.default_rng(3)
    for _ in range(20):
        drawn = sample_parameters(rng, dimensions=3, num_channels=1, mirror_axes=(0, 1, 2))
        only_moved = SampleParameters(matrix=drawn.matrix, mirrored=drawn.mirrored)
        out, out_label = apply_parameters(label.float(), label, [only_moved], PATCH, SPACING_MM)
        assert set(out_label.unique().tolist()) <= {0, 1}
        sure = (out < 0.01) | (out > 0.99)
        assert torch.equal(out[sure].round(), out_label[sure].float())


def test_inputs_are_not_changed_and_a_replay_is_equal():
    image, label = make_batch()
    before = image.clone()
    rng = np.random.default_rng(0)
    for _ in range(30):
        drawn = sample_parameters(rng, dimensions=3, num_channels=2, mirror_axes=(0, 1, 2))
        first = apply_parameters(image, label, [drawn], PATCH, SPACING_MM)
        second = apply_parameters(image, label, [drawn], PATCH, SPACING_MM)
        assert torch.equal(first[0], second[0])
        assert torch.isfinite(first[0]).all()
        assert first[0].shape == (1, 2, *PATCH)
    assert torch.equal(image, before)


def test_probabilities_are_nnunets():
    rng = np.random.default_rng(0)
    drawn = [sample_parameters(rng, dimensions=3, num_channels=1, mirror_axes=(1, 2)) for _ in range(6000)]

    def share(chosen: list[bool]) -> float:
        return sum(chosen) / len(drawn)

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
    zooms = [np.linalg.det(d.matrix) ** (1 / 3) for d in drawn if d.matrix is not None]
    assert min(zooms) >= 0.7 - 1e-9
    assert max(zooms) <= 1.4 + 1e-9


def test_anisotropic_patches_turn_about_their_coarse_axis_alone():
    rng = np.random.default_rng(0)
    for _ in range(100):
        matrix = sample_parameters(rng, dimensions=3, num_channels=1, mirror_axes=(), plane_only=2).matrix
        if matrix is not None:
            assert np.allclose(matrix[2, :2], 0)
            assert np.allclose(matrix[:2, 2], 0)


def test_blur_is_scipys_gaussian():
    image, label = make_batch(1)
    out, _ = apply_parameters(image, label, [SampleParameters(blur={0: 0.8})], PATCH, SPACING_MM)
    expected = ndimage.gaussian_filter(centre(image)[0, 0].numpy(), 0.8, mode="nearest", radius=3)
    assert np.abs(out[0, 0].numpy() - expected).max() < 1e-5


def test_brightness_contrast_and_gamma_by_hand():
    image, label = make_batch(2)
    middle = centre(image)
    drawn = SampleParameters(brightness={0: 1.2}, contrast={1: 0.8})
    out, _ = apply_parameters(image, label, [drawn], PATCH, SPACING_MM)
    assert torch.allclose(out[0, 0], middle[0, 0] * 1.2)
    mean = middle[0, 1].mean()
    assert torch.allclose(out[0, 1], (middle[0, 1] - mean) * 0.8 + mean, atol=1e-5)
    out, _ = apply_parameters(image, label, [SampleParameters(gamma={0: 1.4})], PATCH, SPACING_MM)
    assert float(out[0, 0].mean()) == pytest.approx(float(middle[0, 0].mean()), abs=1e-4)
    assert float(out[0, 0].std()) == pytest.approx(float(middle[0, 0].std()), abs=1e-4)
    assert torch.equal(out[0, 0].flatten().argsort(), middle[0, 0].flatten().argsort())


def test_two_dimensional_batches():
    image = torch.randn(1, 1, *margin_size((16, 12)))
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = sample_parameters(rng, dimensions=2, num_channels=1, mirror_axes=(0, 1))
        out, label = apply_parameters(image, image > 0, [drawn], (16, 12), (1.0, 1.5))
        assert out.shape == label.shape == (1, 1, 16, 12)
