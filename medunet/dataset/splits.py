"""Assign cases to folds: drawn with a seed, balanced and grouped by patient; a hold-out share; or fixed, from a file.

Drawn folds can be stratified, so that each has its share of every stratum (see strata.py).
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import InputError
from medunet.base.files import read_json
from medunet.records.manifest import Case

_Ints = NDArray[np.int64]

_MAX_ROUNDS = 20  # of swaps; a few are enough


def make_folds(cases: Iterable[Case], num_folds: int, seed: int) -> dict[str, int]:
    """Return a fold for each case id, with folds of similar size and all cases of a patient in the same fold.

    The result depends only on the ids, patients and seed, not on the order of the cases. There are at most as many
    folds as patients.
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
    """Return 0 for each case id that is held out and 1 for the others, as close to `share` as whole patients allow.

    Patients are drawn with the seed; at least one is held out and one is not. The order of the cases does not matter.

    Raises:
        InputError: there are fewer than two patients.
    """
    groups = _group_patients(cases, seed)
    if len(groups) < 2:
        raise InputError(
            f"{len(groups)} patient cannot be divided", where="holdout", hint="Leave out holdout."
        )
    wanted = share * sum(len(ids) for ids in groups.values())
    held_out: list[str] = []
    for ids in list(groups.values())[:-1]:
        if abs(len(held_out) + len(ids) - wanted) <= abs(len(held_out) - wanted):
            held_out += ids
    smallest = min(groups.values(), key=len)
    chosen = set(held_out or smallest)
    return {name: int(name not in chosen) for ids in groups.values() for name in ids}


def stratify_folds(
    cases: Iterable[Case], folds: Mapping[str, int], strata: Mapping[str, Collection[str]], seed: int
) -> dict[str, int]:
    """Reassign whole patients to drawn folds, so that each fold has its share of every stratum.

    Every fold keeps its number of cases, and of patients with a given number of cases. Patients are assigned as in
    iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011): those of the rarest stratum first, each to the
    fold that needs it most. Then pairs of patients are swapped while that brings the folds closer to their shares.

    Args:
        folds: fold of each case id, from `make_folds` or `hold_out`.
        strata: strata of each case id; a case that is missing has none.
        seed: of the order among equals; the order of the cases does not matter.
    """
    groups = _group_patients(cases, seed)
    names = sorted({name for ids in groups.values() for each in ids for name in strata.get(each, ())})
    column = {name: index for index, name in enumerate(names)}
    counts = np.zeros((len(groups), len(names)), dtype=np.int64)
    for row, ids in enumerate(groups.values()):
        for name in (name for each in ids for name in strata.get(each, ())):
            counts[row, column[name]] += 1
    sizes = np.array([len(ids) for ids in groups.values()])
    drawn = np.array([folds[ids[0]] for ids in groups.values()])
    assigned = _swap(counts, sizes, _assign(counts, sizes, drawn))
    return {each: int(assigned[row]) for row, ids in enumerate(groups.values()) for each in ids}


def _assign(counts: _Ints, sizes: _Ints, drawn: _Ints) -> _Ints:
    """Assign each patient to a fold, starting with those of the rarest stratum.

    Args:
        counts: (patients, strata), the patient's cases in each stratum.
        sizes: number of cases of each patient.
        drawn: fold of each patient as drawn, which gives the number of patients of each size in each fold.
    """
    free = np.zeros(
        (drawn.max() + 1, sizes.max() + 1), dtype=int
    )  # patients still to assign, by fold and size
    np.add.at(free, (drawn, sizes), 1)
    missing = _shares(counts, sizes, drawn)
    waiting = np.ones(len(drawn), dtype=bool)
    assigned = np.zeros_like(drawn)
    while waiting.any():
        left = counts[waiting].sum(axis=0)
        need = np.zeros(len(free), dtype=np.int64)
        row = int(waiting.argmax())
        if left.any():
            rarest = int(np.where(left > 0, left, left.max() + 1).argmin())
            row = int(np.where(waiting, counts[:, rarest], 0).argmax())
            need = missing[:, rarest]
        others = missing @ counts[row]  # decide between folds that need the rarest stratum equally
        open_folds = np.flatnonzero(free[:, sizes[row]])
        fold = max(open_folds, key=lambda each: (need[each], others[each], -each))
        assigned[row], waiting[row] = fold, False
        free[fold, sizes[row]] -= 1
        missing[fold] -= sizes.sum() * counts[row]
    return assigned


