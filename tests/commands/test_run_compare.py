"""The command's work: files written, gaps named, unlike inputs refused, and the five readers of a real case."""

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from medunet.base.errors import DataError, InputError
from medunet.base.files import read_json
from medunet.commands.compare import compare_scores
from medunet.commands.compare_readers import compare_reader_maps
from medunet.imaging.nifti import write_volume
from medunet.imaging.volumes import read_label
from medunet.records.scores import CaseScore
from medunet.scoring import evaluate, labels
from medunet.scoring.tables import write_scores

TARGETS = {"liver": (1, 2), "tumour": (2,)}
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def write_method(folder: Path, dice: dict[str, float], missed: str = "") -> Path:
    """Write the scores of a method: Dice by case, the liver's a tenth above the tumour's; one may be missed."""
    scores = []
    for case, tumour in dice.items():
        for label, value in (("liver", tumour + 0.1), ("tumour", tumour)):
            lost = label == "tumour" and case == missed
            scores.append(
                CaseScore(
                    case,
                    label,
                    "missed" if lost else "ok",
                    "area",
                    dice=0.0 if lost else value,
                    hd95_mm=math.inf if lost else 10 * (1 - value),
                    nsd={1.0: value},
                    reference_ml=50.0,
                    difference_ml=5 * (value - 0.5),
                )
            )
    write_scores(scores, folder, about={}, targets=TARGETS)
    return folder


@pytest.fixture
def methods(tmp_path: Path) -> list[Path]:
    cases = [f"case_{number}" for number in range(7)]
    best = {case: 0.70 + 0.02 * number for number, case in enumerate(cases)}
    second = {case: dice - 0.01 * (number + 1) for number, (case, dice) in enumerate(best.items())}
    third = {case: dice - 0.1 for case, dice in best.items() if case != "case_6"}
    return [
        write_method(tmp_path / "runs" / "best", best),
        write_method(tmp_path / "runs" / "second", second, missed="case_0"),
        write_method(tmp_path / "runs" / "=third", third),
    ]


def test_files_say_what_was_compared(methods: list[Path], tmp_path: Path, capsys) -> None:
    absent = compare_scores([methods[0], methods[1] / "scores.csv", methods[2]], tmp_path / "out")
    assert absent == ["case_6"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("cases", "comparison.csv", "comparison.html", "comparison.json", "comparison.png", "ranking.csv")
    ]
    pairs = pd.read_csv(tmp_path / "out" / "comparison.csv")
    tumour = pairs[(pairs["label"] == "tumour") & (pairs["metric"] == "dice")].iloc[0]
    assert (tumour["first"], tumour["second"], tumour["num_cases"]) == ("best", "second", 7)
    # case_0 is missed at 0.7, the others trail by 0.02 to 0.07.
    assert tumour["mean_difference"] == pytest.approx((0.7 + 0.27) / 7)
    assert (tumour["wins"], tumour["ties"], tumour["losses"]) == (7, 0, 0)
    assert tumour["p"] == pytest.approx(2 / 2**7)
    assert tumour["p_holm"] == pytest.approx(6 * 2 / 2**7)  # two labels, three pairs
    assert "'=third" in set(pairs["second"])  # no formula

    text = (tmp_path / "out" / "comparison.json").read_text()
    assert str(tmp_path) not in text
    content = read_json(tmp_path / "out" / "comparison.json")
    assert content["about"]["absent"] == {"best": [], "second": [], "=third": ["case_6"]}
    assert content["about"]["methods"] == {"best": "A", "second": "B", "=third": "C"}
    assert len(content["pairs"]) == len(pairs)
    assert all("differences" not in pair for pair in content["pairs"])

    ranking = pd.read_csv(tmp_path / "out" / "ranking.csv")
    first = ranking[(ranking["method"] == "best") & (ranking["metric"] == "dice")]
    assert set(first["scheme"]) == {"mean_then_rank", "rank_then_mean"}
    assert (first["rank"] == 1).all()
    assert first[["share_rank_1", "share_rank_2", "share_rank_3"]].sum(axis=1).to_numpy() == pytest.approx(1)
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")

    said = " ".join(capsys.readouterr().out.split())
    assert "absent =third: 1 case(s) count as failures: case_6" in said
    assert "A: best" in said


def test_the_same_tables_give_the_same_bytes(methods: list[Path], tmp_path: Path) -> None:
    for out in ("one", "two"):
        compare_scores(methods, tmp_path / out)
    for path in [path for path in (tmp_path / "one").rglob("*") if path.is_file()]:
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes(), path.name


def test_methods_of_one_name_are_told_apart_by_the_folder_above(tmp_path: Path) -> None:
    folders = [write_method(tmp_path / name / "run", {"a": 0.5, "b": 0.6}) for name in ("old", "new")]
    compare_scores(folders, tmp_path / "out")
    assert list(read_json(tmp_path / "out" / "comparison.json")["about"]["methods"]) == ["old/run", "new/run"]


