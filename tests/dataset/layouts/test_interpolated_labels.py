"""Masks that were interpolated or compressed: no classes are guessed from them, and the check refuses them."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from tiny_layouts import AFFINE, ask

from medunet.base.errors import InputError
from medunet.dataset.checks.manifest_checks import check_manifest
from medunet.dataset.manifest import make_manifest
from medunet.imaging.nifti import write_volume
from medunet.records.description import Description


def draw_disc(number: int) -> np.ndarray:
    rows, columns = np.mgrid[:64, :72]
    return ((rows - 30 - number) ** 2 + (columns - 36) ** 2 < 180).astype(np.uint8) * 255


def write_masks(root: Path, change: Callable[[Image.Image], bytes], ending: str, num_clean: int = 0) -> Path:
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    for number in range(4):
        mask = draw_disc(number)
        noise = np.random.default_rng(number).normal(60, 10, mask.shape) + mask / 3
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(root / f"images/p{number}.png")
        content = png(Image.fromarray(mask)) if number < num_clean else change(Image.fromarray(mask))
        own = ".png" if number < num_clean else ending
        (root / f"labels/p{number}{own}").write_bytes(content)
    return root


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def turned(image: Image.Image) -> bytes:
    return png(image.rotate(5, Image.Resampling.BILINEAR))


@pytest.mark.parametrize(("change", "ending"), [(jpeg, ".jpg"), (jpeg, ".jpeg"), (turned, ".png")])
def test_no_classes_are_guessed(tmp_path: Path, change: Callable[[Image.Image], bytes], ending: str) -> None:
    with pytest.raises(
        InputError, match=r"4 label files were interpolated or compressed.*by nearest neighbour"
    ):
        ask(write_masks(tmp_path, change, ending))


def test_clean_files_are_the_yardstick_of_the_others(tmp_path: Path) -> None:
    root = write_masks(tmp_path, turned, ".png", num_clean=2)
    found = ask(root)
    assert found.description.labels == {"background": 0, "label_255": 255}
    assert sum("was interpolated: see `medunet check`" in note for note in found.notes) == 2
    faults = check_manifest(make_manifest(found.description, root), root)
    assert {(fault.code, fault.case) for fault in faults if fault.severity == "error"} == {
        ("L005", "p2"),
        ("L005", "p3"),
    }


def test_an_earlier_guess_is_no_yardstick(tmp_path: Path) -> None:
    """A description that declares every value found, as versions up to 0.6 wrote it."""
    root = write_masks(tmp_path, turned, ".png")
    values = sorted(
        {int(value) for path in (root / "labels").iterdir() for value in np.unique(Image.open(path))}
    )
    labels = {"background": 0} | {f"label_{value}": value for value in values if value}
    plain = {"name": "guess", "layout": "png", "channels": {"grey": {"modality": "other"}}, "labels": labels}
    faults = check_manifest(make_manifest(Description.parse(plain, "guess"), root), root)
    errors = [fault for fault in faults if fault.severity == "error" and fault.case]
    assert {fault.code for fault in errors} == {"L005"}
    assert {fault.case for fault in errors} == {"p0", "p1", "p2", "p3"}
    assert "from half of the largest on to 1" in errors[0].hint


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_volumes_that_were_resampled(tmp_path: Path, ending: str, dtype: type) -> None:
    grid = np.stack(np.meshgrid(*map(np.arange, (24, 20, 14)), indexing="ij"), axis=-1)
    for number in range(2):
        ball = ((((grid - [12, 10, 7 - number]) / [8, 6, 4]) ** 2).sum(axis=-1) < 1) * 200.0
        for axis in range(3):  # by half a voxel
            ball = (ball + np.roll(ball, 1, axis)) / 2
        image = np.random.default_rng(number).integers(0, 900, ball.shape).astype(np.int16)
        for folder, array in (("images", image), ("labels", ball.astype(dtype))):
            path = tmp_path / folder / f"c{number}{ending}"
            path.parent.mkdir(exist_ok=True)
            if ending == ".nii.gz":
                write_volume(path, array, AFFINE)
            else:
                sitk.WriteImage(sitk.GetImageFromArray(array.T), str(path))
    with pytest.raises(InputError, match="nearest"):
        ask(tmp_path)
    pattern = rf"{{}}/(?P<id>.+){re.escape(ending)}"
    plain: dict[str, Any] = {"name": "known", "layout": "pairs", "labels": {"background": 0, "a": 200}}
    plain["channels"] = {"MR": {"modality": "MR"}}
    plain["files"] = {"image": pattern.format("images"), "label": pattern.format("labels")}
    faults = check_manifest(make_manifest(Description.parse(plain, "known"), tmp_path), tmp_path)
    assert {fault.code for fault in faults if fault.severity == "error"} == {"L005"}
