"""The cohort's page under a reader's hands: dots that open their case, a table that keeps its state, no barriers."""

from pathlib import Path

import pytest
from cohort_scores import make_index, write_cohort

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = make_index(write_cohort(tmp_path_factory.mktemp("cohort"), num_cases=75))
    for number in range(75):
        case = page.parent / "cases" / f"case_{number:04d}.html"
        case.parent.mkdir(exist_ok=True)
        case.write_text(f"<!DOCTYPE html><html lang='en'><title>{case.stem}</title><h1>{case.stem}</h1>")
    return page


def test_dots_say_their_case_and_open_it(index: Path, open_page) -> None:
    page = open_page(index)
    plots = page.locator("svg.plot")
    for number in range(plots.count()):
        assert plots.nth(number).locator("a:not([tabindex='-1'])").count() == 1  # one stop for Tab
    page.mouse.move(0, 0)
    plots.first.locator("a:not([tabindex='-1'])").focus()
    tip = page.locator(".tip")
    assert tip.is_visible()
    first = tip.inner_text()
    page.keyboard.press("ArrowRight")
    second = tip.inner_text()
    assert first != second
    assert second.startswith("case_")
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.keyboard.press("Enter")
    page.wait_for_url("**/cases/*.html")
    assert page.title() == second.partition(":")[0]


def test_pointing_at_a_dot_shows_its_name_once(index: Path, open_page) -> None:
    page = open_page(index)
    dot = page.locator("svg.plot a[data-c]").first
    title = dot.locator("title").text_content()
    dot.hover(force=True)
    assert page.locator(".tip").inner_text()
    dot.dispatch_event("pointerover")
    assert page.locator(".tip").inner_text() == title
    assert dot.locator("title").count() == 0  # the browser would show it a second time
    assert dot.get_attribute("aria-label") == title


def test_the_table_is_as_it_was_after_a_look_at_a_case(index: Path, open_page) -> None:
    page = open_page(index)
    heading = page.locator("[data-sort='0']")
    names = page.locator("#cases-table tbody th a")
    worst_first = names.all_inner_texts()
    heading.locator("button").click()
    up = names.all_inner_texts()
    assert "up" in heading.get_attribute("class")
    heading.locator("button").click()
    assert names.all_inner_texts() != up
    assert "down" in heading.get_attribute("class")
    page.fill("#search", "case_001")
    found = names.all_inner_texts()
    assert sorted(found) == [f"case_{number:04d}" for number in range(10, 20)]
    assert page.locator("#shown").inner_text() == "10 of 75 cases."
    names.nth(2).click()
    page.wait_for_url("**/cases/*.html")
    page.go_back()
    assert names.all_inner_texts() == found
    assert page.input_value("#search") == "case_001"
    page.locator("button[type=reset]").click()
    page.wait_for_selector("#cases-table tbody tr:nth-child(30)")  # a script of ours would break the policy
    assert names.all_inner_texts() == worst_first


def test_a_reader_turns_the_pages(index: Path, open_page) -> None:
    page = open_page(index)
    names = page.locator("#cases-table tbody th a")
    first = names.all_inner_texts()
    page.locator("#next").click()
    assert not set(first) & set(names.all_inner_texts())
    page.locator("#next").click()
    assert names.count() == 15
    assert page.locator("#next").is_disabled()
    page.select_option("#rows", "0")
    assert names.count() == 75


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 420])
def test_the_page_fits_and_has_no_serious_fault(
    index: Path, open_page, find_serious_faults, scheme: str, width: int
) -> None:
    page = open_page(index, width=width, color_scheme=scheme, bypass_csp=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert find_serious_faults(page) == []
