"""The model card of a package in Markdown (MODEL_CARD.md), from its content and a run's scores: aggregates only."""

import math
from collections.abc import Iterable, Mapping, Sequence

from medunet.base.words import two_digits
from medunet.dataset.checks.scope_checks import COARSER, FINER, LARGEST_FIELD, SPACING_FACTOR
from medunet.records.description import Description
from medunet.records.model_card import TRAIN_IS_VALIDATION, ModelCard
from medunet.records.package import Package
from medunet.records.plan import Fingerprint, Plan
from medunet.reporting.markdown import join, or_unknown, plain, table
from medunet.reporting.model_card_scores import RunScores, write_scores

_DIRECTIONS = ("left–right", "back–front", "bottom–top")


def write_model_card(
    package: Package, cards: Mapping[str, ModelCard], scores: Sequence[RunScores] = (), example: str = ""
) -> str:
    """Return the model card in Markdown.

    Args:
        cards: the released card of each member, by its folder.
        scores: of the runs that the members come from; none if they were not scored.
        example: what the example is, such as "a synthetic CT of an abdomen".
    """
    card = next(iter(cards.values()))
    parts = [
        _head(package, card),
        _targets(card.description),
        _data(package, card),
        _inputs(card.description, card.plan),
        _members(package, cards),
        *_scores(package, card.description.unit, scores),
        _costs(cards),
        _training(package, card.plan, card.description.unit),
        _limits(package, scores),
        _example(package, example),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(package: Package, card: ModelCard) -> str:
    use = f"medunet predict {package.name}.zip SCANS --out MASKS"
    lines = [f"# {plain(package.name)}"]
    if package.title:
        lines.append(f"{plain(package.title)}.")
    lines.append(
        f"Segments {join(map(plain, package.targets))} in {card.plan.dimensions}D from "
        f"{_channels(card.description)}."
    )
    lines.append(
        "For research only: it is no medical device, and no result may guide the care of a patient unseen."
    )
    lines.append(f"```sh\n{use}\n```")
    return "\n\n".join(lines)


def _channels(description: Description) -> str:
    return join(
        plain(name) if channel.modality in (name, "other") else f"{plain(name)} ({channel.modality})"
        for name, channel in description.channels.items()
    )


def _targets(description: Description) -> str:
    rows = [
        f"| {plain(name)} | {description.written_values[name]} | "
        f"{plain(', '.join(description.regions.get(name, (name,))))} |"
        for name in description.targets
    ]
    head = [
        "## What it segments",
        "",
        "| structure | value in the mask | made of the labels |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def _data(package: Package, card: ModelCard) -> str:
    description, count = card.description, card.plan.fingerprint.num_cases
    title = plain(description.title or description.name)
    source = (
        f" ({plain(description.source)})" if description.source and description.source not in title else ""
    )
    lines = [
        "## Data and licences",
        "",
        f"- Trained on: {title}{source}, {count} labelled scans.",
        f"- Licence of the data: {plain(package.data_licence)}",
        f"- Licence of the weights: {plain(package.weights_licence)}",
    ]
    if package.attribution:
        lines.append(f"- Attribution: {plain(package.attribution)}")
    return "\n".join(lines)


def _inputs(description: Description, plan: Plan) -> str:
    known = plan.fingerprint
    lines = ["## Inputs", ""]
    if description.layout == "png":
        lines.append(f"- Pictures with {len(description.channels)} channel(s); volumes are refused.")
        return "\n".join(lines)
    lines += [
        f"- Channels: {_channels(description)}. Another modality is refused where the file tells it (N029).",
        f"- Spacing: {_spacing(known)} mm {', '.join(_DIRECTIONS)} in training. A scan beyond a factor of "
        f"{SPACING_FACTOR:g} of that is named, and one more than {COARSER:g} times coarser or {FINER:g} times finer "
        f"is refused (N025). Scans are resampled to {_times(plan.spacing_mm)} mm.",
        f"- Field of view: {_field(known)}",
        "- Orientation: any that the file's header states; scans are turned to the same one.",
        *_intensities(description, known),
    ]
    lines.append("- A refused scan is named with the code; `--accept CODE` predicts it nevertheless.")
    return "\n".join(lines)


def _spacing(known: Fingerprint) -> str:
    ends = [(min(axis), max(axis)) for axis in zip(*known.spacings_mm, strict=True)]
    return " × ".join(
        f"{low:.3g}" if math.isclose(low, high, rel_tol=1e-2) else f"{low:.3g}–{high:.3g}"
        for low, high in ends
    )


def _field(known: Fingerprint) -> str:
    field_mm = known.field_of_view_mm
    if field_mm is None:
        return "not known, so that none is refused. Give scans that show as much as those of training."
    return (
        f"at most {_times(field_mm)} mm in training. A scan more than {LARGEST_FIELD:g} times as large along any "
        "axis is refused (N028): crop it."
    )


def _intensities(description: Description, known: Fingerprint) -> list[str]:
    lines = []
    for name, channel in description.channels.items():
        statistics = known.intensities.get(name, {})
        if channel.modality == "CT" and statistics:
            low, high = statistics["percentile_00_5"], statistics["percentile_99_5"]
            lines.append(
                f"- Intensities of {plain(name)}: Hounsfield units; the structures have {low:.4g} to {high:.4g}. "
                "Grey values and other offsets are refused (N019, N020, N026, N027)."
            )
        elif channel.modality != "CT":
            lines.append(f"- Intensities of {plain(name)}: any scale; each scan is normalised by itself.")
    return lines


def _members(package: Package, cards: Mapping[str, ModelCard]) -> str:
    rows = []
    for member in package.members:
        cells = [
            f"`{member.folder}`",
            plain(str(member.fold)),
            or_unknown(member.seed),
            or_unknown(member.num_training_cases),
            or_unknown(member.epochs),
            or_unknown(member.steps),
            member.weights,
            member.precision,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    count = len(package.members)
    head = [
        "## Members",
        "",
        f"{count} trained network{'s' * (count != 1)}.",
        "",
        "| folder | fold | seed | training scans | epochs | steps | weights | stored in |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def _scores(package: Package, unit: str, scores: Sequence[RunScores]) -> list[str]:
    if not scores:
        return ["## Scores\n\nNot scored."]
    return [write_scores(package, each, unit, many=len(scores) > 1) for each in scores]


def _costs(cards: Mapping[str, ModelCard]) -> str:
    known = {folder: card.costs["fast"] for folder, card in cards.items() if "fast" in card.costs}
    if not known:
        return ""
    rows = []
    for folder, cost in known.items():
        place = cost.processor.partition(":")[0] if cost.device == "cpu" else cost.device
        dice = "–" if cost.difference is None else f"{cost.difference:+.4f}".replace("-", "−")
        seconds = (two_digits(cost.seconds_fp32), two_digits(cost.seconds))
        rows.append(
            [f"`{folder}`", *seconds, dice, str(cost.num_cases), f"{cost.backend_fp32} on {plain(place)}"]
        )
    head = [
        "folder",
        "s a scan in fp32",
        "s with `--fast`",
        "its mean Dice against fp32",
        "scans",
        "measured with",
    ]
    told = "On the held-out scans of the member's fold, reading and writing included."
    return "\n".join(["## Time", "", told, "", *table(head, rows)])


def _training(package: Package, plan: Plan, unit: str) -> str:
    versions = join(dict.fromkeys(member.medunet_version for member in package.members))
    return "\n".join(
        [
            "## How it was trained",
            "",
            f"- With medunet {versions}; packaged with medunet {package.medunet_version}.",
            f"- Network: {plain(plan.network.name)}, {plan.dimensions}D, features {join(map(str, plan.features))}.",
            f"- Patches of {_times(plan.patch_size)} voxels at {_times(plan.spacing_mm)} {unit}, "
            f"{plan.batch_size} a batch.",
        ]
    )


def _limits(package: Package, scores: Sequence[RunScores]) -> str:
    lines = [
        "## Limits",
        "",
        "- It knows only what its training scans show. Other scanners, protocols, diseases, ages or operated anatomy "
        "may be segmented badly without a word.",
        "- It always gives a mask, where the structure is absent too. Look at every mask before you use it.",
    ]
    if any(each.scores.about.get("train_is_validation") for each in scores):
        lines.append(f"- {TRAIN_IS_VALIDATION}")
    elif not scores:
        lines.append("- How good it is has not been measured on held-out scans.")
    elif any(each.recipe is not None for each in scores):
        lines.append(
            "- The scores are of networks trained alike on fewer scans of the same source. Scans of other hospitals "
            "may score lower."
        )
    else:
        lines.append(
            "- The scores are from the same source as its training scans. Scans of other hospitals may score lower."
        )
    if "fp16" in {member.precision for member in package.members}:
        lines.append(
            "- Weights in fp16 were rounded after training. On example scans no label changed where the two best "
            "probabilities differ by more than 0.001."
        )
    return "\n".join(lines)


def _example(package: Package, example: str) -> str:
    what = f": {plain(example)}" if example else ""
    return f"## Example\n\n`{package.example}`{what}. It shows that the model runs, and not how good it is."


def _times(values: Iterable[float]) -> str:
    return " × ".join(f"{value:.4g}" for value in values)
