"""Check the values of a label map (L…): declared, whole, not empty, of one edition, no isolated small pieces."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.base.words import list_some
from medunet.dataset.checks.case_facts import VolumeFacts, hash_content
from medunet.dataset.checks.fault_codes import make_fault
from medunet.dataset.checks.header_checks import is_singular
from medunet.dataset.checks.isolated_components import find_isolated_components
from medunet.imaging.formats import format_of
from medunet.imaging.interpolated import describe_interpolation
from medunet.imaging.volume import Header, StoredVoxels, dtype_name
from medunet.imaging.whole_numbers import as_integers, count_values, label_values, renumber_labels
from medunet.records.description import Description
from medunet.records.fault import Fault

Box = tuple[slice, slice, slice]

_MIN_FRACTIONAL = 10  # voxels that are not whole: fewer are stray values, not interpolation
_BETWEEN_SHARE = 0.9  # of them have a smaller and a larger neighbour
_MAX_SAMPLED = 2000  # voxels that are not whole
_EDITIONS = {3: 4, 4: 3}  # enhancing tumour in BraTS: 4 until 2021, then 3


@dataclass(frozen=True)
class Foreground:
    """The bounding box of all voxels of a label map that are not 0, and its position.

    `labels` is the box `(I, J, K)` with a margin of one voxel within the grid; `ignore` is set to 0, and instances
    are merged to one value.
    """

    labels: NDArray[np.integer]
    box: Box
    shape: tuple[int, ...]  # of the whole map


def check_label(
    case_id: str, relative: str, header: Header, stored: StoredVoxels, description: Description
) -> tuple[list[Fault], VolumeFacts, Foreground | None]:
    """Check the values of a label map; return faults, data for the dataset's checks, and the foreground if any."""
    rounded = label_values(stored)
    values = rounded.array
    labels = as_integers(values)
    if labels is None:
        array = values.astype(np.float32) if stored.is_scaled else values
        content = hash_content(array)
        facts = VolumeFacts("label", relative, header.shape, header.affine, content)
        finite = array.dtype.kind != "f" or bool(np.isfinite([array.min(), array.max()]).all())
        return ([_not_whole(case_id, array, description)] if finite else []), facts, None
    content = hash_content(labels)
    box, inside, counts, num_background = _find_foreground(labels)
    is_lossy = format_of(header.path).is_lossy
    evidence = describe_interpolation(inside, {0, *counts}, is_lossy=is_lossy)
    faults = _check_values(case_id, counts, num_background, header, description, evidence)
    if rounded.largest_rounding:
        measured = f"values up to {rounded.largest_rounding:.2g} from whole numbers"
        if stored.is_scaled:
            measured += f", stored with slope {stored.slope:.6g} and intercept {stored.intercept:.6g}"
        faults.append(make_fault("L010", case_id, "label", measured))
    if description.renumber:
        try:
            labels = renumber_labels(labels, description.renumber)
        except DataError:  # the values are reported as undeclared
            return faults, VolumeFacts("label", relative, header.shape, header.affine, content), None
        box, inside, counts, num_background = _find_foreground(labels)
    if description.instances:
        value = description.instances_as
        counts = {value: sum(counts.values())} if counts and value is not None else {}
    singular = is_singular(header.affine)
    voxel_ml = 0.0 if singular else abs(float(np.linalg.det(header.affine[:3, :3]))) / 1000
    ignored = description.ignore_value
    facts = VolumeFacts(
        "label",
        relative,
        header.shape,
        header.affine,
        content,
        values=frozenset(counts) | (frozenset({0}) if num_background else frozenset()),
        volumes_ml={value: count * voxel_ml for value, count in counts.items() if value not in (0, ignored)},
    )
    if box is None or not set(counts) - {ignored}:
        return faults, facts, None
    if description.instances:
        inside = (inside != 0).view(np.uint8)
    elif ignored in counts:
        inside = np.where(inside == ignored, 0, inside)
    if not (header.is_picture or description.instances or singular):
        names = {value: name for name, value in description.labels.items()}
        faults += find_isolated_components(case_id, inside, box, counts, names, header.affine)
    return faults, facts, Foreground(inside, box, labels.shape)


def _find_foreground(
    labels: NDArray[np.integer],
) -> tuple[Box | None, NDArray[np.integer], dict[int, int], int]:
    """Return the foreground's box, the map in it, its numbers of voxels by value other than 0, and that of 0."""
    box = foreground_box(labels)
    inside = np.asfortranarray(labels[box]) if box else labels[:0, :0, :0]
    counts = count_values(inside)
    return box, inside, counts, labels.size - inside.size + counts.pop(0, 0)


