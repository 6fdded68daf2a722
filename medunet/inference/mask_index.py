"""The index of a folder of predicted masks (index.json): what each mask was made from, also by several processes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medunet.base.errors import InputError
from medunet.base.files import hash_file, hash_value
from medunet.imaging.formats import files_of
from medunet.inference.backend import Backend
from medunet.inference.model_folder import Member
from medunet.inference.predictor import Predictor
from medunet.inference.roi_model import RoiModel
from medunet.records.config import InferenceConfig
from medunet.records.description import Description
from medunet.records.mask_journal import read_mask_index
from medunet.records.model_card import ModelCard

# Of prediction: increment it when masks change, so that all are predicted again. Since 0.8 mirror images and
# shifts are averaged window by window, before it was whole volumes.
_ALGORITHM, _AVERAGING_ALGORITHM = 1, 2
_ROI_ALGORITHM = 1  # the same for how a region of interest is found, and predicted alone
_FIRST = {  # before each was recorded, until 0.4 to 0.7; of one network
    "weights": "best",
    "backend": "torch",
    "algorithm": 1,
    "members": [],
}
_WORDS = {  # for what an entry holds
    "algorithm": "another version of prediction",
    "roi_algorithm": "another version of prediction",
    "model_sha256": "other weights",
    "quantised_sha256": "another int8 network",
    "weights": "other weights",
    "fold": "the model of another fold",
    "plan_sha256": "another plan or description of the model",
    "options_sha256": "other options of inference",
    "window_options": "other options of inference",
    "members": "other members of the ensemble",
    "image_sha256": "another scan",
}


def head_of(description: Description) -> dict[str, Any]:
    """Return what the index says of all masks."""
    targets = {name: list(values) for name, values in description.targets.items()}
    return {"dataset": description.name, "labels": description.labels, "targets": targets}


def read_entries(folder: Path, description: Description) -> dict[str, Any]:
    """Return the entries of a folder of masks by case.

    Raises:
        InputError: the index cannot be read, or the masks have other targets.
    """
    index = read_mask_index(folder)
    cases: dict[str, Any] = index.get("cases", {})
    if cases and index.get("targets") != head_of(description)["targets"]:
        raise InputError(
            f"holds masks of {list(index.get('targets', {}))}, but this model segments {list(description.targets)}",
            where=str(folder),
            hint="Choose another --out.",
        )
    return cases


def hash_making_options(config: InferenceConfig, *, resample: bool) -> str:
    """Return the hash of all options that shape a mask, as it stands in its entry; for `resample` see below."""
    return hash_value(_shaping_options(config) | ({"resample": True} if resample else {}))


def describe_making(model: Predictor, config: InferenceConfig, *, resample: bool) -> dict[str, Any]:
    """Return everything but the scan that shapes a mask, as it stands in its entry.

    Number of threads and memory layout are left out: they change the order of sums only.

    Args:
        resample: whether channels are resampled to the grid of the first one.
    """
    if isinstance(model, RoiModel):
        coarse = describe_making(model.coarse, model.coarse_options, resample=resample)
        roi = {"roi_algorithm": _ROI_ALGORITHM, "targets": list(model.targets), "margin_mm": model.margin_mm}
        return describe_making(model.fine, config, resample=resample) | {"roi": coarse | roi}
    (first, _), *others = model.models(config)
    options = _shaping_options(config)
    making = {
        "algorithm": _AVERAGING_ALGORITHM if config.averages else _ALGORITHM,
        **_describe_member(first.members[0]),
        "plan_sha256": _hash_plan(first.card),
        "options_sha256": hash_making_options(config, resample=resample),
        "window_options": {key: options[key] for key in ("overlap", "mirror", "shifts")},  # for the reader
        **_describe_backend(first.backend),
    }
    members = [_describe_member(member) for member in first.members]
    for other, config_of_other in others:
        own = {"plan_sha256": _hash_plan(other.card), **_describe_backend(other.backend)}
        own["options_sha256"] = hash_making_options(config_of_other, resample=False)
        members += [_describe_member(member) | own for member in other.members]
    return making | ({"members": members} if len(members) > 1 else {})


def _shaping_options(config: InferenceConfig) -> dict[str, Any]:
    options = config.to_dict()
    del options["weights"]  # identified by the hash of the file
    options.pop("members", None)  # identified by their hashes
    return options


def _hash_plan(card: ModelCard) -> str:
    recipe = [card.plan.hash_input, card.description.to_dict()]
    if card.nnunet is not None:
        recipe.append(card.nnunet.to_dict())
    return hash_value(recipe)


def _describe_backend(backend: Backend) -> dict[str, str]:
    return {"backend": backend.name, "precision": backend.precision, "device": backend.device.type}


def _describe_member(member: Member) -> dict[str, Any]:
    own = {
        "model_sha256": member.weights_sha256,
        "weights": member.weights,
        "fold": member.card.fold,
    }
    return own | ({"quantised_sha256": member.quantised_sha256} if member.quantised_sha256 else {})


def backend_of_masks(folder: Path, card: ModelCard, device: str) -> tuple[str, str] | None:
    """Return the backend and precision of the masks that a model predicted into a folder on this kind of device.

    A coarse model only found their region of interest. None if there is no such mask, or if they differ.
    """
    cases = read_mask_index(folder).get("cases", {})
    weights = {card.weights_sha256, card.final_weights_sha256} - {""}
    entries = [*cases.values(), *(entry["roi"] for entry in cases.values() if "roi" in entry)]
    found = {
        (entry.get("backend", _FIRST["backend"]), entry["precision"])
        for entry in entries
        if entry.get("model_sha256") in weights
        and entry.get("device", device) == device
        and "precision" in entry
    }
    return found.pop() if len(found) == 1 else None


def hash_images(images: Iterable[Path]) -> str:
    """Return a hash of the content of a scan's files."""
    return hash_value([hash_file(file) for image in images for file in files_of(image)])


