"""docs/faults.md says what the catalogue says."""

import re
from pathlib import Path

from conftest import REPOSITORY

from medunet.dataset.checks.fault_catalogue import FAULT_KINDS
from medunet.dataset.checks.fault_pages import faults_markdown

PAGE = Path(REPOSITORY / "docs" / "faults.md")


def test_the_page_is_up_to_date() -> None:
    hint = "run `python -m medunet.dataset.checks.fault_pages > docs/faults.md`"
    assert PAGE.read_text(encoding="utf-8") == faults_markdown(), hint


def test_every_code_has_its_section_and_every_link_leads_to_one() -> None:
    text = faults_markdown()
    headings = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert [heading.split(":")[0] for heading in headings] == sorted(
        FAULT_KINDS, key=lambda code: ("NDLPS".index(code[0]), list(FAULT_KINDS).index(code))
    )
    anchors = {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]+)\)", text)
    assert len(links) == len(FAULT_KINDS)
    assert set(links) == anchors
    for kind in FAULT_KINDS.values():
        assert kind.how in text
        assert kind.hint in text
