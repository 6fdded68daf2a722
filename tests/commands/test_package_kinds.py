"""Models of every kind of input are packaged, and each package predicts its own example."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_networks import describe, plan_network

from medunet.base.files import hash_file
from medunet.imaging.volumes import read_header
from medunet.networks.builder import build_network
from medunet.records.description import Description
from medunet.records.model_card import ModelCard
from medunet.records.plan import Intensity, Plan
from medunet.runs.packages import open_package

HOW = ("--device", "cpu", "--precision", "fp32", "--backend", "torch")
LICENCES = ("--weights-licence", "CC0", "--data-licence", "CC0")


def of(*, regions: bool = False, num_channels: int = 1, **changes: Any) -> Description:
    plain = describe(num_channels, regions=regions).to_dict()
    return Description.parse({**plain, **changes}, "test")


def write_model(folder: Path, description: Description, dimensions: int) -> Path:
    """Write an untrained model whose training scans had 30×40×12 voxels of 2×1.5×4 mm."""
    base = describe(len(description.channels), regions=bool(description.regions))
    plan = plan_network("plain", dimensions, description=base, spacing_mm=(2.0, 1.5, 4.0))
    known = {"percentile_00_5": -20.0, "percentile_99_5": 180.0, "mean": 90.0, "std": 30.0}
    names, is_ct = list(description.channels), "CT" in description.channels
    scheme = (
        Intensity(scheme="ct", clip_low=-20, clip_high=180, mean=90, std=30)
        if is_ct
        else Intensity(scheme="zscore")
    )
    fingerprint = plan.fingerprint.model_copy(
        update={"shapes": ((30, 40, 12),) * 2, "intensities": dict.fromkeys(names, known)}
    )
    shape = (30, 40, 1) if description.layout == "png" else (30, 40, 12)
    changes = {"fingerprint": fingerprint, "median_shape": shape, "intensities": dict.fromkeys(names, scheme)}
    if description.layout == "png":
        changes["spacing_mm"] = (1.0, 1.0, 1.0)
    plan = Plan.parse(plan.model_copy(update=changes).to_dict(), "test")
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    save_file(build_network(plan, description).state_dict(), folder / "weights.safetensors")
    card = ModelCard(medunet_version="0", description=description, plan=plan, fold=0)
    card.model_copy(update={"weights_sha256": hash_file(folder / "weights.safetensors")}).write(
        folder / "model.json"
    )
    return folder


RGB = {name: {"modality": "other"} for name in ("red", "green", "blue")}
KINDS = {
    "MR": (of(), 3),
    "two MR": (of(num_channels=2), 3),
    "regions": (of(num_channels=2, regions=True), 3),
    "CT in slices": (of(channels={"CT": {"modality": "CT"}}), 2),
    "grey picture": (of(layout="png", channels={"grey": {"modality": "other"}}), 2),
    "picture in colour": (of(layout="png", num_channels=3, channels=RGB), 2),
}


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_predicts_its_example(tmp_path: Path, call, kind: str):
    description, dimensions = KINDS[kind]
    model = write_model(tmp_path / "model", description, dimensions)
    code, text = call("package", model, "--out", tmp_path / "x.zip", *LICENCES)
    assert code == 0, text
    folder, package = open_package(tmp_path / "x.zip")
    example = folder / package.example
    assert example.suffix == (".png" if description.layout == "png" else ".gz")
    code, text = call("predict", tmp_path / "x.zip", example, "--out", tmp_path / "out", *HOW)
    assert code == 0, text
    assert "warning" not in text
    (mask,) = (path for path in (tmp_path / "out").iterdir() if path.name.startswith("example"))
    assert read_header(mask, label=True).shape[:2] == read_header(example).shape[:2]


def test_a_file_for_each_channel_is_one_example(tmp_path: Path, call):
    model = write_model(tmp_path / "model", of(num_channels=2), 3)
    rng, images = np.random.default_rng(0), []
    for name in ("b", "a"):
        image = nib.Nifti1Image(rng.uniform(1, 9, (20, 30, 10)).astype(np.float32), np.diag([2, 1.5, 4, 1]))
        image.header.set_xyzt_units("mm")
        nib.save(image, tmp_path / f"{name}.nii.gz")
        images.append(image.get_fdata())
    first, second = (("--example", tmp_path / f"{name}.nii.gz") for name in ("b", "a"))
    assert call("package", model, "--out", tmp_path / "x.zip", *LICENCES, *first, *second)[0] == 0
    folder, package = open_package(tmp_path / "x.zip")
    np.testing.assert_allclose(
        nib.load(folder / package.example).get_fdata(), np.stack(images, -1), rtol=1e-6
    )
    code, text = call("package", model, "--out", tmp_path / "y.zip", *LICENCES, *first, *second, *second)
    assert (code, "3 files for the model's channels MR0, MR1" in text) == (2, True)


def test_a_given_picture_is_kept_upright(tmp_path: Path, call):
    model = write_model(tmp_path / "model", KINDS["picture in colour"][0], 2)
    pixels = np.random.default_rng(0).integers(0, 255, (20, 33, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    given = ("--example", tmp_path / "a.png")
    assert call("package", model, "--out", tmp_path / "x.zip", *LICENCES, *given)[0] == 0
    folder, package = open_package(tmp_path / "x.zip")
    with Image.open(folder / package.example) as kept:
        assert np.array_equal(np.asarray(kept), pixels)
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 200).save(tmp_path / "deep.png")
    code, text = call(
        "package", model, "--out", tmp_path / "y.zip", *LICENCES, "--example", tmp_path / "deep.png"
    )
    assert (code, "needs 8 bits" in text) == (2, True)
