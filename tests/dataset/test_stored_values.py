"""Label files with values above 255 or below 0: renumbered by the description, alike in every stage."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from corruptions import AFFINE, SHAPE, describe, save
from tiny_case import check

from medunet.base.errors import DataError, InputError
from medunet.dataset.layouts.detection import recognise
from medunet.dataset.strata import measure_labels
from medunet.imaging.volumes import read_label
from medunet.imaging.whole_numbers import renumber_labels, stored_names
from medunet.planning.fingerprint import compute_fingerprint
from medunet.records.description import Description
from medunet.records.label_rules import LabelRules
from medunet.records.manifest import Case
from medunet.reporting.scans import load_scan
from medunet.scoring.evaluate import score_pairs
from medunet.scoring.pairs import Pair
from medunet.transforms.chain import LoadCased

LABELS = {"background": 0, "liver": 1, "tumour": 2, "ignore": 3}
STORED = {"liver": 1000, "tumour": [2500, -7], "ignore": 300}


def describe_stored(**changes: Any) -> Description:
    plain = {"channels": {"T1": {"modality": "MR"}}, "labels": LABELS, "stored_values": STORED}
    return describe(**{**plain, **changes})


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)


@pytest.fixture
def stored(labels: np.ndarray) -> np.ndarray:
    values = np.array([0, 1000, 2500, 300], np.int16)[labels]
    values[(labels == 2) & (np.arange(SHAPE[2]) % 2 == 0)] = -7
    return values


def test_every_stage_reads_the_label_values(tmp_path: Path, labels: np.ndarray, stored: np.ndarray) -> None:
    description = describe_stored()
    image = np.random.default_rng(1).normal(500, 80, SHAPE).astype(np.int16)
    faults = check(tmp_path, image, stored, description)
    assert [fault.code for fault in faults if fault.severity == "error"] == []
    path = tmp_path / "x_label.nii"
    assert np.array_equal(read_label(path, description.label_rules).array, labels)
    case = Case(id="x", patient="x", images={"T1": "x_image.nii"}, label="x_label.nii", fold=0)

    trained = LoadCased(["image", "label"], description.label_rules)(
        {"image": [tmp_path / "x_image.nii"], "label": path, "resample": False}
    )
    assert np.array_equal(trained["label"].numpy()[0], labels)
    fingerprint = compute_fingerprint([case], description, tmp_path, seed=0)
    inside = image[(labels == 1) | (labels == 2)]
    assert fingerprint.intensities["T1"]["mean"] == pytest.approx(inside.mean(), abs=1e-3)
    volume_ml = np.count_nonzero(labels == 1) * abs(np.linalg.det(AFFINE[:3, :3])) / 1000
    assert measure_labels({"x": path}, description)["x"]["liver"] == pytest.approx(volume_ml, rel=1e-6)

    save(tmp_path / "predicted.nii", labels)  # as medunet writes it
    scan = load_scan(case, description, tmp_path, tmp_path / "predicted.nii", {"liver": (1,), "tumour": (2,)})
    assert scan.reference is not None
    assert scan.prediction is not None
    assert np.array_equal(scan.reference, np.flip(labels, 0))
    assert np.array_equal(
        np.where(scan.reference == 3, 0, scan.reference), np.where(scan.prediction == 3, 0, scan.prediction)
    )

    for prediction, renumber in (("predicted.nii", None), ("x_label.nii", description.renumber)):
        scores = score_pairs(
            [Pair("x", path, tmp_path / prediction)],
            description.targets,
            description.targets,
            rules_reference=description.label_rules,
            rules_prediction=LabelRules(description.labels, renumber=renumber),
            ignore_value=description.ignore_value,
            workers=1,
        )
        assert [(score.label, score.dice) for score in scores] == [("liver", 1.0), ("tumour", 1.0)]


def test_undeclared_values_are_refused_by_the_check_and_the_reader(
    tmp_path: Path, stored: np.ndarray
) -> None:
    image = np.random.default_rng(1).normal(500, 80, SHAPE).astype(np.int16)
    for value in (1, 777):  # 1 is a label value, but not one that is stored
        stored[0, 0, 0] = value
        faults = check(tmp_path, image, stored, describe_stored())
        (fault,) = [fault for fault in faults if fault.severity == "error"]
        assert (fault.code, fault.measured) == ("L001", f"{value} in 1 voxels")
        assert fault.expected == "values -7, 0, 300, 1000, 2500"
    with pytest.raises(DataError, match="label values above 255"):
        LoadCased(["image", "label"], describe_stored().label_rules)(
            {"image": [tmp_path / "x_image.nii"], "label": tmp_path / "x_label.nii", "resample": False}
        )
    stored[0, 0, 0] = 1
    save(tmp_path / "x_label.nii", stored)
    with pytest.raises(
        DataError, match=r"x_label\.nii: has the values \[1\], which `stored_values` does not"
    ):
        read_label(tmp_path / "x_label.nii", describe_stored().label_rules)
    with pytest.raises(DataError, match=r"the smallest is -7.*`stored_values: \{tumour: -7\}`"):
        read_label(tmp_path / "x_label.nii")


def test_labels_that_are_not_listed_keep_their_values() -> None:
    description = describe_stored(stored_values={"tumour": 2500, "background": -1})
    assert description.renumber == {0: 0, -1: 0, 1: 1, 2500: 2, 3: 3}
    assert stored_names(description.labels, description.renumber) == {
        "background": 0,
        "liver": 1,
        "tumour": 2500,
        "ignore": 3,
    }
    given = np.array([[-1, 0], [2500, 3]], np.int16)
    renumbered = renumber_labels(given, description.renumber or {})
    assert renumbered.dtype == np.uint8
    assert renumbered.tolist() == [[0, 0], [2, 3]]
    large = np.array([[0, 2**40]])
    assert renumber_labels(large, {0: 0, 2**40: 5}).tolist() == [[0, 5]]
    assert describe().renumber is None
    assert "stored_values" not in describe().to_dict()
    assert Description.parse(description.to_dict(), "again") == description


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stored_values": {"spleen": 700}}, r"stored_values: \['spleen'\] are no labels; choose from"),
        ({"stored_values": {"liver": 2, "tumour": 2}}, r"stored_values: \[2\] would belong to two labels"),
        (
            {"stored_values": {"liver": 2}},
            r"stored_values: \[2\] would belong to two labels; a label that is not",
        ),
        ({"stored_values": {"liver": 0}}, r"stored_values: \[0\] would belong to two labels"),
        ({"stored_values": {"liver": []}}, "stored_values: a label without a value"),
        (
            {"labels": {"background": 0, "a": 1}, "stored_values": {"a": 9}, "instances": True},
            "every value above 0",
        ),
        ({"labels": {"background": 0, "a": 300}, "stored_values": {}}, r"`stored_values: \{liver: 1000\}`"),
    ],
)
def test_what_is_no_renumbering(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe_stored(**changes)


def test_a_dataset_json_with_such_values(tmp_path: Path) -> None:
    for number in range(3):
        image = np.random.default_rng(number).normal(500, 80, SHAPE).astype(np.int16)
        label = np.random.default_rng(number).choice(np.array([0, 1000, 2500], np.uint16), SHAPE)
        for name, array in ((f"imagesTr/c_{number}_0000", image), (f"labelsTr/c_{number}", label)):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / f"{name}.nii.gz")
    plain = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "liver": 1000, "tumour": 2500},
        "numTraining": 3,
    }
    (tmp_path / "dataset.json").write_text(json.dumps({**plain, "file_ending": ".nii.gz"}))
    found = recognise(tmp_path, tmp_path, [])
    assert found.description.labels == {"background": 0, "liver": 1, "tumour": 2}
    assert any("renumbered" in note and "liver 1000 → 1, tumour 2500 → 2" in note for note in found.notes)
