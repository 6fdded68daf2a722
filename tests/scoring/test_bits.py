"""Masks as bits: the same voxels, surfaces and cells as arrays of booleans have, whatever a row's length."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from medunet.scoring import bits

Mask = NDArray[np.bool_]

SHAPES = [(5, size) for size in (1, 2, 63, 64, 65)]
SHAPES += [(3, 4, size) for size in (1, 2, 62, 63, 64, 65, 66, 126, 127, 128, 129, 130)]


def masks_of(shape: tuple[int, ...]) -> list[Mask]:
    """Return a mask of half of its voxels, one nearly full and a full one."""
    rng = np.random.default_rng(shape)
    return [rng.random(shape) < 0.5, rng.random(shape) < 0.97, np.ones(shape, dtype=bool)]


def flags_of(packed: bits.Bits, size: int) -> Mask:
    """Return the first `size` places of the last axis; those behind must be empty."""
    flags = np.unpackbits(packed.view(np.uint8), axis=-1, bitorder="little").astype(bool)
    assert not flags[..., size:].any()
    return flags[..., :size]


@pytest.mark.parametrize("shape", SHAPES)
def test_pack_keeps_every_voxel(shape: tuple[int, ...]) -> None:
    for mask in masks_of(shape):
        packed = bits.pack(mask)
        assert packed.shape == (*(size + 2 for size in shape[:-1]), shape[-1] // 64 + 1)
        inside = flags_of(packed, shape[-1])[(slice(1, -1),) * (len(shape) - 1)]
        assert np.array_equal(inside, mask)
        assert np.array_equal(bits.pack(np.asfortranarray(mask)), packed)
        assert np.bitwise_count(packed).sum() == np.count_nonzero(mask)  # so the rim is empty


@pytest.mark.parametrize("shape", SHAPES)
def test_surface_voxels_are_what_an_erosion_across_faces_removes(shape: tuple[int, ...]) -> None:
    for mask in masks_of(shape):
        surface = flags_of(bits.find_surface_voxels(bits.pack(mask)), shape[-1])
        assert np.array_equal(surface, mask & ~ndimage.binary_erosion(mask))


def test_surface_voxels_of_a_cube_at_the_edge() -> None:
    cube = np.zeros((5, 5, 5), dtype=bool)
    cube[0:3, 1:4, 1:4] = True
    surface = flags_of(bits.find_surface_voxels(bits.pack(cube)), 5)
    assert surface.sum() == 26  # all but the centre; the face on the grid's edge is surface too
    assert not surface[1, 2, 2]
    assert surface[0, 2, 2]


@pytest.mark.parametrize("shape", SHAPES)
def test_cells_and_their_patterns(shape: tuple[int, ...]) -> None:
    for mask in masks_of(shape):
        packed = bits.pack(mask)
        cells = bits.find_cells(packed)
        # The pattern of every cell, from the voxels on either side along each axis, the first corner leading.
        ahead, behind = slice(None, -1), slice(1, None)
        sides = np.array(np.meshgrid(*[(0, 1)] * len(shape), indexing="ij")).reshape(len(shape), -1).T
        padded = np.pad(mask, 1)
        corners = [padded[tuple(behind if side else ahead for side in corner)] for corner in sides]
        patterns = sum(corner * 2 ** (len(corners) - 1 - n) for n, corner in enumerate(corners))
        border = (patterns > 0) & (patterns < 2 ** len(corners) - 1)
        assert np.array_equal(flags_of(cells, shape[-1] + 1), border)
        places, found = bits.read_patterns(packed, cells)
        index = np.unravel_index(places, (*cells.shape[:-1], 64 * cells.shape[-1]))
        assert np.array_equal(np.stack(index), np.stack(np.nonzero(border)))
        assert np.array_equal(found, patterns[border])


def test_places_by_hand() -> None:
    mask = np.zeros((2, 70), dtype=bool)
    mask[0, 3] = mask[1, 63] = mask[1, 64] = True
    packed = bits.pack(mask)  # 4 rows with the rim, of 2 words each
    assert bits.find_set_bits(packed).tolist() == [128 + 3, 256 + 63, 256 + 64]
    assert bits.unpack(packed).shape == (4 * 2 * 64,)
    asked = np.array([128 + 3, 128 + 4, 256 + 62, 256 + 63, 256 + 64, 256 + 65, 0, 511])
    assert bits.unpack(packed)[asked].tolist() == [True, False, False, True, True, False, False, False]
    assert bits.find_set_bits(bits.pack(np.zeros((3, 3), dtype=bool))).size == 0


@pytest.mark.parametrize("shape", [(7, 9), (6, 8, 10)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_box_holds_all_that_is_nonzero(shape: tuple[int, ...], order: str) -> None:
    first, second = (np.zeros(shape, dtype=np.uint8, order=order) for _ in range(2))  # type: ignore[call-overload]
    nothing = (slice(0, 0),) * len(shape)
    assert bits.find_box(first, second) == nothing  # neither holds anything
    first[(2,) * len(shape)] = 200
    assert bits.find_box(first, second) == (slice(2, 3),) * len(shape)
    second[(5, 0, 4)[: len(shape)]] = 1
    assert bits.find_box(first, second) == (slice(2, 6), slice(0, 3), slice(2, 5))[: len(shape)]
    assert bits.find_box(second == 1, first > 0) == bits.find_box(first, second)
    first[...] = 3
    assert bits.find_box(first, second) == tuple(slice(0, size) for size in shape)


def test_memory_order_runs_from_the_widest_stride_to_the_narrowest() -> None:
    array = np.zeros((4, 5, 6), dtype=bool)
    assert bits.memory_order(array) == (0, 1, 2)
    assert bits.memory_order(np.asfortranarray(array)) == (2, 1, 0)
    assert bits.memory_order(array.transpose(1, 2, 0)[::-1, :, ::-1]) == (2, 0, 1)
