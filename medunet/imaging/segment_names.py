"""Names that a segmentation file gives to its own segments, joined with the labels of a description: never by value.

3D Slicer writes such names into NRRD headers, and DICOM SEG has them for every segment. The numbers in such a file
are only its own: the same name may have another number in the next file.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.base.words import list_some
from medunet.imaging.volume import Header, Segment
from medunet.imaging.whole_numbers import stored_names
from medunet.records.label_rules import LabelRules

_NAMELESS = re.compile(r"(segments?|segmentation|labels?|class|structure|region|object|roi|unnamed)?\d*")
_MAX_NAMED = 5


class UndeclaredError(DataError):
    """A segment that the description does not declare has voxels."""


def join_names(header: Header, rules: LabelRules) -> Header:
    """Return the header with the value of the label of the same name for each segment that its file names.

    Names may differ in case, blanks, underscores and hyphens. A segment without a name of its own, such as
    "Segment_1", is known by its coded meaning if only one segment has that. Without this it keeps its number, unless
    another segment has it by name; so does a segment whose number has no name in the description ("label_1").

    A segment whose name is not declared gets no value if the rules' `others` are "refused": reading the voxels then
    raises an UndeclaredError if it has any. It is read as background with "left out", if another segment is declared,
    and with "surplus", if every label is found in the file.
    """
    if not header.segments or rules.labels is None or rules.instances_as is not None:
        return header
    labels = stored_names(rules.labels, rules.renumber)
    by_name = [_find(segment.name, labels) for segment in header.segments]
    meanings = [_plain(segment.meaning) for segment in header.segments]
    joined: list[Segment] = []
    for segment, label in zip(header.segments, by_name, strict=True):
        if label is None and _is_nameless(segment.name) and meanings.count(_plain(segment.meaning)) == 1:
            meant = _find(segment.meaning, labels)
            label = None if meant in by_name else meant
        joined.append(replace(segment, label=label or "", value=None if label is None else labels[label]))
    taken = {segment.value for segment in joined if segment.label}
    names = {value: name for name, value in labels.items()}
    for index, segment in enumerate(joined):
        is_unclear = _is_nameless(segment.name) or _is_nameless(names.get(segment.stored, "x"))
        if not segment.label and is_unclear and segment.stored not in taken:
            joined[index] = replace(segment, value=segment.stored)
    found = {segment.value for segment in joined}
    foreground = {value for name, value in labels.items() if value and name != "ignore"}
    may_leave_out = foreground <= found if rules.others == "surplus" else bool(foreground & found)
    if rules.others != "refused" and may_leave_out:
        joined = [replace(segment, value=segment.value or 0) for segment in joined]
    return replace(header, segments=tuple(joined))


def own_names(header: Header) -> dict[str, int]:
    """Return the number in the file of each segment by its name; empty unless every segment has a name of its own."""
    if any(_is_nameless(segment.name) for segment in header.segments):
        return {}
    named = {segment.name: segment.stored for segment in header.segments}
    return {name: number for name, number in named.items() if _plain(name) != "background"}


def common_names(files: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Return a value for each name in several files: its number where all agree, otherwise counted from 1.

    Names that differ in writing alone are one; the first is returned.
    """
    numbers: dict[str, set[int]] = {}
    names: dict[str, str] = {}
    for each in files:
        for name, number in each.items():
            names.setdefault(_plain(name), name)
            numbers.setdefault(_plain(name), set()).add(number)
    agreed = [min(found) for found in numbers.values() if len(found) == 1]
    if len(set(agreed)) == len(numbers):
        return {names[key]: min(found) for key, found in numbers.items()}
    return {name: value for value, name in enumerate(names.values(), start=1)}


