"""Changes of intensity against SciPy, torch and figures by hand; every row by its own value."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from medunet.transforms.intensity_changes import (
    blur,
    change_contrast,
    change_gamma,
    change_gamma_inverted,
    lower_resolution,
    scale,
    shift,
)


def make_rows(num_slices: int = 1) -> torch.Tensor:
    return torch.randn(3, num_slices, 12, 8, 10, generator=torch.Generator().manual_seed(0))


def test_blur_is_scipys_gaussian_per_row_and_axis() -> None:
    rows = make_rows(2)
    sigmas = np.array([[0.5, 0.7, 1.0], [1.0, 0.5, 0.6], [0.8, 0.9, 0.51]])
    out = blur(rows, sigmas)
    for row in range(3):
        for member in range(2):
            expected = ndimage.gaussian_filter(
                rows[row, member].numpy(),
                sigmas[row],
                mode="nearest",
                radius=np.ceil(3 * sigmas[row]).astype(int),
            )
            assert np.abs(out[row, member].numpy() - expected).max() < 1e-5


def test_low_resolution_is_torchs_resampling_there_and_back() -> None:
    rows = make_rows()
    out = lower_resolution(rows, np.array([[0.5, 0.5, 0.5], [0.8, 0.8, 1.0], [0.6, 0.7, 0.9]]))
    for row, small in enumerate([(6, 4, 5), (10, 6, 10), (7, 6, 9)]):
        coarse = F.interpolate(rows[row : row + 1], small, mode="nearest-exact")
        expected = F.interpolate(coarse, rows.shape[2:], mode="trilinear")
        assert torch.allclose(out[row], expected[0], atol=1e-5)


def test_scale_and_shift_by_hand() -> None:
    rows = torch.tensor([[[1.0, 2.0]], [[3.0, -4.0]]])
    assert scale(rows, np.array([2.0, 0.5])).tolist() == [[[2.0, 4.0]], [[1.5, -2.0]]]
    assert shift(rows, np.array([1.0, -1.0])).tolist() == [[[2.0, 3.0]], [[2.0, -5.0]]]


def test_contrast_by_hand() -> None:
    """Means 2 and 0: deviations are halved, or doubled and kept within the old range."""
    rows = torch.tensor([[[0.0, 2.0, 4.0]], [[-1.0, 0.5, 0.5]]])
    out = change_contrast(rows, np.array([0.5, 2.0]))
    assert out.tolist() == [[[1.0, 2.0, 3.0]], [[-1.0, 0.5, 0.5]]]


def test_gamma_keeps_order_mean_and_deviation() -> None:
    rows = make_rows()
    exponents = np.array([0.7, 1.0, 1.5])
    out = change_gamma(rows, exponents)
    assert torch.allclose(out[1], rows[1], atol=1e-5)
    for row, exponent in enumerate(exponents):
        values = rows[row].double().numpy()
        powered = ((values - values.min()) / np.ptp(values)) ** exponent
        expected = (powered - powered.mean()) / powered.std() * values.std() + values.mean()
        assert np.abs(out[row].numpy() - expected).max() < 1e-4
    assert torch.allclose(change_gamma_inverted(rows, exponents), -change_gamma(-rows, exponents))
    assert not torch.allclose(change_gamma_inverted(rows, exponents)[0], out[0], atol=1e-2)


@pytest.mark.parametrize("change", [change_contrast, change_gamma, change_gamma_inverted])
def test_an_even_row_stays_as_it_is(change) -> None:  # type: ignore[no-untyped-def]
    rows = torch.full((1, 1, 4, 5), 3.0)
    assert torch.allclose(change(rows, np.array([1.3])), rows, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "values"),
    [
        (blur, [[0.5, 0.6, 0.7], [1.0, 0.9, 0.8], [0.7, 0.7, 0.7]]),
        (lower_resolution, [[0.5, 0.6, 0.7], [1.0, 0.9, 0.8], [0.7, 0.7, 0.7]]),
        (scale, [0.75, 1.0, 1.25]),
        (shift, [0.1, -0.2, 0.3]),
        (change_contrast, [0.75, 1.0, 1.25]),
        (change_gamma, [0.7, 1.1, 1.5]),
        (change_gamma_inverted, [0.7, 1.1, 1.5]),
    ],
)
def test_rows_do_not_touch_one_another_nor_their_input(change, values) -> None:  # type: ignore[no-untyped-def]
    rows, values = make_rows(2), np.array(values)
    before = rows.clone()
    together = change(rows, values)
    assert torch.equal(rows, before)
    assert together.shape == rows.shape
    for row in range(3):
        alone = change(rows[row : row + 1], values[row : row + 1])
        assert torch.allclose(together[row], alone[0], atol=1e-5)
