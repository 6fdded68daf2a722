"""An entry of the catalogue of faults."""

from dataclasses import dataclass

from medunet.records.fault import Severity


@dataclass(frozen=True)
class FaultKind:
    """The meaning of a fault code, with default texts for its faults."""

    title: str
    severity: Severity  # the default
    how: str  # how the fault is measured
    expected: str  # "" if each fault has its own
    hint: str
    usable: bool = True  # whether a scan can be predicted in spite of the fault, once it is accepted
