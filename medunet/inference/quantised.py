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
from medunet.inference.model import Model
from medunet.inference.openvino_backend import NETWORK_FILES, convert_network, import_openvino
from medunet.records.model_card import ModelCard
from medunet.records.plan import Plan, count_inputs
from medunet.transforms.patches import PreparedCase, sample_patch

PACKAGES = ("openvino", "nncf")
_NOTE = "int8.json"  # what the network was quantised from
_QUANTISING = 1  # increment it when networks are quantised otherwise
_WINDOWS_PER_CASE = 2  # one around foreground, one anywhere
_log = logging.getLogger(__name__)


def int8_folder(model_folder: Path) -> Path:
    """Return the folder of a model folder that holds its quantised network."""
    return model_folder / "int8"


def hash_int8(model_folder: Path) -> str:
    """Return a hash of the quantised network's files; "" if it has none."""
    files = [int8_folder(model_folder) / name for name in NETWORK_FILES]
    return hash_value([hash_file(file) for file in files]) if all(file.is_file() for file in files) else ""


def find_int8(folder: Path, card: ModelCard, weights_sha256: str) -> Path:
    """Return the file of a model's quantised network, whose cost in Dice the model card knows.

    Raises:
        InputError: there is none, it was made from other weights, or it is not the file whose cost was measured.
    """
    hint = "Quantise the network and measure the cost with `medunet calibrate RUN`, or predict without int8."
    sha256, cost = hash_int8(folder), card.costs.get("int8")
    if not sha256 or cost is None:
        what = (
            "the model has no quantised network" if not sha256 else "what int8 costs in Dice is not measured"
        )
        raise InputError(what, where="--precision int8", hint=hint)
    if cost.int8_sha256 != sha256:
        raise InputError(
            f"{int8_folder(folder).name}/ is not the network whose cost model.json holds",
            where="--precision int8",
            hint=hint,
        )
    if cost.weights_sha256 != weights_sha256:
        raise InputError("the network was quantised with other weights", where="--precision int8", hint=hint)
    return int8_folder(folder) / NETWORK_FILES[0]


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
        InputError: a package is missing, or the network cannot be quantised.
        ConversionError: OpenVINO cannot compute this network.
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
    out = int8_folder(folder)
    note = read_json_object(out / _NOTE) if (out / _NOTE).is_file() else {}
    if note.get("made_from") == made_from and note.get("sha256") == hash_int8(folder):
        return hash_int8(folder)
    plan, description = model.card.plan, model.card.description
    shape = (count_inputs(description, plan.context_slices), *plan.patch_size)
    converted = convert_network(model.backend.network, shape)
    _log.info("Quantising the network to int8 on %d windows of %d cases.", made_from["windows"], len(cases))
    quantised = _quantise(converted, list(sample_windows(cases, plan, seed)))
    with atomic_folder(out) as temporary:
        import_openvino().save_model(quantised, temporary / NETWORK_FILES[0], compress_to_fp16=False)
        sha256 = hash_value([hash_file(temporary / name) for name in NETWORK_FILES])
        write_json(temporary / _NOTE, {"made_from": made_from, "sha256": sha256})
    return sha256


def _quantise(network: Any, windows: Sequence[NDArray[np.float32]]) -> Any:
    """Return a network of OpenVINO in int8, scaled by what the network computes in these windows."""
    import_openvino()
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # nncf must not report
    with contextlib.redirect_stdout(io.StringIO()):
        import nncf

        nncf.set_log_level(logging.ERROR)
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
            raise InputError(
                f"the network cannot be quantised ({reason})",
                where="medunet calibrate",
                hint="Predict without int8.",
            ) from error
