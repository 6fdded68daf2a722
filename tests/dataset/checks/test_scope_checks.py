"""A new scan unlike the training scans is refused by code: field of view, spacing, values and modality."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medunet.base.errors import DataError
from medunet.dataset.checks.scan_checks import CheckedScan
from medunet.imaging.nifti import write_volume
from medunet.planning.fingerprint import compute_fingerprint
from medunet.records.description import Description, load_description
from medunet.records.fault import Fault
from medunet.records.manifest import Accepted, Case
from medunet.records.plan import Fingerprint, Shown

AFFINE = np.diag([-2.0, 2.0, 4.0, 1.0])
SHAPE = (24, 20, 9)
ALL = tuple(Accepted(code=f"N0{number}", case="*", reason="-") for number in (19, 20, *range(25, 30)))
HU_MODEL = {"percentile_00_5": 20.0, "percentile_99_5": 180.0}


def describe(modality: str) -> Description:
    return Description.parse(
        {
            "name": "x",
            "layout": "pairs",
            "channels": {"A": {"modality": modality}},
            "labels": {"background": 0, "organ": 1},
        },
        "test",
    )


def fingerprint(darkest: float | None = None, **changes: Any) -> Fingerprint:
    shown = None
    if darkest is not None:
        shown = Shown(field_of_view_mm=(48.0, 40.0, 36.0), darkest={"A": darkest})
    values: dict[str, Any] = {
        "num_cases": 2,
        "spacings_mm": ((2.0, 2.0, 4.0), (2.0, 1.0, 4.0)),
        "shapes": ((24, 20, 9), (20, 20, 8)),
        "nonzero_fraction": 1.0,
        "intensities": {"A": HU_MODEL},
        "shown": shown,
    }
    return Fingerprint(**{**values, **changes})


def find(
    folder: Path,
    image: np.ndarray,
    known: Fingerprint,
    *,
    modality: str = "MR",
    affine: np.ndarray = AFFINE,
    accepted: tuple[Accepted, ...] = ALL,
) -> list[Fault]:
    write_volume(folder / "x.nii.gz", image, affine)
    checked = CheckedScan("x", [folder / "x.nii.gz"], describe(modality), known, accepted)
    checked.read()
    return checked.faults


def mr(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).gamma(4, 60, shape).astype(np.float32) + 1


def ct(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Return soft tissue and fat in air, as in test_hounsfield.py."""
    image = np.full(shape, -1000.0)
    image[2:-2, 2:-2] = -100
    image[4:-4, 4:-4] = 50
    return (image + np.random.default_rng(0).normal(0, 10, shape)).astype(np.int16)


# ---- field of view ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((24, 20, 9), 0),
        ((36, 30, 13), 0),
        ((37, 20, 9), 1),
        ((24, 31, 9), 1),
        ((24, 20, 14), 1),
        ((9, 8, 4), 0),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_field_of_view_is_compared_along_each_axis_of_the_body(tmp_path, shape, found, turned):
    image, affine = mr(shape), AFFINE
    if turned:
        image, affine = image.transpose(2, 0, 1)[::-1], AFFINE[:, [2, 0, 1, 3]] @ np.diag([-1.0, 1, 1, 1])
    faults = find(tmp_path, image, fingerprint(1.0), affine=affine)
    assert [fault.code for fault in faults] == ["N028"] * found
    assert all(fault.severity == "error" for fault in faults)


@pytest.mark.parametrize("scaled", [False, True])
def test_padding_is_no_field_of_view(tmp_path, scaled):
    image = np.zeros((60, 50, 30), np.float32)
    image[20:44, 20:40, 10:19] = mr()
    if scaled:  # stored as 7 where the value is 0
        nifti = nib.Nifti1Image(np.rint(image).astype(np.int16) + np.int16(7), AFFINE)
        nifti.header.set_slope_inter(2.0, -14.0)
        nifti.header.set_xyzt_units("mm")
        nib.save(nifti, tmp_path / "x.nii.gz")
        checked = CheckedScan("x", [tmp_path / "x.nii.gz"], describe("MR"), fingerprint(1.0))
        assert np.count_nonzero(checked.read().array) == np.count_nonzero(image)
        assert checked.faults == []
    else:
        assert find(tmp_path, image, fingerprint(1.0)) == []
    image[0, 0, 0] = 5
    assert [fault.code for fault in find(tmp_path, image, fingerprint(1.0))] == ["N028"]


def test_older_plans_know_the_field_of_view_of_whole_scans_alone(tmp_path):
    large = mr((40, 20, 9))
    (fault,) = find(tmp_path, large, fingerprint())
    assert (fault.code, fault.measured.split(",")[-1]) == ("N028", " 1.67 times as large")
    assert "48 × 40 × 36 mm" in fault.expected
    assert find(tmp_path, large, fingerprint(nonzero_fraction=0.4)) == []


def test_it_is_refused_until_its_code_is_accepted(tmp_path):
    with pytest.raises(DataError, match=r"N028 field of view.*--accept N028"):
        find(tmp_path, mr((60, 50, 30)), fingerprint(), accepted=())
    (fault,) = find(tmp_path, mr((60, 50, 30)), fingerprint(), accepted=ALL)
    assert fault.accepted == "-"


