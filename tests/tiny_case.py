"""A case of one image and its label, written as given and checked."""

from pathlib import Path
from typing import Any

import numpy as np
from corruptions import AFFINE, describe, save

from medunet.dataset.checks.case_checks import check_case
from medunet.records.description import Description
from medunet.records.fault import Fault
from medunet.records.manifest import Case

MR = describe(channels={"T1": {"modality": "MR"}})
CT = describe(channels={"CT": {"modality": "CT"}}, labels={"background": 0, "liver": 1, "tumour": 2})


def check(
    root: Path, image: np.ndarray, label: np.ndarray | None, description: Description, **saving: Any
) -> list[Fault]:
    """Write a case of one image and its label, and check it."""
    affine = saving.get("affine", AFFINE)
    save(root / "x_image.nii", image, affine)
    channel = next(iter(description.channels))
    case = Case(id="x", patient="x", images={channel: "x_image.nii"}, split="test")
    if label is not None:
        save(root / "x_label.nii", label, affine)
        case = case.model_copy(update={"label": "x_label.nii", "split": "train"})
    return check_case(case, description, root)[0]
