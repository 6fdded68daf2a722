"""The table of the cohort in a real browser: sorted, filtered and paged by its script as pandas does it.

The state of the table is in the page's address, so that the browser only has to open it and print what it then shows.
"""

import html
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlencode

import pandas as pd
import pytest
from cohort_scores import make_index, write_cohort

from medunet.records.scores import UNSCORED
from medunet.reporting.scores import rank_cases
from medunet.scoring.tables import read_scores

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="there is no Chromium to open pages with"),
]
NUM_CASES = 75
THUMBNAIL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_cohort(tmp_path_factory.mktemp("cohort"), num_cases=NUM_CASES, site='A & "B"')
    return make_index(folder, thumbnail=THUMBNAIL)


@pytest.fixture(scope="module")
def table(index: Path) -> pd.DataFrame:
    """One row for each case, worst first, with Dice and HD95 of both targets."""
    scores = read_scores(index.parents[1] / "scores.csv")
    wide = scores.pivot_table(
        index="case", columns="label", values=["dice", "hd95_mm"], aggfunc="first", dropna=False
    )
    wide.columns = [f"{label} {measure}" for measure, label in wide.columns]
    states = scores.groupby("case")["status"].agg(lambda own: bool(set(own) & set(UNSCORED)))
    lowest = scores.groupby("case")["dice"].min()
    severity = [
        "failed" if states[case] else "review" if lowest[case] < 0.7 else "good" for case in wide.index
    ]
    site = scores.drop_duplicates("case").set_index("case")["site"]
    return wide.assign(severity=severity, site=site).loc[rank_cases(scores)]


def opened(index: Path, tmp_path: Path, **state: object) -> str:
    """Return the page as the browser shows it, opened with a state of its table."""
    assert BROWSER
    printed = subprocess.run(
        [
            *(
                BROWSER,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                f"--user-data-dir={tmp_path / 'browser'}",
            ),
            *("--virtual-time-budget=5000", "--dump-dom", f"{index.as_uri()}#{urlencode(state)}"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return printed.stdout


def rows_of(page: str) -> list[str]:
    body = page[page.index("<tbody>") : page.index("</tbody>")]
    return re.findall(r"<tr>.*?</tr>", body, re.DOTALL)


def cases_of(page: str) -> list[str]:
    return [
        html.unescape(re.search(r'<th scope="row"><a [^>]*>([^<]*)</a>', row)[1]) for row in rows_of(page)
    ]


COLUMNS = ["liver dice", "liver hd95_mm", "tumour dice", "tumour hd95_mm"]


@pytest.mark.parametrize("column", range(4))
@pytest.mark.parametrize("down", [False, True])
def test_numbers_are_sorted_as_pandas_sorts(
    index: Path, table: pd.DataFrame, tmp_path: Path, column: int, down: bool
) -> None:
    page = opened(index, tmp_path, sort=f"{'-' if down else ''}{column}", rows=0)
    expected = table.sort_values(COLUMNS[column], ascending=not down, kind="stable", na_position="last")
    assert cases_of(page) == list(expected.index)


def test_cases_and_verdicts_are_sorted(index: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    assert cases_of(opened(index, tmp_path, sort="-case")) == sorted(table.index, reverse=True)[:30]
    order = {"failed": 0, "review": 1, "good": 2}
    expected = table.assign(order=table["severity"].map(order)).sort_values("order", kind="stable")
    assert cases_of(opened(index, tmp_path, sort="severity")) == list(expected.index)[:30]


def test_filters_leave_what_pandas_leaves(index: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    for state, expected in (
        ({"measure": 2, "bound": 0.5}, table[table["tumour dice"] < 0.5]),
        ({"measure": 1, "side": "above", "bound": 1.5}, table[table["liver hd95_mm"] > 1.5]),
        ({"f0": 'A & "B"'}, table[table["site"] == 'A & "B"']),
        (
            {"severity": "review", "f0": "south"},
            table[(table.severity == "review") & (table.site == "south")],
        ),
        ({"search": "CASE_001"}, table[table.index.str.contains("case_001")]),
        ({"search": "no such case"}, table.iloc[:0]),
    ):
        page = opened(index, tmp_path, **state)
        assert cases_of(page) == list(expected.index)[:30], state
        assert f"{len(expected)} of {NUM_CASES} cases." in page.replace(
            f"Rows 1 to 30 of {len(expected)} of", f"{len(expected)} of"
        )


def test_pages_of_the_table_follow_one_another(index: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    shown = [case for first in (0, 30, 60) for case in cases_of(opened(index, tmp_path, first=first))]
    assert shown == list(table.index)


def test_the_script_draws_the_rows_that_the_page_came_with(index: Path, tmp_path: Path) -> None:
    def plain(row: str) -> str:
        return re.sub(r"\s+", " ", html.unescape(re.sub(r' loading="lazy"', "", row)))

    drawn = [plain(row) for row in rows_of(opened(index, tmp_path))]
    came = [plain(row) for row in rows_of(index.read_text(encoding="utf-8"))]
    for ours, theirs in zip(drawn, came, strict=True):
        assert sorted(re.findall(r'<\w+|[\w-]+="[^"]*"|>[^<]+', ours)) == sorted(
            re.findall(r'<\w+|[\w-]+="[^"]*"|>[^<]+', theirs)
        )


def test_dots_of_filtered_cases_are_pale(index: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    page = opened(index, tmp_path, f0="west")
    kept = {f"cases/{case}.html" for case in table.index[table["site"] == "west"]}
    dots = re.findall(r'<a href="([^"]+)" data-c="\d+"([^>]*)>', page)
    assert len(dots) > 2 * NUM_CASES
    assert all(("out" in rest) == (address not in kept) for address, rest in dots)