def describe_joining(segments: Sequence[Segment], labels: Mapping[str, int]) -> str:
    """Describe where numbers of named segments contradict those of the labels, and which are joined or left out.

    `segments` are those of a header returned by `join_names`. Returns "" if there are none of these.
    """
    moved = [
        f"{segment.label} is {segment.stored} in the file and {segment.value} in the description"
        for segment in segments
        if segment.label and segment.value != segment.stored
    ]
    left_out = [segment.name for segment in segments if segment.value == 0 and not segment.label]
    by_number = [
        f"{segment.name} is read as {name}"
        for segment in segments
        for name, value in labels.items()
        if not segment.label and segment.value == value != 0
    ]
    numbers: dict[str, list[int]] = {}
    for segment in segments:
        if segment.label:
            numbers.setdefault(segment.label, []).append(segment.stored)
    joined = [
        f"{len(found)} segments ({', '.join(map(str, found))}) are {label}"
        for label, found in numbers.items()
        if len(found) > 1
    ]
    parts = [
        list_some(joined, _MAX_NAMED),
        list_some(moved, _MAX_NAMED),
        f"not declared, left out: {list_some(left_out, _MAX_NAMED)}" if left_out else "",
    ]
    if any(segment.label for segment in segments) or not all(_is_nameless(each.name) for each in segments):
        parts.append(f"by its number alone, {list_some(by_number, _MAX_NAMED)}" if by_number else "")
    return "; ".join(part for part in parts if part)


def merge_segments(
    layers: Sequence[NDArray[Any]], segments: Sequence[Segment], path: Path, hint: str
) -> NDArray[Any]:
    """Merge layers `(I, J, K)` of stored values into one label map of the segments' values.

    `hint` says how to export segments that one label map cannot hold.

    Raises:
        DataError: segments overlap or share a value, or the layers hold values of no segment.
        UndeclaredError: a segment without a value has voxels.
    """
    shared = {
        one.stored
        for one, other in combinations(segments, 2)
        if (one.layer, one.stored) == (other.layer, other.stored)
        or (one.value and one.value == other.value and not (one.label and one.label == other.label))
    }
    if shared:
        raise DataError(
            f"has several segments with the label values {sorted(shared)}", where=path.name, hint=hint
        )
    is_same = len(layers) == 1 and all(segment.value == segment.stored for segment in segments)
    dtype = np.min_scalar_type(max((segment.value or 0 for segment in segments), default=0))
    merged = layers[0] if is_same else np.zeros(layers[0].shape, dtype, order="F")
    undeclared: dict[str, int] = {}
    for number, layer in enumerate(layers):
        own = [segment for segment in segments if segment.layer == number]
        stored = [segment.stored for segment in own]
        value_of = {0: 0} | {segment.stored: segment.value or 0 for segment in own}
        keys = np.array(sorted(value_of))
        table = np.array([value_of[key] for key in sorted(value_of)], dtype)
        for plane, target in zip(layer.T, merged.T, strict=True):  # a plane at a time, since NumPy widens it
            if not np.isin(plane, [0, *stored]).all():
                raise DataError(
                    f"layer {number} holds values other than its segments' label values {stored}",
                    where=path.name,
                    hint="Save the segmentation again in 3D Slicer.",
                )
            for segment in own:
                if segment.value is None and (count := np.count_nonzero(plane == segment.stored)):
                    undeclared[segment.name] = undeclared.get(segment.name, 0) + int(count)
            if is_same:
                continue
            values = table[np.searchsorted(keys, plane)]
            twice = (target != 0) & (values != 0) & (target != values)
            if twice.any():
                pair = int(target[twice][0]), int(values[twice][0])
                names = [
                    list_some([each.name or "?" for each in segments if each.value == one], _MAX_NAMED)
                    for one in pair
                ]
                what = f"has segments that overlap: {' and '.join(names)}"
                raise DataError(what, where=path.name, hint=hint)
            np.copyto(target, values, where=values != 0)
    if undeclared:
        named = list_some([f"'{name}' ({count} voxels)" for name, count in undeclared.items()], _MAX_NAMED)
        raise UndeclaredError(
            f"its segments named {named} are not declared",
            where=path.name,
            hint="Name its segments as the description names its labels, or describe these labels.",
        )
    return merged


def _find(name: str, labels: Mapping[str, int]) -> str | None:
    """Return the label that a name means: the same name, or the only one that differs in writing alone."""
    if name in labels:
        return name
    alike = [label for label in labels if _plain(label) == _plain(name)]
    return alike[0] if len(alike) == 1 else None


def _is_nameless(name: str) -> bool:
    return bool(_NAMELESS.fullmatch(_plain(name)))


def _plain(name: str) -> str:
    """Return a name in small letters without blanks, underscores and hyphens, in Unicode's composed form."""
    return re.sub(r"[\s_\-]+", "", unicodedata.normalize("NFKC", name).casefold())
