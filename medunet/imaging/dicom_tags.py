"""Read and validate values of DICOM tags.

A value that cannot be decoded raises a DataError that names the tag, never its value, which may identify the patient.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from warnings import catch_warnings, simplefilter

import pydicom
from pydicom.dataset import Dataset

from medunet.base.errors import DataError

_LARGEST_MM = 1e6  # largest plausible coordinate
_UNBOUNDED = ("RescaleSlope", "RescaleIntercept", "InstanceNumber", "NumberOfFrames")


@contextmanager
def silence_pydicom() -> Iterator[None]:
    """Suppress pydicom's warnings and log messages on values, which may identify the patient."""
    logger = pydicom.config.logger
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with catch_warnings(), pydicom.config.disable_value_validation():
            simplefilter("ignore")
            yield
    finally:
        logger.disabled = was_disabled


def read_text(dataset: Dataset, keyword: str) -> str:
    """Return a tag's text, "" if it is absent; several values are formatted as pydicom prints them."""
    value = _value(dataset, keyword)
    try:
        return "" if value is None else str(value).strip().strip("\0")
    except Exception as error:  # pydicom decodes the character set of names only here
        raise DataError(f"{keyword} cannot be read ({type(error).__name__})") from error


def read_words(dataset: Dataset, keyword: str) -> frozenset[str]:
    """Return a tag's values in capitals, such as those of ImageType; an empty set if it is absent."""
    value = _value(dataset, keyword)
    parts = [] if value is None else [value] if isinstance(value, str) else value
    if not hasattr(parts, "__iter__"):
        raise DataError(f"{keyword} is not text")
    return frozenset(str(part).strip().upper() for part in parts)


def read_integer(dataset: Dataset, keyword: str) -> int | None:
    """Return a tag's non-negative integer (InstanceNumber may be negative); None if it is absent or empty."""
    values = read_numbers(dataset, keyword, 1)
    if values is None:
        return None
    if values[0] != int(values[0]) or (values[0] < 0 and keyword != "InstanceNumber"):
        raise DataError(f"{keyword} is not a whole number of 0 or more")
    return int(values[0])


def read_numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return a tag's `count` numbers, which must be finite and plausible; None if it is absent or empty."""
    value = _value(dataset, keyword)
    if value is None or (isinstance(value, str | bytes | list) and not value):
        return None
    try:
        values = tuple(float(part) for part in _as_list(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{keyword} is not a number") from error
    if not values:
        return None
    largest = math.inf if keyword in _UNBOUNDED else _LARGEST_MM
    if len(values) != count or not all(math.isfinite(part) and abs(part) <= largest for part in values):
        raise DataError(f"{keyword} is not {count} finite number{'s' * (count > 1)} of a plausible size")
    return values


def read_items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence, an empty list if it is absent."""
    value = _value(dataset, keyword)
    if value is None:
        return []
    if not isinstance(value, pydicom.Sequence):
        raise DataError(f"{keyword} is not a sequence")
    try:
        return list(value)
    except Exception as error:  # pydicom parses items on first access
        raise DataError(f"{keyword} cannot be read ({type(error).__name__})") from error


def _as_list(value: Any) -> list[Any]:
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str | bytes) else [value]


def _value(dataset: Dataset, keyword: str) -> Any:
    try:
        return dataset.get(keyword)
    except (
        Exception
    ) as error:  # pydicom decodes values on first access; damaged bytes may raise any exception
        raise DataError(f"{keyword} cannot be read ({type(error).__name__})") from error
