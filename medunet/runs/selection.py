"""The selection of a run (selection.json): read for prediction, and refused once networks or masks are others."""

from pathlib import Path

from medunet.base.errors import InputError
from medunet.base.files import hash_file, hash_value
from medunet.records.config import InferenceConfig
from medunet.records.model_card import ModelCard
from medunet.records.run_folder import RunFolder
from medunet.records.selection import Member, Selection, describe_steps


def chosen(folder: RunFolder) -> Selection | None:
    """Return what `medunet select` chose in a run's folder; None if it has not chosen anything there.

    Raises:
        InputError: a network of the chosen configuration is missing or was trained again since, or its masks of
            held-out cases were predicted again. (They may have been removed.)
    """
    if not folder.selection.exists():
        return None
    selection = Selection.read(folder.selection)
    stale = [
        (Path(member.run) / member.model).as_posix()
        for member in selection.configuration.members
        if _weights_of(model_of(folder, member)) != member.weights_sha256
    ]
    what = f"other networks: {', '.join(stale)} changed or cannot be found" if stale else ""
    masks = folder.root.resolve() / selection.configuration.masks
    if not stale and masks.is_dir() and hash_masks(masks) != selection.configuration.masks_sha256:
        what = f"other masks of held-out cases than {selection.configuration.masks} holds now"
    if what:
        raise InputError(
            f"was made with {what}",
            where=str(folder.selection),
            hint="Select again with `medunet select`, or predict with --no-selection.",
        )
    return selection


def apply_steps(options: InferenceConfig, selection: Selection) -> tuple[InferenceConfig, str]:
    """Return a model's options with the chosen postprocessing, and a line that says so.

    A model's own steps, from `inference.postprocess`, take precedence.
    """
    if options.postprocess:
        own = describe_steps(options.postprocess)
        return options, f"not used for postprocessing: the model has its own inference.postprocess ({own})"
    text = f"{selection.chosen}; postprocessing {selection.describe_steps()}"
    return options.model_copy(update={"postprocess": selection.postprocess}), text


def hash_masks(masks: Path) -> str:
    """Return a hash of the masks in a folder, by name and content; index.json and hidden files do not count."""
    files = [path for path in masks.iterdir() if not path.name.startswith(".") and path.name != "index.json"]
    return hash_value({path.name: hash_file(path) for path in files if path.is_file()})


def model_of(folder: RunFolder, member: Member) -> Path:
    """Return the model folder of a member of the selection in a run's folder."""
    return folder.root.resolve() / member.run / member.model


def _weights_of(model: Path) -> str:
    if not (model / "model.json").is_file():
        return ""
    card = ModelCard.read(model / "model.json")
    return card.sha256_of(card.inference.weights or "best")