def foreground_box(labels: NDArray[np.integer]) -> Box | None:
    """Return the bounding box `(I, J, K)` of all voxels that are not 0, with a margin of a voxel; None if empty."""
    seen: NDArray[np.bool_] = np.any(labels, axis=2)
    sides = []
    for line in (seen.any(axis=1), seen.any(axis=0), np.any(labels, axis=(0, 1))):
        inside = np.flatnonzero(line)
        if not inside.size:
            return None
        sides.append(slice(max(0, int(inside[0]) - 1), min(line.size, int(inside[-1]) + 2)))
    return sides[0], sides[1], sides[2]


def _check_values(
    case_id: str,
    counts: dict[int, int],
    num_background: int,
    header: Header,
    description: Description,
    evidence: str,
) -> list[Fault]:
    """Check the stored values other than 0, given with their numbers of voxels, against the declared ones.

    With `evidence` of interpolation the values are not judged one by one.
    """
    faults = []

    def add(code: str, measured: str, expected: str = "") -> None:
        faults.append(make_fault(code, case_id, "label", measured, expected=expected))

    stored_as = {name: description.stored_as(name) for name in description.labels}
    declared = {value for values in stored_as.values() for value in values}
    unknown = sorted(value for value in counts if value not in declared)
    if description.instances:  # every value above 0 is an object's number
        unknown = [value for value in unknown if value < 0]
    other = _other_edition(unknown, counts, description)
    if evidence:
        add("L005", evidence, _declared_text(description))
    elif other is not None:
        own, name = other
        add("L008", f"{name} is {unknown[0]} in {counts[unknown[0]]} voxels", f"{name} as {own}, as declared")
    elif unknown:
        examples = list_some([f"{value} in {counts[value]} voxels" for value in unknown])
        add("L001", examples, _declared_text(description))
    background = stored_as["background"]
    if not set(counts).difference(background, stored_as.get("ignore", ())):
        add("L003", "every voxel is 0 or ignored" if counts else "every voxel is 0")
    elif not num_background and not set(background) & set(counts):
        add("L009", f"none of {sum(counts.values())} voxels is 0")
    if header.dtype.kind == "f" and not header.is_picture:
        add("L004", f"{dtype_name(header.dtype)}, all values whole")
    return faults


def _other_edition(
    unknown: list[int], counts: dict[int, int], description: Description
) -> tuple[int, str] | None:
    """Return the declared value and the name of enhancing tumour if the label is of another BraTS edition."""
    for name, value in description.labels.items():
        if name.startswith("enhancing") and value in _EDITIONS and value not in counts:
            return (value, name) if unknown == [_EDITIONS[value]] else None
    return None


def _not_whole(case_id: str, array: NDArray[Any], description: Description) -> Fault:
    """Return the fault for values that are not whole: interpolated labels (L005) or another cause (L002).

    Interpolation gives such values only at the borders of labels, each between a smaller and a larger neighbour along
    some axis; a label that was multiplied or cast has them inside as well.
    """
    fractional = np.argwhere(np.rint(array) != array)
    if not len(fractional):  # whole, but too large for any integer
        measured = f"values up to {array.max():g}"
        return make_fault("L002", case_id, "label", measured, expected=_declared_text(description))
    values = array[tuple(fractional.T)]
    examples = ", ".join(_value_text(x) for x in np.unique(values)[:5])
    sampled = fractional[:: 1 + len(fractional) // _MAX_SAMPLED]
    own = array[tuple(sampled.T)]
    between = np.zeros(len(sampled), bool)
    for axis, reach in itertools.product(range(array.ndim), (1, 2)):
        before, after = sampled.copy(), sampled.copy()
        before[:, axis] = np.maximum(before[:, axis] - reach, 0)
        after[:, axis] = np.minimum(after[:, axis] + reach, array.shape[axis] - 1)
        sides = np.sort([array[tuple(before.T)], array[tuple(after.T)]], axis=0)
        between |= (sides[0] < own) & (own < sides[1])
    share = float(between.mean())
    interpolated = len(fractional) >= _MIN_FRACTIONAL and share >= _BETWEEN_SHARE
    measured = f"{len(fractional)} voxels are not whole, such as {examples}"
    if interpolated:
        measured += f"; {share:.0%} of them are between a smaller and a larger neighbour"
    code = "L005" if interpolated else "L002"
    return make_fault(code, case_id, "label", measured, expected=_declared_text(description))


def _value_text(value: float) -> str:
    """Return a value that is not whole with as many digits as show this."""
    return next((text for n in (4, 7) if not float(text := f"{value:.{n}g}").is_integer()), f"{value:.16g}")


def _declared_text(description: Description) -> str:
    """Return the values that label files may hold, as "values 0, 1, 2"."""
    declared = sorted(value for name in description.labels for value in description.stored_as(name))
    return "values " + ", ".join(map(str, declared))
