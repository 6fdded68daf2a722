"""The same masks through MedPy, whose definitions the voxel convention follows with `hd95="pooled"`, and the measures
of agreement through scikit-learn; each is skipped where the library is absent (MedPy is GPL: for tests alone)."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from medunet.scoring.masks import score_masks

Mask = NDArray[np.bool_]


def draw_pair(seed: int) -> tuple[Mask, Mask, tuple[float, ...]]:
    """Draw two overlapping masks in 2D or 3D, some touching the grid's edge, some in several pieces."""
    rng = np.random.default_rng(200 + seed)
    num_axes = 2 if seed % 3 == 0 else 3
    shape = tuple(int(n) for n in rng.integers(9, 24, num_axes))
    field = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5)
    other = field + 0.7 * ndimage.gaussian_filter(rng.standard_normal(shape), 1.0)
    level = rng.uniform(0.2, 0.9)
    spacing_mm = tuple(float(step) for step in rng.uniform(0.5, 4.0, num_axes))
    return field > level * field.std(), other > level * other.std(), spacing_mm


@pytest.mark.parametrize("seed", range(150))
def test_scores_equal_medpy(seed: int) -> None:
    binary = pytest.importorskip("medpy.metric.binary")
    reference, prediction, spacing_mm = draw_pair(seed)
    score = score_masks(reference, prediction, spacing_mm, surface="voxel", hd95="pooled")
    pair, spacing = (prediction, reference), {"voxelspacing": spacing_mm}
    want = {
        "hd_mm": binary.hd(*pair, **spacing),
        "hd95_mm": binary.hd95(*pair, **spacing),
        "assd_mm": binary.assd(*pair, **spacing),
        "masd_mm": (binary.asd(*pair, **spacing) + binary.asd(*pair[::-1], **spacing)) / 2,
        "dice": binary.dc(*pair),
        "iou": binary.jc(*pair),
        "precision": binary.precision(*pair),
        "recall": binary.recall(*pair),
        "specificity": binary.specificity(*pair),
    }
    assert {name: getattr(score, name) for name in want} == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_agreement_equals_scikit_learn(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    reference, prediction, spacing_mm = draw_pair(seed)
    score = score_masks(reference, prediction, spacing_mm)
    pair = (reference.ravel(), prediction.ravel())
    want = {
        "mcc": metrics.matthews_corrcoef(*pair),
        "kappa": metrics.cohen_kappa_score(*pair),
        "balanced_accuracy": metrics.balanced_accuracy_score(*pair),
        "f2": metrics.fbeta_score(*pair, beta=2),
        "iou": metrics.jaccard_score(*pair),
    }
    assert {name: getattr(score, name) for name in want} == pytest.approx(want, abs=1e-9)
