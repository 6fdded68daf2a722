"""What every page shares: its policy, its scripts, and data as JSON."""

import base64
import hashlib
import json
import re

import pytest
from markupsafe import Markup

from medunet.reporting import page
from medunet.reporting.page import content_policy, flat_items, json_script
from medunet.reporting.viewer import VIEWER_SCRIPTS, VIEWER_STYLES

EMPTY = '{% extends "base.html" %}{% block body %}{{ text }}{% endblock %}'


def render(**options: object) -> str:
    template = page._environment().from_string(EMPTY)
    return page.render(template, title="A page", text="<script>no()</script>", **options)  # type: ignore[arg-type]


def test_a_page_without_scripts_runs_none() -> None:
    assert content_policy([]) == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert "script-src" not in render()
    assert "<script" not in render()


def test_the_policy_allows_exactly_the_scripts_of_the_page() -> None:
    html = render(styles=VIEWER_STYLES, scripts=VIEWER_SCRIPTS)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == len(VIEWER_SCRIPTS)
    assert allowed == [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    assert "script-src 'self' 'sha256-" in policy
    assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")
    assert "script-src 'sha256-" in content_policy(["1"])  # without a viewer no file is allowed
    assert "&lt;script&gt;no()" in html
    assert ".viewer-stage" in html


@pytest.mark.parametrize("text", ["</script>", "<!--", "\u2028\u2029", "&amp;", "$'\"`\\", "日本 עברית"])
def test_json_comes_back_and_ends_no_script(text: str) -> None:
    html = json_script('a"b', {"text": text, "number": 1.5})
    assert isinstance(html, Markup)
    body = html.removeprefix('<script type="application/json" id="a&#34;b">').removesuffix("</script>")
    assert json.loads(body) == {"text": text, "number": 1.5}
    assert not re.search(r"[<>&\u2028\u2029]", body)


def test_numbers_that_json_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_script("a", float("nan"))


def test_lists_of_objects_are_rows_of_their_own() -> None:
    nested = {
        "members": [{"run": "a", "folds": [0, 1]}, {"run": "b", "folds": []}],
        "pairs": [[1, 2], [3, 4]],
    }
    assert flat_items(nested) == [
        ("members.1.run", "a"),
        ("members.1.folds", "0, 1"),
        ("members.2.run", "b"),
        ("members.2.folds", ""),
        ("pairs.1", "1, 2"),
        ("pairs.2", "3, 4"),
    ]
