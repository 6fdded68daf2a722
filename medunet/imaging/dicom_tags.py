"""Values of DICOM tags read without trust.

What cannot be decoded is a DataError that names the tag, never its value: it may name the patient.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from warnings import catch_warnings, simplefilter

import pydicom
from pydicom.dataset import Dataset

from medunet.base.errors import DataError

_LARGEST_MM = 1e6  # of a coordinate; beyond it a header is damaged
_UNBOUNDED = ("RescaleSlope", "RescaleIntercept", "InstanceNumber", "NumberOfFrames")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from warning of values, by Python's warnings and by its log: they may name the patient."""
    logger = pydicom.config.logger
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with catch_warnings(), pydicom.config.disable_value_validation():
            simplefilter("ignore")
            yield
    finally:
        logger.disabled = was_disabled


def read_text(dataset: Dataset, keyword: str) -> str:
    """Return a tag's text, "" where it is absent; several values as pydicom prints them."""
    value = _value(dataset, keyword)
    try:
        return "" if value is None else str(value).strip().strip("\0")
    except Exception as error:  # names are decoded by their character set only now
        raise DataError(f"{keyword} cannot be read ({type(error).__name__})") from error


def read_words(dataset: Dataset, keyword: str) -> frozenset[str]:
    """Return a tag's values in capitals, such as those of ImageType; none where it is absent."""
    value = _value(dataset, keyword)
    parts = [] if value is None else [value] if isinstance(value, str) else value
    if not hasattr(parts, "__iter__"):
        raise DataError(f"{keyword} is no text")
    return frozenset(str(part).strip().upper() for part in parts)


def read_whole(dataset: Dataset, keyword: str) -> int | None:
    """Return a tag's whole number of 0 or more (InstanceNumber may be less); None where it is absent or empty."""
    values = read_numbers(dataset, keyword, 1)
    if values is None:
        return None
    if values[0] != int(values[0]) or (values[0] < 0 and keyword != "InstanceNumber"):
        raise DataError(f"{keyword} is no whole number of 0 or more")
    return int(values[0])


def read_numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return a tag's numbers, which must be `count`, finite and plausible; None where it is absent or empty."""
    value = _value(dataset, keyword)
    if value is None or (isinstance(value, str | bytes | list) and not value):
        return None
    try:
        values = tuple(float(part) for part in _listed(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{keyword} is no number") from error
    if not values:
        return None
    largest = math.inf if keyword in _UNBOUNDED else _LARGEST_MM
    if len(values) != count or not all(math.isfinite(part) and abs(part) <= largest for part in values):
        raise DataError(f"{keyword} is not {count} finite number{'s' * (count > 1)} of a plausible size")
    return values


def read_items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; none where it is absent."""
    value = _value(dataset, keyword)
    if value is None:
        return []
    if not isinstance(value, pydicom.Sequence):
        raise DataError(f"{keyword} is no sequence")
    try:
        return list(value)
    except Exception as error:  # items are parsed when they are first looked at
        raise DataError(f"{keyword} cannot be read ({type(error).__name__})") from error


def _listed(value: Any) -> list[Any]:
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str | bytes) else [value]


def _value(dataset: Dataset, keyword: str) -> Any:
    try:
        return dataset.get(keyword)
    except Exception as error:  # values are decoded when first looked at, and raise as their bytes provoke
        raise DataError(f"{keyword} cannot be read ({type(error).__name__})") from error
