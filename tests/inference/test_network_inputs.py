"""From a scan's file to its mask for every kind of network input: 3D, 2D, 2.5D, resized, unpadded, pictures."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from medunet.imaging.nifti import write_volume
from medunet.inference.backend import TorchBackend
from medunet.inference.model import Model
from medunet.inference.predict import predict_scans
from medunet.inference.scan import Scan
from medunet.records.config import InferenceConfig
from medunet.records.description import Description
from medunet.records.model_card import ModelCard
from medunet.records.plan import Intensity, Plan
from medunet.transforms.chain import preprocess_chain

SHAPE, SPACING_MM = (46, 52, 15), (1.1, 0.9, 4.0)
PLANES = {
    "dimensions": 2,
    "features": (4, 8),
    "kernel_sizes": ((3, 3), (3, 3)),
    "strides": ((1, 1), (2, 2)),
}
UNPADDED = {**PLANES, "network": "unet_2015", "convolutions_per_stage": 1}  # loses 4 voxels a side


class Threshold(nn.Module):
    """Stands in for a trained network: marks what is bright in the input's middle channel, cut by a margin."""

    def __init__(self, margin: int = 0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        bright = image[:, image.shape[1] // 2][:, None] * 4 - 2
        if self.margin:
            bright = bright[(..., *(slice(self.margin, -self.margin),) * (image.ndim - 2))]
        return torch.cat([-bright, bright], 1)


def make_model(plan: Plan, changes: dict[str, Any], layout: str, margin: int = 0) -> Model:
    """A model that finds bright cells, written as 255, in one channel scaled to 0..1."""
    grey = Intensity(scheme="ct", clip_low=0, clip_high=100, mean=0, std=100)
    changes = {"intensities": {"grey": grey}, "spacing_mm": (1.5, 1.2, 3.0), **changes}
    if "network" in changes:
        changes["network"] = plan.network.model_copy(update={"name": changes["network"]})
    plan = plan.model_copy(update=changes)
    description = Description(
        name="cells",
        layout=layout,  # type: ignore[arg-type]
        channels={"grey": {"modality": "other"}},
        labels={"background": 0, "cell": 255},
    )
    card = ModelCard(medunet_version="0", description=description, plan=plan, fold=0)
    chain = preprocess_chain(plan, with_label=False)
    return Model(card, TorchBackend(Threshold(margin), torch.device("cpu"), "fp32"), chain)


def write_scan(folder: Path) -> tuple[Path, np.ndarray]:
    """Write an off-centre bright ellipsoid in a tilted L P S scan; return its path and where it is bright."""
    grid = np.indices(SHAPE).astype(float)
    inside = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, (30, 20, 6), (11, 14, 5), strict=True)) < 1
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
    angle = np.deg2rad(10)
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    noise = np.random.default_rng(0).normal(0, 3, SHAPE)
    write_volume(folder / "scan.nii.gz", (100 * inside + noise).astype(np.float32), tilt @ affine)
    return folder / "scan.nii.gz", inside


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    ("changes", "margin"),
    [
        ({"dimensions": 3}, 0),
        ({**PLANES, "patch_size": (16, 24)}, 0),
        ({**PLANES, "patch_size": (16, 24), "context_slices": 3}, 0),
        ({**PLANES, "patch_size": (48, 32), "resize_to": (48, 32)}, 0),
        ({**PLANES, "patch_size": (48, 32), "resize_to": (48, 32), "context_slices": 5}, 0),
        ({**UNPADDED, "patch_size": (28, 20)}, 4),
        ({**UNPADDED, "patch_size": (28, 20), "resize_to": (44, 31), "context_slices": 3}, 4),
    ],
)
def test_a_mask_overlays_its_scan_whatever_the_network_sees(tmp_path, tiny_plan: Plan, changes, margin, axis):
    path, inside = write_scan(tmp_path)
    model = make_model(tiny_plan, {**changes, "slice_axis": axis}, "pairs", margin)
    assert model.card.plan.valid_margin == (margin,) * model.card.plan.dimensions
    assert predict_scans(model, [Scan("mask", [path])], tmp_path, InferenceConfig()) == {}
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(mask.affine, nib.load(path).affine)
    found = np.asarray(mask.dataobj)
    assert set(np.unique(found)) == {0, 255}
    dice = 2 * ((found > 0) & inside).sum() / ((found > 0).sum() + inside.sum())
    assert dice > 0.9, f"Dice {dice:.3f}"


@pytest.mark.parametrize("resize_to", [None, (64, 64)])
def test_a_picture_gets_a_picture_of_its_mask(tmp_path, tiny_plan: Plan, resize_to):
    pixels = np.zeros((30, 41), np.uint8)  # rows, columns
    pixels[3:12, 22:38] = 100
    Image.fromarray(pixels).save(tmp_path / "cells.png")
    changes = {**PLANES, "patch_size": (32, 32), "spacing_mm": (1.0, 1.0, 1.0), "resize_to": resize_to}
    model = make_model(tiny_plan, {**changes, "slice_axis": 2}, "png")
    assert predict_scans(model, [Scan("mask", [tmp_path / "cells.png"])], tmp_path, InferenceConfig()) == {}
    found = np.asarray(Image.open(tmp_path / "mask.png"))
    assert found.shape == pixels.shape
    assert np.array_equal(found, np.where(pixels > 50, 255, 0))
