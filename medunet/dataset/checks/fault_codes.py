"""Make faults by code, with severity, expected value and hint from the catalogue (fault_catalogue.py)."""

from medunet.dataset.checks.fault_catalogue import FAULT_KINDS
from medunet.records.fault import Fault, Severity


def make_fault(
    code: str,
    case: str,
    subject: str,
    measured: str,
    *,
    expected: str = "",
    severity: Severity | None = None,
) -> Fault:
    """Return a fault of a code; `expected` and `severity` are the catalogue's unless given."""
    kind = FAULT_KINDS[code]
    return Fault(
        code, severity or kind.severity, case, subject, measured, expected or kind.expected, kind.hint
    )
