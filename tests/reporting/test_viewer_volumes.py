"""Volumes as pages hold them: values are true, masks are whole, and the text stays within its limit."""

import base64
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from medunet.reporting.viewer_volumes import (
    MAX_TEXT_BYTES,
    Layout,
    encode_image,
    encode_images,
    encode_mask,
    number_labels,
)

SHAPE = (7, 5, 4)
WHOLE = Layout(tuple((0, size) for size in SHAPE), (1, 1, 1))


def decode(stored: dict) -> NDArray[np.float64]:
    """Return the voxels `(I, J, K)` of an image as the page's script does: sums along both axes, modulo 65,536."""
    data = np.frombuffer(zlib.decompress(base64.b64decode(stored["data"])), np.uint8)
    low, high = data[: data.size // 2].astype(np.int64), data[data.size // 2 :].astype(np.int64)
    folded = low + 256 * high
    differences = np.where(folded % 2 == 0, folded // 2, -(folded + 1) // 2)
    width, height, depth = stored["size"]
    rows = differences.reshape(depth, height, width).cumsum(axis=2).cumsum(axis=1)
    voxels = (rows + 32768) % 65536 - 32768
    return voxels.transpose(2, 1, 0) * stored["slope"] + stored["offset"]


@pytest.mark.parametrize(
    ("low", "high"), [(-1024, 3071), (-32768, 32767), (0, 255), (40_000, 60_000), (5, 6)], ids=str
)
def test_whole_numbers_are_exact(low: int, high: int) -> None:
    image = np.random.default_rng(0).integers(low, high, SHAPE, endpoint=True).astype(np.float32)
    stored = encode_image(image, WHOLE)
    np.testing.assert_array_equal(decode(stored), image)
    assert stored["decimals"] == 0


@pytest.mark.parametrize("scale", [1e-4, 1.0, 3e5])
def test_fractions_are_true_to_their_decimals(scale: float) -> None:
    image = (np.random.default_rng(0).normal(size=SHAPE) * scale).astype(np.float32)
    stored = encode_image(image, WHOLE)
    span = float(image.max() - image.min())
    assert np.abs(decode(stored) - image).max() <= span / 65_534 * 0.51
    shown = (
        10.0 ** -stored["decimals"]
    )  # no finer than what is stored, and no coarser than a hundredth of the range
    assert span / 65_534 < shown or stored["decimals"] == 0
    assert shown <= max(1, span / 100)


def test_constant_and_undefined_values() -> None:
    image = np.full(SHAPE, 2.5, np.float32)
    np.testing.assert_allclose(decode(encode_image(image, WHOLE)), 2.5)
    image = np.arange(140, dtype=np.float32).reshape(SHAPE)
    image[0, 0, 0], image[1, 1, 1] = np.nan, np.inf
    decoded = decode(encode_image(image, WHOLE))
    assert decoded[0, 0, 0] == decoded[1, 1, 1] == 1  # the lowest finite value
    np.testing.assert_array_equal(decoded[2:], image[2:])
    np.testing.assert_array_equal(decode(encode_image(np.full(SHAPE, np.nan), WHOLE)), 0)


def test_a_coarser_image_has_voxels_of_the_scan_and_no_means() -> None:
    image = np.random.default_rng(0).integers(-500, 500, SHAPE).astype(np.float32)
    layout = Layout(((1, 7), (0, 5), (1, 3)), (2, 2, 1))
    np.testing.assert_array_equal(decode(encode_image(image, layout)), image[1:7:2, 0:5:2, 1:3])


def test_colours_keep_their_order() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (4, 3, 1, 3)).astype(np.float32)
    stored = encode_image(picture, Layout(((0, 4), (0, 3), (0, 1)), (1, 1, 1)))
    data = np.frombuffer(zlib.decompress(base64.b64decode(stored["data"])), np.uint8)
    np.testing.assert_array_equal(data.reshape(1, 3, 4, 3).transpose(2, 1, 0, 3), picture)


@pytest.mark.parametrize("values", [(0, 3, 200), (0, 255, 256, 700)], ids=["8 bits", "16 bits"])
def test_masks_have_numbers_for_the_values_that_are_named(values: tuple[int, ...]) -> None:
    labels = np.random.default_rng(0).choice(np.array([*values, 999]), SHAPE)
    named = values[1:]
    numbered = number_labels({"reference": labels}, named)["reference"]
    for number, value in enumerate(named, start=1):
        np.testing.assert_array_equal(numbered == number, labels == value)
    np.testing.assert_array_equal(numbered == 0, np.isin(labels, (0, 999)))
    box = ((1, 7), (0, 5), (1, 4))
    stored = encode_mask(numbered, box)
    data = np.frombuffer(zlib.decompress(base64.b64decode(stored["data"])), stored["type"])
    np.testing.assert_array_equal(data.reshape(3, 5, 6).transpose(2, 1, 0), numbered[1:7, :, 1:4])


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_labels_of_any_type_and_sign_are_numbered(kind: type) -> None:
    labels = np.array([[[0, 3, 7, 100, 9]]], kind)
    numbered = number_labels({"a": labels}, (100, 3, 55))["a"]
    assert numbered.ravel().tolist() == [0, 1, 0, 3, 0]
    far = np.array([[[-2, 5_000_000, 3]]], np.int64)
    assert number_labels({"a": far}, (3, 5_000_000))["a"].ravel().tolist() == [0, 2, 1]


def test_more_than_255_numbers_have_16_bits() -> None:
    labels = np.arange(600).reshape(10, 60, 1)
    numbered = number_labels({"a": labels}, list(range(1, 600)))["a"]
    assert encode_mask(numbered, ((0, 10), (0, 60), (0, 1)))["type"] == "uint16"


def test_a_small_scan_is_whole() -> None:
    image = np.random.default_rng(0).normal(size=(60, 50, 40)).astype(np.float32)
    important = ((30, 31), (20, 21), (20, 21))
    layout, encoded = encode_images([image], (1.0, 1.0, 2.0), important)
    assert layout == Layout(((0, 60), (0, 50), (0, 40)), (1, 1, 1))
    assert encoded == [encode_image(image, layout)]


def test_a_large_scan_is_cut_around_what_matters_with_a_margin_in_mm() -> None:
    image = np.random.default_rng(0).integers(-1000, 1000, (200, 200, 100)).astype(np.float32)
    important = ((100, 104), (100, 110), (50, 51))
    layout, _ = encode_images([image], (1.0, 2.0, 5.0), important)
    assert layout.step == (1, 1, 1)
    (i_low, i_end), (j_low, j_end), (k_low, k_end) = layout.box
    assert (100 - i_low, i_end - 104) == (80, 80)
    assert (100 - j_low, j_end - 110) == (40, 40)
    assert (50 - k_low, k_end - 51) == (16, 16)


@pytest.mark.parametrize(("num_images", "step"), [(2, (2, 2, 1)), (16, (4, 4, 1)), (30, (4, 4, 2))])
def test_what_is_too_large_is_halved_in_plane_first_and_fits(num_images: int, step: tuple[int, ...]) -> None:
    noise = np.random.default_rng(0).integers(-30_000, 30_000, (160, 150, 60)).astype(np.float32)
    layout, encoded = encode_images([noise] * num_images, (1.0, 1.0, 2.5), None)
    assert layout == Layout(((0, 160), (0, 150), (0, 60)), step)  # type: ignore[arg-type]
    text = sum(len(image["data"]) for image in encoded)
    assert MAX_TEXT_BYTES / 4.5 < text <= MAX_TEXT_BYTES
