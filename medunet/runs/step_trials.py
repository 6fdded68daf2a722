"""Dice of held-out masks with postprocessing steps tried on them, case by case in several processes."""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medunet import __version__
from medunet.base.errors import DataError, MedunetError
from medunet.base.files import hash_value
from medunet.base.pool import Lost, choose_workers, run_parallel
from medunet.base.progress import track
from medunet.base.words import list_some
from medunet.imaging.formats import files_of
from medunet.imaging.volumes import read_header, read_label
from medunet.postprocessing.tidy import tidy_labels
from medunet.records.config import PostprocessStep
from medunet.records.description import Description
from medunet.scoring.bits import find_box
from medunet.scoring.predicted import Predicted, read_predicted
from medunet.scoring.reading import read_pair

Steps = Mapping[str, tuple[PostprocessStep, ...]]  # by target, as in `inference.postprocess`

_MOST_NAMES = 5
_NUM_VALUES = 256  # of labels


@dataclass(frozen=True)
class HeldOut:
    """A held-out case: its label file and its predicted mask; None if its prediction failed."""

    case: str
    label: Path
    mask: Path | None


@dataclass(frozen=True)
class CaseDice:
    """Dice `(variants, targets)` of one case, its targets' volumes in the label, and its grid."""

    dice: list[list[float]]  # NaN where mask and label are both empty, 0 without a mask
    volumes_ml: list[float]
    spacing_mm: float  # of the middle one of the three axes


def try_steps(
    cases: Sequence[HeldOut],
    description: Description,
    variants: Sequence[Steps],
    *,
    about: str,
    journal: Path | None = None,
    workers: int | None = None,
) -> list[CaseDice]:
    """Return for each case the Dice of every target with every variant of postprocessing; `{}` is the mask as it is.

    All masks lie in one folder, whose index.json says what they hold. Cases that an earlier, stopped call stored in
    `journal` are not computed again; the caller removes that file. `about` stands in front of the progress bar.

    Raises:
        DataError: masks or labels cannot be read, or are on different grids; lists every case with its reason.
    """
    work = partial(_try_case, description=description, variants=[dict(each) for each in variants])
    finished = _Journal(journal, [description.to_dict(), [_plain(each) for each in variants]])
    done = {index: found for index, case in enumerate(cases) if (found := finished.find(case))}
    waiting = [index for index in range(len(cases)) if index not in done]
    items = [cases[index] for index in waiting]
    faults = []
    num_workers = workers or choose_workers(len(items), _count_largest(items) * len(variants))
    with closing(run_parallel(work, items, num_workers)) as results:
        for _, (number, result) in zip(track(items, about), results, strict=True):
            if isinstance(result, CaseDice):
                done[waiting[number]] = result
                finished.add(items[number], result)
            else:
                reason = result.why if isinstance(result, Lost) else result
                faults.append(f"case {items[number].case}: {reason}")
    if faults:
        raise DataError(
            list_some(sorted(faults), _MOST_NAMES),
            where=f"{len(faults)} of {len(cases)} held-out cases",
            hint="Correct the files, or exclude the cases with `medunet check --exclude CASE=REASON`.",
        )
    return [done[index] for index in range(len(cases))]


def _try_case(held: HeldOut, *, description: Description, variants: Sequence[Steps]) -> CaseDice | str:
    """Return the Dice of one case, or why there is none."""
    try:
        return _compute(held, description, variants)
    except MedunetError as error:
        return error.what
    except Exception as error:  # the message may hold a path
        return type(error).__name__


