"""What a run computes with: cores, a plan that fits the device, and the way that its training began with."""

import logging
import os
from typing import Any

from medunet.base.errors import InputError
from medunet.base.files import hash_value
from medunet.base.processor import CoreWatch, load_warning, read_processor
from medunet.planning.planner import make_plan, memory_budget
from medunet.records.config import Config
from medunet.records.description import Description
from medunet.records.plan import Fingerprint, Plan
from medunet.runs.provenance import add_provenance, read_provenance
from medunet.runs.run import Run, has_begun

_log = logging.getLogger(__name__)


def begin_computing(device: Any) -> None:
    """Ready this process to compute on the CPU: all usable cores, freed memory kept; warn where others take cores."""
    if device.type != "cpu":
        return
    from medunet.compute.devices import keep_freed_memory, use_cores

    use_cores()
    keep_freed_memory()
    if line := load_warning(CoreWatch().other_load()):
        _log.warning(line)


def plan_for(config: Config, description: Description, fingerprint: Fingerprint, device: Any) -> Plan:
    """Make a plan for a device, within the memory that is free on it now."""
    from medunet.compute.device_memory import free_memory_gb

    planning = config.planning
    budget, why = memory_budget(
        device.type, free_memory_gb(device), planning.memory_gb, planning.network.name
    )
    return make_plan(fingerprint, description, planning, memory_gb=budget, memory_why=why)


def require_planned_for(run: Run, device: Any) -> None:
    """Refuse to train by a plan that was made for another kind of device; a run that has begun keeps its plan.

    Raises:
        InputError: names both kinds, and the command that plans anew.
    """
    planned = read_provenance(run).get("plan", {}).get("device", device.type)
    if planned == device.type:
        return
    text = f"the plan was made for {planned}, but training is to run on {device.type}"
    if has_begun(run):
        _log.warning("%s: a run that has begun keeps its plan.", text)
        return
    raise InputError(
        text,
        where=str(run.folder.plan),
        hint=f"Plan anew with `medunet plan {run.folder.root} --device {device.type}`, or train with "
        f"--device {planned}.",
    )


def precision_for(config: Config, device: Any) -> str:
    """Return the precision that a run's configuration asks for; what it asked of a card is open on a CPU."""
    asked = config.training.precision
    return "auto" if asked == "fp16" and device.type == "cpu" else asked


def choose_compute_of(run: Run, device: Any, *, keep: bool = True) -> Any:
    """Return how the fold computes: as it began, on this processor by this plan; else found out, and noted if `keep`.

    What was noted of a fold without a checkpoint counts for nothing: it may have been found beside other work.
    """
    from medunet.training.memory import naming_out_of_memory
    from medunet.training.probe import ComputeChoice, choose_compute

    training = run.config.training
    plan = hash_value(run.read_plan().hash_input)
    asked = [plan, training.precision, training.channels_last, training.compile, device.type]
    processor = read_processor().to_dict()
    before = read_provenance(run).get("folds", {}).get(str(training.fold), {})
    if before.get("asked") == asked and has_begun(run, training.fold):
        if device.type != "cpu" or before.get("processor", processor) == processor:  # 0.4.0 noted none
            return ComputeChoice(**before["compute"])
        text = f"Fold {training.fold} was begun on {before['processor']['name']}: how to compute here is found anew."
        _log.warning(text)
    with naming_out_of_memory(f"probing fold {training.fold}"):
        choice = choose_compute(training, run.read_plan(), run.read_manifest().description, device)
    if not keep:
        return choice
    entry = {
        "asked": asked,
        "compute": choice.plain(),
        "device": device_name(device),
        "processor": processor,
    }
    add_provenance(run, "folds", {str(training.fold): entry})
    return choice


def device_name(device: Any) -> str:
    """Return the card's name, or CPU."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def require_one_process() -> None:
    """Refuse what several processes would do several times over.

    Raises:
        InputError: torchrun started more than one.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise InputError(
            f"torchrun started {os.environ['WORLD_SIZE']} processes, but only training is shared among them",
            where="torchrun",
            hint="Run the other stages without it, and `torchrun ... -m medunet.cli train RUN` in between.",
        )
