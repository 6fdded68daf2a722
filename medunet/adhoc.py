"""Work outside a run: any scans outlined by a model folder, any tool's masks scored."""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from medunet.case_scores import CaseScore
from medunet.computing import begin_computing
from medunet.config import Config, WeightsName
from medunet.dataset.manifest import case_paths, data_root_from
from medunet.grading import choose_targets, entries_beside, score_and_show, targets_beside, weights_behind
from medunet.records import Description, Manifest, load_description
from medunet.runs import descriptions_folder, require_same_channels
from medunet.speech import console
from medunet.stages import say_predicted


def predict_images(
    folder: Path,
    images: Sequence[Path],
    out: Path,
    data_root: Path | None,
    *,
    device_name: str,
    overwrite: bool,
    weights: WeightsName | None = None,
) -> dict[str, str]:
    """Predict image files and folders, or the cases of one manifest.json, with a model folder; return the failed.

    `weights` as `Model.load` has them.
    """
    from medunet.compute.devices import choose_device
    from medunet.inference.model import Model, read_card
    from medunet.inference.predict import Scan, predict_scans, scans_from_files
    from medunet.inference.probe import choose_prediction

    device = choose_device(device_name)
    begin_computing(device)
    card = read_card(folder)
    how = choose_prediction(card.plan, card.description, device)
    model = Model.load(
        folder, device=device, precision=how.precision, channels_last=how.channels_last, weights=weights
    )
    if len(images) == 1 and images[0].suffix == ".json":
        listed, root = Manifest.read(images[0]), data_root_from(data_root)
        require_same_channels(model.card.description, listed.description)
        scans = [
            Scan(case.id, case_paths(case, listed.description, root)[0], case.resample)
            for case in listed.used
        ]
    else:
        scans = scans_from_files(images, model.card.description)
    failed = predict_scans(model, scans, out, model.card.inference, overwrite=overwrite)
    say_predicted(len(scans), failed, out)
    return failed


def score_masks_of(
    reference: Path,
    prediction: Path,
    out: Path,
    config: Config,
    *,
    prediction_description: Description | None = None,
    targets: Sequence[str] = (),
    pairs_csv: Path | None = None,
    data_root: Path | None = None,
    resample: bool = False,
    workers: int | None = None,
    keep_journal: bool = False,
) -> list[CaseScore]:
    """Score any tool's masks, files or folders, against references described by `config.dataset`.

    The reference may be a manifest.json instead, which describes itself: its labelled cases below `data_root` are
    expected. Labels are joined by name. The prediction's names come from its own description, else from the
    index.json that medunet wrote beside it, else they are the reference's. `keep_journal` as `score_and_show` has it.

    Raises:
        InputError: a target that is not declared, paths that do not exist, or no name in common.
    """
    from medunet.scoring.pairs import find_pairs, match_cases

    if reference.suffix == ".json":
        listed = Manifest.read(reference)
        description = listed.description
        pairs, unmatched = match_cases(_labels_of(listed, data_root), prediction)
    else:
        description = load_description(config.dataset, descriptions_folder())
        pairs, unmatched = find_pairs(reference, prediction, pairs_csv)
    wanted = choose_targets(description, targets)
    prediction_folder = prediction if prediction.is_dir() else prediction.parent
    predicted = targets_beside(prediction_folder)
    if prediction_description is not None:
        predicted = prediction_description.targets
    described = prediction_description or (description if predicted is None else None)
    for name in unmatched:
        text = f"{escape(name)}: no reference of that name"
        console.print(f"  [yellow]unmatched prediction[/] {text}", highlight=False)
    about = {"dataset": description.name, "num_unmatched_predictions": len(unmatched)}
    about |= weights_behind([pair.case for pair in pairs], entries_beside(prediction_folder), {})
    return score_and_show(
        pairs,
        wanted,
        predicted or description.targets,
        description,
        config,
        out,
        about,
        prediction_instances_as=described.instances_as if described else None,
        resample=resample,
        workers=workers,
        keep_journal=keep_journal,
    )


def _labels_of(listed: Manifest, data_root: Path | None) -> dict[str, Path]:
    """Return the label files of a manifest's cases by their id."""
    root = data_root_from(data_root)
    labels = {case.id: case_paths(case, listed.description, root)[1] for case in listed.used}
    return {case_id: path for case_id, path in sorted(labels.items()) if path is not None}
