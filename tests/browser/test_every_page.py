"""Every kind of page in a real browser: no serious fault of accessibility, no sideways scrolling, no odd name run."""

from pathlib import Path
from typing import Any

import pytest
from every_page import write_every_page, write_run_pages

pytestmark = pytest.mark.slow

NAMED = (
    "check",
    "selection",
    "comparison",
    "compared case",
    "new scans",
    "failed scan",
    "cohort",
    "unreadable case",
)
OF_A_RUN = ("run", "case of a run", "pictured case", "scan of an ensemble")
ODD = "<evil onload=alert(1)></script>]]>$HOME \"q\" 'p' ابج e\u0301 肝臓"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("every")
    return write_every_page(folder, ODD) | write_run_pages(folder)


@pytest.mark.parametrize(("width", "scheme"), [(420, "light"), (1400, "dark")])
@pytest.mark.parametrize("kind", [*NAMED, *OF_A_RUN])
def test_pages_fit_and_have_no_serious_fault(
    open_page: Any, pages: dict[str, Path], find_serious_faults: Any, kind: str, width: int, scheme: str
) -> None:
    page = open_page(pages[kind], width=width, color_scheme=scheme, reduced_motion="reduce")
    for details in page.locator("details").all():
        details.evaluate("element => { element.open = true; }")
    assert page.locator("main").count() == 1
    assert not page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    assert find_serious_faults(page) == []


def test_prints_have_no_cut_column_and_what_is_wrong(open_page: Any, pages: dict[str, Path]) -> None:
    for kind in (*NAMED, *OF_A_RUN):
        page = open_page(pages[kind], width=680)  # less than A4 and Letter with the page's margins
        page.emulate_media(media="print")
        cut = page.evaluate(
            "[document.documentElement, ...document.querySelectorAll('.scroll')]"
            ".filter(box => box.scrollWidth > box.clientWidth + 1).map(box => box.ariaLabel)"
        )
        assert cut == [], kind
        for row in page.locator("details.kind dl").all():
            box = row.bounding_box()
            assert box
            assert box["height"] > 5, kind
