"""Scans in memory: what is taken as it is, and what is refused."""

import warnings

import numpy as np
import pytest
import torch

from medunet.base.errors import DataError
from medunet.inference.prepare import volume_of

VOXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


@pytest.mark.parametrize(
    "array",
    [
        VOXELS.tolist(),
        torch.from_numpy(VOXELS),
        VOXELS.astype(">i2"),
        np.asfortranarray(VOXELS),
        VOXELS[::-1, ::-1].copy()[::-1, ::-1],
        np.broadcast_to(VOXELS, (1, 3, 4, 5)),
    ],
)
def test_every_array_of_numbers_is_copied(array):
    affine = np.diag([1.0, 2, 3, 1])
    affine.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        volume = volume_of(array, affine, 1)
        torch.from_numpy(volume.array), torch.from_numpy(volume.affine)
    assert volume.array.dtype == np.float32
    assert volume.array.flags.writeable
    assert not np.shares_memory(volume.array, VOXELS)
    np.testing.assert_array_equal(volume.array, VOXELS[None])


@pytest.mark.parametrize(
    ("array", "affine", "words"),
    [
        (VOXELS.astype(complex), np.eye(4), "holds complex128, not real numbers"),
        (VOXELS.astype(str), np.eye(4), "not real numbers"),
        (VOXELS[0], np.eye(4), r"has shape \(4, 5\)"),
        (VOXELS[:0], np.eye(4), r"has shape \(0, 4, 5\)"),
        (VOXELS, np.eye(4)[:3], "affine is not an invertible"),
        (VOXELS, np.diag([1, 1, 0, 1]), "affine is not an invertible"),
        (
            VOXELS,
            (np.eye(4) + np.eye(4, k=3)).T,
            r"last row of its affine is \[1.0, 0.0, 0.0, 1.0\].*Transpose",
        ),
    ],
)
def test_what_cannot_be_used_is_named(array, affine, words):
    with pytest.raises(DataError, match=f"array: .*{words}"):
        volume_of(array, affine, 1)
