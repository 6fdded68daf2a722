"""Names that look like markup, quote, run right to left or combine stay text on every kind of page."""

import base64
import hashlib
import html
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from every_page import write_every_page

KINDS = (
    *("case", "unreadable case", "cohort", "comparison", "compared case", "check", "selection"),
    *("new scans", "new scan", "failed scan"),
)
ODD = (
    "<evil onload=alert(1)></script><script>alert(2)</script>]]><!--\"'`${HOME}$$ {{ 7*7 }} "
    "&lt;b&gt; \u202eابج e\u0301 肝 \u2028"
)


class Reader(HTMLParser):
    """Keeps the elements, attributes, scripts and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.scripts: list[tuple[bool, str]] = []
        self.texts: list[str] = []
        self.policy = ""
        self._open = ""
        self._is_data = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        own = dict(attrs)
        self.attributes |= set(own)
        self._open, self._is_data = tag, own.get("type") == "application/json"
        if own.get("http-equiv") == "Content-Security-Policy":
            self.policy = own["content"] or ""

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.scripts.append((self._is_data, data))
        else:
            self.texts.append(data)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_every_page(tmp_path_factory.mktemp("odd"), ODD)


@pytest.mark.parametrize("kind", KINDS)
def test_names_from_the_data_stay_text(pages: dict[str, Path], kind: str) -> None:
    source = pages[kind].read_text(encoding="utf-8")
    page = Reader(source)
    assert "evil" not in page.tags
    assert not any(name.startswith("on") for name in page.attributes)
    assert "<!--" not in source
    for is_data, script in page.scripts:
        if is_data:
            json.loads(script)
            assert "<" not in script
        else:
            digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in page.policy
            assert "alert" not in script
    said = " ".join(" ".join(page.texts).split())
    assert "alert(1)></script><script>alert(2)" in said, "the name is shown as it is"
    assert "{{ 7*7 }}" in said
    assert html.escape("<evil") in source


def test_every_kind_is_written(pages: dict[str, Path]) -> None:
    assert set(pages) == set(KINDS)
