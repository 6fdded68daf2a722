"""The page of a case in a real browser: errors lead to the viewer, stills stand in for it, targets are searched."""

from pathlib import Path
from typing import Any

import pytest
from scored_case import NO_ROWS, draw_masks, make_case, make_many, page_of

from medunet.reporting.viewer import copy_assets

pytestmark = pytest.mark.slow


def write(folder: Path, html: str) -> Path:
    copy_assets(folder)
    path = folder / "cases" / "one.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def good_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("case")
    return write(folder / "report", page_of(*make_case(folder, *draw_masks()))[0])


@pytest.fixture(scope="module")
def many_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    scan, rows, description = make_many(folder)
    return write(folder / "report", page_of(scan, rows, description=description)[0])


def is_too_wide(page: Any) -> bool:
    """Return whether a page has to be scrolled sideways."""
    wide: bool = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    return wide


@pytest.mark.usefixtures("needs_viewer")
def test_a_click_on_an_error_shows_it_in_the_viewer(open_page: Any, good_page: Path) -> None:
    page = open_page(good_page)
    page.wait_for_selector("html.viewer-runs")
    assert page.locator("#error-1 img").is_visible()
    assert not page.locator(".stills").is_visible()
    link = page.locator("ol.errors a", has_text="false positive lesion 2")
    link.click()
    page.wait_for_selector('#viewer-place:has-text("lesion 2")')
    z_mm = link.locator("xpath=..").locator(".aside").inner_text().split(" S ")[1].removesuffix(" mm")
    assert f"S {z_mm} mm" in page.locator("#viewer-place").inner_text()
    page.locator("table.lesions a", has_text="1").click()
    page.wait_for_selector('#viewer-place:has-text("lesion 1")')


@pytest.mark.usefixtures("needs_viewer")
def test_where_the_viewer_does_not_run_every_error_has_its_still(open_page: Any, good_page: Path) -> None:
    page = open_page(good_page, java_script_enabled=False)
    assert page.locator(".stills").is_visible()
    for link in page.locator("ol.errors a").all():
        link.click()
        assert page.locator(page.url[page.url.index("#") :]).locator("img").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 420])
def test_pages_fit_and_have_no_serious_fault(
    open_page: Any,
    good_page: Path,
    many_page: Path,
    tmp_path: Path,
    find_serious_faults: Any,
    scheme: str,
    width: int,
) -> None:
    _, prediction = draw_masks()
    scan, *_ = make_case(tmp_path, prediction, prediction)
    new_page = write(tmp_path / "report", page_of(scan, NO_ROWS, lesion_rules={"tumour": "lits"})[0])
    for path in (good_page, many_page, new_page):
        page = open_page(path, width=width, color_scheme=scheme, reduced_motion="reduce")
        assert not is_too_wide(page)
        assert find_serious_faults(page) == []


def test_targets_are_searched_in_every_group(open_page: Any, many_page: Path) -> None:
    page = open_page(many_page)
    rows, folded = page.locator("tr[data-target]:visible"), page.locator("details.folded.scores")
    assert {row.get_attribute("data-target") for row in rows.all()} == {"part_77"}
    page.fill("#search", "PART 10")
    found = {row.get_attribute("data-target") for row in rows.all()}
    assert found == {"part_10", *(f"part_{number}" for number in range(100, 111))}
    assert page.locator("#search-count").inner_text() == "12 found"
    assert [group.get_attribute("open") is not None for group in folded.all()] == [True, True]
    page.fill("#search", "part_77")
    assert {row.get_attribute("data-target") for row in rows.all()} == {"part_77"}
    assert not folded.first.is_visible()
    page.fill("#search", "")
    assert folded.first.is_visible()
    assert folded.first.get_attribute("open") is None


def test_prints_have_all_scores_and_no_cut_column(open_page: Any, good_page: Path, many_page: Path) -> None:
    for path in (good_page, many_page):
        page = open_page(path, width=680)  # less than A4 and Letter with the browser's margins
        page.emulate_media(media="print")
        assert not is_too_wide(page)
        cut = page.evaluate(
            "[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth).length"
        )
        assert cut == 0
        assert page.locator(".stills img").first.is_visible()
    perfect = page.locator('details.scores:not(.screen-only) tr[data-target="part_1"]')
    box = perfect.bounding_box()
    assert box
    assert box["height"] > 5
