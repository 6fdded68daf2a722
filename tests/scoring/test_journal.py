"""Finished cases: kept exactly, found again while their files and options are the same, cut-off lines ignored."""

import math
import shutil
from pathlib import Path

import pytest

from medunet.base.errors import InputError
from medunet.records.scores import UNSCORED, CaseLesions, CaseScore, Lesion, Note
from medunet.scoring.journal import Journal
from medunet.scoring.pairs import Pair

LESIONS = CaseLesions(
    rules="lits",
    lesions=(
        Lesion(1, "missed", 0.0, math.inf, 0.1, 0.0, 7.25, 1 / 3, 4, counted=False),
        Lesion(2, "false_positive", 0.0, math.inf, 0.0, 0.2, 5.0, 5.0, 11),
    ),
    **{"num_matched": 0, "num_missed": 1, "num_false_positive": 1, "sensitivity": 0.0, "precision": 0.0},
    **{"f1": 0.0, "dice": 0.0, "hd95_mm": math.inf, "rq": 0.0, "sq": math.nan, "pq": 0.0},
)
SCORE = CaseScore(
    case="a",
    label="tumour",
    status="ok",
    surface="area",
    dice=1 / 3,
    hd_mm=math.inf,
    nsd={1.0: 0.1 + 0.2, 2.5: math.nan},
    tp=3,
    penalty_mm=412.5,
    notes=(Note("border", "touches the border of the scan"), Note("other", "a; b")),
    lesions=LESIONS,
)
HOW = {"surface": "area", "targets": [["tumour", (2,)]]}


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    for name in ("reference.nii", "prediction.nii"):
        (tmp_path / name).write_bytes(b"voxels")
    return Pair("a", tmp_path / "reference.nii", tmp_path / "prediction.nii")


def test_scores_come_back_exactly(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "out/scores.partial.jsonl"
    journal = Journal(path, HOW)
    assert journal.find(pair) is None
    journal.add(pair, [SCORE, SCORE])
    kept = Journal(path, HOW).find(pair)
    assert repr(kept) == repr([SCORE, SCORE])  # by text: NaN is not equal to itself
    assert kept is not None
    assert isinstance(kept[0].lesions, CaseLesions)
    assert str(tmp_path) not in path.read_text()


def test_a_changed_file_case_or_option_is_scored_again(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "scores.partial.jsonl"
    Journal(path, HOW).add(pair, [SCORE])
    assert Journal(path, {**HOW, "surface": "voxel"}).find(pair) is None
    assert Journal(path, HOW).find(Pair("b", pair.reference, pair.prediction)) is None
    assert pair.prediction is not None
    pair.prediction.write_bytes(b"other voxels")
    assert Journal(path, HOW).find(pair) is None


def test_a_file_that_changes_while_it_is_scored_is_scored_again(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "scores.partial.jsonl"
    journal = Journal(path, HOW)
    journal.find(pair)
    pair.reference.write_bytes(b"other voxels")  # after it was read
    journal.add(pair, [SCORE])
    assert Journal(path, HOW).find(pair) is None


def test_a_file_of_the_same_name_elsewhere_is_another(pair: Pair, tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "scores.partial.jsonl", tmp_path / "elsewhere/prediction.nii"
    assert pair.prediction is not None
    elsewhere.parent.mkdir()
    shutil.copy2(pair.prediction, elsewhere)  # its size and time of change are the same
    Journal(path, HOW).add(pair, [SCORE])
    assert Journal(path, HOW).find(Pair("a", pair.reference, elsewhere)) is None


def test_the_voxels_beside_a_header_count(pair: Pair, tmp_path: Path) -> None:
    path, header = tmp_path / "scores.partial.jsonl", tmp_path / "prediction.mhd"
    for file in (header, header.with_suffix(".raw")):
        file.write_bytes(b"1")
    apart = Pair("a", pair.reference, header)
    Journal(path, HOW).add(apart, [SCORE])
    assert Journal(path, HOW).find(apart) is not None
    header.with_suffix(".raw").write_bytes(b"12")
    assert Journal(path, HOW).find(apart) is None


def test_a_line_cut_off_by_a_kill_is_ignored(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "scores.partial.jsonl"
    Journal(path, HOW).add(pair, [SCORE])
    path.write_bytes(path.read_bytes()[:-40])
    journal = Journal(path, HOW)
    assert journal.find(pair) is None
    journal.add(pair, [SCORE])  # its line does not go on the broken one
    assert repr(Journal(path, HOW).find(pair)) == repr([SCORE])


def test_failed_cases_are_tried_again(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "scores.partial.jsonl"
    for status in UNSCORED:
        Journal(path, HOW).add(pair, [CaseScore("a", "tumour", status, "area")])
    assert not path.exists()


def test_a_folder_that_cannot_be_written_is_named(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"partial\.jsonl: cannot be written"):
        Journal(tmp_path / "file/scores.partial.jsonl", HOW).add(pair, [SCORE])