def _compute(held: HeldOut, description: Description, variants: Sequence[Steps]) -> CaseDice:
    targets = list(description.targets.values())
    if held.mask is None:
        reference = read_label(held.label, description.label_rules)
        predicted, prediction = None, None
    else:
        predicted = read_predicted(held.mask.parent) or Predicted.by(description, is_own=False)
        pair = read_pair(held.label, held.mask, description.label_rules, predicted.rules)
        reference, prediction = pair.reference, pair.prediction.astype(np.uint8)
    truth, spacing_mm = reference.array, reference.spacing_mm
    rows = []
    for steps in variants:
        if prediction is None or predicted is None:
            rows.append([0.0] * len(targets))
            continue
        tidied = prediction
        if any(steps.values()):
            tidied = tidy_labels(
                prediction, description.targets, description.written_values, steps, spacing_mm
            )
        counts = count_labels(truth, tidied)
        rows.append(dice_of_targets(counts, description.targets, predicted.targets, description.ignore_value))
    counts = count_labels(truth, truth)
    voxel_ml = math.prod(spacing_mm) / 1000
    volumes = [float(counts[list(values)].sum()) * voxel_ml for values in targets]
    return CaseDice(rows, volumes, sorted(spacing_mm)[1])


def count_labels(reference: NDArray[Any], prediction: NDArray[Any]) -> NDArray[np.int64]:
    """Return the numbers of voxels `(256, 256)` by their value in the reference and in the prediction.

    Voxels around all labels of both, which are background in both, are not counted.
    """
    box = find_box(reference, prediction)
    pairs = reference[box].astype(np.uint16) * np.uint16(_NUM_VALUES) + prediction[box]
    return np.bincount(pairs.ravel(order="K"), minlength=_NUM_VALUES**2).reshape(_NUM_VALUES, _NUM_VALUES)


def dice_of_targets(
    counts: NDArray[np.int64],
    targets_reference: Mapping[str, tuple[int, ...]],
    targets_prediction: Mapping[str, tuple[int, ...]],
    ignore_value: int | None,
) -> list[float]:
    """Return the Dice of each target from the counts of `count_labels`; NaN where neither side has the target."""
    kept = counts.copy()
    if ignore_value is not None:
        kept[ignore_value] = 0
    dice = []
    for name, values in targets_reference.items():
        rows, columns = list(values), list(targets_prediction[name])
        both = int(kept[np.ix_(rows, columns)].sum())
        sizes = int(kept[rows].sum()) + int(kept[:, columns].sum())
        dice.append(2 * both / sizes if sizes else math.nan)
    return dice


def _count_largest(cases: Sequence[HeldOut]) -> int:
    """Return the number of voxels of the largest label, by file size; 0 if it cannot be read."""
    try:
        largest = max(cases, key=lambda case: case.label.stat().st_size)
        return math.prod(read_header(largest.label, label=True).shape)
    except (MedunetError, OSError, ValueError):  # reported when the case is read
        return 0


class _Journal:
    """A file with a line for each finished case, by which a stopped selection goes on."""

    def __init__(self, path: Path | None, settings: Any) -> None:
        self._path, self._settings = path, hash_value([__version__, settings])
        self._found: dict[str, CaseDice] = {}
        lines = path.read_bytes().splitlines() if path is not None and path.exists() else []
        for line in lines:
            with suppress(ValueError, KeyError, TypeError):  # the last one may be incomplete
                plain = json.loads(line)
                key = plain.pop("key")
                self._found[key] = CaseDice(**plain)

    def find(self, case: HeldOut) -> CaseDice | None:
        """Return what is known of a case; None if it is not finished or its files have changed."""
        return self._found.get(self._key(case))

    def add(self, case: HeldOut, result: CaseDice) -> None:
        """Append a case's result."""
        if self._path is None:
            return
        line = {"key": self._key(case), **vars(result)}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(f"\n{json.dumps(line)}\n")  # the leading line break ends an incomplete line

    def _key(self, case: HeldOut) -> str:
        states = []
        for path in (case.label, case.mask):
            for file in files_of(path) if path is not None else ():
                with suppress(OSError):  # reported when it is read
                    state = file.stat()
                    states.append([str(file.absolute()), state.st_size, state.st_mtime_ns])
        return hash_value([case.case, states, self._settings])


def _plain(steps: Steps) -> dict[str, list[dict[str, Any]]]:
    return {name: [step.model_dump() for step in each] for name, each in steps.items()}
