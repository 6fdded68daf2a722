"""docs/faults.md, made of the catalogue: `python -m medunet.dataset.checks.fault_pages > docs/faults.md`."""

import sys

from medunet.dataset.checks.catalogue.fault_kind import FaultKind
from medunet.dataset.checks.fault_catalogue import FAULT_KINDS

_CHAPTERS = {
    "N": "Volume files",
    "D": "DICOM series",
    "L": "Labels",
    "P": "Two files of one case",
    "S": "The set and its split",
}
_HEAD = """\
# Faults that `medunet check` and `medunet import-dicom` name

Each fault has a code that stays the same, its case, what was measured and what was expected. An **error** keeps
training from starting, a **warning** is worth a look, a **note** needs nothing. Codes with the severity "error" may
be milder where the text says so.

What to do about an error: correct the file and check again; leave the case out with
`medunet check RUN --exclude CASE=REASON`; or, where it is known and harmless, accept it with
`medunet check RUN --accept CODE:CASE=REASON`. What is accepted stays in the tables and on the pages, with its reason.
A fault of the set as a whole has no case: `--accept S010:='a rare label'`.

This page is made of the catalogue in `medunet/dataset/checks/fault_catalogue.py`.
"""


def faults_markdown() -> str:
    """Return the page: a table of all codes, then a section for each."""
    rows = [
        f"| [{code}](#{_anchor(code, kind)}) | {kind.severity} | {kind.title} |"
        for code, kind in FAULT_KINDS.items()
    ]
    parts = [_HEAD, "| code | severity | title |\n|---|---|---|\n" + "\n".join(rows) + "\n"]
    for letter, chapter in _CHAPTERS.items():
        parts.append(f"## {letter}: {chapter}\n")
        parts += [_section(code, kind) for code, kind in FAULT_KINDS.items() if code[0] == letter]
    return "\n".join(parts)


def _section(code: str, kind: FaultKind) -> str:
    expected = kind.expected or "stands with each fault"
    return (
        f"### {_heading(code, kind)}\n\n"
        f"- **Severity:** {kind.severity}\n"
        f"- **Measured:** {kind.how}\n"
        f"- **Expected:** {expected}\n"
        f"- **How to fix it:** {kind.hint}\n"
    )


def _heading(code: str, kind: FaultKind) -> str:
    return f"{code}: {kind.title}"


def _anchor(code: str, kind: FaultKind) -> str:
    """Return a heading's anchor as GitHub makes it: lower case, without punctuation, hyphens for blanks."""
    kept = "".join(letter for letter in _heading(code, kind).lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


if __name__ == "__main__":
    sys.stdout.write(faults_markdown())
