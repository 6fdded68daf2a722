"""A fault found in the data by a check."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Fault:
    """A fault found in the data: code, severity, case and file, measured and expected values, and how to fix it."""

    code: str
    severity: Severity
    case: str  # case id; "" for the dataset as a whole
    subject: str  # channel name, "label", or a file below the data root
    measured: str
    expected: str
    hint: Annotated[str, Field(alias="mend")]  # how to fix it; the key in files is "mend"
    accepted: str = ""  # the user's reason for accepting the fault
