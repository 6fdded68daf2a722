"""The index of a report: its charts against plain NumPy and pandas, its table, and what it says of other cases."""

import html
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cohort_scores import DESCRIPTION, make_index, write_cohort

from medunet.records.description import Description
from medunet.records.manifest import Case, Manifest
from medunet.records.scores import UNSCORED
from medunet.reporting.cohort_charts import MAX_PLOTTED, choose_plotted, draw_cohort
from medunet.reporting.svg import Axis, CaseLink, Chart, Dot
from medunet.reporting.volume_charts import limits_of_agreement
from medunet.scoring.tables import read_lesions, read_scores

ODD = """a<b>&"c"'$x$</script><script>alert(1)</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort"), num_cases=40)


@pytest.fixture(scope="module")
def scores(folder: Path) -> pd.DataFrame:
    return read_scores(folder / "scores.csv")


@pytest.fixture(scope="module")
def index(folder: Path) -> str:
    return make_index(folder).read_text()


def charts_of(page: str, heading: str) -> list[str]:
    """Return the charts of the section with a heading."""
    section = page[page.index(f"<h2>{heading}</h2>") :].partition("</section>")[0]
    return re.findall(r"<svg.*?</svg>", section, re.DOTALL)


def dots_of(chart: str) -> list[tuple[str, int, str, str]]:
    """Return address, number, title and kind of the dots of a chart."""
    found = re.findall(r'<a href="([^"]+)" data-c="(\d+)"><title>(.*?)</title><(circle|path)', chart)
    return [(address, int(number), html.unescape(title), kind) for address, number, title, kind in found]


def test_every_case_is_a_dot_that_leads_to_its_page(index: str, scores: pd.DataFrame) -> None:
    table = json.loads(re.search(r'id="cases-data">(.*?)</script>', index)[1])
    order = [row[0] for row in table["rows"]]
    dice, nsd = charts_of(index, "Dice and NSD 1 mm")
    for chart, column in ((dice, "dice"), (nsd, "nsd_1mm")):
        values = scores[column].where(~scores["status"].isin(UNSCORED), 0.0).dropna()
        dots = dots_of(chart)
        assert len(dots) == len(values)
        for address, number, title, _ in dots:
            case = title.partition(":")[0]
            assert (address, order[number]) == (f"cases/{case}.html", case)
        said = sorted(float(re.search(r"(?:Dice|NSD 1 mm) ([\d.]+)", title)[1]) for *_, title, _ in dots)
        assert said == pytest.approx(sorted(values), abs=5.1e-4)
        crosses = sum(kind == "path" for *_, kind in dots)
        assert crosses == (~scores.loc[values.index, "status"].eq("ok")).sum()
        for label in scores["label"].drop_duplicates():
            assert f">{values[scores['label'] == label].median():.3f}</text>" in chart


def test_bias_and_limits_are_those_of_bland_and_altman(index: str, scores: pd.DataFrame) -> None:
    for chart, label in zip(charts_of(index, "Volumes"), ("liver", "tumour"), strict=True):
        own = scores[(scores["label"] == label) & ~scores["status"].isin([*UNSCORED, "both_empty"])]
        differences = own["predicted_ml"] - own["reference_ml"]
        low, high = (differences.mean() + sign * 1.96 * differences.std() for sign in (-1, 1))
        said = [float(text.replace("−", "-")) for text in re.findall(r"(?:bias|SD) ([+−][\d.]+)<", chart)]
        assert said == pytest.approx([differences.mean(), low, high], abs=0.0051)
        assert len(dots_of(chart)) == len(own)


def test_limits_by_hand() -> None:
    limits = limits_of_agreement(np.array([-2.0, 0.0, 2.0]))  # standard deviation 2
    assert (limits.bias, limits.low, limits.high, limits.num_cases) == (0, -3.92, 3.92, 3)
    one = limits_of_agreement(np.array([5.0]))
    assert (one.bias, math.isnan(one.low), one.num_cases) == (5, True, 1)
    assert math.isnan(limits_of_agreement(np.array([])).bias)


def test_dice_is_drawn_against_the_reference(index: str, scores: pd.DataFrame) -> None:
    for chart, label in zip(charts_of(index, "Dice against volume"), ("liver", "tumour"), strict=True):
        own = scores[(scores["label"] == label) & ~scores["status"].isin(UNSCORED)].dropna(subset=["dice"])
        assert len(dots_of(chart)) == len(own)
        heights = {title.partition(":")[0]: y for title, y in places_of(chart, "cy")}
        dice = own[own["status"] == "ok"].set_index("case")["dice"]
        # The higher the Dice, the higher the dot.
        assert np.corrcoef(dice, [-heights[case] for case in dice.index])[0, 1] == pytest.approx(1, abs=1e-3)


def test_lesions_are_dots_by_their_size(folder: Path, index: str) -> None:
    lesions = read_lesions(folder / "lesions.csv")
    own = lesions[lesions["counted"] & (lesions["status"] != "false_positive")]
    (chart,) = charts_of(index, "Detection by size")
    dots = dots_of(chart)
    assert len(dots) == len(own)
    assert sum("missed" in title for *_, title, _ in dots) == (own["status"] == "missed").sum()
    diameter = 2 * (3 * own["reference_ml"].iloc[0] * 1000 / (4 * math.pi)) ** (1 / 3)
    assert any(
        f"{own['case'].iloc[0]}: lesion 1 of tumour, {diameter:.1f} mm" in title for *_, title, _ in dots
    )
    found = own[own["status"] == "matched"]
    assert sum(int(text.partition("/")[0]) for text in re.findall(r">(\d+/\d+)<", chart)) == len(found)


def test_lesions_are_called_objects_where_label_files_number_them(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "nuclei")
    nuclei = Description(
        name="nuclei",
        layout="pairs",
        channels={"EM": {"modality": "other"}},
        labels={"background": 0, "nucleus": 1},
        instances=True,
    )
    page = make_index(tmp_path / "nuclei", description=nuclei).read_text()
    shown = re.sub(r"<style>.*?</style>|<script.*?</script>", "", page, flags=re.DOTALL)
    for text in (
        "Dice of the object",
        ": object 1 of tumour, ",
        "objects together",
        "Reference objects",
        "; objects: ",
    ):
        assert text in shown
    assert not re.search("lesion", shown, re.IGNORECASE)


def test_headlines_are_by_target_and_not_over_targets(index: str, scores: pd.DataFrame) -> None:
    dice = scores["dice"].where(~scores["status"].isin(UNSCORED), 0.0)
    means = dice.groupby(scores["label"]).mean()
    text = text_of(index)
    for label, mean in means.items():
        lowest = scores[scores["label"] == label].sort_values("dice", kind="stable").iloc[0]
        assert re.search(
            rf"{label} {mean:.3f} .*? Worst: {lowest['dice']:.3f}, {lowest['case']}", text, re.DOTALL
        )
    assert f"{dice.groupby(scores['case']).mean().mean():.3f}" not in text.partition("Summary by target")[0]


def test_groups_have_charts_tables_and_filters(index: str, scores: pd.DataFrame) -> None:
    text = text_of(index)
    for site, rows in scores[scores["label"] == "liver"].groupby("site"):
        dice = rows["dice"].where(~rows["status"].isin(UNSCORED), 0.0)
        assert re.search(rf"{site} {rows['patient'].nunique()} {len(rows)} .*? {dice.mean():.3f}", text)
    assert len(charts_of(index, "Dice by site")) == 2
    assert re.search(r'<select data-filter="0"><option value="">all</option><option value="north">', index)


def test_names_and_texts_of_data_are_no_markup(tmp_path: Path) -> None:
    folder = write_cohort(tmp_path, num_cases=6, site=ODD, first_case=ODD.replace("/", "|"))
    page = make_index(folder, verdict=ODD).read_text()
    assert "alert(1)" in page
    body = page[page.index("<body>") :]
    assert "<b>&" not in body
    assert not re.search(r"<script>alert", body)
    # Nothing ends the data but their own end, and nothing in them begins another element.
    data = re.search(r'<script type="application/json" id="cases-data">(.*?)</script>', page, re.DOTALL)[1]
    assert not set(data) & set("<>&")
    assert json.loads(data)["rows"][0][3] == ODD
    assert body.count("<script") == 2
    for chart in re.findall(r"<svg.*?</svg>", body, re.DOTALL):
        assert not re.search(r"<(?!/?(svg|g|a|title|circle|path|rect|line|text)\b)", chart)


def test_training_cases_are_named_as_such(folder: Path, scores: pd.DataFrame) -> None:
    cases = [
        Case(id=case, patient=case, images={"CT": "a"}, label="b", fold=0) for case in set(scores["case"])
    ]
    cases += [Case(id=f"other_{n}", patient="p", images={"CT": "a"}, label="b", fold=1) for n in range(3)]
    cases += [Case(id="new", patient="p", images={"CT": "a"}, split="unlabelled")]
    manifest = Manifest(description=DESCRIPTION, cases=tuple(cases))
    text = text_of(make_index(folder, manifest=manifest, about={"folds": ["0"]}).read_text())
    assert "3 training cases of fold 0: a model is not scored on what it was trained on" in text
    assert "other_0, other_1, other_2" in text
    assert "1 without a reference new" in text


def test_of_many_targets_the_worst_are_drawn() -> None:
    rows = [
        (f"case_{case}", f"target_{number}", "ok", 0.99 - 0.01 * number)
        for case in range(3)
        for number in range(40)
    ]
    table = pd.DataFrame(rows, columns=["case", "label", "status", "dice"])
    plotted = choose_plotted(table)
    assert plotted == [f"target_{number}" for number in range(40 - MAX_PLOTTED, 40)]
    links = {f"case_{case}": CaseLink(case, "x.html") for case in range(3)}
    charts = draw_cohort(table.assign(surface="area", notes=""), None, links, "mm")
    assert charts.num_targets == MAX_PLOTTED
    assert len(dots_of(charts.figures[0].charts[0])) == 3 * MAX_PLOTTED


def test_beyond_the_limit_the_worst_and_the_outlying_are_links() -> None:
    chart = Chart(100, 100, "many")
    links = {str(number): CaseLink(number, f"{number}.html") for number in range(50)}
    dots = [Dot(str(n), n, n, f"{n}: x", is_outlying=n == 49) for n in range(50)]
    chart.dots(dots, links, most_linked=10)
    drawn = str(chart.svg())
    assert sorted(number for _, number, *_ in dots_of(drawn)) == [*range(9), 49]
    assert drawn.count('class="unlinked"') == 1


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (Axis(0, 1, 0, 100), [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (Axis(-3, 7, 0, 100), [-2, 0, 2, 4, 6]),
        (Axis(0.5, 300, 0, 100, is_log=True), [0.5, 1, 2, 5, 10, 20, 50, 100, 200]),
        (Axis(0.001, 3000, 0, 100, is_log=True), [0.001, 0.01, 0.1, 1, 10, 100, 1000]),
    ],
)
def test_ticks_are_round(axis: Axis, expected: list[float]) -> None:
    assert axis.ticks() == pytest.approx(expected)
    assert axis.at(axis.low) == 0
    assert axis.at(axis.high) == 100
    assert axis.at(axis.low - 1) == 0  # drawn at the nearer end


def places_of(chart: str, coordinate: str) -> list[tuple[str, float]]:
    found = re.findall(rf'<title>(.*?)</title><circle [^>]*{coordinate}="([\d.]+)"', chart)
    return [(html.unescape(title), float(place)) for title, place in found]


def text_of(page: str) -> str:
    body = re.sub(r"<script.*?</script>|<svg.*?</svg>", " ", page[page.index("<body>") :], flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


def test_table_without_infinite_or_undefined_json(index: str, scores: pd.DataFrame) -> None:
    data = json.loads(re.search(r'id="cases-data">(.*?)</script>', index)[1])
    row = scores[(scores["label"] == "tumour") & (scores["status"] == "missed")].iloc[0]
    numbers = next(entry for entry in data["rows"] if entry[0] == row["case"])[6]
    assert numbers[2:] == [0, "inf"]
    gone = scores.loc[scores["status"] == "missing", "case"].iloc[0]
    assert next(entry for entry in data["rows"] if entry[0] == gone)[6] == [None] * 4
