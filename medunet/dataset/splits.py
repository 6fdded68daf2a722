"""Folds: seeded, balanced, each patient whole within one; or fixed, from a file."""

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
    groups: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        groups[case.patient].append(case.id)
    patients = sorted(groups)
    order = np.random.default_rng(seed).permutation(len(patients))
    largest_first = sorted((patients[i] for i in order), key=lambda patient: -len(groups[patient]))
    sizes = [0] * min(num_folds, len(patients))
    folds = {}
    for patient in largest_first:
        fold = sizes.index(min(sizes))
        sizes[fold] += len(groups[patient])
        folds.update(dict.fromkeys(groups[patient], fold))
    return folds


def read_folds(path: Path) -> list[list[str]]:
    """Read fixed folds, `{"folds": [[case id, ...], ...]}`.

    Raises:
        InputError: the file does not hold such lists, or names a case twice.
    """
    plain = read_json(path)
    folds = plain.get("folds") if isinstance(plain, dict) else None
    valid = isinstance(folds, list) and all(
        isinstance(fold, list) and fold and all(isinstance(name, str) for name in fold) for fold in folds
    )
    if not folds or not valid:
        raise InputError("holds no folds", where=path.name, mend='Write {"folds": [["case", ...], ...]}.')
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
