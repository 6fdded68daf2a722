"""The summaries on the index: those of scores.json, or of scores.csv where that holds others, as the page says."""

import logging
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny_run import make_run
from tiny_scores import SCORES

from medunet.base.errors import InputError
from medunet.base.files import read_json, write_json
from medunet.records.run_folder import RunFolder
from medunet.reporting.report import report_run
from medunet.reporting.scores import measures
from medunet.reporting.summaries import CohortSummary, SummaryRow, summarise_cohort, summary_rows
from medunet.scoring.tables import read_scores


def rows_of(summary: CohortSummary, scores: pd.DataFrame) -> dict[tuple[str, str], SummaryRow]:
    return {
        (label, row.measure.column): row
        for label, own in summary.targets.items()
        for row in summary_rows(own, scores)
    }


def test_summaries_count_everything_and_average_nothing_infinite(tmp_path: Path) -> None:
    summary = summarise_cohort(SCORES, tmp_path / "scores.json")
    assert summary.remark.endswith("without penalties: there is no scores.json.")
    rows = rows_of(summary, SCORES)
    for row in rows.values():
        parts = (row.finite, row.metric.num_undefined, row.metric.num_infinite, row.missing, row.failed)
        assert sum(parts) == row.expected == 6
        assert not row.is_penalised
    tumour = rows["tumour", "hd_mm"]
    assert (tumour.finite, tumour.metric.num_undefined, tumour.metric.num_infinite) == (1, 2, 1)
    assert (tumour.metric.mean, tumour.metric.median) == (50.0, 50.0)
    assert math.isnan(tumour.metric.mean_low)  # one value has no interval
    # A missing and a failed case count as 0 in Dice: (0.9 + 0.95 + 0.5 + 0 + 0) / 5.
    liver = rows["liver", "dice"].metric
    assert (liver.mean, liver.median) == (pytest.approx(0.47), pytest.approx(0.5))
    assert math.isnan(liver.mean_low)  # five cases have no interval
    assert (summary.dice.mean, summary.dice.num_cases) == (pytest.approx(0.325), 5)
    assert summary.dice.no_interval == "5 cases, fewer than 10"
    many = pd.concat([SCORES.assign(case=SCORES["case"] + str(number)) for number in range(3)])
    by_case = [0.25, 0.0, 0.0, 0.9, 0.475] * 3
    dice = summarise_cohort(many, tmp_path / "scores.json").dice
    assert dice.low < dice.mean < dice.high
    assert dice.mean == pytest.approx(sum(by_case) / 15)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path)[0]


def change_stored(run: RunFolder, **others: Any) -> None:
    path = run.root / "scores.json"
    write_json(path, {**read_json(path), **others})


def summarise(run: RunFolder) -> CohortSummary:
    return summarise_cohort(read_scores(run.scores), run.root / "scores.json")


def test_means_are_those_of_scores_json(run: RunFolder) -> None:
    stored = read_json(run.root / "scores.json")
    stored["summary"][0]["metrics"]["dice"]["mean"] = 0.125
    change_stored(run, summary=stored["summary"], mean_dice=0.25, about={"seed": 1})
    summary = summarise(run)
    assert (summary.dice.mean, summary.remark, summary.about) == (0.25, "", {"seed": 1})
    assert summary.targets["liver"].metrics["dice"].mean == 0.125
    penalised = {column for (label, column), row in rows_of(summary, SCORES).items() if row.is_penalised}
    assert penalised == {"hd_mm"}
    assert list(summary.targets) == ["liver", "tumour"]


def test_computed_and_stored_are_the_same_but_for_penalties(run: RunFolder) -> None:
    scores = read_scores(run.scores)
    stored, computed = summarise(run), summarise_cohort(scores, run.root / "none.json")
    assert computed.dice.mean == pytest.approx(stored.dice.mean)
    for label, own in stored.targets.items():
        for measure in measures(scores):
            metric, other = own.metrics[measure.column], computed.targets[label].metrics[measure.column]
            for name in ("mean", "mean_low", "mean_high", "median", "num_undefined", "num_infinite"):
                wanted = pytest.approx(getattr(metric, name), nan_ok=True)
                assert getattr(other, name) == wanted, (label, measure, name)


