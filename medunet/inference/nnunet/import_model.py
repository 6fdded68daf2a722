"""Import a trained model of nnU-Net v2: its results folder, or the ZIP that nnU-Net exports, as a run's models."""

import errno
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from medunet import __version__
from medunet.base.errors import InputError
from medunet.base.files import atomic_write, hash_file, read_json_object, write_json
from medunet.base.lock import hold
from medunet.inference.nnunet.checkpoint import Checkpoint, convert_weights, read_checkpoint
from medunet.inference.nnunet.plans import NnunetPlans, read_plans
from medunet.inference.nnunet.previous import PREVIOUS
from medunet.inference.nnunet.results_folder import Trained, choose_model, find_earlier, open_source, shown
from medunet.networks.builder import build_network
from medunet.records.model_card import WEIGHTS_FILES, ModelCard
from medunet.records.run_folder import RunFolder

CheckpointName = Literal["final", "best"]
_FILES: dict[CheckpointName, str] = {"final": "checkpoint_final.pth", "best": "checkpoint_best.pth"}
_MARKER = "imported.json"


@dataclass(frozen=True)
class Imported:
    """A model that was imported."""

    configuration: str
    trainer: str
    folds: tuple[str, ...]
    checkpoint: str  # file name
    targets: tuple[str, ...]
    previous: "Imported | None" = None  # of a cascade
    notes: tuple[str, ...] = ()


def import_model(
    source: Path, out: Path, *, configuration: str | None = None, checkpoint: CheckpointName | None = None
) -> Imported:
    """Write the folds of a trained model of nnU-Net v2 as `out/folds/<k>/model`, as those of a run.

    Only plans.json, dataset.json and checkpoints are opened; no code from them is run. The earlier stage of a cascade
    is imported into `out/previous`. Files of an earlier import are replaced.

    Args:
        source: folder `Trainer__Plans__Configuration`, its parent `Dataset…`, or a ZIP that nnU-Net exported.
        configuration: such as 3d_fullres, where the source holds several.
        checkpoint: None: the final one of each fold, or the best one if no fold has a final one.

    Raises:
        InputError: no model is found, several are, or medunet does not have what one needs (the message names it
            all); or `out` holds something else.
        DataError: a checkpoint or the ZIP is damaged or malicious.
    """
    out = out.resolve()
    with hold(out.parent, "import-model", [out.name]), open_source(source, out) as root:
        trained = choose_model(root, source, configuration)
        _refuse_other(out)
        read = _read(trained, checkpoint, source)
        if not read.plans.previous:
            return _write(read, out)
        earlier = _read(find_earlier(trained, read.plans.previous, source), checkpoint, source)
        _mark(read, out)  # so that a stopped import can be repeated
        previous = _write(earlier, out / PREVIOUS)
        return replace(
            _write(_with_hashes(read, previous, RunFolder(out / PREVIOUS)), out), previous=previous
        )


@dataclass(frozen=True)
class _Read:
    """A model that was read whole, before anything of it is written."""

    plans: NnunetPlans
    checkpoint: str
    weights: dict[str, dict[str, torch.Tensor]]  # by fold
    notes: tuple[str, ...]


def _read(trained: Trained, checkpoint: CheckpointName | None, source: Path) -> _Read:
    """Read the checkpoints of every fold and check that the network has these weights."""
    names: list[CheckpointName] = [checkpoint] if checkpoint else ["final", "best"]
    for name in names:
        paths = {fold: folder / _FILES[name] for fold, folder in trained.checkpoints.items()}
        paths = {fold: path for fold, path in paths.items() if path.is_file()}
        if paths:
            break
    else:
        raise InputError(
            f"no fold_<k> has {' or '.join(_FILES[name] for name in names)}",
            where=shown(trained.folder, source),
            hint="Give a folder with trained folds, such as fold_0, or choose --checkpoint final or best.",
        )
    notes = []
    if checkpoint is None and name == "best":
        notes.append(f"no fold has {_FILES['final']}: {_FILES['best']} is taken")
    if left_out := [fold for fold in trained.checkpoints if fold not in paths]:
        notes.append(f"fold {', '.join(left_out)}: without {_FILES[name]}, left out")
    weights: dict[str, dict[str, torch.Tensor]] = {}
    plans: NnunetPlans | None = None
    for fold, path in paths.items():
        content = read_checkpoint(path)
        one = _translate(trained, content, source)
        if plans is not None and one != plans:
            raise InputError(
                f"fold {fold} has another configuration, trainer or mirroring than fold {next(iter(paths))}",
                where=shown(trained.folder, source),
                hint="Import folds of one model only.",
            )
        plans = one
        weights[fold] = _fitting(content, one, f"fold_{fold}/{path.name}")
    assert plans is not None
    if (trainer := plans.rules.trainer) != "nnUNetTrainer":
        notes.append(
            f"trained by {trainer}: medunet does not know whether it changes prediction, other than by the mirrored "
            "axes, which are read from the checkpoint"
        )
    return _Read(plans, _FILES[name], weights, tuple(notes))


