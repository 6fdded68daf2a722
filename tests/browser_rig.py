"""A real browser for pages: the system's Chromium, driven by Playwright. Tests are skipped where there is none.

A page that logs an error, throws one, breaks its policy, or asks for anything but its own files fails the test.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medunet.reporting.viewer import ASSETS, LIBRARY

# WebGL 2 without a graphics card; a root user has no sandbox.
FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
WAIT_MS = 60_000  # a busy machine draws slowly without a graphics card

OpenPage = Callable[..., Any]  # playwright.sync_api.Page, which is an optional package


def _find_chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The running browser, one for all tests of a process."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    chromium = _find_chromium()
    if chromium is None:
        pytest.skip("needs Chromium (on Debian: apt-get install chromium)")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[OpenPage]:
    """A function that opens an HTML file as a reader does, and returns Playwright's page.

    `width` and `height` are the window's size in pixels, `first` is a script that runs before the page's own, and
    `expected` a text of messages that do not matter. Other options are those of Playwright's `new_context`, such as
    `color_scheme="dark"`.
    """
    troubles: list[str] = []
    contexts = []

    def open_file(
        path: Path,
        *,
        width: int = 1400,
        height: int = 1000,
        first: str = "",
        expected: str = "",
        **options: Any,
    ) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        if first:
            page.add_init_script(first)
        page.on("console", lambda message: _note(troubles, message, expected))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("request", lambda request: _note_request(troubles, request.url, path))
        page.goto(path.as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture
def needs_viewer() -> None:
    """Skip a test where NiiVue is not there; `python hatch_build.py` fetches it."""
    if not (ASSETS / LIBRARY).exists():
        assert not os.environ.get("CI"), "NiiVue was not fetched when medunet was installed"
        pytest.skip("needs NiiVue: python hatch_build.py")


@pytest.fixture(scope="session")
def find_serious_faults() -> Callable[[Any], list[str]]:
    """A function that returns what axe-core finds on a page of serious or critical impact, such as weak contrast."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")

    def find(page: Any) -> list[str]:
        violations = axe.Axe().run(page).response["violations"]
        return [
            f"{found['id']}: {found['help']}: {node['html'][:200]} {node['failureSummary'][:300]}"
            for found in violations
            if found["impact"] in ("serious", "critical")
            for node in found["nodes"]
        ]

    return find


def _note(troubles: list[str], message: Any, expected: str) -> None:
    harmless = ("GPU stall due to ReadPixels", *filter(None, [expected]))
    if message.type in ("error", "warning") and not any(text in message.text for text in harmless):
        troubles.append(f"{message.type} in the console: {message.text}")


def _note_request(troubles: list[str], url: str, path: Path) -> None:
    report = path.parents[1].as_uri()
    if not url.startswith((f"{report}/", "data:", "blob:")):
        troubles.append(f"request: {url}")
