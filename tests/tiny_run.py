"""A run's folder with a handful of small synthetic cases, scored for real, as the reporting tests need it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medunet.base.files import write_json
from medunet.imaging.nifti import read_header, write_mask, write_volume
from medunet.records.description import Description
from medunet.records.manifest import Case, Manifest
from medunet.records.run_folder import RunFolder
from medunet.scoring.evaluate import score_pairs
from medunet.scoring.pairs import Pair
from medunet.scoring.tables import write_scores

ODD_ID = 'a<b>&"c"'
DESCRIPTION = Description(
    name="tiny",
    title="Tiny livers & tumours",
    layout="pairs",
    channels={"CT": {"modality": "CT"}},
    labels={"background": 0, "liver": 1, "tumour": 2},
    regions={"liver": ("liver", "tumour"), "tumour": ("tumour",)},
    region_order=("liver", "tumour"),
)


def affine_of(codes: str, spacing_mm: tuple[float, float, float], tilt_degrees: float = 0.0) -> NDArray:
    """Return an affine whose axes point to `codes`, tilted about the first world axis."""
    directions = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1)}
    directions["I"] = (0, 0, -1)
    columns = np.array([directions[code] for code in codes], dtype=float).T * np.array(spacing_mm)
    angle = np.deg2rad(tilt_degrees)
    tilt = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]], dtype=float
    )
    affine = np.eye(4)
    affine[:3, :3] = tilt @ columns
    affine[:3, 3] = (12.0, -30.0, 7.0)
    return affine


def make_run(folder: Path) -> tuple[RunFolder, Path]:
    """Write a run and its data below `folder`; return both.

    - `ras_good`: a good prediction, RAS, 2 mm.
    - `lps_poor`: LPS, 5 mm slices, a poor liver and a missed tumour.
    - `oblique_healthy`: tilted by 12 degrees, no tumour in either mask.
    - `a<b>&"c"`: a false positive tumour and a liver at the border, with warnings of the data check.
    - `no_prediction`: a case without a prediction file.
    """
    run, data_root = RunFolder(folder / "run"), folder / "data"
    generator = np.random.default_rng(0)
    cases, pairs = [], []
    for case_id, affine, tumour, moved, found_tumour, predicted in (
        ("ras_good", affine_of("RAS", (2, 2, 2)), True, 0, True, True),
        ("lps_poor", affine_of("LPS", (2, 1.5, 5)), True, 5, False, True),
        ("oblique_healthy", affine_of("RAS", (2, 2, 3), 12), False, 1, False, True),
        (ODD_ID, affine_of("LAS", (2, 2, 2)), False, 8, True, True),
        ("no_prediction", affine_of("RAS", (2, 2, 2)), True, 0, True, False),
    ):
        reference = _organ((30, 34, 20), 0, tumour)
        image = (
            np.where(reference > 0, 110, 0) - 45 * (reference == 2) + generator.normal(0, 15, (30, 34, 20))
        )
        image_path, label_path = f"images/{case_id}.nii.gz", f"labels/{case_id}.nii.gz"
        write_volume(data_root / image_path, image.astype(np.float32), affine)
        header = read_header(data_root / image_path)
        write_mask(data_root / label_path, reference, header)
        prediction = run.predictions / f"{case_id}.nii.gz"
        if predicted:
            write_mask(prediction, _organ((30, 34, 20), moved, found_tumour), header)
        cases.append(
            Case(
                id=case_id, patient=case_id, images={"CT": image_path}, label=label_path, fold=len(cases) % 2
            )
        )
        pairs.append(Pair(case_id, data_root / label_path, prediction if predicted else None))
    Manifest(description=DESCRIPTION, cases=tuple(cases)).write(run.manifest)
    scores = score_pairs(pairs, DESCRIPTION.targets, DESCRIPTION.targets)
    write_scores(scores, run.root, about={}, targets=DESCRIPTION.targets)
    fault = {"code": "L004", "severity": "warning", "case": ODD_ID, "subject": "label", "measured": "1 < 2"}
    write_json(
        run.checks,
        {"schema": "medunet.checks/1", "faults": [{**fault, "expected": "<b>", "mend": "Look at it."}]},
    )
    write_json(run.provenance, {"medunet": "0.0", "seed": 7, "versions": {"numpy": np.__version__}})
    entries: dict[str, dict[str, object]] = {case.id: {"model_sha256": "0123abcd"} for case in cases[:-1]}
    found = {"code": "N025", "severity": "warning", "subject": "CT", "measured": "9 mm"}
    entries["ras_good"]["faults"] = [found]
    index = {"cases": entries, "failed": {"no_prediction": "the scan has a hole"}}
    write_json(run.predictions / "index.json", index)
    return run, data_root


def _organ(shape: tuple[int, int, int], moved: int, tumour: bool) -> NDArray[np.uint8]:
    """Return a box of liver with, if asked, a box of tumour in it, moved along the first axis."""
    labels = np.zeros(shape, dtype=np.uint8)
    labels[6 + moved : 22 + moved, 8:26, 4:15] = 1
    if tumour:
        labels[10 + moved : 15 + moved, 12:18, 7:11] = 2
    return labels