def test_intervals_of_a_file_before_07_are_made_anew(run: RunFolder) -> None:
    stored = read_json(run.root / "scores.json")
    for label in stored["summary"]:
        for metric in label["metrics"].values():
            del metric["num_patients"], metric["no_interval"]
            metric["mean_low"], metric["mean_high"] = 0.1, 0.2  # of five cases
    change_stored(run, summary=stored["summary"])
    metric = summarise(run).targets["liver"].metrics["hd_mm"]
    assert math.isnan(metric.mean_low)
    assert metric.no_interval == "4 cases, fewer than 10"
    assert not math.isnan(metric.mean_penalised)  # kept, since scores.csv has no penalties


def edit(run: RunFolder, row: int, column: str, value: Any) -> None:
    table = pd.read_csv(run.scores, keep_default_na=False, dtype=str)
    table.loc[row, column] = value
    table.to_csv(run.scores, index=False)


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("dice", "0.5", "the dice of a case differs between scores.json and scores.csv"),
        ("status", "failed", "the status of a case differs between scores.json and scores.csv"),
        ("case", "renamed", "scores.json and scores.csv have different cases or labels"),
        ("label", "lung", "scores.json and scores.csv have different cases or labels"),
    ],
)
def test_an_edited_table_is_summarised_anew(run: RunFolder, column: str, value: str, why: str) -> None:
    edit(run, 0, column, value)
    summary = summarise(run)
    assert summary.remark == f"Means and intervals are computed from scores.csv, without penalties: {why}."
    if column == "dice":
        dice = read_scores(run.scores).query("label == 'liver'")["dice"].fillna(0)
        assert summary.targets["liver"].metrics["dice"].mean == pytest.approx(dice.mean())


def test_a_distance_that_is_no_longer_infinite_is_told(run: RunFolder) -> None:
    edit(run, 3, "hd_mm", "")  # in scores.json undefined and infinite are both null
    assert "the number of undefined or infinite hd_mm values differs" in summarise(run).remark


def test_what_does_not_change_the_scores_changes_no_source(run: RunFolder) -> None:
    table = pd.read_csv(run.scores, keep_default_na=False, dtype=str)
    table.loc[0, "reason"] = "seen by JS"
    table = table.assign(age="61").drop(columns=["kappa"]).iloc[::-1]
    table["dice"] = [
        f"{float(cell):.15g}" if cell else "" for cell in table["dice"]
    ]  # as a spreadsheet saves it
    table.to_csv(run.scores, index=False)
    summary = summarise(run)
    assert summary.remark == ""
    assert list(summary.targets) == ["tumour", "liver"]


@pytest.mark.parametrize(
    ("others", "why"),
    [
        ({"summary": []}, "was written by another version"),
        ({"summary": None}, "was written by another version"),
        ({"summary": ["liver"]}, "was written by another version"),
        (
            {"summary": [{"label": "liver", "metrics": {"dice": {"mean": 0.5}}}]},
            "was written by another version",
        ),
        ({"scores": []}, "have different cases or labels"),
        ({"scores": ["liver"]}, "have different cases or labels"),
    ],
)
def test_a_file_of_another_version_is_not_taken(run: RunFolder, others: dict, why: str) -> None:
    change_stored(run, **others)
    assert why in summarise(run).remark


def test_a_metric_without_a_number_is_of_another_version(run: RunFolder) -> None:
    summary = read_json(run.root / "scores.json")["summary"]
    del summary[1]["metrics"]["hd95_mm"]["mean_low"]
    change_stored(run, summary=summary)
    assert "was written by another version" in summarise(run).remark


def test_scores_without_a_measure_of_the_table_are_told(run: RunFolder) -> None:
    table = pd.read_csv(run.scores, keep_default_na=False, dtype=str)
    table.assign(nsd_9mm="0.5").to_csv(run.scores, index=False)
    assert "scores.json has no nsd_9mm" in summarise(run).remark


def test_a_file_that_is_no_json_is_refused(run: RunFolder) -> None:
    (run.root / "scores.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        summarise(run)


def test_page_and_log_say_where_the_means_are_from(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    data_root = run.root.parent / "data"
    with caplog.at_level(logging.WARNING):
        index = report_run(run, data_root, scores=read_scores(run.scores)).read_text()
    assert "computed from scores.csv" not in index + caplog.text
    assert "Penalised mean" in index
    edit(run, 0, "dice", "0.5")
    with caplog.at_level(logging.WARNING):
        index = report_run(run, data_root, scores=read_scores(run.scores)).read_text()
    remark = "without penalties: the dice of a case differs between scores.json and scores.csv."
    assert remark in index
    assert remark in caplog.text
    assert "Penalised mean" not in index
