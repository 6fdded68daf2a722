"""The scores that a package's card tells: of its own networks, or of others of the same recipe with fewer scans."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from medunet.base.errors import InputError
from medunet.commands.terminal import console
from medunet.records.model_card import ModelCard
from medunet.records.run_folder import RunFolder
from medunet.runs.model_source import ModelSource
from medunet.runs.run import member_folders

if TYPE_CHECKING:
    from medunet.reporting.model_card_scores import RunScores
    from medunet.scoring.scores_json import StoredScores


def read_own_scores(members: Sequence[ModelSource]) -> "list[RunScores]":
    """Read the scores of the members' runs, each run once; scores of other weights are left out, with a line."""
    from medunet.reporting.model_card_scores import RunScores

    found = []
    for root in dict.fromkeys(source.run.root for source in members if source.run):
        ours = [each for each in members if each.run and each.run.root == root]
        if not (root / "scores.json").is_file():
            continue
        scores, trouble, num_networks = _read_scores(root, [(each.card, each.used_sha256) for each in ours])
        if trouble:
            text = f"the scores of {root.name} {trouble}, and are left out: score the run again"
            console.print(f"  [yellow]{escape(text)}[/]", highlight=False, soft_wrap=True)
            continue
        found.append(RunScores(scores, ours[0].seed, num_networks))
    return found


def read_recipe_scores(root: Path, members: Sequence[ModelSource]) -> "RunScores":
    """Read the scores of a run of the members' recipe; the members may have been trained on the scans it left out.

    Raises:
        InputError: it is not scored, its scores are of other weights than it holds, or its recipe is another one.
    """
    from medunet.reporting.model_card_scores import Recipe, RunScores

    folders = member_folders(RunFolder(root))
    if not folders or not (root / "scores.json").is_file():
        raise InputError(
            "holds no trained network with scores.json", where=str(root), hint="Run `medunet score` on it."
        )
    theirs = [ModelSource.of(folder) for folder in folders]
    if different := _describe_difference(theirs[0], members[0]):
        raise InputError(
            f"is of another recipe: {different}", where=str(root), hint="Train it with the members' settings."
        )
    scores, trouble, num_networks = _read_scores(root, [(each.card, each.used_sha256) for each in theirs])
    if trouble:
        raise InputError(f"its scores {trouble}: score it again", where=str(root))
    scored = {str(row["case"]) for row in scores.rows}
    seen = {case for each in members for case in each.card.training_cases}
    recipe = Recipe(len(theirs[0].card.training_cases), len(scored & seen))
    return RunScores(scores, theirs[0].seed, num_networks, recipe)


def _describe_difference(theirs: ModelSource, ours: ModelSource) -> str:
    """Return in what two networks' recipes differ; "" if they do not, but for cases, folds and seeds."""
    parts = [_recipe_of(each) for each in (theirs, ours)]
    different = [
        f"{key} {parts[0][key]} and {parts[1][key]}" for key in parts[0] if parts[0][key] != parts[1][key]
    ]
    return "; ".join(different)


def _recipe_of(source: ModelSource) -> dict[str, Any]:
    plan = source.card.plan
    return {
        "channels": list(source.card.description.channels),
        "targets": list(source.card.description.targets),
        "network": plan.network.name,
        "features": list(plan.features),
        "patch": list(plan.patch_size),
        "batch": plan.batch_size,
        "spacing": [round(mm, 3) for mm in plan.spacing_mm],
        "steps": source.read_length().get("steps"),
    }


def _read_scores(root: Path, networks: Sequence[tuple[ModelCard, str]]) -> "tuple[StoredScores, str, int]":
    """Return a run's scores, why they cannot be told ("" if they can), and how many networks predicted a scan.

    `networks` are cards with the SHA-256 of the weights in use, which must have predicted the run's masks.
    """
    from medunet.scoring.predicted import read_index_cases
    from medunet.scoring.scores_json import read_scores_json

    scores = read_scores_json(root / "scores.json")
    used: dict[str, set[str]] = {}
    for card, sha256 in networks:
        used.setdefault(str(card.fold), set()).add(sha256)
    entries = read_index_cases(RunFolder(root).predictions).values()
    made_by = [
        (used[str(entry["fold"])], [each.get("model_sha256") for each in entry.get("members", [entry])])
        for entry in entries
        if str(entry.get("fold")) in used
    ]
    if not scores.summaries or math.isnan(scores.mean_dice):
        return scores, "hold no summary", 0
    if not made_by or any(not known.issuperset(hashes) for known, hashes in made_by):
        return scores, "are not known to be of these weights", 0
    return scores, "", max(len(hashes) for _, hashes in made_by)
