"""Several networks of one plan as one backend: the mean of their probabilities, window by window.

In OpenVINO they are branches of one graph, which reuses the memory of one branch's feature maps for the next. K logit
channels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medunet.compute.choice_cache import BackendName
from medunet.compute.device_memory import release_mapped
from medunet.compute.devices import Precision
from medunet.inference.backend import TorchBackend, window_probabilities
from medunet.inference.openvino_backend import (
    ConversionError,
    OpenVinoBackend,
    cannot,
    import_openvino,
    openvino_core,
)


class JointTorchBackend:
    """Several networks in PyTorch, computed one after another; see `Backend`."""

    name: BackendName = "torch"

    def __init__(
        self, members: Sequence[TorchBackend], *, regions: bool, apart: bool = False, of_logits: bool = False
    ) -> None:
        """Average the probabilities of networks on one device, in one precision.

        Args:
            regions: whether each channel has a probability of its own (sigmoid); otherwise they exclude each other.
            apart: whether the probabilities of each network follow the mean: `(1 + N) * K` channels instead of K.
            of_logits: average logits instead, as nnU-Net does.
        """
        self.precision: Precision = members[0].precision
        self.device = members[0].device
        self.num_members = len(members)
        self._members, self._regions, self._apart, self._of_logits = members, regions, apart, of_logits

    @torch.inference_mode()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 probabilities `(B, K, *output)`, see `Backend`."""
        outputs: list[torch.Tensor] = []
        mean = torch.zeros(())
        for number, member in enumerate(self._members):
            output = member.forward(images)
            if not self._of_logits:
                output = window_probabilities(output, regions=self._regions)
            if self._apart:
                outputs.append(output)
            mean = output.clone() if number == 0 else mean.add_(output)
        mean /= self.num_members
        return torch.cat([mean, *outputs], 1) if self._apart else mean


def load_openvino(
    networks: Sequence[Any],
    precision: Precision,
    *,
    regions: bool,
    apart: bool = False,
    of_logits: bool = False,
) -> OpenVinoBackend:
    """Return one network, or several as one, in OpenVINO.

    Args:
        networks: paths of .xml files or models of OpenVINO, of the same input and output.
        regions: this and the following as of `JointTorchBackend`.

    Raises:
        InputError: OpenVINO cannot compute in this precision.
        ConversionError: it cannot load the networks.
    """
    if len(networks) == 1:
        backend = OpenVinoBackend(networks[0], precision)
    else:
        backend = OpenVinoBackend(_join(networks, regions, apart, of_logits), precision, len(networks))
    # The weights are compiled into another form; OpenVINO keeps the file mapped, but does not read it again.
    release_mapped([each.with_suffix(".bin") for each in networks if isinstance(each, Path)])
    return backend


def load_quantised(
    networks: Sequence[Path], *, regions: bool, apart: bool = False, of_logits: bool = False
) -> OpenVinoBackend:
    """Return one int8 network, or several as one; for the arguments, see `load_openvino`.

    Raises:
        InputError: OpenVINO cannot compute in int8.
        ConversionError: it cannot load the networks.
    """
    try:
        return load_openvino(networks, "int8", regions=regions, apart=apart, of_logits=of_logits)
    except ConversionError as error:
        raise ConversionError(
            "OpenVINO cannot load the int8 network: its files are damaged, or of another version",
            where=", ".join(str(path.parent) for path in networks),
            hint="Remove the folder and run `medunet calibrate RUN` again, or use another --precision.",
        ) from error


def _join(networks: Sequence[Any], regions: bool, apart: bool, of_logits: bool) -> Any:
    """Return networks as one model of OpenVINO whose output is the mean of their probabilities."""
    openvino = import_openvino()
    from openvino import opset13 as ops

    core = openvino_core()
    try:
        models = [core.read_model(each) if isinstance(each, Path) else each for each in networks]
    except RuntimeError as error:
        raise cannot("read the converted networks", error) from error
    image = models[0].get_parameters()[0]
    outputs = []
    for model in models:
        for reader in model.get_parameters()[0].output(0).get_target_inputs():
            reader.replace_source_output(image.output(0))
        logits = model.get_results()[0].input_value(0)
        if of_logits:
            outputs.append(logits)
            continue
        probabilities = ops.sigmoid(logits) if regions else ops.softmax(logits, 1)
        nothing = ops.multiply(logits, ops.constant(np.zeros(1, np.float32)))  # NaN where a logit is infinite
        outputs.append(ops.add(probabilities, nothing))
    total = outputs[0]
    for each in outputs[1:]:
        total = ops.add(total, each)
    mean = ops.multiply(total, ops.constant(np.array([1 / len(outputs)], np.float32)))
    joined = ops.concat([mean, *outputs], 1) if apart else mean
    return openvino.Model([joined.output(0)], [image])
