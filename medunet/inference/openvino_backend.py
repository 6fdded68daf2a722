"""A network in OpenVINO: converted once by torch.export, kept in the user's cache folder, computed on the CPU."""

import logging
import os
import re
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medunet.base.errors import InputError
from medunet.base.files import hash_file, hash_value, read_json_object, write_json
from medunet.base.lock import wait_for
from medunet.base.processor import num_threads, read_processor
from medunet.compute.choice_cache import BackendName, cache_folder
from medunet.compute.devices import Precision
from medunet.inference.openvino_norms import use_own_norms
from medunet.inference.winograd import use_winograd

NETWORK_FILES = ("network.xml", "network.bin")  # OpenVINO finds the second one by the name of the first
INT8_FOLDER = "int8"  # in a model folder: the quantised network
_log = logging.getLogger(__name__)
_WHERE = "--backend openvino"
CONVERSION = 3  # increment it when networks are converted otherwise, so that all are converted again
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # int8: for what is not quantised
_MOST_DIFFERENT = 1e-3  # of a converted network's logits from torch's, as a share of the largest
_MOST_WITH_OWN_NORMS = 1e-2  # the same in fp32 for a network that is to be computed in bf16


class ConversionError(InputError):
    """OpenVINO cannot compute this network."""


class OpenVinoBackend:
    """A network in OpenVINO on the CPU. The windows of a batch are computed one by one, each with all threads.

    Calls from several threads wait for one another.
    """

    name: BackendName = "openvino"
    device = torch.device("cpu")

    def __init__(self, model: Any, precision: Precision, num_members: int = 1) -> None:
        """Compile a converted network: the path of its .xml file, or a model of OpenVINO, for a batch of one.

        Args:
            num_members: of the networks that a model from `join_converted` holds.

        Raises:
            InputError: openvino is not installed, or it has no such precision on this processor.
            ConversionError: OpenVINO cannot load the network.
        """
        self.precision: Precision = precision
        self.num_members = num_members
        openvino = import_openvino()
        if precision not in _HINTS or (precision == "bf16" and not has_bf16()):
            raise InputError(
                f"OpenVINO cannot compute in {precision} on this processor",
                where=f"--precision {precision}",
                hint="Use --precision fp32, or --backend torch.",
            )
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": num_threads(),
            "ENABLE_CPU_PINNING": False,  # two commands at once would be pinned to the same cores
        }
        try:
            compiled = openvino_core().compile_model(model, "CPU", options)
            self._request = compiled.create_infer_request()
        except RuntimeError as error:
            raise cannot("load the converted network", error) from error
        self._lock = threading.Lock()  # the request holds the tensors of one window
        self._tensor = openvino.Tensor
        self._output = tuple(compiled.output(0).shape)[1:]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 logits, see `Backend`. OpenVINO reads and writes the memory of the tensors themselves."""
        images = images.contiguous()
        logits = torch.empty((len(images), *self._output))
        for image, result in zip(images.split(1), logits.split(1), strict=True):
            tensors = [self._tensor(each.numpy(), shared_memory=True) for each in (image, result)]
            with self._lock:
                self._request.set_input_tensor(tensors[0])
                self._request.set_output_tensor(tensors[1])
                self._request.infer()
        return logits


def find_converted(
    build: Callable[[], nn.Module],
    content: dict[str, Any],
    shape: Sequence[int],
    precision: Precision,
) -> Any:
    """Return a network for `OpenVinoBackend`: the path of its .xml file in the cache, or a model of OpenVINO.

    It is converted unless the cache holds it.

    Args:
        build: makes the network, in evaluation mode on the CPU; called only for a conversion.
        content: what identifies the network: its architecture and the hash of its weights.
        shape: of an input `(C, *patch)`.

    Raises:
        InputError: openvino is not installed.
        ConversionError: OpenVINO cannot compute this network.
    """
    openvino = import_openvino()
    winograd = precision == "fp32" and read_processor().kind != "other"  # where it was measured
    own_norms = precision == "bf16"
    key = {
        "conversion": CONVERSION,
        "winograd": winograd,
        "own_norms": own_norms,
        "network": content,
        "shape": list(shape),
        "openvino": openvino.__version__,
        "torch": torch.__version__,
    }
    folder = converted_folder()
    if folder is not None:
        path = folder / hash_value(key)[:16]
        try:
            if not _is_whole(path, key):
                with wait_for(folder, "conversion"):
                    if not _is_whole(path, key):
                        _convert_into(path, key, build(), shape)
            return path / NETWORK_FILES[0]
        except ConversionError:
            raise
        except (InputError, OSError) as error:
            why = error.what if isinstance(error, InputError) else error.strerror
    else:
        why = "there is no home folder"
    _log.info("The network converted for OpenVINO could not be cached: %s.", why)
    return convert_network(build(), shape, winograd=winograd, own_norms=own_norms)


def find_quantised(folder: Path) -> tuple[Path, str]:
    """Return the .xml file of a model folder's quantised network, and the SHA-256 of its files.

    Raises:
        InputError: the model has none.
    """
    files = [folder / INT8_FOLDER / name for name in NETWORK_FILES]
    if not all(file.is_file() for file in files):
        raise InputError(
            "the model has no int8 network",
            where=str(folder),
            hint="Make it with `medunet calibrate RUN`, or use another --precision.",
        )
    return files[0], hash_value([hash_file(file) for file in files])


def converted_folder() -> Path | None:
    """Return the folder of converted networks in the user's cache folder; None if there is no home."""
    folder = cache_folder()
    return None if folder is None else folder.parent / "openvino"


