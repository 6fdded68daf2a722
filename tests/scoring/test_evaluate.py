"""Whole cohorts: cases on one grid; missing and failed ones are rows, never gaps, and processes change no score."""

import json
import math
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_labels import AFFINE, DIAGONAL_MM, TARGETS, draw_labels

from medunet.base.errors import InputError
from medunet.base.pool import Lost
from medunet.imaging.nifti import write_volume
from medunet.records.scores import CaseScore, Note
from medunet.scoring import evaluate
from medunet.scoring.evaluate import score_pairs
from medunet.scoring.labels import ScoreOptions
from medunet.scoring.pairs import Pair


@pytest.fixture
def labels() -> np.ndarray:
    return draw_labels()


def test_an_option_that_cannot_be_used_is_no_failed_case() -> None:
    with pytest.raises(InputError, match="surface 'edge' does not exist"):
        score_pairs([], TARGETS, TARGETS, ScoreOptions(surface="edge"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"no target is named \['spleen'\]"):
        score_pairs([], TARGETS, TARGETS, ScoreOptions(lesions={"spleen": "lits"}))


def test_one_bad_case_does_not_stop_the_others(labels: np.ndarray, tmp_path: Path) -> None:
    def save(name: str, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
        write_volume(tmp_path / name, array, affine)
        return tmp_path / name

    reference = save("reference.nii.gz", labels)
    broken = save("patient_smith.nii", labels)
    broken.write_bytes(broken.read_bytes()[:-30])
    garbage = tmp_path / "patient_jones.nii.gz"
    garbage.write_bytes(b"no volume")
    moved, nudged = AFFINE.copy(), AFFINE.copy()
    moved[0, 3], nudged[0, 3] = 0.2, 0.05  # the limit is a tenth of 1 mm
    cases = {
        "absent": None,
        "gone": tmp_path / "gone.nii.gz",
        "truncated": broken,
        "garbage": garbage,
        "shape": save("shape.nii.gz", labels[:, :, 1:]),
        "moved": save("moved.nii.gz", labels, moved),
        "flipped": save("flipped.nii.gz", labels, AFFINE @ np.diag([-1.0, 1.0, 1.0, 1.0])),
        "halves": save("halves.nii.gz", labels.astype(np.float32) / 2),
        "frames": save("frames.nii.gz", np.stack([labels, labels], axis=-1)),
        "nudged": save("nudged.nii.gz", labels, nudged),
        "good": save("good.nii.gz", labels),
    }
    scores = score_pairs(
        [Pair(case, reference, path) for case, path in cases.items()],
        TARGETS,
        TARGETS,
        ScoreOptions(tolerances_mm=(3.0,)),
    )
    assert [score.case for score in scores] == [case for case in cases for _ in TARGETS]
    by_case = {score.case: score for score in scores if score.label == "tumour"}
    want = {
        "absent": ("missing", "no prediction file"),
        "gone": ("missing", "no prediction file"),
        "truncated": ("failed", "truncated or corrupt"),
        "garbage": ("failed", "prediction: not a readable NIfTI"),
        "shape": (
            "failed",
            "(8, 9, 6) differs from the reference's (8, 9, 7) (medunet score --resample brings it",
        ),
        "moved": ("failed", "0.2 mm"),
        "flipped": ("failed", "28 mm"),
        "halves": ("failed", "not whole numbers"),
        "frames": ("failed", "three axes"),
        "nudged": ("ok", ""),
        "good": ("ok", ""),
    }
    for case, (status, reason) in want.items():
        assert by_case[case].status == status, by_case[case]
        assert reason in by_case[case].reason
        assert not any(word in by_case[case].reason for word in ("smith", "jones", str(tmp_path)))
        assert list(by_case[case].nsd) == [3.0]
        assert math.isnan(by_case[case].dice) == (status != "ok")
        assert by_case[case].penalty_mm == pytest.approx(DIAGONAL_MM)


def test_an_unreadable_reference_fails_its_case(labels: np.ndarray, tmp_path: Path) -> None:
    write_volume(tmp_path / "p.nii.gz", labels, AFFINE)
    (score,) = score_pairs(
        [Pair("a", tmp_path / "none.nii.gz", tmp_path / "p.nii.gz")], {"liver": (1,)}, TARGETS
    )
    assert (score.status, score.reason) == ("failed", "reference: no such file")


def save_grids(folder: Path, labels: np.ndarray) -> tuple[Path, Path]:
    """Write a reference, and a prediction with every voxel halved along the last axis, stored upside down."""
    write_volume(folder / "r.nii.gz", labels, AFFINE)
    fine = np.repeat(labels, 2, axis=2)[:, :, ::-1]  # 14 slices of 2.5 mm, of which the first is the topmost
    affine = np.diag([2.0, 1.0, -2.5, 1.0])
    affine[2, 3] = 6 * 5 + 1.25  # the topmost's centre: a quarter of 5 mm above that of the coarse slice 6
    write_volume(folder / "p.nii.gz", fine, affine)
    return folder / "r.nii.gz", folder / "p.nii.gz"


def test_another_grid_is_refused_unless_resampled(labels: np.ndarray, tmp_path: Path) -> None:
    pair = Pair("a", *save_grids(tmp_path, labels))
    refused = score_pairs([pair], TARGETS, TARGETS)
    assert {score.status for score in refused} == {"failed"}
    assert "(8, 9, 14) differs" in refused[0].reason
    for score in score_pairs([pair], TARGETS, TARGETS, resample=True):
        assert (score.status, score.dice) == ("ok", 1.0)
        assert score.notes == (Note("resampled", "resampled from 2×1×2.5 mm"),)


def test_a_prediction_of_another_place_is_not_resampled(labels: np.ndarray, tmp_path: Path) -> None:
    away = AFFINE.copy()
    away[0, 3] = 500.0
    write_volume(tmp_path / "r.nii.gz", labels, AFFINE)
    write_volume(tmp_path / "p.nii.gz", labels, away)
    pair = Pair("a", tmp_path / "r.nii.gz", tmp_path / "p.nii.gz")
    scores = score_pairs([pair], TARGETS, TARGETS, resample=True)
    assert {(score.status, score.reason) for score in scores} == {("failed", "the two grids do not overlap")}


def save_cases(folder: Path, labels: np.ndarray, count: int) -> list[Pair]:
    pairs = []
    for number in range(count):
        write_volume(folder / f"r{number}.nii", labels, AFFINE)
        write_volume(folder / f"p{number}.nii", np.roll(labels, number % 3, axis=0), AFFINE)
        pairs.append(Pair(f"case {number}", folder / f"r{number}.nii", folder / f"p{number}.nii"))
    return pairs


def exactly(scores: list[CaseScore]) -> str:
    """Return scores as text that tells every digit and equals itself where a value is NaN."""
    return json.dumps([asdict(score) for score in scores], default=lambda number: number.item())


def test_processes_give_the_same_scores_in_the_same_order(labels: np.ndarray, tmp_path: Path) -> None:
    pairs = save_cases(tmp_path, labels, 5)
    pairs[1] = Pair("case 1", pairs[1].reference, None)
    options = ScoreOptions(lesions={"tumour": "lits"})
    alone = score_pairs(pairs, TARGETS, TARGETS, options, workers=1)
    shared = score_pairs(pairs, TARGETS, TARGETS, options, workers=2)
    assert [score.case for score in alone[::2]] == [pair.case for pair in pairs]
    assert exactly(shared) == exactly(alone)


def test_a_stopped_call_goes_on(labels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, journal = save_cases(tmp_path, labels, 4), tmp_path / "scores.partial.jsonl"
    whole = score_pairs(pairs, TARGETS, TARGETS)
    scored: list[str] = []
    real = evaluate.score_labels

    def watched(*arguments: Any, **options: Any) -> list[CaseScore]:
        if arguments[5] == "case 2" and "case 2" not in scored:
            scored.append("case 2")
            raise KeyboardInterrupt
        scored.append(arguments[5])
        return real(*arguments, **options)

    monkeypatch.setattr(evaluate, "score_labels", watched)
    with pytest.raises(KeyboardInterrupt):
        score_pairs(pairs, TARGETS, TARGETS, journal=journal)
    assert scored == ["case 0", "case 1", "case 2"]
    again = score_pairs(pairs, TARGETS, TARGETS, journal=journal)
    assert scored[3:] == ["case 2", "case 3"]
    assert exactly(again) == exactly(whole)


def test_a_case_whose_process_dies_is_a_failed_case(
    labels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = save_cases(tmp_path, labels, 2)
    rows = score_pairs(pairs[:1], TARGETS, TARGETS)
    monkeypatch.setattr(
        evaluate,
        "run_parallel",
        lambda work, items, workers: iter([(1, Lost("its process was killed")), (0, rows)]),
    )
    monkeypatch.setattr(evaluate, "closing", nullcontext)
    scores = score_pairs(pairs, TARGETS, TARGETS)
    assert [(score.case, score.status) for score in scores] == [
        *[("case 0", "ok")] * 2,
        *[("case 1", "failed")] * 2,
    ]
    assert "was killed" in scores[2].reason
    assert scores[2].penalty_mm == pytest.approx(DIAGONAL_MM)
