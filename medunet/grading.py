"""Masks scored and shown, of a run or of any tool; targets joined by name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medunet import __version__
from medunet.case_scores import CaseScore
from medunet.config import Config
from medunet.errors import InputError
from medunet.files import read_object
from medunet.imaging.volumes import mask_ending
from medunet.plans import ModelCard
from medunet.records import Description
from medunet.speech import console, say


def score_and_show(
    pairs: Sequence[Any],
    wanted: Mapping[str, tuple[int, ...]],
    predicted: Mapping[str, tuple[int, ...]],
    description: Description,
    config: Config,
    out: Path,
    about: dict[str, Any],
    *,
    prediction_instances_as: int | None = None,
    resample: bool = False,
    workers: int | None = None,
    keep_journal: bool = False,
) -> list[CaseScore]:
    """Score pairs whose references are as described, write the tables and show them.

    A call that was stopped goes on from the cases that it finished, with `keep_journal` one that was not, too: it
    scores again what has changed. `resample` and `workers` as `score_pairs` has them.

    Raises:
        InputError: the configuration asks for the lesions or clDice of a target that is not declared.
    """
    from medunet.scoring.evaluate import score_pairs
    from medunet.scoring.labels import ScoreOptions
    from medunet.scoring.summary import score_table
    from medunet.scoring.tables import write_scores

    options = config.scoring.model_dump()
    for key in ("lesions", "tubes"):
        if unknown := [name for name in options[key] if name not in description.targets]:
            raise InputError(
                f"{description.name} declares no {unknown}",
                where=f"scoring.{key}",
                mend=f"Choose from {list(description.targets)}.",
            )
    names = [name for name in wanted if name in predicted]
    options["lesions"] = {name: rules for name, rules in options["lesions"].items() if name in names}
    options["tubes"] = tuple(name for name in options["tubes"] if name in names)
    journal = out / "scores.partial.jsonl"
    scores = score_pairs(
        pairs,
        wanted,
        predicted,
        ScoreOptions(**options),
        reference_instances_as=description.instances_as,
        prediction_instances_as=prediction_instances_as,
        ignore_value=description.ignore_value,
        resample=resample,
        workers=workers,
        journal=journal,
    )
    about = {
        "medunet": __version__,
        **about,
        **options,
        "resample": resample,
        "unit_of_length": description.unit,
    }
    write_scores(scores, out, about=about, targets=wanted, mask_ending=mask_ending(pairs[0].reference))
    if not keep_journal:
        journal.unlink(missing_ok=True)
    console.print(score_table(scores, description.unit))
    say("Score", f"{len(pairs)} cases", out / "scores.csv")
    return scores


def dataset_of(
    reference: Path, dataset: str | None, data_root: Path | None, pairs_csv: Path | None = None
) -> str | None:
    """Return the name of the dataset that describes a reference; a manifest's own is not looked up.

    Raises:
        InputError: names the options that would be ignored.
    """
    is_manifest = reference.suffix == ".json"
    if is_manifest:
        why = "a manifest names its dataset and its cases"
        options: dict[str, object] = {"--dataset": dataset, "--pairs": pairs_csv}
    else:
        why, options = "only a manifest's cases lie below a data root", {"--data-root": data_root}
    if used := [name for name, value in options.items() if value is not None]:
        raise InputError(why, where=", ".join(used), mend="Leave the option out.")
    return "manifest" if is_manifest else dataset


def choose_targets(description: Description, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the named targets with their label values, or all.

    Raises:
        InputError: names those that are not declared.
    """
    targets = description.targets
    if unknown := [name for name in names if name not in targets]:
        raise InputError(
            f"{description.name} declares no {unknown}",
            where="--target",
            mend=f"Choose from {list(targets)}.",
        )
    return {name: targets[name] for name in names or targets}


def weights_behind(
    cases: Sequence[str], entries: Mapping[str, Any], cards: Mapping[int | str, ModelCard]
) -> dict[str, Any]:
    """Say of predicted cases how many were outlined by the best and by the final weights, `weights`.

    With `cards` also on how many of them their own model's best weights were chosen, `num_chosen_on`: None where a
    model before 0.5 does not say on which cases it was. `entries` are those of index.json.
    """
    known = {case: entries[case] for case in cases if case in entries}
    counts: dict[str, int] = {}
    num_chosen_on: int | None = 0
    for case, entry in known.items():
        weights = entry.get("weights", "best")
        counts[weights] = counts.get(weights, 0) + 1
        card = cards.get(entry.get("fold"))
        if weights == "best" and card is not None:
            if not card.validation_cases:
                num_chosen_on = None
            elif num_chosen_on is not None:
                num_chosen_on += case in card.validation_cases
    return {"weights": counts, **({"num_chosen_on": num_chosen_on} if cards else {})}


def entries_beside(folder: Path) -> dict[str, Any]:
    """Return what the index.json of a folder of masks says of each case; nothing where medunet wrote none."""
    index = folder / "index.json"
    entries: dict[str, Any] = read_object(index).get("cases", {}) if index.exists() else {}
    return entries


def targets_beside(folder: Path) -> dict[str, tuple[int, ...]] | None:
    """Return the targets that medunet wrote into the index.json of a folder of masks, if it did."""
    index = folder / "index.json"
    plain = read_object(index) if index.exists() else {}
    return {name: tuple(values) for name, values in plain["targets"].items()} if "targets" in plain else None
