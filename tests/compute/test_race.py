"""Ways are timed against each other within a budget: the slow ones are left while trials are small."""

import pytest

from medunet.compute.race import Race, Trial, Way, told

FP32, BF16 = Way("fp32"), Way("bf16")
LAST, BF16_LAST = Way("fp32", channels_last=True), Way("bf16", channels_last=True)
SMALL, LARGE = 0.02, 45.0  # GFLOP: a small convolution, and a step of a usual network


class Computer:
    """A clock, and ways that take so many seconds per GFLOP and call, on it."""

    def __init__(self, **rates: float) -> None:
        self.rates = {
            way: rates[name]
            for name, way in (("fp32", FP32), ("bf16", BF16), ("last", LAST), ("bf16_last", BF16_LAST))
            if name in rates
        }
        self.now, self.done = 0.0, []

    def clock(self) -> float:
        return self.now

    def trials(self, *sizes: float) -> list[Trial]:
        return [self.trial(gflop, of_network=index > 0) for index, gflop in enumerate(sizes)]

    def trial(self, gflop: float, *, of_network: bool) -> Trial:
        def prepare(way: Way):
            def call() -> None:
                self.done.append((gflop, way))
                self.now += 0.0002 + self.rates[way] * gflop

            return call

        return Trial(f"{gflop:g}", gflop, prepare, of_network)

    def race(self, budget_s: float, *sizes: float) -> Race:
        race = Race(list(self.rates), budget_s, self.clock)
        race.run(self.trials(*sizes))
        return race


def test_reference_code_is_left_at_the_first_trial():
    computer = Computer(fp32=0.01, last=0.009, bf16=3.0, bf16_last=3.0)  # as bf16 on AVX2
    race = computer.race(6.5, SMALL, 1.0, 10.0, LARGE, 2 * LARGE)
    slow = [gflop for gflop, way in computer.done if way.precision == "bf16"]
    assert set(slow) == {SMALL}
    assert sum(3.0 * gflop for gflop in slow) < 0.5
    assert BF16 in race.left
    assert "60.2 ms in bf16" in race.left[BF16]
    assert race.seconds(LAST) == pytest.approx(0.0002 + 0.009 * 90)


def test_a_way_is_not_left_for_what_its_calls_cost():
    computer = Computer(fp32=0.01, bf16=0.004)
    race = Race([FP32, BF16], 6.5, computer.clock)
    slow_calls = computer.trial(SMALL, of_network=False)

    def prepare(way: Way):
        call = slow_calls.prepare(way)

        def heavier() -> None:
            call()
            computer.now += 0.004 if way == BF16 else 0.0

        return heavier

    race.run([Trial("small", SMALL, prepare, of_network=False), *computer.trials(SMALL, 1.0, LARGE)[1:]])
    assert BF16 in race.alive
    assert race.seconds(BF16) == pytest.approx(0.0002 + 0.004 * LARGE)


def test_the_largest_part_that_the_default_ends_within_a_second_is_timed():
    computer = Computer(fp32=0.02)
    race = computer.race(6.5, SMALL, 1.0, 20.0, 40.0, 80.0, 400.0)
    assert race.last is not None
    assert race.last.gflop == 40.0  # 0.8 s; the next would take 1.6
    assert sum(gflop == 40.0 for gflop, _ in computer.done) >= 4


def test_small_parts_that_take_longer_for_each_voxel_hide_neither_the_whole_nor_the_better_way():
    """As measured with AVX-512 but no bf16: small parts are five times slower in fp32 than the whole is."""
    computer = Computer(fp32=0.04, bf16=0.02)

    def faster_whole(trial: Trial) -> Trial:
        def prepare(way: Way):
            call, gain = trial.prepare(way), 0.04 * trial.gflop * (1 - 0.2)

            def faster() -> None:
                call()
                computer.now -= gain if way == FP32 else 0.0

            return faster

        return Trial(trial.name, trial.gflop, prepare)

    trials = computer.trials(SMALL, 0.5, 5.0, 20.0, LARGE, 2 * LARGE)
    race = Race([FP32, BF16], 6.5, computer.clock)
    race.run([*trials[:3], *map(faster_whole, trials[3:])])
    assert race.last is not None
    assert race.last.gflop == 2 * LARGE
    assert race.seconds(FP32) == pytest.approx(0.0002 + 0.04 * 90 * 0.2)
    assert race.left[BF16] == "90 took 1.8 s in bf16, 720 ms at best"


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("other", [0.3, 0.9, 1.2, 5.0, 300.0])
@pytest.mark.parametrize("num_ways", [1, 2, 4])
def test_the_budget_is_kept_whatever_the_computer(rate: float, other: float, num_ways: int):
    rates = {"fp32": rate, "last": rate * 0.9, "bf16": rate * other, "bf16_last": rate * other}
    computer = Computer(**dict(list(rates.items())[:num_ways]))
    race = computer.race(6.5, SMALL, 0.5, 1.0, 10.0, LARGE, 2 * LARGE)
    first = sum(computer.rates[way] * gflop for gflop, way in computer.done if gflop == SMALL)
    assert computer.now <= max(6.5, first + 0.01)  # the first trial alone is begun without knowing
    assert race.seconds(FP32) is not None


def test_what_there_is_no_time_for_is_said():
    computer = Computer(fp32=0.9, bf16=0.5)
    race = computer.race(0.9, SMALL, 1.0)
    assert race.last is not None
    assert race.last.gflop == SMALL  # four times 0.9 s may be needed for the network's smallest part
    computer = Computer(fp32=0.04, bf16=0.05, last=0.05)
    race = Race([FP32, BF16, LAST], 1.9, computer.clock)
    small, *larger = computer.trials(SMALL, 1.0, 3.0)

    def prepare(way: Way):
        computer.now += 0.9  # to build the network takes long
        return larger[0].prepare(way)

    race.run([small, Trial("built", 1.0, prepare)])
    assert race.left[LAST] == "not compared: the time for it was over"


def test_seconds_are_told_as_people_read_them():
    assert [told(0.00123), told(0.456), told(2.34)] == ["1.2 ms", "456 ms", "2.3 s"]
