"""Memory that a stream of windows holds: it does not grow with the length of the volume."""

from collections.abc import Sequence
from weakref import ref

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from whole_volumes import as_2d, stream_of

from medunet.records.plan import Plan


class Held(TorchDispatchMode):
    """Notes how many bytes the tensors that live at one time have at most, without a given one."""

    def __init__(self, given: torch.Tensor) -> None:
        super().__init__()
        self.given = given.data_ptr()
        self.tensors: list[ref[torch.Tensor]] = []
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = result if isinstance(result, tuple | list) else (result,)
        self.tensors += [ref(each) for each in given if isinstance(each, torch.Tensor)]
        living = [each for one in self.tensors if (each := one()) is not None]
        self.tensors = [ref(each) for each in living]
        storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in living}
        storages.pop(self.given, None)
        self.most = max(self.most, sum(storages.values()))
        return result


class ManyClasses(nn.Module):
    """Gives 30 logits a voxel."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.expand(-1, 30, *[-1] * (image.ndim - 2)) + 1


def most_held(plan: Plan, shape: Sequence[int], **config) -> int:
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32))
    image[:, :, :, shape[2] // 2 :] = 0  # so that constant windows are kept, too
    with Held(image) as held:
        for _ in stream_of(ManyClasses(), image, plan, 2, **config).slabs():
            pass
    return held.most


@pytest.mark.parametrize("config", [{}, {"shifts": 2}, {"mirror": ["left_right"]}])
@pytest.mark.parametrize("dimensions", [3, 2])
def test_memory_does_not_grow_with_the_volume(tiny_plan: Plan, dimensions: int, config):
    plan = tiny_plan if dimensions == 3 else as_2d(tiny_plan)
    short, long = (most_held(plan, (24, 20, length), **config) for length in (32, 96))
    assert short == long
    depth = 8 if dimensions == 3 else 4  # slices
    window = 30 * np.prod(plan.patch_size) * 4
    sums = 30 * depth * 24 * 20 * 4
    assert long < 1.3 * sums + 8 * window  # two batches of two, and the windows of two values
    assert long < 30 * 24 * 20 * 96 * 4 / 2
