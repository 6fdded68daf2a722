"""The same masks through MONAI, whose definitions the voxel convention follows."""

import numpy as np
import pytest
import torch
from monai.metrics import (
    DiceMetric,
    HausdorffDistanceMetric,
    SurfaceDiceMetric,
    SurfaceDistanceMetric,
    compute_iou,
    get_confusion_matrix,
)
from scipy import ndimage

from medunet.scoring.masks import score_masks


def blobs(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return two overlapping blobby masks, some touching the grid's edge, some in several pieces."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5)
    other = field + 0.7 * ndimage.gaussian_filter(rng.standard_normal(shape), 1.0)
    level = rng.uniform(0.3, 0.9)
    return field > level * field.std(), other > level * other.std()


@pytest.mark.parametrize("seed", range(150))
def test_scores_equal_monai(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_axes = 2 if seed % 3 == 0 else 3
    shape = tuple(int(n) for n in rng.integers(9, 26, num_axes))
    spacing_mm = tuple(float(x) for x in rng.uniform(0.5, 4.0, num_axes).round(3))
    tolerance_mm = float(rng.uniform(0.5, 3.0))
    percentile = float(rng.choice([50.0, 90.0, 95.0]))
    reference, prediction = blobs(rng, shape)
    assert reference.any()
    assert prediction.any()
    y, y_pred = (torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (reference, prediction))

    score = score_masks(
        reference,
        prediction,
        spacing_mm,
        surface="voxel",
        percentile=percentile,
        tolerances_mm=(tolerance_mm,),
    )
    whole = {"include_background": True}
    want = {
        "dice": DiceMetric(**whole)(y_pred, y),
        "iou": compute_iou(y_pred, y),
        "hd_mm": HausdorffDistanceMetric(**whole)(y_pred, y, spacing=spacing_mm),
        "hd95_mm": HausdorffDistanceMetric(**whole, percentile=percentile)(y_pred, y, spacing=spacing_mm),
        "assd_mm": SurfaceDistanceMetric(**whole, symmetric=True)(y_pred, y, spacing=spacing_mm),
    }
    directed = [
        SurfaceDistanceMetric(**whole)(*pair, spacing=spacing_mm).item()
        for pair in ((y_pred, y), (y, y_pred))
    ]
    nsd = SurfaceDiceMetric(class_thresholds=[tolerance_mm], **whole)(y_pred, y, spacing=spacing_mm)
    for name, value in want.items():
        within = 1e-4 if name == "hd95_mm" else 1e-5  # MONAI interpolates percentiles in float32
        assert getattr(score, name) == pytest.approx(value.item(), rel=within, abs=within), name
    assert score.masd_mm == pytest.approx(sum(directed) / 2, rel=1e-5)
    assert score.nsd[tolerance_mm] == pytest.approx(nsd.item(), abs=1e-6)
    counts = get_confusion_matrix(y_pred, y)[0, 0].tolist()
    assert [score.tp, score.fp, score.tn, score.fn] == counts
    assert score.specificity == pytest.approx(score.tn / (score.tn + score.fp))


@pytest.mark.parametrize("seed", range(12))
def test_distances_equal_a_distance_transform(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    reference, prediction = blobs(rng, (17, 12, 21))
    spacing_mm = (0.8, 3.0, 1.1)
    score = score_masks(reference, prediction, spacing_mm, surface="voxel", hd95="pooled")
    surfaces = [
        np.pad(mask, 1) & ~ndimage.binary_erosion(np.pad(mask, 1)) for mask in (reference, prediction)
    ]
    fields = [ndimage.distance_transform_edt(~surface, sampling=spacing_mm) for surface in surfaces]
    pooled = np.concatenate([fields[1][surfaces[0]], fields[0][surfaces[1]]])
    assert score.hd_mm == pytest.approx(pooled.max(), abs=1e-9)
    assert score.hd95_mm == pytest.approx(np.percentile(pooled, 95), abs=1e-9)
    assert score.assd_mm == pytest.approx(pooled.mean(), abs=1e-9)