def _swap(counts: _Ints, sizes: _Ints, assigned: _Ints) -> _Ints:
    """Return the folds after swapping pairs of patients of equal size as long as the squared errors decrease."""
    assigned, num_cases = assigned.copy(), sizes.sum()
    missing = _shares(counts, sizes, assigned)
    np.subtract.at(missing, assigned, num_cases * counts)
    for _ in range(_MAX_ROUNDS):
        before = assigned.copy()
        for row, size in enumerate(sizes):
            change = counts - counts[row]  # of the row's fold, if swapped with each other patient
            lack = missing[assigned[row]] - missing[assigned]
            gain = (change * (lack - num_cases * change)).sum(axis=1)
            gain[(sizes != size) | (assigned == assigned[row])] = 0
            other = int(gain.argmax())
            if gain[other] > 0:
                missing[assigned[row]] -= num_cases * change[other]
                missing[assigned[other]] += num_cases * change[other]
                assigned[row], assigned[other] = assigned[other], assigned[row]
        if np.array_equal(before, assigned):
            break
    return assigned


def _shares(counts: _Ints, sizes: _Ints, folds: _Ints) -> _Ints:
    """Return each fold's share of each stratum, in cases times the total number of cases, hence integers."""
    num_cases = np.array([sizes[folds == fold].sum() for fold in range(folds.max() + 1)])
    return np.outer(num_cases, counts.sum(axis=0))


def _group_patients(cases: Iterable[Case], seed: int) -> dict[str, list[str]]:
    """Return the case ids of each patient, with patients in an order drawn with the seed."""
    groups: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        groups[case.patient].append(case.id)
    patients = sorted(groups)
    order = np.random.default_rng(seed).permutation(len(patients))
    return {patients[index]: groups[patients[index]] for index in order}


def read_folds(path: Path) -> list[list[str]]:
    """Read fixed folds: `{"folds": [[case id, ...], ...]}`, or `{"validation": [...], "training": [...]}`.

    The latter gives two folds; fold 0 has the validation cases, so that fold 0 is trained on the others.

    Raises:
        InputError: the file has no such lists, or lists a case twice.
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
            "has no folds",
            where=path.name,
            hint='Write {"folds": [["case", ...], ...]}, or {"validation": [...], "training": [...]}.',
        )
    counts = Counter(name for fold in folds for name in fold)
    if twice := sorted(name for name, count in counts.items() if count > 1):
        raise InputError(f"cases occur twice: {', '.join(twice)}", where=path.name)
    return [list(fold) for fold in folds]


def fixed_folds(
    cases: Iterable[Case], folds: Sequence[Sequence[str]], excluded: Collection[str] = ()
) -> dict[str, int]:
    """Return a fold for each case id from fixed lists; excluded cases need no fold.

    Raises:
        InputError: listed cases do not exist, or cases are in no fold; the message lists all of them.
    """
    given = {name: index for index, fold in enumerate(folds) for name in fold}
    ids = {case.id for case in cases}
    faults = []
    if unknown := sorted(set(given) - ids - set(excluded)):
        faults.append(f"the folds have names that are not training cases: {', '.join(unknown)}")
    if left_out := sorted(ids - set(given) - set(excluded)):
        faults.append(f"cases are in no fold: {', '.join(left_out)}")
    if faults:
        raise InputError(
            "; ".join(faults),
            where="fixed folds",
            hint="Correct the fold file, or exclude the cases by name.",
        )
    return {name: fold for name, fold in given.items() if name in ids and name not in excluded}
