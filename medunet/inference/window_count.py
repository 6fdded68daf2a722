"""How many windows of a prediction are computed, as far as it has come; also over several predictions of a scan."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class WindowCounts(Protocol):
    """Windows in all, those done, and those among them that were reused since an earlier one holds the same value."""

    @property
    def num_windows(self) -> int:
        """All windows."""

    @property
    def num_done(self) -> int:
        """Windows that are added up so far."""

    @property
    def num_reused(self) -> int:
        """Those among them that were not computed."""


@dataclass(frozen=True)
class Counted:
    """A count of windows that does not change."""

    num_windows: int = 0
    num_done: int = 0
    num_reused: int = 0


class SummedWindows:
    """Sums the windows of predictions one after another; `report` is called with the sum after each window."""

    def __init__(self, report: Callable[[WindowCounts], None] | None) -> None:
        self._report, self._before, self._now = report, Counted(), Counted()

    def next(self) -> Callable[[WindowCounts], None]:
        """Return what the next prediction calls after each of its windows."""
        self._before = self._now
        return self._add

    def _add(self, count: WindowCounts) -> None:
        before = self._before
        self._now = Counted(
            before.num_windows + count.num_windows,
            before.num_done + count.num_done,
            before.num_reused + count.num_reused,
        )
        if self._report:
            self._report(self._now)
