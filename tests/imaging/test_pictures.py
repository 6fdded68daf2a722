"""Pictures as volumes, against SimpleITK and Pillow: every pixel in its place, every mode read or refused by name."""

import io
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from medunet.base.errors import DataError
from medunet.drawing.presets import Preset
from medunet.drawing.scene import StillView
from medunet.drawing.still import draw_still
from medunet.imaging.orientation import to_ras
from medunet.imaging.pictures import picture_affine
from medunet.imaging.volumes import (
    mask_ending,
    read_channels,
    read_header,
    read_label,
    read_volume,
    write_mask,
)
from medunet.records.label_rules import LabelRules

ROWS, COLUMNS = 5, 9
COLOURS = np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS, 3)).astype(np.uint8)
DEEP = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS).astype(np.uint16) * 700


def save(path: Path, pixels: NDArray, mode: str | None = None) -> Path:
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(path)
    return path


@pytest.mark.parametrize("ending", ["png", "tif", "tiff"])
def test_pixels_lie_where_simpleitk_puts_them(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"a.{ending}", DEEP)
    volume, theirs = read_volume(path), sitk.ReadImage(str(path))
    assert volume.array.shape == (COLUMNS, ROWS, 1)
    assert read_header(path).shape == (COLUMNS, ROWS, 1)
    for x, y in ((0, 0), (COLUMNS - 1, 0), (3, 4)):
        assert volume.array[x, y, 0] == theirs.GetPixel(x, y) == DEEP[y, x]
    assert theirs.GetSpacing() == volume.header.spacing_mm[:2] == (1.0, 1.0)
    lps = np.eye(3)
    lps[:2, :2] = np.reshape(theirs.GetDirection(), (2, 2))
    assert np.array_equal(np.diag([-1, -1, 1]) @ lps, picture_affine()[:3, :3])
    assert volume.header.is_picture
    assert volume.header.dtype == np.uint16


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_channels(tmp_path: Path, mode: str) -> None:
    few = COLOURS // 128 * 255  # eight colours, which a palette holds exactly
    path = save(tmp_path / "a.png", few, mode)
    assert read_header(path).shape == (COLUMNS, ROWS, 1, 3)
    channels = read_channels([path] * 3)
    assert channels.array.dtype == np.float32
    assert channels.array.shape == (3, COLUMNS, ROWS, 1)
    assert np.array_equal(channels.array[..., 0].T, few)
    with pytest.raises(DataError, match=r"1 channel"):
        read_channels([path])


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_of_a_colour_are_kept(tmp_path: Path, ending: str) -> None:
    deep = COLOURS.astype(np.uint16) * 257 - COLOURS // 2
    sitk.WriteImage(sitk.GetImageFromArray(deep, isVector=True), str(tmp_path / f"a.{ending}"))
    assert np.array_equal(read_channels([tmp_path / f"a.{ending}"] * 3).array[..., 0].T, deep)


@pytest.mark.parametrize("pixels", [DEEP, COLOURS[..., 0], COLOURS[..., 0] > 100, DEEP.astype(np.float32)])
def test_grey_is_one_channel_or_repeated(tmp_path: Path, pixels: NDArray) -> None:
    path = save(tmp_path / "a.tif", pixels)
    assert np.array_equal(read_channels([path]).array[0, :, :, 0].T, pixels)
    assert np.array_equal(read_channels([path] * 3).array, np.repeat(read_channels([path]).array, 3, axis=0))