def convert_network(
    network: nn.Module, shape: Sequence[int], *, winograd: bool = False, own_norms: bool = False
) -> Any:
    """Return a network as a model of OpenVINO in fp32, for a batch of one input of `shape` `(C, *patch)`.

    With `winograd`, convolutions become faster for OpenVINO and twice as large, see `use_winograd`; with `own_norms`,
    norms become faster and, in fp32, less exact, see `use_own_norms`.

    Raises:
        InputError: openvino is not installed.
        ConversionError: torch cannot export the network, or OpenVINO has not all of its operations.
    """
    openvino = import_openvino()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", r".*LeafSpec.* is deprecated", FutureWarning
            )  # torch warns of itself
            program = torch.export.export(network, (torch.zeros((1, *shape)),))
            model = openvino.convert_model(program)
        model.reshape([1, *shape])
        if own_norms:
            use_own_norms(model)
        if winograd:
            use_winograd(model)
    except Exception as error:  # torch.export and OpenVINO raise errors of many kinds
        raise cannot("compute this network", error) from error
    return model


def save_network(model: Any, folder: Path) -> None:
    """Write a model of OpenVINO into a folder, weights in float32.

    Raises:
        OSError: a file cannot be written.
    """
    try:
        import_openvino().save_model(model, folder / NETWORK_FILES[0], compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError(0, _first_line(error)) from error


def check_converted(
    backend: OpenVinoBackend,
    network: nn.Module,
    shape: Sequence[int],
    most_different: float = _MOST_DIFFERENT,
) -> None:
    """Compare logits of a converted network in fp32 with torch's, on noise.

    Raises:
        ConversionError: they differ by more than `most_different`, as a share of the largest.
    """
    image = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(image).float()
    difference = (backend.forward(image) - expected).abs().max().item()
    if not difference <= most_different * max(1.0, expected.abs().max().item()):  # also NaN
        raise ConversionError(
            f"OpenVINO computes other logits than torch: they differ by {difference:.2g}",
            where=_WHERE,
            hint="Use --backend torch.",
        )


def has_bf16() -> bool:
    """Return whether OpenVINO computes in bf16 on this processor.

    Raises:
        InputError: openvino is not installed.
    """
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def openvino_core() -> Any:
    """Return OpenVINO's core, one for the whole process, which is never freed.

    Each core gives its thread a stack for signal handlers of its own, and frees it. When several cores had been freed
    in the order they were made, or one by another thread, the next signal that Python hears (Ctrl-C, the end of a
    child process) ended the process with a segmentation fault.

    Raises:
        InputError: openvino is not installed.
    """
    return import_openvino().Core()


def import_openvino() -> Any:
    """Return the module openvino, with its telemetry switched off: it sends nothing and writes nothing.

    Raises:
        InputError: it is not installed.
    """
    telemetry = sys.modules.get("openvino_telemetry")
    if telemetry is None:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # so that it cannot be imported
    try:
        import openvino
        from openvino.tools.ovc.telemetry_stub import Telemetry
    except ImportError as error:
        raise InputError(
            f"OpenVINO is not installed ({error})",
            where=_WHERE,
            hint="Run `pip install 'medunet[openvino]'`, or use --backend torch.",
        ) from error
    if telemetry is not None:  # another program's import of openvino came first
        telemetry.Telemetry = Telemetry  # type: ignore[attr-defined]
    return openvino


def _convert_into(path: Path, key: dict[str, Any], network: nn.Module, shape: Sequence[int]) -> None:
    """Convert a network into a folder of the cache, which is written whole or not at all."""
    for left in path.parent.glob(f".{path.name}.*"):  # by a killed process; none converts now
        shutil.rmtree(left, ignore_errors=True)
    _log.info("Converting the network for OpenVINO: once for each model, a few seconds.")
    model = convert_network(network, shape, winograd=key["winograd"], own_norms=key["own_norms"])
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        files = [temporary / name for name in NETWORK_FILES]
        save_network(model, temporary)
        most_different = _MOST_WITH_OWN_NORMS if key["own_norms"] else _MOST_DIFFERENT
        check_converted(OpenVinoBackend(files[0], "fp32"), network, shape, most_different)
        for file in files:
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        write_json(temporary / "entry.json", {"key": key, "sha256": _hashes(temporary)})
        shutil.rmtree(path, ignore_errors=True)  # a damaged entry
        try:
            temporary.rename(path)
        except OSError:
            if not _is_whole(path, key):  # without locks, another process may have been faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_whole(path: Path, key: dict[str, Any]) -> bool:
    """Return whether a folder of the cache holds the network of a key with the content that was written."""
    try:
        entry = read_json_object(path / "entry.json")
        return entry.get("key") == key and entry.get("sha256") == _hashes(path)
    except (InputError, OSError):
        return False


def _hashes(folder: Path) -> dict[str, str]:
    return {name: hash_file(folder / name) for name in NETWORK_FILES}


def cannot(what: str, error: Exception) -> ConversionError:
    """Return the error that OpenVINO cannot do `what`, by the error that it raised."""
    return ConversionError(
        f"OpenVINO cannot {what} ({_first_line(error)})", where=_WHERE, hint="Use --backend torch."
    )


def _first_line(error: Exception) -> str:
    """Return the first line of a message that does not only name a line of OpenVINO's code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not re.match(r"(Exception from|Check '.*' failed at) ", line)]
    return (told or lines or [type(error).__name__])[0]
