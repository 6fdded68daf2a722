"""Folds: seeded, balanced, each patient whole within one; a share held out; or fixed, from a file."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from medunet.errors import InputError
from medunet.files import read_json
from medunet.records import Case


def make_folds(cases: Iterable[Case], num_folds: int, seed: int) -> dict[str, int]:
    """Return a fold for each case id, so that folds differ in size as little as whole patients allow.

    The result depends on the ids, patients and seed alone, not on the order of the cases. There are at most
    as many folds as patients.
    """
    groups = _group_patients(cases, seed)
    largest_first = sorted(groups, key=lambda patient: -len(groups[patient]))
    sizes = [0] * min(num_folds, len(groups))
    folds = {}
    for patient in largest_first:
        fold = sizes.index(min(sizes))
        sizes[fold] += len(groups[patient])
        folds.update(dict.fromkeys(groups[patient], fold))
    return folds


def hold_out(cases: Iterable[Case], share: float, seed: int) -> dict[str, int]:
    """Return for each case id 0 where it is held out, else 1: whole patients, as near to `share` as they allow.

    Drawn by the seed; at least one patient is held out and one is left. The order of the cases does not matter.

    Raises:
        InputError: all cases are of one patient.
    """
    groups = _group_patients(cases, seed)
    if len(groups) < 2:
        raise InputError(
            f"{len(groups)} patient cannot be divided", where="holdout", mend="Leave holdout out."
        )
    wanted = share * sum(len(ids) for ids in groups.values())
    held: list[str] = []
    for ids in list(groups.values())[:-1]:
        if abs(len(held) + len(ids) - wanted) <= abs(len(held) - wanted):
            held += ids
    smallest = min(groups.values(), key=len)
    out = set(held or smallest)
    return {name: int(name not in out) for ids in groups.values() for name in ids}


def _group_patients(cases: Iterable[Case], seed: int) -> dict[str, list[str]]:
    """Return the case ids of each patient, patients in an order drawn by the seed."""
    groups: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        groups[case.patient].append(case.id)
    patients = sorted(groups)
    order = np.random.default_rng(seed).permutation(len(patients))
    return {patients[index]: groups[patients[index]] for index in order}


def read_folds(path: Path) -> list[list[str]]:
    """Read fixed folds: `{"folds": [[case id, ...], ...]}`, or `{"validation": [...], "training": [...]}`.

    The latter are two folds, of which fold 0 is the validation: training on fold 0 trains on the rest.

    Raises:
        InputError: the file does not hold such lists, or names a case twice.
    """
    plain = read_json(path)
    folds = plain.get("folds") if isinstance(plain, dict) else None
    if isinstance(plain, dict) and {"validation", "training"} <= plain.keys():
        folds = [plain["validation"], plain["training"]]
    valid = isinstance(folds, list) and all(
        isinstance(fold, list) and fold and all(isinstance(name, str) for name in fold) for fold in folds
    )
    if not folds or not valid:
        raise InputError(
            "holds no folds",
            where=path.name,
            mend='Write {"folds": [["case", ...], ...]}, or {"validation": [...], "training": [...]}.',
        )
    counts = Counter(name for fold in folds for name in fold)
    if twice := sorted(name for name, count in counts.items() if count > 1):
        raise InputError(f"cases stand in two places: {', '.join(twice)}", where=path.name)
    return [list(fold) for fold in folds]


def fixed_folds(
    cases: Iterable[Case], folds: Sequence[Sequence[str]], excluded: Collection[str] = ()
) -> dict[str, int]:
    """Return a fold for each case id from fixed lists; excluded cases need none.

    Raises:
        InputError: names the listed cases that do not exist, and the cases that stand in no fold.
    """
    given = {name: index for index, fold in enumerate(folds) for name in fold}
    ids = {case.id for case in cases}
    faults = []
    if unknown := sorted(set(given) - ids - set(excluded)):
        faults.append(f"the folds name cases that are not there to train on: {', '.join(unknown)}")
    if left_out := sorted(ids - set(given) - set(excluded)):
        faults.append(f"cases stand in no fold: {', '.join(left_out)}")
    if faults:
        raise InputError(
            "; ".join(faults), where="fixed folds", mend="Mend the fold file, or exclude the cases by name."
        )
    return {name: fold for name, fold in given.items() if name in ids and name not in excluded}
