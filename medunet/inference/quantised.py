"""The int8 form of a trained network: quantised by NNCF on windows of training cases, kept in the model folder."""

import contextlib
import io
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import InputError
from medunet.base.files import atomic_folder, hash_file, hash_value, read_json_object, write_json
from medunet.base.packages import require_packages, versions_of
from medunet.inference.backend import TorchBackend
from medunet.inference.model import Model
from medunet.inference.openvino_backend import (
    INT8_FOLDER,
    NETWORK_FILES,
    ConversionError,
    convert_network,
    import_openvino,
    save_network,
)
from medunet.records.plan import Plan, plan_inputs
from medunet.transforms.patches import PreparedCase, sample_patch

PACKAGES = ("openvino", "nncf")
_NOTE = "int8.json"  # what the network was quantised from
_QUANTISING = 2  # increment it when networks are quantised otherwise
_WINDOWS_PER_CASE = 2  # one around foreground, one anywhere
_log = logging.getLogger(__name__)


def require_measured(model: Model) -> None:
    """Check that the model card knows what a model's int8 network costs in Dice; other precisions need nothing.

    Raises:
        InputError: it was not measured, the network is another one, or it was made from other weights.
    """
    if model.backend.precision != "int8":
        return
    faults = []
    for member in model.members:
        cost = member.card.costs.get("int8")
        if cost is None:
            what = "what the int8 network costs in Dice is not measured"
        elif cost.quantised_sha256 != member.quantised_sha256:
            what = "the int8 network is not the one whose cost in Dice is in model.json"
        elif cost.weights_sha256 != member.weights_sha256:
            what = f"the int8 network was not made from the {member.weights} weights"
        else:
            continue
        faults.append(what if len(model.members) == 1 else f"fold {member.card.fold}: {what}")
    if faults:
        raise InputError(
            "; ".join(faults),
            where="--precision int8",
            hint="Make the network and measure its cost with `medunet calibrate RUN`, or use another precision.",
        )


def sample_windows(cases: Sequence[PreparedCase], plan: Plan, seed: int) -> Iterator[NDArray[np.float32]]:
    """Yield windows `(1, C, *patch)` of preprocessed cases: of each, one around foreground and one anywhere."""
    rng = np.random.default_rng([seed, 8])
    for case in cases:
        for number in range(_WINDOWS_PER_CASE):
            image, _ = sample_patch(
                case,
                plan.patch_size,
                rng,
                foreground=number == 0,
                slice_axis=plan.slice_axis if plan.dimensions == 2 else None,
                context_slices=plan.context_slices,
                valid_margin=plan.valid_margin,
            )
            yield image[None]


def quantise(model: Model, folder: Path, cases: Sequence[PreparedCase], seed: int) -> str:
    """Quantise a network of PyTorch into its model folder, unless it was done before; return the hash of the files.

    The files are written whole. Another process must not quantise the same model.

    Raises:
        InputError: a package is missing.
        ConversionError: OpenVINO cannot compute this network, or NNCF not quantise it.
    """
    require_packages(PACKAGES, "int8", where="medunet calibrate")
    made_from = {
        "quantising": _QUANTISING,
        "weights_sha256": model.weights_sha256,
        "plan_sha256": hash_value([model.card.plan.hash_input, model.card.description.to_dict()]),
        "cases": [case.id for case in cases],
        "windows": _WINDOWS_PER_CASE * len(cases),
        "seed": seed,
        "versions": versions_of(PACKAGES),
    }
    out = folder / INT8_FOLDER
    note = read_json_object(out / _NOTE) if (out / _NOTE).is_file() else {}
    whole = all((out / name).is_file() for name in NETWORK_FILES)
    if whole and note.get("made_from") == made_from and note.get("sha256") == _hash(out):
        return _hash(out)
    plan, description = model.card.plan, model.card.description
    shape = (plan_inputs(plan, description), *plan.patch_size)
    assert isinstance(model.backend, TorchBackend)
    converted = convert_network(model.backend.network, shape, own_norms=True)
    _log.info("Quantising the network to int8 on %d windows of %d cases.", made_from["windows"], len(cases))
    quantised = _quantise(converted, list(sample_windows(cases, plan, seed)))
    with atomic_folder(out) as temporary:
        save_network(quantised, temporary)
        sha256 = _hash(temporary)
        write_json(temporary / _NOTE, {"made_from": made_from, "sha256": sha256})
    return sha256


def _hash(folder: Path) -> str:
    return hash_value([hash_file(folder / name) for name in NETWORK_FILES])


def _quantise(network: Any, windows: Sequence[NDArray[np.float32]]) -> Any:
    """Return a network of OpenVINO in int8, scaled by what the network computes in these windows."""
    import_openvino()
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # nncf must not report
    logger_class = logging.getLoggerClass()
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            import nncf
        except ImportError as error:
            raise InputError(
                f"nncf cannot be imported ({error})",
                where="medunet calibrate",
                hint="Run `pip install -U 'medunet[int8]'`.",
            ) from error
        logging.setLoggerClass(logger_class)  # nncf sets its own for all later loggers
        logging.getLogger("nncf").setLevel(logging.ERROR)  # `set_log_level` would change its handlers, too
        try:
            return nncf.quantize(
                network,
                nncf.Dataset(windows),
                preset=nncf.QuantizationPreset.MIXED,  # activations of leaky ReLU are not symmetric
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(windows),
            )
        except MemoryError:
            raise
        except Exception as error:  # nncf raises errors of many kinds
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise ConversionError(
                f"the network cannot be quantised ({reason})",
                where="medunet calibrate",
                hint="Predict without int8.",
            ) from error
