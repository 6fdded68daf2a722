"""Copies of DICOM slices: the same image stored twice, under one SOPInstanceUID or under several.

A copy is left out only if its position and its decoded, rescaled values are those of the slice that is kept.
"""

import filecmp
from collections.abc import Iterable, Sequence

import numpy as np

from medunet.base.errors import DataError
from medunet.imaging.dicom import Slice
from medunet.imaging.dicom_pixels import read_slices


def drop_copies(slices: Iterable[Slice]) -> tuple[list[Slice], list[Slice], list[tuple[Slice, Slice]]]:
    """Leave out slices whose SOPInstanceUID and image are those of an earlier one.

    Returns the slices that are kept, those that are left out, and pairs of slices that share a SOPInstanceUID
    although their images differ or cannot be read.
    """
    firsts: dict[tuple[str, int], list[Slice]] = {}
    kept: list[Slice] = []
    copies: list[Slice] = []
    contradictions = []
    for one in slices:
        alike = firsts.setdefault((one.file.instance_uid, one.frame.index), [])
        if one.file.instance_uid and any(same_image(first, one) for first in alike):
            copies.append(one)
            continue
        if one.file.instance_uid and alike:
            contradictions.append((alike[0], one))
        alike.append(one)
        kept.append(one)
    return kept, copies, contradictions


def drop_equal(slices: Sequence[Slice], heights: Iterable[Sequence[int]]) -> list[Slice]:
    """Leave out slices whose image is that of another one at the same height, whatever their SOPInstanceUID.

    `heights` has the indices of the slices at each height.
    """
    kept: list[Slice] = []
    for places in heights:
        here: list[Slice] = []
        for place in places:
            if not any(same_image(first, slices[place]) for first in here):
                here.append(slices[place])
        kept += here
    return kept


def same_image(one: Slice, other: Slice) -> bool:
    """Return whether two slices have the same position, orientation, spacing and rescaled values.

    Slices that cannot be decoded are the same only if their files are.
    """
    if one.file.path == other.file.path:
        return False
    if _place(one) != _place(other):
        return False
    try:
        if one.frame.index == other.frame.index and filecmp.cmp(
            one.file.path, other.file.path, shallow=False
        ):
            return True
        first, second = (read_slices([each]).array for each in (one, other))
    except (OSError, DataError):
        return False
    return np.array_equal(first, second, equal_nan=True)


def _place(one: Slice) -> tuple[object, ...]:
    frame = one.frame
    return one.file.shape, frame.position_mm, frame.orientation, frame.spacing_mm
