"""Arrays of the cache are read by any process, also by one that was forked while its parent had them open."""

import multiprocessing
from pathlib import Path

import blosc2
import numpy as np
import pytest

from medunet.training.cached_arrays import find_damage, open_entry, read_entry, write_entry
from medunet.transforms.patches import PreparedCase


@pytest.fixture
def case(tmp_path: Path) -> PreparedCase:
    """A case of many blocks, which Blosc2 unpacks in several threads."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 70, 130, 40)).astype(np.float32)
    label = rng.integers(0, 3, image.shape[1:], dtype=np.uint8)
    write_entry(tmp_path, "key", image, label, {"b": np.array([3, 5]), "a": np.array([9]), "c": np.arange(4)})
    return open_entry(tmp_path, "key", "a_case")


def test_an_entry_holds_what_was_written(case: PreparedCase, tmp_path: Path):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 70, 130, 40)).astype(np.float32)
    np.testing.assert_array_equal(case.image[:], image)
    np.testing.assert_array_equal(case.image[:, 3:9, 60:, 1:2], image[:, 3:9, 60:, 1:2])
    np.testing.assert_array_equal(case.label[:], rng.integers(0, 3, image.shape[1:], dtype=np.uint8))
    assert (case.image.shape, case.image.dtype) == (image.shape, np.float32)
    assert (case.label.shape, case.label.dtype) == (image.shape[1:], np.uint8)
    assert {name: list(voxels) for name, voxels in case.locations.items()} == {
        "a": [9],
        "b": [3, 5],
        "c": [0, 1, 2, 3],
    }
    assert len(case.locations) == 3
    assert find_damage(tmp_path, "key") == ""


def test_a_case_without_foreground_has_no_locations(tmp_path: Path):
    write_entry(tmp_path, "k", np.zeros((1, 4, 5, 6), np.float32), np.zeros((4, 5, 6), np.uint8), {})
    assert find_damage(tmp_path, "k") == ""
    assert not open_entry(tmp_path, "k", "empty").locations


def test_there_is_no_entry_where_none_was_written(tmp_path: Path):
    assert read_entry(tmp_path, "key") is None


def send_sum(case: PreparedCase, queue) -> None:
    queue.put(float(np.sum(case.image[:], dtype=np.float64)))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_reads_what_this_one_has_open(case: PreparedCase, method: str):
    before = blosc2.set_nthreads(4)  # as computers of four cores have it
    try:
        expected = float(np.sum(case.image[:], dtype=np.float64))
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        process = context.Process(target=send_sum, args=(case, queue))
        process.start()
        try:
            assert queue.get(timeout=120) == expected
        finally:
            process.kill()
            process.join()
    finally:
        blosc2.set_nthreads(before)
