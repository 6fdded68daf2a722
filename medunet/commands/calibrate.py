"""`medunet calibrate`: quantise a fold's network to int8, and measure what int8 and `--fast` cost in Dice."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape

from medunet.base.errors import InputError
from medunet.base.lock import hold, wait_for
from medunet.base.packages import missing_packages
from medunet.commands.predict import require_same_channels, scans_of
from medunet.commands.terminal import console, print_stage
from medunet.records.costs import Cost, FasterWay
from medunet.records.data_root import case_paths
from medunet.records.manifest import Case
from medunet.records.model_card import ModelCard
from medunet.runs.computing import require_one_process, set_up_cpu
from medunet.runs.run import Run, trained_cards

if TYPE_CHECKING:
    from medunet.compute.devices import Precision
    from medunet.inference.calibration import LabelledScan
    from medunet.inference.model import Model

_MOST_CASES = 32  # training cases whose windows the network is quantised on


def run_calibrate(run: Run, fold: int | str) -> dict[str, str]:
    """Quantise a fold's network to int8, and measure what int8 and `--fast` cost on its validation cases.

    Both go into the model card, and the int8 network into the model folder. Cases that are predicted already are not
    predicted again. Returns the failed cases with their reasons; the cost is then not written.

    Without openvino and nncf, or on a GPU, only `--fast` is measured. Fold "each" stands for every trained fold.

    Raises:
        InputError: the fold is not trained or holds out no cases, or its model does not fit the run.
    """
    require_one_process()
    failed: dict[str, str] = {}
    for each in trained_cards(run) if fold == "each" else [fold]:
        with hold(run.folder.root, "calibrate", [str(each)]):
            failed |= _calibrate(run, each)
    return failed


def _calibrate(run: Run, fold: int | str) -> dict[str, str]:
    from medunet.compute.devices import choose_device
    from medunet.inference.calibration import Way, compare, measure
    from medunet.inference.model_folder import read_card
    from medunet.inference.openvino_backend import ConversionError

    manifest, folder = run.read_manifest(), run.folder.model(fold)
    card = read_card(folder)
    require_same_channels(card.description, manifest.description)
    training, validation = manifest.split_fold(fold)
    if training == validation:
        raise InputError(
            "holds out no cases on which a cost could be measured",
            where=f"fold {fold}",
            hint="Calibrate a fold that does.",
        )
    if known := {case.id for case in validation} & set(card.training_cases):
        raise InputError(
            f"its model was trained on {len(known)} of the held-out cases",
            where=f"fold {fold}",
            hint="The folds were changed after training. Restore them, or train in another run folder.",
        )
    cases = _labelled(run, validation)
    options, kept = run.config.inference, run.folder.fold(fold) / "calibration"
    device = choose_device(run.config.device)
    set_up_cpu(device)
    reference = Way(_load(run, folder, device, "fp32"), options, kept / "fp32")
    ways: dict[FasterWay, Way] = {}
    if not (why_not := _why_not_int8(device)):
        try:
            _quantise(run, folder, training)
            ways["int8"] = Way(_load(run, folder, device, "int8"), options, kept / "int8")
        except ConversionError as error:
            why_not = error.what
    ways["fast"] = Way(reference.model, options.fast(), kept / "fast")
    if options.fast() == options:
        del ways["fast"]
        console.print("  --fast changes nothing: the run's own options are as fast.", highlight=False)
    precise, failed = measure(reference, cases)
    costs: dict[FasterWay, Cost] = {}
    for name, way in ways.items():
        if failed:
            break
        assert precise is not None
        faster, failed = measure(way, cases)
        if faster is not None:
            costs[name] = compare(precise, faster, cases)
            _keep(folder, name, costs[name])
    print_stage("Calibrate", f"{', '.join(costs) or 'nothing'} measured on {len(cases)} cases", folder)
    for name, cost in costs.items():
        console.print(f"  {name}: {escape(cost.describe())}", highlight=False, soft_wrap=True)
    if "int8" not in ways:
        console.print(
            f"  [yellow]int8 is not measured[/]: {escape(why_not)}", highlight=False, soft_wrap=True
        )
    for case, reason in failed.items():
        console.print(f"  [red]failed[/] {escape(case)}: {escape(reason)}", highlight=False, soft_wrap=True)
    return failed


def _why_not_int8(device: Any) -> str:
    """Return why int8 cannot be measured on a device; "" if it can."""
    if missing := missing_packages(("openvino", "nncf")):
        return f"{' and '.join(missing)} not installed; run `pip install 'medunet[int8]'`"
    return "" if device.type == "cpu" else "it is computed on the CPU; use --device cpu"


def _labelled(run: Run, cases: Sequence[Case]) -> list["LabelledScan"]:
    """Return cases as scans with label and patient."""
    from medunet.inference.calibration import LabelledScan

    manifest = run.read_manifest()
    scans = scans_of(cases, manifest, run.data_root, own=True)
    found = []
    for case, scan in zip(cases, scans, strict=True):
        _, label = case_paths(case, manifest.description, run.data_root)
        assert label is not None, "training cases have labels"
        found.append(LabelledScan(scan, label, case.patient))
    return found


def _load(run: Run, folder: Path, device: Any, precision: "Precision") -> "Model":
    """Load the fold's model: on a CPU in OpenVINO if it is installed and can compute the network."""
    from medunet.inference.model import Model
    from medunet.inference.openvino_backend import ConversionError

    weights = run.config.inference.weights
    if device.type == "cpu" and not missing_packages(("openvino",)):
        try:
            return Model.load(folder, device=device, precision=precision, weights=weights, backend="openvino")
        except ConversionError as error:
            if precision == "int8":
                raise
            console.print(
                f"  [yellow]fp32 in PyTorch[/]: {escape(error.what)}", highlight=False, soft_wrap=True
            )
    return Model.load(folder, device=device, precision=precision, weights=weights)


def _quantise(run: Run, folder: Path, training: Sequence[Case]) -> None:
    """Quantise the fold's network on windows of some training cases, drawn with the seed."""
    import torch

    from medunet.inference.model import Model
    from medunet.inference.quantised import quantise
    from medunet.training.cache import prepare_cases

    seed = run.config.seed
    places = np.random.default_rng([seed, 8]).permutation(len(training))[:_MOST_CASES]
    chosen = [training[place] for place in sorted(places)]
    model = Model.load(
        folder, device=torch.device("cpu"), precision="fp32", weights=run.config.inference.weights
    )
    cases = prepare_cases(
        chosen, model.card.description, model.card.plan, run.data_root, run.folder.cache, seed=seed
    )
    quantise(model, folder, cases, seed)


def _keep(folder: Path, way: FasterWay, cost: Cost) -> None:
    """Write a cost into the model card.

    Raises:
        InputError: the model was trained on in the meantime.
    """
    with wait_for(folder, "card"):
        now = ModelCard.read(folder / "model.json")
        if cost.weights_sha256 not in (now.weights_sha256, now.final_weights_sha256):
            raise InputError(
                "the model was exported again while its cost was measured",
                where=str(folder),
                hint="Run `medunet calibrate` again.",
            )
        now.model_copy(update={"costs": {**now.costs, way: cost}}).write(folder / "model.json")