def why_again(before: Mapping[str, Any], making: Mapping[str, Any], images: Iterable[Path]) -> str:
    """Return why a mask has to be predicted again; "" if it has not.

    What the entry of an earlier medunet does not hold is not compared.
    """
    known = {**_FIRST, **before}
    if why := _why_another_region(known.pop("roi", None), making.get("roi")):
        return why
    for key in ("backend", "precision", "device"):
        if known.get(key, making[key]) != making[key]:
            return f"{key} {making[key]} instead of {known[key]}"
    for key, value in {"members": [], **making}.items():
        if known.get(key, value) != value:
            return _WORDS[key]
    return _WORDS["image_sha256"] if before["image_sha256"] != hash_images(images) else ""


def _why_another_region(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str:
    """Return why another region of interest is predicted, by what it is made from; "" if it is the same."""
    if before is None or now is None:
        return "" if before is now else "the whole scan" if now is None else "a region of interest alone"
    margins, targets = ([each[key] for each in (now, before)] for key in ("margin_mm", "targets"))
    if margins[0] != margins[1]:
        return "a margin of {:g} mm instead of {:g}".format(*margins)
    if targets[0] != targets[1]:
        return "a region around {} instead of {}".format(*map(", ".join, targets))
    different = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if not different:
        return ""
    return f"{_WORDS.get(different[0], f'another {different[0]}')} of the coarse model"


def describe_again(reasons: Iterable[str], num_cases: int) -> str:
    """Return a line on the cases that are predicted again, with their reasons; "" if there are none."""
    counts = Counter(reasons)
    if not counts:
        return ""
    why = "; ".join(f"{reason} ({count})" for reason, count in counts.most_common())
    count = counts.total()
    return f"{count} of {num_cases} cases {'is' if count == 1 else 'are'} predicted again: {why}."
