"""Peak memory of a network's tensors in a forward pass, counted on the meta device without computing."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class LiveBytes:
    """The most bytes that the tensors of a forward pass take at one time, without weights and input."""

    tensors: int
    with_copies: int  # if a convolution copies its input and its output into another layout, as oneDNN does


def count_live_bytes(network: nn.Module, shape: Sequence[int]) -> LiveBytes:
    """Count the tensors of a float32 forward pass that are alive together.

    Args:
        network: in evaluation mode, on the meta device.
        shape: of the input, `(B, C, I, J[, K])`.
    """
    counter = _Counter()
    with torch.no_grad():  # inference mode would hide the tensors within composite operations
        image = torch.empty(tuple(shape), device="meta")
        with counter:
            network(image)
    return LiveBytes(counter.peak, counter.peak_with_copies)


class _Counter(TorchDispatchMode):
    """Adds up the storages that operations allocate, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.peak_with_copies = self._live = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        copies = args[0].nbytes + result.nbytes if func is torch.ops.aten.convolution.default else 0
        self.peak = max(self.peak, self._live)
        self.peak_with_copies = max(self.peak_with_copies, self._live + copies)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self._live += storage.nbytes()
            weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self._live -= self._sizes.pop(key)
