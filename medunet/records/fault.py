"""One fault of the data, as the check reports it."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Fault:
    """One thing wrong with the data: coded, located, measured, and how to fix it."""

    code: str
    severity: Severity
    case: str  # case id; "" for the dataset as a whole
    subject: str  # channel name, "label", or a file below the data root
    measured: str
    expected: str
    hint: Annotated[str, Field(alias="mend")]  # how to fix it; files call it "mend"
    accepted: str = ""  # the user's reason to live with it
