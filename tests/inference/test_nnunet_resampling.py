"""nnU-Net's resampling and windows against SciPy, PyTorch and numbers by hand."""

from itertools import product

import numpy as np
import pytest
import torch
from nnunet_models import EXAMPLES
from numpy.typing import NDArray
from scipy import ndimage

from medunet.inference.nnunet.resampling import (
    nearest,
    positions,
    resample_image,
    resample_labels,
    separate_axis,
    size_at,
)
from medunet.inference.nnunet.windows import even_spans, nnunet_weights
from medunet.inference.placement import AxisPlacement, Placement
from medunet.inference.restore import restore_labels
from medunet.inference.scan_blocks import Source
from medunet.inference.stream import Slab
from medunet.records.description import Description
from medunet.records.nnunet_rules import Resampling

SHAPE, SIZE = (13, 20, 9), (18, 11, 9)
RNG = np.random.default_rng(0)


def zoom(image: NDArray, size: tuple[int, ...], order: int) -> NDArray[np.float64]:
    """Resize as scikit-image does, and so nnU-Net: with SciPy, clipped to the values before."""
    factors = [new / old for new, old in zip(size, image.shape, strict=True)]
    out = ndimage.zoom(image.astype(float), factors, order=order, mode="nearest", grid_mode=True)
    return out.clip(image.min(), image.max())


