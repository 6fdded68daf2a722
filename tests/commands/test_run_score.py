"""`medunet score` on any tool's masks: targets that a side lacks, undeclared values, names in files, and reasons."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_labels import AFFINE, draw_labels

from medunet.base.errors import InputError
from medunet.commands.score import score_mask_files
from medunet.commands.score_table import remark_lines
from medunet.imaging.nifti import write_volume
from medunet.records.config import Config, change_config
from medunet.records.description import Description
from medunet.records.scores import CaseScore, Note
from medunet.scoring.tables import read_lesions, read_scores

LABELS = {"background": 0, "liver": 1, "tumour": 2}


def describe(labels: dict[str, int], **others: object) -> Description:
    plain = {"name": "tiny", "layout": "pairs", "channels": {"CT": {"modality": "CT"}}}
    return Description.parse({**plain, "labels": labels, **others}, "test")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    describe(LABELS).write(tmp_path / "tiny.yaml")
    return change_config({"dataset": str(tmp_path / "tiny.yaml")}, [], "test")


def save(folder: Path, **maps: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for name, array in maps.items():
        write_volume(folder / f"{name}.nii.gz", array, AFFINE)
    return folder


def test_a_named_target_must_be_declared_by_both_sides(
    tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = save(tmp_path / "r", a=draw_labels())
    prediction = save(tmp_path / "p", a=(draw_labels() > 0).astype(np.uint8))
    liver = describe({"background": 0, "liver": 1})
    paths = reference, prediction, tmp_path / "out", config
    with pytest.raises(
        InputError, match=r"--target: the prediction's description does not declare \['tumour'\]"
    ):
        score_mask_files(*paths, prediction_description=liver, targets=["liver", "tumour"])
    with pytest.raises(InputError, match=r"tiny does not declare \['spleen'\]"):
        score_mask_files(*paths, targets=["spleen"])
    index = {"targets": {"liver": [1]}, "labels": {"background": 0, "liver": 1}}
    (prediction / "index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="does not declare"):
        score_mask_files(*paths, targets=["tumour"])
    capsys.readouterr()
    scores = score_mask_files(*paths)  # all that both have, and a word on the others
    assert [score.label for score in scores] == ["liver"]
    assert "not scored tumour: the prediction's description does not declare it" in capsys.readouterr().out


def test_each_case_without_scores_is_on_the_console(
    tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = draw_labels()
    strange = np.where(labels == 1, 255, labels)
    reference = save(tmp_path / "r", good=labels, high=labels, odd=strange, gone=labels)
    prediction = save(tmp_path / "p", good=labels, high=strange, odd=labels)
    (prediction / "index.json").write_text(json.dumps({"failed": {"gone": "memory ran out"}}))
    scores = score_mask_files(reference, prediction, tmp_path / "out", config)
    assert {score.case for score in scores if score.status == "failed"} == {"high", "odd"}
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert (
        "failed odd: reference: holds values that are not declared: 255 in 56 voxels; declared are 0, 1, 2"
        in lines
    )
    assert any(
        line.startswith("failed high: prediction: holds values that are not declared") for line in lines
    )
    assert "missing gone: the prediction failed: memory ran out" in lines
    table = read_scores(tmp_path / "out/scores.csv")
    assert set(table.loc[table["case"] == "odd", "reason"]) == {
        "reference: holds values that are not declared: 255 in 56 voxels; declared are 0, 1, 2"
    }


def test_few_of_many_reasons_are_shown() -> None:
    failed = [
        CaseScore(f"c{number}", label, "failed", "area", reason="[odd] shape")
        for number in range(23)
        for label in ("liver", "tumour")
    ]
    lines = remark_lines(failed, {})
    assert len(lines) == 21
    assert lines[0] == r"  [red]failed[/] c0: \[odd] shape"
    assert lines[-1] == "  and 3 more, see scores.csv"
    missing = CaseScore("c", "liver", "missing", "area", reason="there is no prediction file")
    assert remark_lines([missing], {"c": "memory ran out"}) == [
        "  [red]missing[/] c: the prediction failed: memory ran out"
    ]
    note = Note("names", "names in the prediction: not declared, left out: aorta")
    named = [CaseScore(case, "liver", "ok", "area", notes=(note,)) for case in ("a", "b", "b")]
    assert remark_lines(named, {}) == [
        "  [yellow]names[/] 2 cases: in the prediction: not declared, left out: aorta"
    ]


def test_names_in_files_join_and_are_said(
    tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = save(tmp_path / "r", a=draw_labels())
    image = sitk.ReadImage(str(reference / "a.nii.gz"))
    array = np.array([0, 2, 1], np.uint8)[sitk.GetArrayFromImage(image)]
    moved = sitk.GetImageFromArray(array)
    moved.CopyInformation(image)
    for number, name in enumerate(("Tumour", "Liver")):
        moved.SetMetaData(f"Segment{number}_Name", name)
        moved.SetMetaData(f"Segment{number}_LabelValue", str(number + 1))
    (tmp_path / "p").mkdir()
    sitk.WriteImage(moved, str(tmp_path / "p/a.seg.nrrd"))
    scores = score_mask_files(reference, tmp_path / "p", tmp_path / "out", config)
    assert [score.dice for score in scores] == [1, 1]
    assert (
        "names a: in the prediction: tumour is 1 in the file and 2 in the description"
        in capsys.readouterr().out
    )
    notes = read_scores(tmp_path / "out/scores.csv")["notes"]
    assert [note.kind for note in notes[0]] == ["names"]


def test_numbered_objects_are_counted_by_their_numbers(tmp_path: Path) -> None:
    cells = np.zeros((9, 8, 5), np.uint16)
    cells[1:4, 1:5, 1:4], cells[4:7, 1:5, 1:4] = 12, 300
    describe({"background": 0, "cell": 1}, instances=True).write(tmp_path / "cells.yaml")
    config = change_config(
        {"dataset": str(tmp_path / "cells.yaml"), "scoring": {"lesions": {"cell": "panoptic"}}}, [], "test"
    )
    reference, same = save(tmp_path / "r", a=cells), save(tmp_path / "same", a=cells)
    merged = save(tmp_path / "merged", a=(cells > 0).astype(np.uint8))
    for prediction, counts in ((same, (2, 0, 0)), (merged, (0, 2, 1))):
        (score,) = score_mask_files(reference, prediction, tmp_path / "out", config)
        assert score.dice == 1
        assert score.lesions is not None
        found = score.lesions
        assert (found.num_matched, found.num_missed, found.num_false_positive) == counts
        assert len(read_lesions(tmp_path / "out/lesions.csv")) == sum(counts)
