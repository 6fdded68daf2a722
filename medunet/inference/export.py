"""Export of a trained network for other runtimes: ONNX or OpenVINO files, checked to give the same labels there."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from medunet import __version__
from medunet.base.errors import InputError
from medunet.base.files import atomic_folder, hash_file, read_json_object, write_json
from medunet.base.lock import hold
from medunet.base.packages import require_packages, versions_of
from medunet.base.words import list_some
from medunet.inference.backend import TorchBackend
from medunet.inference.export_use import describe_use
from medunet.inference.model import Model
from medunet.inference.onnx_network import OPSET, Run, open_onnx, with_stable_norms, write_onnx
from medunet.inference.openvino_backend import (
    NETWORK_FILES,
    OpenVinoBackend,
    convert_network,
    save_network,
)
from medunet.inference.restore import to_label_map
from medunet.networks.builder import to_probabilities
from medunet.records.config import WeightsName
from medunet.records.description import Description
from medunet.records.plan import plan_inputs

ExportFormat = Literal["onnx", "openvino"]

TOLERANCE = 1e-3  # of logits, relative to the largest; labels may differ where probabilities are this close
_MARKER, _SCHEMA = "export.json", "medunet.export/1"
_ONE_BY_ONE = ("swin_unetr",)  # networks whose export to ONNX for any batch size takes minutes
_NUM_BATCHES = 3  # of structured windows in the check, beside constants
_PACKAGES: dict[ExportFormat, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
}


@dataclass(frozen=True)
class Check:
    """How another runtime's results differ from PyTorch's in fp32, over all windows of the check."""

    num_windows: int
    num_voxels: int
    num_close: int  # voxels whose two best probabilities are within TOLERANCE: their labels are not compared
    num_different: int  # labels of the others that differ
    largest_difference: float  # of logits, relative to the largest logit of the window (at least 1)

    @property
    def passed(self) -> bool:
        """Whether labels are the same and logits within the tolerance."""
        return self.num_different == 0 and self.largest_difference <= TOLERANCE


@dataclass(frozen=True)
class Exported:
    """An exported network that passed its check."""

    files: tuple[str, ...]
    batch: int | None  # None: any
    check: Check
    versions: dict[str, str]


def export_model(
    folder: Path, target: ExportFormat, out: Path, *, weights: WeightsName | None = None
) -> Exported:
    """Write a model folder's network for another runtime into the folder `out`, which is written whole.

    Beside the network it holds the model card and `export.json`: how inputs are made and outputs become labels. The
    network is kept only if the runtime gives the same labels as PyTorch in fp32 (`check_runtime`).

    Raises:
        InputError: packages are missing, the network cannot be exported or gives other labels there, `out` holds what
            medunet did not export, or the model cannot be loaded.
    """
    require_packages(_PACKAGES[target], target, where=f"--to {target}")
    model = Model.load(folder, device=torch.device("cpu"), precision="fp32", weights=weights)
    card, out = model.card, out.resolve()
    _refuse_other_folder(out)
    versions = {"medunet": __version__} | versions_of(["torch", *_PACKAGES[target]])
    with hold(out.parent, "export", [out.name]), atomic_folder(out) as temporary:
        assert isinstance(model.backend, TorchBackend)
        network = model.backend.network
        shape = (plan_inputs(card.plan, card.description), *card.plan.patch_size)
        if target == "onnx":
            any_batch = card.plan.network.name not in _ONE_BY_ONE
            batch = write_onnx(network, shape, temporary, any_batch=any_batch)
        else:
            batch = _write_openvino(network, shape, temporary)
        files = tuple(sorted(path.name for path in temporary.iterdir()))
        run = open_onnx(temporary) if target == "onnx" else _open_openvino(temporary)
        check = check_runtime(network, run, make_windows(shape, batch or 2), card.description)
        _refuse_difference(check, target)
        card.write(temporary / "model.json")
        write_json(
            temporary / _MARKER,
            {
                "schema": _SCHEMA,
                "medunet_version": __version__,
                "format": target,
                "weights": model.weights,
                "weights_sha256": model.weights_sha256,
                "files": {name: hash_file(temporary / name) for name in files},
                "versions": versions,
                **({"opset": OPSET} if target == "onnx" else {}),
                "input": {
                    "name": "image",
                    "type": "float32",
                    "shape": ["batch" if batch is None else batch, *shape],
                },
                **describe_use(card),
                "check": {**vars(check), "tolerance": TOLERANCE},
            },
        )
    return Exported((*files, "model.json", _MARKER), batch, check, versions)


def check_runtime(
    network: nn.Module, run: Run, batches: Iterable[torch.Tensor], description: Description
) -> Check:
    """Compare another runtime's logits, and the labels that follow from them, with those of a network in PyTorch.

    Args:
        run: computes the same network in the other runtime.
        batches: images `(B, C, *patch)`.
    """
    counts, largest, num_windows = np.zeros(3, np.int64), 0.0, 0
    for images in batches:
        with torch.no_grad():
            ours = network(images).float()
        theirs = torch.from_numpy(run(images.numpy()))
        if theirs.shape != ours.shape or not bool(theirs.isfinite().all()):
            return Check(num_windows, 0, 0, ours[:, 0].numel(), math.inf)
        scale = max(1.0, float(ours.abs().max()))
        largest = max(largest, float((ours - theirs).abs().max()) / scale)
        probabilities = to_probabilities(ours, description)
        if description.regions:
            close = ((2 * probabilities - 1).abs() <= TOLERANCE).any(1)
        else:
            best = probabilities.topk(2, dim=1).values
            close = best[:, 0] - best[:, 1] <= TOLERANCE
        labels, others = (
            to_label_map(to_probabilities(logits, description).movedim(1, 0), description)
            for logits in (ours, theirs)
        )
        counts += close.numel(), int(close.sum()), int(((labels != others) & ~close).sum())
        num_windows += len(images)
    num_voxels, num_close, num_different = map(int, counts)
    return Check(num_windows, num_voxels, num_close, num_different, largest)


def make_windows(shape: Sequence[int], batch: int) -> Iterator[torch.Tensor]:
    """Yield seeded images `(batch, C, *patch)` of normalised intensities: structures of all sizes, noise, constants.

    `shape` is `(C, *patch)`. The first and the last hold constants in some or all channels.
    """
    generator = torch.Generator().manual_seed(0)
    for number in range(_NUM_BATCHES):
        image = torch.zeros((batch, *shape))
        for size in (2, 4, 8, 16):
            grid = torch.randn((batch, shape[0], *(min(size, n) for n in shape[1:])), generator=generator)
            image += F.interpolate(
                grid, size=tuple(shape[1:]), mode="trilinear" if len(shape) == 4 else "bilinear"
            )
        image += 0.3 * torch.randn(image.shape, generator=generator)
        if number == 0:
            image[:, 0] = image[:, 0].clamp_min(0.5)  # a scan beside air, as a CT's lower clip leaves it
        yield image
    yield torch.full((batch, *shape), -1.0)


def _refuse_other_folder(out: Path) -> None:
    """Check that nothing is at `out`, or only an earlier export: no file that its export.json does not name."""
    if not out.exists():
        return
    others = (
        [out.name] if not out.is_dir() else sorted({path.name for path in out.iterdir()} - _exported(out))
    )
    if others:
        raise InputError(
            f"exists, and medunet did not export {list_some(others, 3)} into it",
            where=str(out),
            hint="Choose another --out.",
        )


def _exported(out: Path) -> set[str]:
    """Return the names of an earlier export's files; none if the folder holds none."""
    try:
        entries = read_json_object(out / _MARKER)
    except InputError:
        return set()
    if entries.get("schema") != _SCHEMA:
        return set()
    return {*entries.get("files", ()), "model.json", _MARKER}


def _write_openvino(network: nn.Module, shape: Sequence[int], folder: Path) -> int:
    converted = convert_network(with_stable_norms(network), shape)
    converted.inputs[0].get_tensor().set_names({"image"})
    converted.outputs[0].get_tensor().set_names({"logits"})
    save_network(converted, folder)
    return 1


def _open_openvino(folder: Path) -> Run:
    backend = OpenVinoBackend(folder / NETWORK_FILES[0], "fp32")
    return lambda images: backend.forward(torch.from_numpy(images)).numpy()


def _refuse_difference(check: Check, target: ExportFormat) -> None:
    if check.passed:
        return
    how = (
        f"{check.num_different} of {check.num_voxels} labels differ, logits by up to "
        f"{check.largest_difference:.2g} of the largest (allowed: {TOLERANCE:g})"
    )
    if math.isinf(check.largest_difference):
        how = "logits are NaN, infinite or of another shape"
    raise InputError(
        f"the exported network gives other results there: {how}; nothing is kept",
        where=f"--to {target}",
        hint="Export to the other format, or predict with medunet.",
    )
