"""A label whose file names its segments: the check and the stages read the same voxels, by name."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from tiny_case import MR

from medunet.dataset.checks.case_checks import check_case
from medunet.dataset.strata import measure_labels
from medunet.imaging.volumes import read_label
from medunet.planning.fingerprint import compute_fingerprint
from medunet.records.description import Description
from medunet.records.label_rules import LabelRules
from medunet.records.manifest import Case
from medunet.transforms.chain import LoadCased

SHAPE = (9, 7, 6)
CASE = Case(id="x", patient="x", images={"T1": "image.nrrd"}, label="label.seg.nrrd", split="train")


def describe(labels: dict[str, int]) -> Description:
    return MR.model_copy(update={"labels": {"background": 0, **labels}})


def write(folder: Path, *names: str) -> np.ndarray:
    """Write an image, and a label of 12 voxels of 1, 6 of 2 and none of 3 with these names; return the label."""
    image = np.random.default_rng(7).normal(500, 80, SHAPE).astype(np.int16)
    label = np.zeros(SHAPE, np.uint8)
    label[2:4, 2:4, 1:4], label[5, 2:4, 1:4] = 1, 2
    file = sitk.GetImageFromArray(label.T)
    for number, name in enumerate(names):
        file.SetMetaData(f"Segment{number}_Name", name)
        file.SetMetaData(f"Segment{number}_LabelValue", str(number + 1))
    sitk.WriteImage(sitk.GetImageFromArray(image.T), str(folder / "image.nrrd"))
    sitk.WriteImage(file, str(folder / "label.seg.nrrd"))
    return label


def test_check_and_stages_read_by_name(tmp_path: Path) -> None:
    label = write(tmp_path, "Oedema", "core")
    description = describe({"core": 1, "oedema": 2})
    expected = np.array([0, 2, 1])[label]
    faults, facts = check_case(CASE, description, tmp_path)
    assert [fault.code for fault in faults if fault.severity == "error"] == []
    assert facts.label is not None
    assert facts.label.volumes_ml == {2: 0.012, 1: 0.006}
    path = tmp_path / "label.seg.nrrd"
    assert np.array_equal(read_label(path, LabelRules(description.labels)).array, expected)
    loaded = LoadCased(["image", "label"], LabelRules(description.labels))(
        {"image": [tmp_path / "image.nrrd"], "label": path, "resample": False}
    )
    assert np.array_equal(loaded["label"].numpy()[0], expected)
    assert measure_labels({"x": path}, description)["x"] == {"core": 0.006, "oedema": 0.012}
    assert compute_fingerprint([CASE], description, tmp_path, seed=0).num_cases == 1


def test_names_are_joined_where_values_are_renumbered(tmp_path: Path) -> None:
    label = write(tmp_path, "Oedema", "core")
    description = describe({"core": 1, "oedema": 2}).model_copy(update={"stored_values": {"core": 1000}})
    faults, facts = check_case(CASE, description, tmp_path)
    assert [fault.code for fault in faults if fault.severity == "error"] == []
    assert facts.label is not None
    assert facts.label.volumes_ml == {2: 0.012, 1: 0.006}
    read = read_label(tmp_path / "label.seg.nrrd", description.label_rules)
    assert np.array_equal(read.array, np.array([0, 2, 1])[label])


def test_a_segment_that_is_not_declared_is_found_by_the_check(tmp_path: Path) -> None:
    write(tmp_path, "core", "vessel", "nerve")
    faults, _ = check_case(CASE, describe({"core": 1, "oedema": 2}), tmp_path)
    (fault,) = [fault for fault in faults if fault.severity == "error"]
    assert (fault.code, fault.expected) == ("L001", "segments named core, oedema")
    assert "'vessel' (6 voxels)" in fault.measured
    assert "nerve" not in fault.measured  # has no voxels
    faults, _ = check_case(CASE, describe({"core": 1, "vessel": 2}), tmp_path)
    assert not any(fault.severity == "error" for fault in faults)
