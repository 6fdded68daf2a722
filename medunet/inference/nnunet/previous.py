"""Where the model of a cascade's earlier stage lies: in `previous/` of the folder that was imported into."""

from pathlib import Path

from medunet.base.errors import InputError
from medunet.records.model_card import ModelCard
from medunet.records.nnunet_rules import PreviousStage
from medunet.records.run_folder import RunFolder

PREVIOUS = "previous"


def previous_folders(folder: Path, stage: PreviousStage) -> list[Path]:
    """Return the model folders of an earlier stage, for the model in `OUT/folds/<k>/model`.

    Raises:
        InputError: one is missing, or is another than the one that was imported.
    """
    root = RunFolder(folder.resolve().parents[2] / PREVIOUS)
    folders = [root.model(fold) for fold in stage.weights_sha256]
    for each, sha256 in zip(folders, stage.weights_sha256.values(), strict=True):
        card = ModelCard.read(each / "model.json") if (each / "model.json").is_file() else None
        if card is None or card.weights_sha256 != sha256:
            what = "is missing" if card is None else "is another model than the one that was imported"
            raise InputError(
                f"the earlier stage of this cascade {what}",
                where=str(each),
                hint="Copy the whole folder that the model was imported into, or import it again.",
            )
    return folders
