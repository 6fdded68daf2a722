"""What a selection chooses from: runs on the same cases and folds, each with its masks of the cases it holds out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from typing import Any

from medunet.base.errors import InputError
from medunet.base.words import list_some
from medunet.imaging.volumes import mask_ending
from medunet.records.data_root import case_paths
from medunet.records.manifest import Case, Manifest
from medunet.records.mask_journal import read_mask_index
from medunet.records.model_card import ModelCard
from medunet.records.selection import Member
from medunet.runs.run import (
    Run,
    describe_untrained_seeds,
    held_out_cases,
    member_folders,
    trained_cards,
)
from medunet.runs.step_trials import HeldOut

_MOST_NAMES = 3


@dataclass(frozen=True)
class Candidate:
    """A configuration that may be chosen: its name, its networks, and the folder of its masks of held-out cases.

    The folder holds masks before postprocessing and their index.json, as `RUN/predictions` does.
    """

    name: str
    members: tuple[Member, ...]
    masks: Path
    runs: tuple[Run, ...] = ()  # of an ensemble


def find_candidates(runs: Sequence[Run], *, ensembles: bool = True) -> list[Candidate]:
    """Return what may be chosen, from the fewest networks to the most, then in the order of the runs.

    Each run by itself and, with `ensembles`, each pair of them and all together, whose masks are still to be
    predicted.

    Raises:
        InputError: the runs differ in cases, labels or folds, folds are not trained, or masks are missing, outdated
            or postprocessed; lists every fault of every run.
    """
    _require_comparable(runs)
    alone = [
        Candidate(run.folder.root.resolve().name, tuple(_members(run, runs[0])), run.folder.predictions)
        for run in runs
    ]
    together = _find_ensembles(runs, alone) if ensembles else []
    return sorted([*alone, *together], key=lambda candidate: len(candidate.members))


def _find_ensembles(runs: Sequence[Run], alone: Sequence[Candidate]) -> list[Candidate]:
    """Return the ensembles of two runs and of all, with the folder for their masks of held-out cases."""
    sizes = dict.fromkeys(size for size in (2, len(runs)) if len(runs) > 1)
    found = []
    for numbers in chain.from_iterable(combinations(range(len(runs)), size) for size in sizes):
        names = [alone[number].name for number in numbers]
        members = tuple(member for number in numbers for member in alone[number].members)
        masks = runs[0].folder.ensembles / "+".join(names)
        found.append(Candidate(" + ".join(names), members, masks, tuple(runs[number] for number in numbers)))
    return found


def labelled_cases(run: Run, masks: Path) -> tuple[list[HeldOut], list[HeldOut], list[str]]:
    """Return the labelled cases that the folds validate on, the labelled test cases, and those without a label.

    Each with its mask in the folder `masks`, in the order of their ids.
    """
    manifest = run.read_manifest()
    folds: list[HeldOut] = []
    tests: list[HeldOut] = []
    unlabelled = []
    for case in sorted(_expected(run), key=lambda case: case.id):
        images, label = case_paths(case, manifest.description, run.data_root)
        if label is None:
            unlabelled.append(case.id)
            continue
        mask = masks / f"{case.id}{mask_ending(images[0])}"
        held = HeldOut(case.id, label, mask if mask.exists() else None)
        (tests if case.split == "test" else folds).append(held)
    return folds, tests, unlabelled


def relative_to_run(path: Path, run: Run) -> str:
    """Return a path in a run, or in one beside it, relative to the run's folder."""
    return Path(os.path.relpath(path.resolve(), run.folder.root.resolve())).as_posix()


def _members(run: Run, first: Run) -> list[Member]:
    members = []
    for folder in member_folders(run.folder):
        card = ModelCard.read(folder / "model.json")
        members.append(
            Member(
                run=relative_to_run(run.folder.root, first),
                model=folder.relative_to(run.folder.root).as_posix(),
                weights_sha256=card.sha256_of(card.inference.weights or "best"),
            )
        )
    return members


def _expected(run: Run) -> list[Case]:
    """Return the cases that the trained folds hold out, each once."""
    found = {case.id: case for fold in trained_cards(run) for case in held_out_cases(run, fold)}
    return list(found.values())


def _require_comparable(runs: Sequence[Run]) -> None:
    faults = []
    roots = [run.folder.root.resolve() for run in runs]
    if twice := sorted({root.name for root in roots if roots.count(root) > 1}):
        faults.append(f"{', '.join(twice)}: given twice")
    elif len({root.parent for root in roots}) > 1:
        faults.append(
            "the runs are in different folders, but must be beside one another: files name no paths"
        )
    first = runs[0].read_manifest()
    for run, root in zip(runs, roots, strict=True):
        own = run.read_manifest()
        found = [] if run is runs[0] else _differences(first, own, roots[0].name)
        if run.config.inference.members:
            found.append(
                "inference.members names other runs: leave it out, selection averages runs by itself"
            )
        found += _untrained(run) or _unusable_masks(run)
        faults += [f"{root.name}: {fault}" for fault in found]
    if faults:
        raise InputError(
            "; ".join(faults),
            where="medunet select",
            hint="Give runs of the same manifest, with every fold trained and its held-out cases predicted "
            "(`medunet predict RUN`).",
        )


