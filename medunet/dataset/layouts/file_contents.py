"""Infer label values, instances, channels and modality from the contents of a sample of files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medunet.base.errors import DataError, InputError
from medunet.base.progress import track
from medunet.imaging.formats import format_of, is_picture
from medunet.imaging.interpolated import describe_interpolation
from medunet.imaging.segment_names import common_names, own_names
from medunet.imaging.volumes import read_header, read_label, read_volume
from medunet.records.description import Modality

_MAX_LABELS, _MAX_IMAGES = 20, 3
_MAX_SHOWN = 8
_MANY_OBJECTS = 8  # a picture with fewer values may as well have classes
_AIR_HU = -500  # no MR image has such values, and every CT has air


@dataclass(frozen=True)
class LabelValues:
    """The values above 0 that occur in a sample of label files."""

    values: tuple[int, ...]
    num_read: int  # files whose values count
    num_files: int
    instances: bool  # values are numbers of objects
    unreadable: tuple[str, ...]  # file names
    interpolated: tuple[str, ...] = ()  # file names; their values do not count
    names: Mapping[str, int] = field(default_factory=dict)  # values by name, if the files name their segments

    def __str__(self) -> str:
        if self.names:
            return f"names in {self.num_read} of {self.num_files} label files: {', '.join(self.names)}"
        shown = ", ".join(map(str, self.values[:8])) + (", …" if len(self.values) > 8 else "")
        return f"values {shown} in {self.num_read} of {self.num_files} label files"


def read_label_values(paths: Sequence[Path]) -> LabelValues:
    """Read the values of up to 20 label files, evenly spaced in the list.

    Values of pictures are taken as numbers of objects if each file has the values 1 to n, with a large n in at least
    one file and different n between files; or if some exceed 255 and they are many or nearly successive. The values
    of interpolated files (see `describe_interpolation`) are not taken for labels. Files that name their segments, as
    those of 3D Slicer do, give the names of the labels.

    Raises:
        InputError: none of the files can be read, all are interpolated, none has a value above 0, or there are
            several values of which some exceed 255, so that they may be classes or numbers of objects.
    """
    found: list[frozenset[int]] = []
    names: list[Mapping[str, int]] = []
    unreadable, interpolated, trouble, evidence = [], [], "", ""
    for path in track(_sample(paths, _MAX_LABELS), "Read labels"):
        try:
            if own := own_names(read_header(path, label=True)):
                names.append(own)
                continue
            label = read_label(path).array
        except DataError as error:
            unreadable.append(path.name)
            trouble = str(error)
            continue
        values_here = frozenset(np.unique(label).tolist())
        if text := describe_interpolation(label, values_here | {0}, is_lossy=format_of(path).is_lossy):
            interpolated.append(path.name)
            evidence = evidence or f"{path.name}: {text}"
        else:
            found.append(values_here - {0})
    if names and not found and not interpolated:
        named = common_names(names)
        numbers, num_files = tuple(named.values()), len(paths)
        return LabelValues(numbers, len(names), num_files, False, tuple(unreadable), names=named)
    if names:
        raise InputError(
            f"{len(names)} label files name their segments, and {len(found) + len(interpolated)} do not",
            hint="Describe the dataset in a YAML file that names its labels, with the values of the files without.",
        )
    if interpolated and not found:
        raise InputError(
            f"{len(interpolated)} label files were interpolated or compressed, so that their values are no classes: "
            + evidence,
            hint="Resample or export the original labels by nearest neighbour, as PNG, TIFF or NIfTI. If only these "
            "are left and hold one label, set values from half of the largest on to 1, and the others to 0. If the "
            "values are classes, describe the dataset in a YAML file that names them.",
        )
    if not found:
        raise InputError(
            f"none of {len(unreadable)} label files can be read: {trouble}",
            hint="Correct the files, or their paths in the list of cases.",
        )
    values = tuple(sorted(frozenset().union(*found)))
    if not values:
        raise InputError(
            f"no label value above 0 in {len(found)} label files; {len(unreadable)} cannot be read: {trouble}"
            if unreadable
            else f"no label value above 0 in {len(found)} label files",
            hint="Describe the dataset in a YAML file that names its labels.",
        )
    pictures = all(is_picture(path) for path in paths)
    most = max(len(each) for each in found)
    numbered = all(each == frozenset(range(1, len(each) + 1)) for each in found)
    varied = len(found) == 1 or len({len(each) for each in found}) > 1
    is_large = values[-1] > 255
    is_dense = len(values) > 1 and values[-1] - values[0] < 2 * len(values)
    instances = pictures and (
        (is_large and (is_dense or most >= _MANY_OBJECTS)) or (numbered and varied and most >= _MANY_OBJECTS)
    )
    if is_large and len(values) > 1 and not instances:
        shown = values[:_MAX_SHOWN]
        more = ", …" if len(values) > _MAX_SHOWN else ""
        labels = ", ".join(f"label_{value}: {number}" for number, value in enumerate(shown, start=1))
        stored = ", ".join(f"label_{value}: {value}" for value in shown)
        raise InputError(
            f"label values up to {values[-1]}, but a label map's classes must be in 0..255",
            hint="Describe the dataset in a YAML file: if the values number objects, with `instances: true`; if they "
            f"are classes, with `labels: {{background: 0, {labels}{more}}}` and `stored_values: {{{stored}{more}}}`.",
        )
    return LabelValues(values, len(found), len(paths), instances, tuple(unreadable), tuple(interpolated))


def count_frames(paths: Sequence[Path]) -> int:
    """Return the number of channels of an image file: frames of a 4D volume, or 3 of a colour picture; by a sample.

    If any picture of the sample is in colour, all are read as colour pictures.

    Raises:
        InputError: none of the files can be read.
    """
    counts, trouble = [], ""
    for path in _sample(paths, _MAX_LABELS):
        try:
            counts.append((*read_header(path).shape, 1, 1)[3])
        except DataError as error:
            trouble = str(error)
    if not counts:
        raise InputError(f"no image can be read: {trouble}")
    return max(counts) if is_picture(paths[0]) else counts[0]


def guess_modality(paths: Sequence[Path]) -> tuple[Modality, str]:
    """Return CT if the images have values of air in HU, otherwise MR, and the evidence; by a sample of files.

    Raises:
        InputError: none of the files can be read.
    """
    lowest, trouble = [], ""
    for path in _sample(paths, _MAX_IMAGES):
        try:
            lowest.append(float(read_volume(path).array.min()))
        except DataError as error:
            trouble = str(error)
    if not lowest:
        raise InputError(f"no image can be read: {trouble}")
    low = float(np.median(lowest))
    modality: Modality = "CT" if low <= _AIR_HU else "MR"
    return (
        modality,
        f"taken as {modality}: the lowest intensity is {low:.4g}; CT has {_AIR_HU} HU or less in air",
    )


def _sample(paths: Sequence[Path], max_paths: int) -> list[Path]:
    """Return up to `max_paths` of the paths, evenly spaced and including the first and the last."""
    indices = np.linspace(0, len(paths) - 1, min(max_paths, len(paths))).round().astype(int)
    return [paths[index] for index in indices]
