"""Parts in threads: their order, their number, and what one of them raises."""

import threading

import pytest

from medunet.base.threads import map_threads, slices


@pytest.mark.parametrize("threads", ["1", "3"])
def test_results_are_in_the_order_of_the_parts(monkeypatch, threads) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert map_threads(lambda number: number**2, range(20)) == [number**2 for number in range(20)]
    assert map_threads(str, []) == []
    names = set(map_threads(lambda _: threading.current_thread().name, range(2)))
    assert (names == {threading.current_thread().name}) == (threads == "1")


def test_what_a_part_raises_ends_the_others() -> None:
    def refuse(number: int) -> int:
        if number == 1:
            raise ValueError("part 1")
        return number

    with pytest.raises(ValueError, match="part 1"):
        map_threads(refuse, range(200))


def test_slices_cover_an_axis() -> None:
    assert slices(7, 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert slices(0, 3) == []
