"""Score files and summaries: exact columns, round trips, and no failure hidden."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from medunet.base.errors import InputError
from medunet.commands.score_table import score_table
from medunet.records.scores import CaseLesions, CaseScore, Lesion
from medunet.scoring.columns import is_metric
from medunet.scoring.labels import ScoreOptions, score_labels
from medunet.scoring.summary import mean_dice, summarise
from medunet.scoring.tables import read_lesions, read_scores, write_scores

TARGETS = {"liver": (1, 2), "tumour": (2,)}
COLUMNS = (
    "case,label,status,surface,dice,iou,precision,recall,f1,specificity,accuracy,"
    "hd_mm,hd95_mm,assd_mm,masd_mm,nsd_1mm,nsd_2mm,reference_ml,predicted_ml,"
    "f2,balanced_accuracy,mcc,kappa,difference_ml,relative_difference,reason,"
    "patient,reference_sha256,prediction_sha256"
)


def label_map(*, tumour: bool, shift: int = 0) -> np.ndarray:
    labels = np.zeros((9, 8, 7), dtype=np.uint8)
    labels[2 + shift : 6 + shift, 2:6, 2:5] = 1
    labels[3:5, 3:5, 3] = 2 if tumour else 1
    return labels


@pytest.fixture
def scores() -> list[CaseScore]:
    spacing_mm, nsd = (1.0, 2.0, 3.0), {1.0: math.nan, 2.0: math.nan}
    with_tumour, without = label_map(tumour=True), label_map(tumour=False)
    pairs = {
        "good": (with_tumour, with_tumour),
        "shifted": (with_tumour, label_map(tumour=True, shift=1)),
        "missed": (with_tumour, without),
        "invented": (without, with_tumour),
        "none": (without, without),
    }
    scores = [
        score
        for case, (reference, prediction) in pairs.items()
        for score in score_labels(reference, prediction, spacing_mm, TARGETS, TARGETS, case)
    ]
    for name in TARGETS:
        scores.append(
            CaseScore("=cmd()", name, "missing", "voxel", nsd=nsd, reason="there is no prediction file")
        )
        scores.append(CaseScore("007", name, "failed", "voxel", nsd=nsd, reason="-1 axes [x]"))
    return scores


def test_summary_hides_nothing(scores: list[CaseScore]) -> None:
    liver, tumour = summarise(scores)
    assert (tumour.num_expected, tumour.num_scored) == (7, 5)
    assert (tumour.num_both_empty, tumour.num_missed, tumour.num_false_positive) == (1, 1, 1)
    assert (tumour.num_missing, tumour.num_failed) == (1, 1)

    dice = tumour.metrics["dice"]  # good 1, shifted 1, missed 0, invented 0, none undefined, two zeros
    assert dice.mean == pytest.approx(2 / 6)
    assert dice.median == 0.0
    assert (dice.num_finite, dice.num_undefined, dice.num_infinite) == (6, 1, 0)

    hd95 = tumour.metrics["hd95_mm"]
    assert hd95.mean == 0.0
    assert (hd95.num_finite, hd95.num_undefined, hd95.num_infinite) == (2, 1, 2)
    assert liver.metrics["hd_mm"].mean == pytest.approx(0.2)  # one of five is shifted by 1 mm

    zero_counted = {"dice", "iou", "recall", "f1", "f2", "nsd_1mm", "nsd_2mm"}
    for summary in (liver, tumour):
        for name, metric in summary.metrics.items():
            total = metric.num_finite + metric.num_undefined + metric.num_infinite
            assert total == (summary.num_expected if name in zero_counted else summary.num_scored), name
            assert not math.isinf(metric.mean)


def test_cldice_is_that_of_tubes_alone() -> None:
    scores = [
        CaseScore("a", "vessel", "ok", "area", cldice=0.8),
        CaseScore("b", "vessel", "missing", "area"),
        CaseScore("a", "liver", "ok", "area"),
        CaseScore("b", "liver", "missing", "area"),
    ]
    vessel, liver = (summary.metrics["cldice"] for summary in summarise(scores))
    assert (vessel.mean, vessel.num_finite) == (pytest.approx(0.4), 2)  # the missing case counts as 0
    assert (liver.num_finite, liver.num_undefined) == (0, 1)
    assert math.isnan(liver.mean)


def test_mean_dice_is_the_mean_over_cases_of_the_mean_over_classes(scores: list[CaseScore]) -> None:
    dice = {(score.case, score.label): score.dice for score in scores}
    shifted = dice["shifted", "liver"]
    by_case = [1, (shifted + 1) / 2, 0.5, 0.5, 1, 0, 0]  # "none" has no tumour: its liver alone
    assert 0 < shifted < 1
    assert mean_dice(scores) == pytest.approx(sum(by_case) / 7)
    assert math.isnan(mean_dice([]))
    only_empty = [score for score in scores if score.status == "both_empty"]
    assert math.isnan(mean_dice(only_empty))


def test_csv_columns_and_round_trip(scores: list[CaseScore], tmp_path: Path) -> None:
    write_scores(scores, tmp_path, about={}, targets=TARGETS)
    text = (tmp_path / "scores.csv").read_text()
    assert text.splitlines()[0] == COLUMNS
    assert "'=cmd(),liver,missing,voxel,,," in text
    assert "'-1 axes" in text
    assert ",inf,inf,inf,inf,0.0,0.0," in text
    assert "nan" not in text.lower()

    table = read_scores(tmp_path / "scores.csv")
    assert list(table["case"]) == [score.case for score in scores]
    assert list(table["reason"]) == [score.reason for score in scores]
    for name in ("dice", "precision", "hd95_mm", "masd_mm", "reference_ml"):
        assert np.array_equal(table[name], [getattr(score, name) for score in scores], equal_nan=True), name
    assert np.array_equal(table["nsd_2mm"], [score.nsd[2.0] for score in scores], equal_nan=True)


def test_other_percentiles_and_tolerances_name_their_columns(tmp_path: Path) -> None:
    labels = label_map(tumour=True)
    scores = score_labels(
        *(labels, labels, (1.0,) * 3, TARGETS, TARGETS, "a"),
        ScoreOptions(percentile=90.0, tolerances_mm=(0.5, 3.0)),
    )
    write_scores(scores, tmp_path, about={}, targets=TARGETS)
    columns = list(read_scores(tmp_path / "scores.csv").columns)
    assert {"hd90_mm", "nsd_0.5mm", "nsd_3mm"} <= set(columns)
    assert not {"hd95_mm", "nsd_1mm"} & set(columns)


def test_json_has_null_and_status(scores: list[CaseScore], tmp_path: Path) -> None:
    write_scores(scores, tmp_path, about={"medunet_version": "1"}, targets=TARGETS)
    content = json.loads((tmp_path / "scores.json").read_text())
    of_view = ["specificity", "accuracy", "balanced_accuracy", "mcc", "kappa"]
    intervals = content["about"].pop("intervals")
    assert "bootstrap over patients" in intervals
    assert content["about"] == {"medunet_version": "1", "by": [], "depend_on_field_of_view": of_view}
    assert content["mean_dice_interval"]["low"] is None
    assert content["mean_dice_interval"]["no_interval"] == "7 cases, fewer than 10"
    assert content["summary"][0]["metrics"]["dice"]["no_interval"] == "7 cases, fewer than 10"
    assert content["mean_dice"] == pytest.approx(mean_dice(scores))
    missed = next(row for row in content["scores"] if row["status"] == "missed")
    assert missed["hd95_mm"] is None
    assert missed["dice"] == 0.0
    assert content["summary"][1]["num_failed"] == 1
    assert content["summary"][1]["metrics"]["hd95_mm"]["num_infinite"] == 2


def test_summary_json_is_nnunets(scores: list[CaseScore], tmp_path: Path) -> None:
    write_scores(scores, tmp_path, about={}, targets=TARGETS)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary) == {"foreground_mean", "mean", "metric_per_case"}
    assert list(summary["mean"]) == ["(1, 2)", "2"]
    keys = {"Dice", "FN", "FP", "IoU", "TN", "TP", "n_pred", "n_ref"}
    assert set(summary["foreground_mean"]) == set(summary["mean"]["2"]) == keys
    assert len(summary["metric_per_case"]) == 7

    by_case = {case["reference_file"]: case for case in summary["metric_per_case"]}
    missed = by_case["missed.nii.gz"]
    assert missed["prediction_file"] == "missed.nii.gz"
    assert missed["metrics"]["2"] == {
        **{"Dice": 0.0, "IoU": 0.0, "TP": 0, "FP": 0, "FN": 4, "TN": 9 * 8 * 7 - 4},
        **{"n_pred": 0, "n_ref": 4},
    }
    assert by_case["none.nii.gz"]["metrics"]["2"]["Dice"] is None
    missing = by_case["=cmd().nii.gz"]
    assert missing["prediction_file"] is None
    assert (missing["metrics"]["2"]["Dice"], missing["metrics"]["2"]["TP"]) == (0.0, None)
    assert summary["mean"]["2"]["Dice"] == pytest.approx(2 / 6)
    assert summary["mean"]["2"]["n_ref"] == pytest.approx((4 + 4 + 4 + 0 + 0) / 5)
    means = [summary["mean"][key]["Dice"] for key in ("(1, 2)", "2")]
    assert summary["foreground_mean"]["Dice"] == pytest.approx(sum(means) / 2)


def test_terminal_table_names_failures_and_worst_cases(scores: list[CaseScore]) -> None:
    console = Console(width=200, record=True)
    console.print(score_table(scores, summarise(scores)))
    text = console.export_text()
    assert "(2 infinite)" in text
    assert "5/7" in text
    for status in ("both empty", "missed", "false positive", "missing", "failed"):
        assert status in text
    assert "worst: =cmd() 0.000, 007 0.000" in text
    assert f"mean Dice {mean_dice(scores):.3f} over 7 cases" in text


def test_no_scores_and_no_table(tmp_path: Path) -> None:
    write_scores([], tmp_path, about={}, targets=TARGETS)
    assert len(read_scores(tmp_path / "scores.csv")) == 0
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"the columns \['case', 'label'.* are missing"):
        read_scores(tmp_path / "other.csv")
    with pytest.raises(InputError, match=r"no such file.*medunet score"):
        read_scores(tmp_path / "none.csv")


def with_lesions(case: str, percentile: float = 95.0) -> CaseScore:
    found = (
        Lesion(1, "matched", 0.8, 2.5, 1.25, 1.5, 14.0, 9.5, 31),
        Lesion(2, "missed", 0.0, math.inf, 0.01, 0.0, 2.0, 1.0, 4, counted=False),
        Lesion(3, "false_positive", 0.0, math.inf, 0.0, 0.3, 6.0, 5.0, 40),
    )
    mean = {"sensitivity": 1.0, "precision": 0.5, "f1": 2 / 3, "dice": 0.4, "hd95_mm": math.inf}
    lesions = CaseLesions("lits", found, 1, 0, 1, **mean, rq=2 / 3, sq=math.nan, pq=0.4)
    return CaseScore(case, "tumour", "ok", "area", dice=0.5, percentile=percentile, lesions=lesions)


def test_lesions_have_a_table_of_their_own(scores: list[CaseScore], tmp_path: Path) -> None:
    write_scores([with_lesions("=cmd()")], tmp_path, about={}, targets=TARGETS)
    lines = (tmp_path / "lesions.csv").read_text().splitlines()
    assert lines == [
        "case,label,rules,lesion,status,counted,dice,hd95_mm,reference_ml,predicted_ml,"
        "long_axis_mm,short_axis_mm,slice",
        "'=cmd(),tumour,lits,1,matched,true,0.8,2.5,1.25,1.5,14.0,9.5,31",
        "'=cmd(),tumour,lits,2,missed,false,0.0,inf,0.01,0.0,2.0,1.0,4",
        "'=cmd(),tumour,lits,3,false_positive,true,0.0,inf,0.0,0.3,6.0,5.0,40",
    ]
    table = read_lesions(tmp_path / "lesions.csv")
    assert list(table["case"]) == ["=cmd()"] * 3
    assert list(table["counted"]) == [True, False, True]
    assert table["slice"].tolist() == [31, 4, 40]
    assert table["hd95_mm"].tolist() == [2.5, math.inf, math.inf]
    with pytest.raises(InputError, match=r"not a table of lesions: the columns \['rules'"):
        read_lesions(tmp_path / "scores.csv")

    write_scores([with_lesions("a", percentile=90.0)], tmp_path, about={}, targets=TARGETS)
    assert "hd90_mm" in read_lesions(tmp_path / "lesions.csv").columns
    write_scores(scores, tmp_path, about={}, targets=TARGETS)
    assert not (tmp_path / "lesions.csv").exists(), "lesions of earlier scores stand beside the new ones"


def test_every_cell_of_lesions_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    write_scores([with_lesions("a")], tmp_path, about={}, targets=TARGETS)
    path = tmp_path / "lesions.csv"
    head, first, second, third = path.read_text().splitlines()
    rows = [
        first.replace("1,matched,true,0.8", '1,matched,yes,"0,8"'),
        "",
        second.replace(",2,missed", ",,missed").removesuffix("4"),
        third.replace("false_positive", "invented").replace("40", "40.5"),
    ]
    path.write_text("\n".join([head, *rows, ""]))
    with pytest.raises(InputError) as caught:
        read_lesions(path)
    assert str(caught.value) == (
        f"{path}: not a table of lesions: "
        "row 2, column counted: 'yes' is not true or false; "
        "row 2, column dice: '0,8' is not a number or blank; "
        "row 4, column lesion: blank is not a whole number of 0 or more; "
        "row 4, column slice: blank is not a whole number of 0 or more; "
        "row 5, column status: 'invented' is not matched or missed or false_positive; "
        "row 5, column slice: '40.5' is not a whole number of 0 or more. "
        "Correct these cells, or create the file again with `medunet score`."
    )


@pytest.mark.parametrize("cell", ["", "-1", "inf", "1.5", "nan", "x"])
@pytest.mark.parametrize("column", ["lesion", "slice"])
def test_a_lesion_without_number_or_slice_is_refused(tmp_path: Path, column: str, cell: str) -> None:
    write_scores([with_lesions("a")], tmp_path, about={}, targets=TARGETS)
    path = tmp_path / "lesions.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[1, column] = cell  # of the missed one
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=rf"lesions: row 3, column {column}: .* is not a whole number of 0"):
        read_lesions(path)


def test_lesions_that_a_spreadsheet_saved_are_the_same(tmp_path: Path) -> None:
    write_scores([with_lesions("a")], tmp_path, about={}, targets=TARGETS)
    path = tmp_path / "lesions.csv"
    before = read_lesions(path)
    text = path.read_text().replace("true", "TRUE").replace("false,", "FALSE,").replace(",31\n", ",31.0\n")
    path.write_text(text.replace("\n", "\r\n") + f"{',' * 12}\r\n\r\n")
    pd.testing.assert_frame_equal(read_lesions(path), before)


def test_what_may_be_undefined_of_a_lesion_may_be_blank(tmp_path: Path) -> None:
    write_scores([with_lesions("a")], tmp_path, about={}, targets=TARGETS)
    path = tmp_path / "lesions.csv"
    path.write_text(path.read_text().replace("missed,false,0.0,inf", "missed,false,,"))
    table = read_lesions(path)
    assert table.loc[1, ["dice", "hd95_mm"]].isna().all()
    assert table.loc[1, "slice"] == 4


def test_scores_that_are_no_numbers_are_named_each_up_to_twenty(
    scores: list[CaseScore], tmp_path: Path
) -> None:
    write_scores(scores, tmp_path, about={}, targets=TARGETS)
    path = tmp_path / "scores.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[0, "dice"] = table.loc[2, "hd_mm"] = "?"
    table.to_csv(path, index=False)
    with pytest.raises(
        InputError, match=r"row 2, column dice: '\?' is not .*; row 4, column hd_mm: '\?' is not a number"
    ):
        read_scores(path)
    table["dice"] = table["iou"] = "?"
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=r"row 11, column dice: [^;]* and 9 more\. Correct these cells"):
        read_scores(path)


def test_scores_saved_by_a_spreadsheet_are_the_same(scores: list[CaseScore], tmp_path: Path) -> None:
    write_scores(scores, tmp_path, about={}, targets=TARGETS)
    path = tmp_path / "scores.csv"
    table, text = read_scores(path), pd.read_csv(path, dtype=str, keep_default_na=False)
    for separator in ";", "\t":
        commas = text.apply(
            lambda cells: cells.str.replace(".", ",") if is_metric(str(cells.name)) else cells
        )
        commas.to_csv(path, index=False, sep=separator, encoding="utf-8-sig")
        pd.testing.assert_frame_equal(read_scores(path), table)
    path.write_text(text.to_csv(index=False).replace("\n", ",\n"))
    pd.testing.assert_frame_equal(read_scores(path), table)


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("dice", "93.2", "93.2 is not between 0 and 1"),
        ("hd_mm", "-1", "-1 is not between 0 and inf"),
        ("status", "Missing", "'Missing' is not ok or both_empty or "),
    ],
)
def test_cells_that_no_score_can_have_are_named(
    scores: list[CaseScore], tmp_path: Path, column: str, cell: str, message: str
) -> None:
    write_scores(scores, tmp_path, about={}, targets=TARGETS)
    path = tmp_path / "scores.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[1, column] = cell
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=f"row 3, column {column}: {message}"):
        read_scores(path)


def test_a_score_table_with_an_ambiguous_header_is_refused(scores: list[CaseScore], tmp_path: Path) -> None:
    write_scores(scores, tmp_path, about={}, targets=TARGETS)
    path = tmp_path / "scores.csv"
    text = path.read_text()
    path.write_text(text.replace("iou", "dice", 1))
    with pytest.raises(InputError, match=r"the columns \['dice'\] are there more than once"):
        read_scores(path)
    header, rows = text.split("\n", 1)
    path.write_text(header + "\n" + rows.replace("\n", ",\n"))  # pandas would shift the columns
    with pytest.raises(InputError, match="not a table of scores"):
        read_scores(path)
    path.write_bytes(text.replace("liver", "Köln").encode("latin-1"))
    with pytest.raises(InputError, match=r"not text in UTF-8\. Save it as CSV in UTF-8"):
        read_scores(path)


def test_a_scan_without_lesions_has_an_empty_table(tmp_path: Path) -> None:
    none = CaseLesions("lits", (), 0, 0, 0, *[math.nan] * 8)
    write_scores(
        [CaseScore("a", "tumour", "both_empty", "area", lesions=none)], tmp_path, about={}, targets=TARGETS
    )
    assert len(read_lesions(tmp_path / "lesions.csv")) == 0
