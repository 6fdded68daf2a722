"""The patches that training sees: functions of their address, reaching the borders with augmentation as without."""

import numpy as np
import pytest
import torch

from medunet.records.config import TrainingConfig
from medunet.records.plan import Plan
from medunet.training.data import PatchDataset
from medunet.transforms.augment import margin_size
from medunet.transforms.patches import PreparedCase, find_locations

SHAPE = (18, 40, 9)  # the plan's patch is 16×16×8: with its margin it is longer than two of the axes


def make_cases() -> list[PreparedCase]:
    """Two volumes of distinct values, with foreground in one corner voxel."""
    image = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(1, *SHAPE)
    label = np.zeros(SHAPE, np.uint8)
    label[0, -1, 0] = 1
    locations = find_locations(label, {"lesion": (1,)}, (0,))
    return [PreparedCase("a", image, label, locations), PreparedCase("b", -image, label, locations)]


@pytest.mark.parametrize("augment", [True, False])
def test_a_patch_is_a_function_of_its_address(tiny_plan: Plan, augment: bool):
    config = TrainingConfig(augment=augment)
    one, other = (PatchDataset(make_cases(), tiny_plan, config, seed=3) for _ in range(2))
    addresses = [(epoch, index) for epoch in range(3) for index in range(6)]
    first = {address: one[address]["image"] for address in addresses}
    for address in reversed(addresses):
        assert torch.equal(other[address]["image"], first[address])
    assert len({image.numpy().tobytes() for image in first.values()}) > 9  # forced ones are alike


def test_augmentation_only_widens_what_is_cut(tiny_plan: Plan):
    wide, plain = (
        PatchDataset(make_cases(), tiny_plan, TrainingConfig(augment=augment), seed=0)
        for augment in (True, False)
    )
    sizes = margin_size(tiny_plan.patch_size)
    box = tuple(
        slice((n - kept) // 2, (n + kept) // 2) for n, kept in zip(sizes, tiny_plan.patch_size, strict=True)
    )
    num_forced = 0
    for index in range(200):
        cut, kept = wide[(0, index)], plain[(0, index)]
        assert cut["image"].shape[1:] == sizes
        for name in ("image", "label"):
            assert torch.equal(cut[name][(..., *box)], kept[name])
        num_forced += bool(kept["label"].any())
    assert num_forced >= 100  # half of each batch of two is forced to hold the corner
