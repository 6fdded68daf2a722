"""Compute settings of a run: CPU threads, a plan that fits the device, precision and memory layout of training."""

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
from medunet.runs.run import Run, has_started

_log = logging.getLogger(__name__)


def set_up_cpu(device: Any) -> None:
    """Set up this process for a CPU: use all usable cores, keep freed memory, warn about the load of other processes.

    For other devices nothing is done.
    """
    if device.type != "cpu":
        return
    from medunet.compute.devices import keep_freed_memory, use_cores

    use_cores()
    keep_freed_memory()
    if line := load_warning(CoreWatch().other_load()):
        _log.warning(line)


def plan_for(config: Config, description: Description, fingerprint: Fingerprint, device: Any) -> Plan:
    """Make a plan within the memory that is free on the device now."""
    from medunet.compute.device_memory import free_memory_gb

    planning = config.planning
    budget, why = memory_budget(
        device.type, free_memory_gb(device), planning.memory_gb, planning.network.name
    )
    return make_plan(fingerprint, description, planning, memory_gb=budget, memory_why=why)


def require_plan_for(run: Run, device: Any) -> None:
    """Check that the plan was made for this kind of device; if training has already started, only warn.

    Raises:
        InputError: The plan was made for another kind of device; the hint names the command that makes a new plan.
    """
    planned = read_provenance(run).get("plan", {}).get("device", device.type)
    if planned == device.type:
        return
    text = f"the plan was made for {planned}, but training is to run on {device.type}"
    if has_started(run):
        _log.warning("%s; the plan is kept, because training has already started.", text)
        return
    raise InputError(
        text,
        where=str(run.folder.plan),
        hint=f"Make a new plan with `medunet plan {run.folder.root} --device {device.type}`, or train with "
        f"--device {planned}.",
    )


def precision_for(config: Config, device: Any) -> str:
    """Return the configured precision for a device; fp16 becomes "auto" on a CPU."""
    asked = config.training.precision
    return "auto" if asked == "fp16" and device.type == "cpu" else asked


def choose_run_compute(run: Run, device: Any, *, keep: bool = True) -> Any:
    """Return the compute settings of a fold: those it was started with, or the result of a new benchmark.

    The earlier settings are used if the fold has a checkpoint and plan, configuration, device and processor are the
    same. Without a checkpoint they are ignored, since they may have been measured under load. A new result is stored
    in provenance.json if `keep`.
    """
    from medunet.training.memory import explain_out_of_memory
    from medunet.training.probe import ComputeChoice, choose_compute

    training = run.config.training
    plan = hash_value(run.read_plan().hash_input)
    asked = [plan, training.precision, training.channels_last, training.compile, device.type]
    processor = read_processor().to_dict()
    key = str(training.fold) + (f"/seeds/{training.member}" if training.member else "")
    earlier = read_provenance(run).get("folds", {}).get(key, {})
    checkpoints = run.folder.fold(training.fold, training.member) / "checkpoints"
    if earlier.get("asked") == asked and any(checkpoints.glob("*.ckpt")):
        if device.type != "cpu" or earlier.get("processor", processor) == processor:  # 0.4.0 stored none
            return ComputeChoice(**earlier["compute"])
        _log.warning(
            "%s was started on %s: precision and memory layout are chosen again for this processor.",
            *(training.describe().capitalize(), earlier["processor"]["name"]),
        )
    with explain_out_of_memory(f"probing {training.describe()}"):
        choice = choose_compute(training, run.read_plan(), run.read_manifest().description, device)
    if not keep:
        return choice
    entry = {
        "asked": asked,
        "compute": choice.plain(),
        "device": device_name(device),
        "processor": processor,
        "seed": run.config.training_seed,
    }
    add_provenance(run, "folds", {key: entry})
    return choice


def device_name(device: Any) -> str:
    """Return the name of the GPU, or "CPU"."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def require_one_process() -> None:
    """Check that the command runs in one process.

    Raises:
        InputError: torchrun started several processes.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise InputError(
            f"torchrun started {os.environ['WORLD_SIZE']} processes, but only training can be distributed",
            where="torchrun",
            hint="Use `torchrun ... -m medunet.cli train RUN` for training, and run other stages without torchrun.",
        )
