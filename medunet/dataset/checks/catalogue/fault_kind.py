"""What the catalogue says of a code."""

from dataclasses import dataclass

from medunet.records.fault import Severity


@dataclass(frozen=True)
class FaultKind:
    """What a code means, and the words for it where a check has none more precise."""

    title: str
    severity: Severity  # the usual one
    how: str  # it is measured
    expected: str
    hint: str
