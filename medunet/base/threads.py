"""Run a function on many parts in threads, as for NumPy and SciPy, which release Python's lock on large arrays."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from medunet.base.processor import num_threads

_Part = TypeVar("_Part")
_Result = TypeVar("_Result")


def map_threads(function: Callable[[_Part], _Result], parts: Sequence[_Part]) -> list[_Result]:
    """Return the function's result for each part, in order; a single part is computed without a thread.

    Raises:
        Exception: the first one that the function raises, once the parts that had begun are done.
    """
    workers = min(num_threads(), len(parts))
    if workers < 2:
        return [function(part) for part in parts]
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(function, part) for part in parts]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def slices(size: int, length: int) -> list[slice]:
    """Return the parts of an axis of `size` voxels, each of `length` but for the last."""
    return [slice(start, min(start + length, size)) for start in range(0, size, length)]
