"""A case written, predicted and scored for real, with a missed and an invented tumour, and its page."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tiny_run import DESCRIPTION, affine_of

from medunet.imaging.nifti import read_header, write_mask, write_volume
from medunet.records.description import Description
from medunet.records.manifest import Case
from medunet.reporting.case_page import case_page
from medunet.reporting.case_parts import CaseParts, CaseSummary
from medunet.reporting.scans import Scan, load_scan
from medunet.scoring.evaluate import ScoreOptions, score_pairs
from medunet.scoring.pairs import Pair
from medunet.scoring.tables import read_lesions, read_scores, write_scores

SHAPE = (40, 36, 22)
NO_ROWS = pd.DataFrame(columns=["case", "label", "status", "surface", "dice", "reason", "notes"])
MISSED, INVENTED = (slice(8, 13), slice(9, 15), slice(5, 8)), (slice(24, 28), slice(10, 13), slice(12, 15))


def make_case(
    folder: Path, reference: NDArray, prediction: NDArray, codes: str = "RAS", tilt_degrees: float = 0
) -> tuple[Scan, pd.DataFrame, pd.DataFrame]:
    """Write and score a case; return its scan, its scores, and its lesions by the rules of LiTS."""
    image = np.random.default_rng(0).normal(50, 20, reference.shape).astype(np.float32)
    write_volume(folder / "image.nii.gz", image, affine_of(codes, (2, 2.5, 3), tilt_degrees))
    header = read_header(folder / "image.nii.gz")
    write_mask(folder / "label.nii.gz", reference, header)
    write_mask(folder / "predicted.nii.gz", prediction, header)
    case = Case(id="one", patient="one", images={"CT": "image.nii.gz"}, label="label.nii.gz")
    targets = DESCRIPTION.targets
    pair = Pair("one", folder / "label.nii.gz", folder / "predicted.nii.gz")
    options = ScoreOptions(lesions={"tumour": "lits"})
    write_scores(score_pairs([pair], targets, targets, options, workers=1), folder, about={}, targets=targets)
    scan = load_scan(case, DESCRIPTION, folder, folder / "predicted.nii.gz")
    return scan, read_scores(folder / "scores.csv"), read_lesions(folder / "lesions.csv")


def draw_masks() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a reference and a prediction with one tumour missed and another invented, and the liver right."""
    reference = np.zeros(SHAPE, np.uint8)
    reference[5:32, 6:30, 3:18] = 1
    prediction = reference.copy()
    reference[MISSED], prediction[INVENTED] = 2, 2
    return reference, prediction


def page_of(
    scan: Scan | str, rows: pd.DataFrame, lesions: pd.DataFrame | None = None, **more: object
) -> tuple[str, CaseSummary]:
    """Return the page of a case and its summary; `more` are further parts of the case, settings and with_viewer."""
    parts = {
        "case_id": "one",
        "page": "one.html",
        "description": DESCRIPTION,
        "rows": rows,
        "lesions": lesions,
    }
    options = {"settings": more.pop("settings", None), "with_viewer": more.pop("with_viewer", True)}
    return case_page(CaseParts(**{**parts, **more}), scan, **options)


def describe_many(count: int) -> Description:
    """Return a description with so many targets."""
    labels = {f"part_{value}": value for value in range(1, count + 1)}
    return DESCRIPTION.model_copy(
        update={"labels": {"background": 0, **labels}, "regions": {}, "region_order": ()}
    )


def make_many(folder: Path) -> tuple[Scan, pd.DataFrame, Description]:
    """Return a case with 117 targets, of which 17 are absent, 99 predicted perfectly, and part_77 is missed."""
    description = describe_many(117)
    reference = np.zeros((60, 60, 60), np.uint8)
    for value in range(1, 101):
        i, j, k = (12 * (value // 25) + 2, 12 * (value // 5 % 5) + 2, 12 * (value % 5))
        reference[i : i + 8, j : j + 8, k : k + 8] = value
    prediction = reference.copy()
    prediction[reference == 77] = 0
    image = np.random.default_rng(0).normal(50, 200, reference.shape).astype(np.float32)
    write_volume(folder / "image.nii.gz", image, np.eye(4))
    header = read_header(folder / "image.nii.gz")
    write_mask(folder / "label.nii.gz", reference, header)
    write_mask(folder / "predicted.nii.gz", prediction, header)
    targets = description.targets
    pair = Pair("one", folder / "label.nii.gz", folder / "predicted.nii.gz")
    write_scores(score_pairs([pair], targets, targets, workers=1), folder, about={}, targets=targets)
    case = Case(id="one", patient="one", images={"CT": "image.nii.gz"}, label="label.nii.gz")
    scan = load_scan(case, description, folder, folder / "predicted.nii.gz")
    return scan, read_scores(folder / "scores.csv"), description
