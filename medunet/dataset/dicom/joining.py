"""Series of one slice each joined to the scan that they are parts of: some exports give every file its own series."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from medunet.dataset.dicom.heights import group_by_height, sort_slices
from medunet.dataset.dicom.series import Series
from medunet.dataset.dicom.splitting import split_orientations, split_spacings
from medunet.dataset.dicom.stacks import Stack
from medunet.imaging.dicom import Slice

_FEWEST = 3


def join_single_slices(series: Iterable[Series]) -> list[Series]:
    """Join series of one slice that have the patient, study, frame of reference, description and grid in common.

    They are joined if there are three or more, at different heights, most of them at the usual distance. If each
    SeriesNumber has three or more, it tells several scans apart. Localizers are never joined.
    """
    result: list[Series] = []
    groups: dict[tuple[str, ...], list[Series]] = {}
    for one in series:
        if _is_single(one):
            file = one.files[0]
            common = (file.study_uid, file.frame_of_reference, file.modality, file.series_description)
            groups.setdefault((one.patient_key, *common), []).append(one)
        else:
            result.append(one)
    for key, members in groups.items():
        for number, alike in _by_number(members).items():
            result += _join((*key, number) if number else key, alike)
    return result


def _by_number(members: Sequence[Series]) -> dict[str, list[Series]]:
    """Group series by SeriesNumber if each number has enough of them; otherwise all are one group."""
    groups: dict[str, list[Series]] = {}
    for one in members:
        groups.setdefault(one.files[0].series_number, []).append(one)
    is_told = len(groups) > 1 and all(number and len(alike) >= _FEWEST for number, alike in groups.items())
    return groups if is_told else {"": list(members)}


def _is_single(series: Series) -> bool:
    images = {file.instance_uid for file in series.files}
    if len(images) > 1 or any(len(file.frames) != 1 for file in series.files):
        return False
    frame = series.files[0].frames[0]
    has_place = frame.position_mm is not None and frame.orientation is not None and any(frame.orientation)
    has_grid = bool(frame.spacing_mm) and min(frame.spacing_mm or (0.0,)) > 0
    return has_place and has_grid and "LOCALIZER" not in frame.image_type


def _join(key: tuple[str, ...], members: Sequence[Series]) -> list[Series]:
    if len(members) < _FEWEST:
        return list(members)
    by_file = {id(one.files[0]): one for one in members}
    slices = [Slice(one.files[0], one.files[0].frames[0]) for one in members]
    result = []
    number = 0
    for same in split_spacings(slices):
        for group in split_orientations(same):
            singles = [by_file[id(one.file)] for one in group]
            if not _is_stack(group):
                result += singles
                continue
            number += 1
            name = " ".join(("joined", *key, str(number)))
            files = tuple(sorted((file for one in singles for file in one.files), key=lambda file: file.path))
            result.append(replace(singles[0], key=name, files=files, num_joined=len(singles)))
    return result


def _is_stack(group: Sequence[Slice]) -> bool:
    ordered = sort_slices(group)
    heights = [ordered[places[0]] for places in group_by_height(ordered)]
    if len(heights) < _FEWEST:
        return False
    stack = Stack(tuple(heights))
    off_mm = np.abs(stack.distances_mm - stack.slice_spacing_mm)
    return bool(2 * np.count_nonzero(off_mm <= stack.tolerance_mm) >= len(off_mm))
