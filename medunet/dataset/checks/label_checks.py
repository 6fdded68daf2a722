"""Checks of a label's values (L…): declared, whole, not empty, of one edition, without stray specks."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medunet.dataset.checks.case_facts import VolumeFacts, hash_content
from medunet.dataset.checks.fault_codes import make_fault
from medunet.dataset.checks.header_checks import is_singular
from medunet.dataset.checks.specks import find_specks
from medunet.imaging.volume import Header, StoredVoxels, dtype_name
from medunet.imaging.whole_numbers import as_integers, chunks, label_values
from medunet.records.description import Description
from medunet.records.fault import Fault

Box = tuple[slice, slice, slice]

_MIN_BETWEEN = 10  # voxels between labels, from which interpolation is told from a stray value
_BETWEEN_SHARE = 0.9  # of them stand between a smaller and a larger neighbour
_LOOKED_AT = 2000
_EDITIONS = {3: 4, 4: 3}  # enhancing tumour in BraTS: 4 until 2021, then 3


@dataclass(frozen=True)
class Foreground:
    """The part of a label map around all voxels that are neither background nor `ignore`, and where it lies.

    `labels` holds the box `(I, J, K)` grown by a voxel where the grid goes on; instances are united as one value.
    """

    labels: NDArray[np.integer]
    box: Box
    shape: tuple[int, ...]  # of the whole map


def check_label(
    case_id: str, relative: str, header: Header, stored: StoredVoxels, description: Description
) -> tuple[list[Fault], VolumeFacts, Foreground | None]:
    """Check a label's values; return what the set's checks need and the foreground, None where there is none."""
    values = label_values(stored)
    labels = as_integers(values)
    if labels is None:
        array = values.astype(np.float32) if stored.is_scaled else values
        content = hash_content(array)
        facts = VolumeFacts("label", relative, header.shape, header.affine, content)
        finite = array.dtype.kind != "f" or bool(np.isfinite([array.min(), array.max()]).all())
        return ([_not_whole(case_id, array, description)] if finite else []), facts, None
    box = foreground_box(labels)
    inside = np.asfortranarray(labels[box]) if box else labels[:0, :0, :0]
    counts = count_values(inside)
    num_background = labels.size - inside.size + counts.pop(0, 0)
    faults = _check_values(case_id, counts, num_background, header, description)
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
        hash_content(labels),
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
        faults += find_specks(case_id, inside, box, counts, names, header.affine)
    return faults, facts, Foreground(inside, box, labels.shape)


def foreground_box(labels: NDArray[np.integer]) -> Box | None:
    """Return the box `(I, J, K)` of all voxels that are not 0, grown by a voxel within the grid; None if all are."""
    seen: NDArray[np.bool_] = np.any(labels, axis=2)
    sides = []
    for line in (seen.any(axis=1), seen.any(axis=0), np.any(labels, axis=(0, 1))):
        inside = np.flatnonzero(line)
        if not inside.size:
            return None
        sides.append(slice(max(0, int(inside[0]) - 1), min(line.size, int(inside[-1]) + 2)))
    return sides[0], sides[1], sides[2]


def count_values(labels: NDArray[np.integer]) -> dict[int, int]:
    """Return how many voxels each value has that occurs."""
    flat = labels.ravel(order="K")
    if not flat.size:
        return {}
    if flat.dtype == np.uint8 or (flat.min() >= 0 and flat.max() < 65536):
        total = np.zeros(1 + int(flat.max()), np.int64)
        num_foreground = 0
        for chunk in chunks(flat):
            foreground = chunk[chunk != 0]  # mostly few, and counting is the slower part
            num_foreground += foreground.size
            total += np.bincount(foreground, minlength=total.size)
        total[0] = flat.size - num_foreground
        return {int(value): int(total[value]) for value in np.flatnonzero(total)}
    values, counts = np.unique(flat, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _check_values(
    case_id: str, counts: dict[int, int], num_background: int, header: Header, description: Description
) -> list[Fault]:
    """Check the values above 0 that occur, each with its number of voxels, against the declared ones."""
    faults = []

    def add(code: str, measured: str, expected: str = "") -> None:
        faults.append(make_fault(code, case_id, "label", measured, expected=expected))

    declared = set(description.labels.values())
    unknown = sorted(value for value in counts if value not in declared)
    if description.instances:  # every value above 0 is an object's number
        unknown = [value for value in unknown if value < 0]
    other = _other_edition(unknown, counts, description)
    if other is not None:
        own, name = other
        add("L008", f"{name} is {unknown[0]} in {counts[unknown[0]]} voxels", f"{name} as {own}, as declared")
    elif unknown:
        examples = ", ".join(f"{value} in {counts[value]} voxels" for value in unknown[:5])
        more = f" and {len(unknown) - 5} more values" if len(unknown) > 5 else ""
        add("L001", f"{examples}{more}", _declared_text(description))
    if not set(counts) - {description.ignore_value}:
        add("L003", "every voxel is 0 or ignored" if counts else "every voxel is 0")
    elif not num_background:
        add("L009", f"none of {sum(counts.values())} voxels is 0")
    if header.dtype.kind == "f" and not header.is_picture:
        add("L004", f"{dtype_name(header.dtype)}, all values whole")
    return faults


def _other_edition(
    unknown: list[int], counts: dict[int, int], description: Description
) -> tuple[int, str] | None:
    """Return the declared value and the name of enhancing tumour where the label is of another edition."""
    for name, value in description.labels.items():
        if name.startswith("enhancing") and value in _EDITIONS and value not in counts:
            return (value, name) if unknown == [_EDITIONS[value]] else None
    return None


def _not_whole(case_id: str, array: NDArray[Any], description: Description) -> Fault:
    """Return the fault of values that are not whole: interpolated (L005) or something else (L002).

    Interpolation leaves values at the borders of labels alone, each between a smaller and a larger neighbour along
    some axis; a label that was multiplied or cast has them inside too.
    """
    broken = np.argwhere(np.rint(array) != array)
    if not len(broken):  # whole, but too large for any integer
        measured = f"values up to {array.max():g}"
        return make_fault("L002", case_id, "label", measured, expected=_declared_text(description))
    values = array[tuple(broken.T)]
    examples = ", ".join(f"{x:.4g}" for x in np.unique(values)[:5])
    looked_at = broken[:: 1 + len(broken) // _LOOKED_AT]
    own = array[tuple(looked_at.T)]
    between = np.zeros(len(looked_at), bool)
    for axis, reach in itertools.product(range(array.ndim), (1, 2)):
        before, after = looked_at.copy(), looked_at.copy()
        before[:, axis] = np.maximum(before[:, axis] - reach, 0)
        after[:, axis] = np.minimum(after[:, axis] + reach, array.shape[axis] - 1)
        sides = np.sort([array[tuple(before.T)], array[tuple(after.T)]], axis=0)
        between |= (sides[0] < own) & (own < sides[1])
    share = float(between.mean())
    interpolated = len(broken) >= _MIN_BETWEEN and share >= _BETWEEN_SHARE
    measured = f"{len(broken)} voxels are not whole, such as {examples}"
    if interpolated:
        measured += f"; {share:.0%} of them stand between a smaller and a larger neighbour"
    code = "L005" if interpolated else "L002"
    return make_fault(code, case_id, "label", measured, expected=_declared_text(description))


def _declared_text(description: Description) -> str:
    return "values " + ", ".join(str(value) for value in sorted(description.labels.values()))