def _differences(first: Manifest, other: Manifest, name: str) -> list[str]:
    """Return how a manifest's cases, targets and folds differ from the first's, which is called `name`."""
    faults = []
    descriptions = [each.description for each in (first, other)]
    if descriptions[0].targets != descriptions[1].targets or (
        descriptions[0].label_rules != descriptions[1].label_rules
    ):
        names = [list(each.targets) for each in descriptions]
        faults.append(f"has other targets or labels than {name}: {names[1]} and {names[0]}")
    ours, theirs = ({case.id: case for case in each.used} for each in (first, other))
    for text, missing in (
        (f"lacks cases of {name}", ours.keys() - theirs.keys()),
        (f"has cases that {name} lacks", theirs.keys() - ours.keys()),
    ):
        if missing:
            faults.append(f"{text}: {list_some(sorted(missing), _MOST_NAMES)}")
    both = sorted(ours.keys() & theirs.keys())
    for key, text in (
        ("fold", "other folds"),
        ("split", "another test set"),
        ("patient", "other patients"),
        ("label", "other label files"),
    ):
        if differ := [case for case in both if getattr(ours[case], key) != getattr(theirs[case], key)]:
            faults.append(f"has {text} than {name}: {list_some(differ, _MOST_NAMES)}")
    return faults


def _untrained(run: Run) -> list[str]:
    """Return why a run's held-out cases say nothing about it: folds or seeds are not trained, or all is seen."""
    cards = trained_cards(run)
    num_folds = 1 if run.config.holdout is not None else run.read_manifest().num_folds
    if missing := [str(fold) for fold in range(num_folds) if fold not in cards]:
        one = len(missing) == 1
        return [f"{'fold' if one else 'folds'} {', '.join(missing)} {'is' if one else 'are'} not trained"]
    if seeds := describe_untrained_seeds(run, cards):
        return [seeds]
    if any(card.train_is_validation for card in cards.values()):
        return ["its model was trained on the cases that it is scored on: no case is held out"]
    return []


def _unusable_masks(run: Run) -> list[str]:
    """Return which masks of held-out cases are missing, of an earlier model, or postprocessed."""
    index = read_mask_index(run.folder.predictions)
    entries, failed = index.get("cases", {}), index.get("failed", {})
    faults = []
    weights: dict[str, set[str]] = {}
    num_networks: dict[str, int] = {}  # of the last fold that holds a case out, which predicts it
    for fold in trained_cards(run):
        of_fold, folders = set(), member_folders(run.folder, fold)
        for folder in folders:
            card = ModelCard.read(folder / "model.json")
            of_fold |= {card.weights_sha256, card.final_weights_sha256}
        for case in held_out_cases(run, fold):
            weights.setdefault(case.id, set()).update(of_fold)
            num_networks[case.id] = len(folders)
    whole = {case for case, entry in entries.items() if "begun" not in entry}
    if absent := sorted(weights.keys() - whole - failed.keys()):
        faults.append(f"held-out cases are not predicted: {list_some(absent, _MOST_NAMES)}")
    known = sorted(weights.keys() & whole)
    stale = []
    for name in known:
        used = [each.get("model_sha256") for each in entries[name].get("members", [entries[name]])]
        if len(used) != num_networks[name] or not weights[name].issuperset(used):
            stale.append(name)
    if stale:
        faults.append(f"masks are of an earlier model: {list_some(stale, _MOST_NAMES)}")
    if tidied := [case for case in known if not _is_untouched(entries[case], run)]:
        faults.append(
            f"masks were postprocessed, or predicted with other options than in config.yaml: "
            f"{list_some(tidied, _MOST_NAMES)} (remove inference.postprocess from it and predict again)"
        )
    return faults


def _is_untouched(entry: dict[str, Any], run: Run) -> bool:
    """Return whether a mask was predicted without postprocessing, with the run's other options."""
    from medunet.inference.mask_index import hash_making_options

    changes: dict[str, Any] = {"postprocess": {}} | {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in entry.get("window_options", {}).items()
    }
    plain = run.config.inference.model_copy(update=changes)
    hashes = {hash_making_options(plain, resample=resample) for resample in (False, True)}
    return entry.get("options_sha256") in hashes
