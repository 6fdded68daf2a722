"""Folds: seeded, balanced, each patient whole within one; a share held out; or fixed, from a file.

Drawn ones can be stratified: dealt anew so that each holds its share of every stratum (see strata.py).
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

_MAX_ROUNDS = 20  # of exchanges; a few are enough


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
            f"{len(groups)} patient cannot be divided", where="holdout", hint="Leave holdout out."
        )
    wanted = share * sum(len(ids) for ids in groups.values())
    held: list[str] = []
    for ids in list(groups.values())[:-1]:
        if abs(len(held) + len(ids) - wanted) <= abs(len(held) - wanted):
            held += ids
    smallest = min(groups.values(), key=len)
    out = set(held or smallest)
    return {name: int(name not in out) for ids in groups.values() for name in ids}


def spread_strata(
    cases: Iterable[Case], places: Mapping[str, int], strata: Mapping[str, Collection[str]], seed: int
) -> dict[str, int]:
    """Deal whole patients anew to drawn folds, so that each fold holds its share of every stratum.

    Every fold keeps its number of cases, and of patients with so many cases each. Patients are dealt as in iterative
    stratification (Sechidis, Tsoumakas and Vlahavas 2011): those of the rarest stratum first, each to the fold that
    lacks it most. Then pairs of patients change folds while that brings the folds nearer to their shares.

    Args:
        places: fold of each case id, as `make_folds` or `hold_out` gives it.
        strata: the strata of each case id; a case that is not named has none.
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
    drawn = np.array([places[ids[0]] for ids in groups.values()])
    dealt = _exchange(counts, sizes, _deal(counts, sizes, drawn))
    return {each: int(dealt[row]) for row, ids in enumerate(groups.values()) for each in ids}


def _deal(counts: _Ints, sizes: _Ints, drawn: _Ints) -> _Ints:
    """Return a fold for each patient, the rarest stratum's patients first.

    Args:
        counts: (patients, strata), the patient's cases in each stratum.
        sizes: number of cases of each patient.
        drawn: fold of each patient, whose places are dealt anew.
    """
    free = np.zeros((drawn.max() + 1, sizes.max() + 1), dtype=int)  # places left in a fold, by patient size
    np.add.at(free, (drawn, sizes), 1)
    missing = _shares(counts, sizes, drawn)
    waiting = np.ones(len(drawn), dtype=bool)
    dealt = np.zeros_like(drawn)
    while waiting.any():
        left = counts[waiting].sum(axis=0)
        need = np.zeros(len(free), dtype=np.int64)
        row = int(waiting.argmax())
        if left.any():
            rarest = int(np.where(left > 0, left, left.max() + 1).argmin())
            row = int(np.where(waiting, counts[:, rarest], 0).argmax())
            need = missing[:, rarest]
        others = missing @ counts[row]  # decide where several folds need the rarest stratum alike
        open_folds = np.flatnonzero(free[:, sizes[row]])
        fold = max(open_folds, key=lambda each: (need[each], others[each], -each))
        dealt[row], waiting[row] = fold, False
        free[fold, sizes[row]] -= 1
        missing[fold] -= sizes.sum() * counts[row]
    return dealt


def _exchange(counts: _Ints, sizes: _Ints, dealt: _Ints) -> _Ints:
    """Return the folds after exchanges of two patients of one size, made while the squared errors fall."""
    dealt, num_cases = dealt.copy(), sizes.sum()
    missing = _shares(counts, sizes, dealt)
    np.subtract.at(missing, dealt, num_cases * counts)
    for _ in range(_MAX_ROUNDS):
        before = dealt.copy()
        for row, size in enumerate(sizes):
            change = counts - counts[row]  # of the row's fold, by each other patient
            lack = missing[dealt[row]] - missing[dealt]
            gain = (change * (lack - num_cases * change)).sum(axis=1)
            gain[(sizes != size) | (dealt == dealt[row])] = 0
            other = int(gain.argmax())
            if gain[other] > 0:
                missing[dealt[row]] -= num_cases * change[other]
                missing[dealt[other]] += num_cases * change[other]
                dealt[row], dealt[other] = dealt[other], dealt[row]
        if np.array_equal(before, dealt):
            break
    return dealt


def _shares(counts: _Ints, sizes: _Ints, folds: _Ints) -> _Ints:
    """Return each fold's share of each stratum, in cases times the number of all cases: whole, so never rounded."""
    num_cases = np.array([sizes[folds == fold].sum() for fold in range(folds.max() + 1)])
    return np.outer(num_cases, counts.sum(axis=0))


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
            hint='Write {"folds": [["case", ...], ...]}, or {"validation": [...], "training": [...]}.',
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
            "; ".join(faults),
            where="fixed folds",
            hint="Correct the fold file, or exclude the cases by name.",
        )
    return {name: fold for name, fold in given.items() if name in ids and name not in excluded}