def test_alpha_of_grey_is_dropped(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", COLOURS[..., 0], "LA")
    assert np.array_equal(read_volume(path).array[:, :, 0].T, COLOURS[..., 0])


def test_jpeg_is_read_as_an_image(tmp_path: Path) -> None:
    save(tmp_path / "a.JPG", np.full((ROWS, COLUMNS, 3), (200, 20, 90), np.uint8))
    array = read_channels([tmp_path / "a.JPG"] * 3).array
    assert np.abs(array.mean(axis=(1, 2, 3)) - (200, 20, 90)).max() < 4


def test_labels_of_many_kinds(tmp_path: Path) -> None:
    deep = read_label(save(tmp_path / "deep.png", DEEP))
    assert np.array_equal(deep.array[:, :, 0].T, DEEP)
    values = (DEEP % 4).astype(np.uint8)
    palette = Image.fromarray(values).convert("P")  # its colours are not its values
    palette.putpalette([9, 9, 9, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "palette.png")
    assert read_header(tmp_path / "palette.png", label=True).shape == (COLUMNS, ROWS, 1)
    for path in (
        tmp_path / "palette.png",
        save(tmp_path / "grey.tif", values),
        save(tmp_path / "colour.png", values, "RGB"),
    ):
        label = read_label(path)
        assert label.array.dtype == np.uint8
        assert np.array_equal(label.array[:, :, 0].T, values), path.name
    with pytest.raises(DataError, match="has colours where label values"):
        read_label(save(tmp_path / "photo.png", COLOURS))


def test_instances_become_one_label(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", DEEP)
    assert read_label(path).array.max() == DEEP.max()
    label = read_label(path, LabelRules(instances_as=255))
    assert label.array.dtype == np.uint8
    assert np.array_equal(label.array[:, :, 0].T, np.where(DEEP > 0, 255, 0))


def test_mask_is_written_as_it_is_read(tmp_path: Path) -> None:
    scan = save(tmp_path / "scan.png", COLOURS)
    mask = np.random.default_rng(1).integers(0, 3, (COLUMNS, ROWS, 1)).astype(np.uint8)
    write_mask(tmp_path / "mask.png", mask, read_header(scan))
    with Image.open(tmp_path / "mask.png") as picture:
        assert (picture.mode, picture.size) == ("L", (COLUMNS, ROWS))
        assert np.array_equal(np.asarray(picture), mask[:, :, 0].T)
    assert np.array_equal(read_label(tmp_path / "mask.png").array, mask)
    with pytest.raises(AssertionError, match="mask shape"):
        write_mask(tmp_path / "mask.png", mask[1:], read_header(scan))


def test_endings() -> None:
    assert [mask_ending(name) for name in ("images/a.TIF", "a.jpeg", "a.nii.gz", "a.png.nii")] == [
        *(".png", ".png", ".nii.gz", ".nii.gz")
    ]


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (40, 50)).astype(np.uint8))
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:300])
    (tmp_path / "text.png").write_text("hello")
    Image.new("CMYK", (4, 4)).save(tmp_path / "print.tif")
    pages = [Image.new("L", (4, 4), value) for value in (1, 2, 3)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    for name, message in (
        ("cut.png", "the pixels cannot be read .*truncated or corrupt"),
        ("text.png", "not a readable picture"),
        ("print.tif", "colours of mode CMYK. Convert it to RGB or grey"),
        ("stack.tif", "has 3 pages. Save each page"),
        ("none.png", "no such file"),
    ):
        with pytest.raises(DataError, match=rf"{name}: .*{message}") as caught:
            read_volume(tmp_path / name)
        assert str(tmp_path) not in str(caught.value)


def test_picture_is_drawn_upright_and_in_its_colours(tmp_path: Path) -> None:
    quarters = np.zeros((60, 90, 3), np.uint8)
    quarters[:30, :45], quarters[:30, 45:] = (250, 10, 10), (10, 250, 10)
    quarters[30:, :45], quarters[30:, 45:] = (10, 10, 250), (240, 240, 240)
    image = read_channels([save(tmp_path / "a.png", quarters)] * 3)
    turned, affine = to_ras(image.array, image.affine)
    label = np.zeros((90, 60, 1), np.uint8)
    view = StillView(
        np.moveaxis(turned, 0, -1),
        affine,
        {"x": (1,)},
        Preset("full range", 0, 255),
        modality="other",
        reference=label,
        unit="px",
    )
    drawn = np.asarray(Image.open(io.BytesIO(draw_still(view))).convert("RGB")).astype(int)
    inside = np.argwhere((drawn.max(axis=2) > 200) & (drawn.min(axis=2) < 60))
    (top, left), (bottom, right) = inside.min(axis=0), inside.max(axis=0)
    high, wide = (bottom - top) // 4, (right - left) // 4
    assert (bottom - top) / (right - left) == pytest.approx(60 / 90, rel=0.05)
    assert drawn[top + high, left + wide].argmax() == 0
    assert drawn[top + high, right - wide].argmax() == 1
    assert drawn[bottom - high, left + wide].argmax() == 2
    assert drawn[bottom - high, right - wide].min() > 200
