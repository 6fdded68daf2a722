"""Single networks in OpenVINO, for tests."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from medunet.compute.devices import Precision
from medunet.inference.joint import load_openvino
from medunet.inference.joint import load_quantised as load_several
from medunet.inference.openvino_backend import OpenVinoBackend, find_converted, find_quantised


def load_converted(
    build: Callable[[], nn.Module], content: dict[str, Any], shape: Sequence[int], precision: Precision
) -> OpenVinoBackend:
    """Return a network in OpenVINO, converted unless the cache holds it."""
    return load_openvino([find_converted(build, content, shape, precision)], precision, regions=False)


def load_quantised(folder: Path) -> tuple[OpenVinoBackend, str]:
    """Return the quantised network of a model folder, and the SHA-256 of its files."""
    path, sha256 = find_quantised(folder)
    return load_several([path], regions=False), sha256
