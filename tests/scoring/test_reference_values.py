"""Real pairs, five readers of a glioma and a labelled spine: equal to what public libraries gave for the files."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from medunet.records.scores import HD95Mode, Surface
from medunet.scoring.bits import find_box
from medunet.scoring.masks import MaskScore, score_masks

pytestmark = pytest.mark.real_data

REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
FIELDS = {
    **{"dice": "dice", "hd": "hd_mm", "hd95": "hd95_mm", "assd": "assd_mm", "masd": "masd_mm"},
    **{"nsd1": 1.0, "nsd2": 2.0},
}
NUM_PAIRS = 61  # of masks, in 7 pairs of files


@dataclass(frozen=True)
class Library:
    """Which of our options are a library's, and how near its numbers come."""

    name: str
    surface: Surface
    hd95: HD95Mode
    metrics: tuple[str, ...]
    tolerance: float = 1e-6  # absolute, mm for distances; float32 libraries' are relative too


LIBRARIES = (
    Library("deepmind", "area", "max", ("hd", "hd95", "assd", "masd", "nsd1", "nsd2", "dice")),
    Library("monai_subvoxel", "area", "max", ("nsd1", "nsd2"), 2e-6),
    Library("metricsreloaded", "voxel", "max", ("hd", "hd95", "assd", "masd", "nsd1", "nsd2", "dice")),
    Library("monai", "voxel", "max", ("hd", "hd95", "assd", "nsd1", "nsd2", "dice"), 2e-5),
    Library("medpy", "voxel", "pooled", ("hd", "hd95", "assd", "dice")),
    Library("panoptica", "voxel", "pooled", ("hd", "hd95", "masd", "dice")),
    Library("simpleitk", "voxel", "max", ("dice",)),
)
# What the file quotes and these tests leave out, by library and the start of the metric's name.
LEFT_OUT = {
    ("panoptica", "nsd"): "the mean of both directions' shares, not the share of both surfaces together",
    ("panoptica", "lesion_"): "of lesions, not of masks",
    ("simpleitk", "hd"): "between solid masks, not surfaces",
    ("simpleitk", "avg_hd"): "between solid masks, over all their voxels",
    ("seg_metrics", ""): "26-connected contours, and the volume's edge is no surface",
    ("BraTS-2023-Metrics@43c9052", "brats2023_"): "of lesions, not of masks",
}

Row = dict[str, str | float]
Scorer = Callable[[str, str, Surface, HD95Mode], MaskScore]


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[Row]:
    table = json.loads((shared_data.parent / "metrics" / "reference_values.json").read_text())
    found: list[Row] = table["rows"]
    return found


@pytest.fixture(scope="module")
def score_region(shared_data: Path) -> Scorer:
    """Return what scores a region of a pair of files, named as in the table, each once."""

    @cache
    def read(pair: str) -> tuple[NDArray[np.integer], NDArray[np.integer], tuple[float, ...]]:
        prediction, reference = (Path(name) for name in pair.split(" against "))
        if not (shared_data / reference).exists():  # named within the prediction's folder
            reference = prediction.parent / reference
        images = [nib.load(shared_data / path) for path in (reference, prediction)]
        labels = [np.asarray(image.dataobj).astype(np.int32) for image in images]
        box = find_box(*labels)
        # The libraries were given the header's own float32 spacing.
        spacing_mm = tuple(float(step) for step in images[0].header.get_zooms()[:3])
        return labels[0][box], labels[1][box], spacing_mm

    @cache
    def score(pair: str, region: str, surface: Surface, hd95: HD95Mode) -> MaskScore:
        reference, prediction, spacing_mm = read(pair)
        values = REGIONS.get(region) or (int(region.removeprefix("label")),)
        masks = (np.isin(labels, values) for labels in (reference, prediction))
        return score_masks(*masks, spacing_mm, surface=surface, hd95=hd95)

    return score


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_scores_equal_the_librarys(library: Library, rows: list[Row], score_region: Scorer) -> None:
    num_compared, faults = 0, []
    for row in rows:
        metric = str(row["metric"])
        if row["library"] != library.name or metric not in library.metrics:
            continue
        score = score_region(str(row["pair"]), str(row["region"]), library.surface, library.hd95)
        field = FIELDS[metric]
        got = score.nsd[field] if isinstance(field, float) else getattr(score, field)
        relative = library.tolerance if library.tolerance > 1e-6 else 0.0
        if got != pytest.approx(row["value"], rel=relative, abs=library.tolerance):
            faults.append((row["pair"], row["region"], metric, row["value"], got))
        num_compared += 1
    assert not faults
    assert num_compared == NUM_PAIRS * len(library.metrics)


def test_every_row_is_compared_or_left_out_for_a_reason(rows: list[Row]) -> None:
    compared = {(library.name, metric) for library in LIBRARIES for metric in library.metrics}
    quoted = {(str(row["library"]), str(row["metric"])) for row in rows}
    unexplained = {
        (library, metric)
        for library, metric in quoted - compared
        if not any(library == name and metric.startswith(start) for name, start in LEFT_OUT)
    }
    assert not unexplained
    assert compared <= quoted