def _translate(trained: Trained, content: Checkpoint, source: Path) -> NnunetPlans:
    return read_plans(
        trained.plans,
        trained.dataset,
        content.configuration,
        trainer=content.trainer,
        mirror_axes=content.mirror_axes,
        where=shown(trained.folder, source),
    )


def _fitting(content: Checkpoint, plans: NnunetPlans, where: str) -> dict[str, torch.Tensor]:
    """Return a checkpoint's weights by medunet's names.

    Raises:
        InputError: they are not those of the network that the plans describe.
    """
    weights = convert_weights(content.weights, plans.plan, plans.permutation, where)
    with torch.device("meta"):
        expected = build_network(plans.plan, plans.description).state_dict()
    faults = [f"{name} is missing" for name in expected if name not in weights]
    faults += [f"{name} has no place" for name in weights if name not in expected]
    faults += [
        f"{name} has shape {tuple(weight.shape)}, not {tuple(expected[name].shape)}"
        for name, weight in weights.items()
        if name in expected and weight.shape != expected[name].shape
    ]
    if faults:
        raise InputError(
            f"its weights are not those of the network in plans.json: {'; '.join(faults[:3])}"
            + (f"; and {len(faults) - 3} more" if len(faults) > 3 else ""),
            where=where,
            hint="Its trainer builds another network; medunet cannot run it.",
        )
    return weights


def _with_hashes(read: _Read, previous: Imported, run: RunFolder) -> _Read:
    """Return a cascade with the hashes of the weights of its earlier stage, which is in `run`."""
    stage = read.plans.rules.previous
    assert stage is not None
    hashes = {fold: hash_file(run.model(fold) / WEIGHTS_FILES["best"]) for fold in previous.folds}
    stage = stage.model_copy(update={"weights_sha256": hashes})
    rules = read.plans.rules.model_copy(update={"previous": stage})
    return replace(read, plans=replace(read.plans, rules=rules))


def _mark(read: _Read, out: Path) -> None:
    """Write the marker by which a later import knows that it may replace the folder; drop folds that are gone."""
    out.mkdir(parents=True, exist_ok=True)
    earlier = read_json_object(out / _MARKER)["folds"] if (out / _MARKER).is_file() else []
    for fold in set(earlier) - set(read.weights):
        shutil.rmtree(RunFolder(out).fold(fold), ignore_errors=True)
    write_json(
        out / _MARKER,
        {
            "schema": "medunet.imported/1",
            "medunet_version": __version__,
            "configuration": read.plans.rules.configuration,
            "trainer": read.plans.rules.trainer,
            "checkpoint": read.checkpoint,
            "folds": list(read.weights),
        },
    )


def _write(read: _Read, out: Path) -> Imported:
    """Write model folders and the marker."""
    _mark(read, out)
    for fold, weights in read.weights.items():
        folder = RunFolder(out).model(fold)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / WEIGHTS_FILES["best"]
        with atomic_write(path) as temporary:
            try:
                save_file(weights, temporary)
            except SafetensorError as error:
                raise OSError(errno.ENOSPC, str(error)) from error
        ModelCard(
            medunet_version=__version__,
            description=read.plans.description,
            plan=read.plans.plan,
            fold=int(fold) if fold.isdigit() else fold,
            inference=read.plans.inference,
            weights_sha256=hash_file(path),
            endings=read.plans.endings,
            nnunet=read.plans.rules,
        ).write(folder / "model.json")
    return Imported(
        read.plans.rules.configuration,
        read.plans.rules.trainer,
        tuple(read.weights),
        read.checkpoint,
        tuple(read.plans.description.targets),
        notes=read.notes,
    )


def _refuse_other(out: Path) -> None:
    """Refuse a folder that holds anything but an earlier import.

    Raises:
        InputError: it does.
    """
    if out.is_dir() and any(out.iterdir()) and not (out / _MARKER).is_file():
        raise InputError(
            "holds something else than an imported model", where=str(out), hint="Choose a new --out folder."
        )


def describe_notes(imported: Imported) -> Mapping[str, tuple[str, ...]]:
    """Return the notes on an import by configuration, those of an earlier stage first."""
    notes = {imported.previous.configuration: imported.previous.notes} if imported.previous else {}
    return {**notes, imported.configuration: imported.notes}