def test_paths_that_cannot_be_compared_are_refused(methods: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fewer than two methods"):
        compare_scores(methods[:1], tmp_path / "out")
    with pytest.raises(InputError, match=r"runs/none.*no scores\.csv.*medunet score"):
        compare_scores([methods[0], tmp_path / "runs" / "none"], tmp_path / "out")
    with pytest.raises(InputError, match="named more than once"):
        compare_scores([methods[0], methods[0] / "scores.csv"], tmp_path / "out")
    with pytest.raises(InputError, match=r"--reference.*a scores\.csv already"):
        compare_scores(methods, tmp_path / "out", reference=tmp_path, dataset="phantoms")
    assert not (tmp_path / "out").exists()


def test_tables_without_a_common_metric_leave_no_files(methods: list[Path], tmp_path: Path) -> None:
    for folder, kept in zip(methods, (["dice"], ["nsd_1mm"]), strict=False):
        table = pd.read_csv(folder / "scores.csv")[["case", "label", "status", "surface", *kept]]
        table.to_csv(folder / "scores.csv", index=False)
    with pytest.raises(InputError, match=r"no metric is common to all \(dice in best; nsd_1mm in second\)"):
        compare_scores(methods[:2], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def write_reader(path: Path, *voxels: tuple[int, int, int], value: int = 1, affine: NDArray = AFFINE) -> None:
    labels = np.zeros((4, 5, 6), dtype=np.uint8)
    for voxel in voxels:
        labels[voxel] = value
    write_volume(path, labels, affine)


def test_readers_are_compared_by_their_files(tmp_path: Path) -> None:
    folder = tmp_path / "raters"
    write_reader(folder / "anna.nii.gz", (1, 1, 1), (1, 2, 1))
    write_reader(folder / "ben.nii.gz", (1, 1, 1), value=2)
    write_reader(folder / "cleo.nii.gz")
    compare_reader_maps(folder, tmp_path / "out", "phantoms")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("readers.csv", "readers.json", "readers.png")
    ]
    table = pd.read_csv(tmp_path / "out" / "readers.csv")
    assert list(table.columns) == ["target", "first", "second", "status", "surface", "dice", "hd95_mm"]
    assert len(table) == 2 * 3
    of_pair = (table["first"] == "anna") & (table["second"] == "ben")
    liver = table[(table["target"] == "liver") & of_pair].iloc[0]
    assert liver["dice"] == pytest.approx(2 / 3)
    assert np.isinf(table.loc[table["status"] == "missed", "hd95_mm"]).all()

    content = read_json(tmp_path / "out" / "readers.json")
    assert content["about"]["readers"] == ["anna", "ben", "cleo"]
    (whole, tumour) = content["targets"]
    assert (whole["num_outlined"], tumour["num_outlined"]) == (2, 1)
    assert whole["dice_by_reader"]["cleo"] == 0.0
    assert (tmp_path / "out" / "readers.png").read_bytes().startswith(b"\x89PNG")


def test_undeclared_values_of_readers_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "raters"
    write_reader(folder / "anna.nii.gz", (1, 1, 1))
    write_reader(folder / "ben.nii.gz", (1, 1, 1), (1, 2, 1), value=7)
    write_reader(folder / "cleo.nii.gz", (1, 1, 1), value=5)
    with pytest.raises(DataError) as caught:
        compare_reader_maps(folder, tmp_path / "out", "phantoms")
    text = str(caught.value)
    assert "ben: holds values that are not declared: 7 in 2 voxels; declared are 0, 1, 2; cleo: holds" in text
    assert text.endswith("describe what they hold in phantoms.")
    assert not (tmp_path / "out").exists()


def test_readers_on_other_grids_are_all_named(tmp_path: Path) -> None:
    folder, moved = tmp_path / "raters", AFFINE.copy()
    moved[0, 3] = 0.5
    write_reader(folder / "anna.nii.gz", (1, 1, 1))
    write_reader(folder / "ben.nii.gz", (1, 1, 1), affine=moved)
    write_volume(folder / "cleo.nii.gz", np.zeros((4, 5, 7), dtype=np.uint8), AFFINE)
    with pytest.raises(DataError) as caught:
        compare_reader_maps(folder, tmp_path / "out", "phantoms")
    assert "ben: its corners are up to 0.5 mm from anna's" in str(caught.value)
    assert "cleo: its shape (4, 5, 7) differs from anna's (4, 5, 6)" in str(caught.value)
    (folder / "dora.nii.gz").write_bytes(b"no volume")
    with pytest.raises(DataError, match=r"dora: .*ben: "):
        compare_reader_maps(folder, tmp_path / "out", "phantoms")


def test_too_few_readers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        compare_reader_maps(tmp_path / "none", tmp_path / "out", "phantoms")
    write_reader(tmp_path / "raters" / "anna.nii.gz", (1, 1, 1))
    with pytest.raises(InputError, match=r"has only 1 label map\(s\)"):
        compare_reader_maps(tmp_path / "raters", tmp_path / "out", "phantoms")


def test_a_folder_without_label_maps_is_named_for_what_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "raters"
    (folder / "old").mkdir(parents=True)
    write_reader(folder / "old" / "anna.nii.gz", (1, 1, 1))
    with pytest.raises(InputError, match=r"raters: has only 0 label map\(s\)\. Add label maps of two"):
        compare_reader_maps(folder, tmp_path / "out", "phantoms")
    (folder / "notes.txt").write_text("no map")
    with pytest.raises(InputError, match=r"raters: contains no \.nii"):
        compare_reader_maps(folder, tmp_path / "out", "phantoms")


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Return a folder of references and of two methods' masks; the second lacks the last case."""
    for number in range(3):
        for folder, size in (("reference", 3), ("ours", 3), ("theirs", 2)):
            voxels = [(1, step, 1 + number) for step in range(size)]
            if (folder, number) != ("theirs", 2):
                write_reader(tmp_path / folder / f"case_{number}.nii.gz", *voxels)
    return tmp_path


def test_folders_of_masks_are_scored_first(masks: Path, methods: list[Path], capsys) -> None:
    out = masks / "out"
    unscored = compare_scores([masks / "ours", masks / "theirs"], out, masks / "reference", "phantoms")
    assert unscored == ["case_2"]
    pairs = pd.read_csv(out / "comparison.csv")
    dice = pairs[(pairs["label"] == "liver") & (pairs["metric"] == "dice")].iloc[0]
    assert (dice["first"], dice["second"], dice["num_cases"]) == ("ours", "theirs", 3)
    assert dice["mean_difference"] == pytest.approx((0.2 + 0.2 + 1.0) / 3)  # 2 of 3 voxels: Dice 4/5
    assert read_json(out / "comparison.json")["about"]["unscored"]["theirs"] == ["case_2"]
    assert "theirs: 1 case(s) count as failures: case_2" in " ".join(capsys.readouterr().out.split())

    scored = pd.read_csv(out / "scores" / "theirs" / "scores.csv")
    assert sorted(scored["status"].unique()) == ["both_empty", "missing", "ok"]
    # A table and a folder of masks: scored against the same references, or refused.
    table = scored.assign(reference_ml=scored["reference_ml"] + 1)
    table.to_csv(methods[0] / "scores.csv", index=False)
    with pytest.raises(InputError, match="references of different volume"):
        compare_scores([methods[0], masks / "ours"], out, masks / "reference", "phantoms")


def test_a_repeated_comparison_scores_only_what_has_changed(masks: Path, monkeypatch) -> None:
    folders, out = [masks / "ours", masks / "theirs"], masks / "out"
    write_reader(masks / "theirs" / "case_2.nii.gz", (1, 1, 3))
    assert compare_scores(folders, out, masks / "reference", "phantoms") == []
    tables = {path.parent.name: path.read_bytes() for path in (out / "scores").glob("*/scores.csv")}
    assert sorted(tables) == ["ours", "theirs"]

    scored: list[str] = []

    def score_labels(*given, **options):
        scored.append(given[5])
        return labels.score_labels(*given, **options)

    monkeypatch.setattr(evaluate, "score_labels", score_labels)
    assert compare_scores(folders, out, masks / "reference", "phantoms") == []
    assert scored == []
    assert {path.parent.name: path.read_bytes() for path in (out / "scores").glob("*/scores.csv")} == tables
    write_reader(masks / "theirs" / "case_1.nii.gz", *((1, step, 2) for step in range(4)))
    assert compare_scores(folders, out, masks / "reference", "phantoms") == []
    assert scored == ["case_1"]


@pytest.mark.real_data
def test_five_readers_of_a_glioma(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "brats" / "TCGA-FG-6692" / "raters"
    agreements = compare_reader_maps(folder, tmp_path, "brats_2018_2021")
    assert [entry.target for entry in agreements] == ["whole_tumour", "tumour_core", "enhancing_tumour"]
    table = pd.read_csv(tmp_path / "readers.csv")
    assert len(table) == 3 * 10
    masks = {
        path.name.removesuffix(".nii.gz"): np.isin(read_label(path).array, (1, 2, 4))
        for path in folder.glob("*.nii.gz")
    }
    whole = table[table["target"] == "whole_tumour"].set_index(["first", "second"])["dice"]
    for first, second in itertools.combinations(sorted(masks), 2):
        shared = np.count_nonzero(masks[first] & masks[second])
        total = np.count_nonzero(masks[first]) + np.count_nonzero(masks[second])
        assert whole[first, second] == pytest.approx(2 * shared / total)
    # Kappa once more, from the votes of all voxels one by one.
    votes = np.stack([mask.ravel() for mask in masks.values()], axis=1).sum(axis=1)
    share = votes.mean() / 5
    agreement = ((votes**2 + (5 - votes) ** 2 - 5) / 20).mean()
    chance = share**2 + (1 - share) ** 2
    assert agreements[0].kappa == pytest.approx((agreement - chance) / (1 - chance))
    assert agreements[0].kappa_in_box < agreements[0].kappa
