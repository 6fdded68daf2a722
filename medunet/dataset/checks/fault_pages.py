"""Generate docs/faults.md from the catalogue: `python -m medunet.dataset.checks.fault_pages > docs/faults.md`."""

import sys

from medunet.dataset.checks.catalogue.fault_kind import FaultKind
from medunet.dataset.checks.fault_catalogue import FAULT_KINDS

_CHAPTERS = {
    "N": "Volume files",
    "D": "DICOM series",
    "L": "Labels",
    "P": "Two files of one case",
    "S": "The dataset and its split",
}
_HEAD = """\
# Faults reported by `medunet check`, `medunet predict` and `medunet import-dicom`

Each fault has a stable code, the case, the measured value and the expected value. An **error** prevents training, and
the prediction of a new scan; a **warning** should be looked at, a **note** needs no action. Some codes with severity
"error" are warnings under the conditions given in their section.

To resolve an error, correct the file and check again; exclude the case with
`medunet check RUN --exclude CASE=REASON`; or, if the fault is known and harmless, accept it with
`medunet check RUN --accept CODE:CASE=REASON`, or `--accept CODE` for all cases. Accepted faults are still shown in
tables and on pages, with the reason. A fault of the whole dataset has no case: `--accept S010:='a rare label'`.
`medunet predict` takes `--accept CODE` and `--accept CODE:CASE` for new scans, but not for files that cannot be used,
such as truncated ones.

This page is generated from the catalogue in `medunet/dataset/checks/fault_catalogue.py`.
"""


def faults_markdown() -> str:
    """Return the page in Markdown: a table of all codes, then a section for each code."""
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
    expected = kind.expected or "given with each fault"
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
    """Return a heading's anchor as GitHub generates it: lower case, no punctuation, hyphens for spaces."""
    kept = "".join(letter for letter in _heading(code, kind).lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


if __name__ == "__main__":
    sys.stdout.write(faults_markdown())