# ---- spacing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factors", "severity"),
    [
        ((1, 1, 1), None),
        ((1, 0.5, 1), None),
        ((1, 1, 2), None),
        ((1, 1, 2.1), "warning"),
        ((3.99, 1, 1), "warning"),
        ((4.1, 1, 1), "error"),
        ((0.2, 0.2, 0.2), "warning"),
        ((0.09, 0.09, 0.09), "error"),
    ],
)
def test_a_spacing_beyond_the_training_scans(tmp_path, factors, severity):
    image = mr((6, 10, 2))
    faults = find(tmp_path, image, fingerprint(), affine=AFFINE @ np.diag([*factors, 1.0]))
    assert [(fault.code, fault.severity) for fault in faults] == ([("N025", severity)] if severity else [])
    assert all("2 × 1–2 × 4 mm" in fault.expected for fault in faults)


# ---- values and modality ----------------------------------------------------------------------------------------


def grey(hu: np.ndarray) -> np.ndarray:
    return ((np.clip(hu, -150, 250) + 150.0) * 255 / 400).astype(np.int16)


VALUES: list[tuple[Any, float | None, dict[str, str]]] = [
    (lambda: ct(), -1000, {}),
    (lambda: ct(), None, {}),
    (lambda: grey(ct()), -1000, {"N026": "error", "N029": "error"}),
    (lambda: grey(ct()), -150, {"N026": "error"}),
    (lambda: grey(ct()), 0, {"N026": "warning"}),  # the training scans are so, too
    (lambda: grey(ct()), None, {"N026": "warning"}),
    (lambda: ct() + np.int16(1024), -1000, {"N019": "error", "N029": "error"}),
    (lambda: ct() + np.int16(1024), 20, {"N019": "warning"}),
    (lambda: ct() + np.int16(200), -1000, {"N020": "error"}),
    (lambda: ct() + np.int16(200), -800, {"N020": "warning"}),
    (lambda: ct() + np.int16(200), None, {"N020": "warning"}),
    (lambda: ct() * 0.001, -1000, {"N027": "error", "N029": "error"}),
    (lambda: mr(), -1000, {"N029": "error"}),
    (lambda: mr(), None, {}),
]


@pytest.mark.parametrize(("make", "darkest", "expected"), VALUES)
def test_values_of_a_ct_are_compared_with_the_training_scans(tmp_path, make, darkest, expected):
    faults = find(tmp_path, make(), fingerprint(darkest), modality="CT")
    assert {fault.code: fault.severity for fault in faults} == expected


@pytest.mark.parametrize("modality", ["MR", "PET", "other"])
def test_a_ct_is_no_other_modality(tmp_path, modality):
    expected = [] if modality == "other" else ["N029"]
    assert [fault.code for fault in find(tmp_path, ct(), fingerprint(), modality=modality)] == expected
    known = fingerprint(-1000)  # the training scans have such values, whatever they are called
    assert find(tmp_path, ct(), known, modality=modality) == []
    normalised = (mr() - 200) / 50
    assert find(tmp_path, normalised, fingerprint(), modality=modality) == []


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"Modality": "CT"}, 1),
        ({"Modality": "MR"}, 0),
        ({"Modality": "OT"}, 0),
        ({"Modality": ["CT"]}, 0),
        ([1], 0),
        ("{", 0),
    ],
)
def test_the_sidecar_tells_the_modality(tmp_path, content, found):
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "x.json").write_text(text)
    faults = find(tmp_path, mr(), fingerprint())
    assert [fault.code for fault in faults] == ["N029"] * found
    assert all(fault.measured == "the .json file beside it says CT" for fault in faults)


# ---- real scans -------------------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_real_scans_of_the_training_data_pass_and_others_do_not(shared_data: Path):
    description = load_description("msd_task04_hippocampus")
    crops = sorted((shared_data / "hippocampus" / "imagesTr").glob("*.nii.gz"))[:40]
    cases = [
        Case(
            id=path.name,
            patient=path.name,
            images={"MR": f"imagesTr/{path.name}"},
            label=f"labelsTr/{path.name}",
            split="train",
        )
        for path in crops
        if (shared_data / "hippocampus" / "labelsTr" / path.name).exists()
    ]
    known = compute_fingerprint(cases[:12], description, shared_data / "hippocampus", seed=0)

    def codes(path: Path) -> set[str]:
        checked = CheckedScan("x", [path], description, known, ALL)
        checked.read()
        return {fault.code for fault in checked.faults}

    assert {path.name: codes(path) for path in crops if codes(path)} == {}
    assert codes(shared_data / "brats/TCGA-FG-6692/TCGA-FG-6692_t1.nii.gz") == {"N028"}
    assert codes(shared_data / "brats/raw_not_coregistered/TCGA-FG-6692_raw_t1.nii.gz") == {"N025", "N028"}
    assert codes(shared_data / "ct_abdomen/ct.nii.gz") == {"N025", "N028", "N029"}