@pytest.mark.parametrize("order", [0, 1, 3])
def test_whole_volumes_are_resized_as_by_scipy(order: int):
    image = RNG.normal(size=SHAPE).astype(np.float32)
    found = resample_image(image, SIZE, None, Resampling(order=order))
    np.testing.assert_allclose(found, zoom(image, SIZE, order), rtol=0, atol=2e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_separate_slices_are_resized_one_by_one(axis: int):
    image, size = RNG.normal(size=SHAPE).astype(np.float32), (8, 26, 14)
    found = resample_image(image[::-1], size, axis, Resampling(order=3))
    slices = np.moveaxis(image[::-1], axis, 0)
    across = tuple(n for each, n in enumerate(size) if each != axis)
    expected = np.stack([zoom(one, across, 3) for one in slices])
    index = [
        min(int((number + 0.5) * len(slices) / size[axis]), len(slices) - 1) for number in range(size[axis])
    ]
    np.testing.assert_allclose(np.moveaxis(found, axis, 0), expected[index], rtol=0, atol=2e-6)


def test_torch_function_is_trilinear_interpolation():
    image = RNG.normal(size=SHAPE).astype(np.float32)
    found = resample_image(image, SIZE, None, Resampling(order=1, clipped=False))
    expected = torch.nn.functional.interpolate(torch.from_numpy(image)[None, None], SIZE, mode="trilinear")
    np.testing.assert_allclose(found, expected[0, 0].numpy(), rtol=0, atol=1e-5)


def test_labels_go_to_the_largest_mask_and_ties_to_the_nearest():
    labels = RNG.integers(-1, 3, SHAPE).astype(np.int16)
    found = resample_labels(labels, SIZE, None, Resampling(order=1))
    shares = np.stack([zoom(labels == value, SIZE, 1) for value in (-1, 0, 1, 2)])
    ranked = np.sort(shares, axis=0)
    clear = ranked[-1] - ranked[-2] > 1e-4
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(found[clear], shares.argmax(0)[clear] - 1)
    line = np.array([0, 0, 1, 1], np.int16).reshape(1, 1, 4)  # the middle of three lies between both labels
    assert resample_labels(line, (1, 1, 3), None, Resampling(order=1))[0, 0].tolist() == [0, 1, 1]
    assert nearest(4, 3).tolist() == [0, 2, 3]


def test_torch_function_gives_ties_to_the_smaller_label():
    labels = RNG.integers(0, 3, SHAPE).astype(np.int16)
    found = resample_labels(labels, (26, 13, 18), None, Resampling(order=1, clipped=False))
    masks = torch.stack([torch.from_numpy(labels == value) for value in range(3)]).float() * 1000
    shares = torch.nn.functional.interpolate(masks[None], (26, 13, 18), mode="trilinear")[0].half()
    is_tie = (shares == shares.amax(0)).sum(0) > 1
    assert is_tie.any()
    assert (found == shares.argmax(0).numpy()).mean() > 0.999


def test_the_coarse_axis_is_separate_where_voxels_are_flat():
    auto, never = Resampling(order=3), Resampling(order=3, separate="never")
    assert separate_axis((1, 1, 4), (1, 1, 1), auto) == 2
    assert separate_axis((1, 1, 1), (1, 3.5, 1), auto) == 1
    assert separate_axis((1, 1, 3), (1, 1, 1), auto) is None
    assert separate_axis((1, 1, 4), (1, 1, 1), never) is None
    assert separate_axis((0.2, 1.2, 1.2), (1, 1, 1), auto) is None  # two coarse axes
    assert separate_axis((1, 1, 2), (1, 1, 1), Resampling(order=3, separate="always")) == 2


def test_sizes_are_rounded_as_python_rounds():
    assert size_at((35, 45, 3), (1, 1, 1), (2, 2, 9), Resampling(order=3)) == (18, 22, 1)
    assert size_at((35, 45, 3), (1, 1, 1), (2, 2, 9), Resampling(order=0, kept=True)) == (35, 45, 3)


def test_windows_lie_evenly_spaced():
    assert [span.start for span in even_spans(110, 64, 0.5)] == [0, 23, 46]  # nnU-Net's own example
    assert [span.start for span in even_spans(64, 64, 0.5)] == [0]
    assert [span.start for span in even_spans(65, 64, 0.5)] == [0, 1]
    assert [span.start for span in even_spans(25, 10, 0.5)] == [0, 5, 10, 15]


def test_weights_are_a_gaussian_that_is_nowhere_zero():
    weights = nnunet_weights((24, 16))
    assert float(weights.max()) == 10
    assert weights[12, 8] == weights.max()
    np.testing.assert_allclose(float(weights[12 + 3, 8]), 10 * np.exp(-0.5), rtol=1e-3)
    assert float(nnunet_weights((64, 64, 64)).min()) > 0


@pytest.mark.parametrize("regions", [False, True])
def test_logits_are_interpolated_before_labels_are_decided(regions: bool):
    """Slab by slab as of all logits at once, also where scans are finer or coarser, or slices are separate."""
    given = {"labels": {"background": 0, "one": 1, "two": 2, "three": 3}}
    if regions:
        given |= {
            "regions": {"all": ["one", "two", "three"], "some": ["two", "three"], "few": ["three"]},
            "region_order": ["all", "some", "few"],
        }
    channels = {"CT": {"modality": "CT"}}
    description = Description.parse({"name": "d", "layout": "nnunet", "channels": channels, **given}, "test")
    logits = RNG.normal(size=(4 - regions, *SHAPE)).astype(np.float32) * 3
    for size, separate in product([(26, 13, 18), (9, 20, 5)], [None, 2]):
        places = [positions(old, new) for old, new in zip(SHAPE, size, strict=True)]
        if separate is not None:
            places[separate] = nearest(SHAPE[separate], size[separate]).astype(float)
        axes = [AxisPlacement(axis, False, 0, new, places[axis]) for axis, new in enumerate(size)]
        placement = Placement(size, tuple(axes), SHAPE)  # type: ignore[arg-type]
        slabs = [
            Slab(start, torch.from_numpy(logits[:, start : start + 5].copy()))
            for start in range(0, SHAPE[0], 5)
        ]
        found = restore_labels([Source(slabs, 0, placement, of_logits=True)], description)
        across = (*size[:2], SHAPE[2]) if separate == 2 else size
        whole = np.stack([zoom(each, across, 1) for each in logits])
        if separate == 2:
            whole = whole[..., nearest(SHAPE[2], size[2])]
        if regions:
            expected = np.zeros(size, np.uint8)
            for number, each in enumerate(whole, start=1):
                expected[each > 0] = number
            clear = np.abs(whole).min(0) > 1e-4
        else:
            expected = whole.argmax(0)
            ranked = np.sort(whole, axis=0)
            clear = ranked[-1] - ranked[-2] > 1e-4
        np.testing.assert_array_equal(found[clear], expected[clear])


def test_examples_are_those_that_were_stored():
    assert {example.name for example in EXAMPLES} == {
        path.name for path in EXAMPLES[0].folder.parent.iterdir()
    }
