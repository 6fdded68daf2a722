"""The main memory that the threads of a prediction use together: what is free, or a limit of the whole process."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

from medunet.base.errors import InputError
from medunet.base.free_memory import free_bytes
from medunet.compute.device_memory import return_freed_memory


class MemoryBudget:
    """Free memory within the limits of control groups, and within `limit_gb` of the process's resident memory.

    What a thread has claimed counts as taken until it is done, also before it is allocated.
    """

    def __init__(self, limit_gb: float | None = None) -> None:
        """Limit the process to `limit_gb`; None: to what is free.

        Raises:
            InputError: the limit is not positive.
        """
        if limit_gb is not None and not limit_gb > 0:
            raise InputError(
                f"{limit_gb:g} GB is no limit of memory", where="--ram-gb", hint="Give more than 0."
            )
        self.limit_gb = limit_gb
        self._process = psutil.Process()
        self._expected: list[int] = []  # resident memory of the process when each claim is used up
        self._changed = threading.Condition()

    def free_bytes(self) -> int:
        """Return what is left beside the memory that is used or claimed."""
        resident = self._process.memory_info().rss
        free = free_bytes()
        if self.limit_gb is not None:
            free = min(free, int(self.limit_gb * 1e9) - resident)
        return max(0, free + resident - max([resident, *self._expected]))

    @contextmanager
    def claim_first(self, sizes: Sequence[int]) -> Iterator[int | None]:
        """Claim the first of several sizes that fits, for as long as the context, and yield its place.

        If none fits beside the claims of other threads, wait until these end; if none fits then, yield None. Freed
        memory that the C library holds is returned to the system where that makes a size fit.
        """
        with self._changed:
            while (place := self._find(sizes)) is None and self._expected:
                self._changed.wait()
            if place is not None:
                resident = self._process.memory_info().rss
                expected = max([resident, *self._expected]) + sizes[place]
                self._expected.append(expected)
        try:
            yield place
        finally:
            if place is not None:
                with self._changed:
                    self._expected.remove(expected)
                    self._changed.notify_all()

    def _find(self, sizes: Sequence[int]) -> int | None:
        free = self.free_bytes()
        if sizes and sizes[0] > free:
            return_freed_memory()
            free = self.free_bytes()
        return next((place for place, size in enumerate(sizes) if size <= free), None)
