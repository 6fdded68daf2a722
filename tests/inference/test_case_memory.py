"""Memory of a prediction: estimated before the start, kept below a limit, and smaller ways where it runs out."""

import logging
import math
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medunet.base.errors import DataError, InputError
from medunet.compute.live_memory import count_live_bytes
from medunet.imaging.volume import Header
from medunet.inference import memory_budget
from medunet.inference.backend import TorchBackend
from medunet.inference.memory import CaseMemory, Way, network_grid
from medunet.inference.memory_budget import MemoryBudget
from medunet.inference.model import Model
from medunet.networks.builder import build_network
from medunet.records.config import InferenceConfig
from medunet.records.plan import Plan
from tests.tiny_networks import describe, plan_network

CPU = torch.device("cpu")
PLAIN = InferenceConfig()
GB = 10**9


class Identity(torch.nn.Module):
    """Stands for any network; its memory is counted from the plan."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image


def memory_of(plan: Plan, *, limit_gb: float | None = None, device: torch.device = CPU) -> CaseMemory:
    return CaseMemory(plan, describe(), TorchBackend(Identity(), device, "fp32"), MemoryBudget(limit_gb))


def header(shape: tuple[int, ...], spacing_mm: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Header:
    return Header(Path("ct.nii.gz"), shape, np.diag([*spacing_mm, 1.0]), np.dtype(np.int16))


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch):
    """Return a function that sets the free memory of the computer in bytes."""

    def leave(num_bytes: int) -> None:
        monkeypatch.setattr(memory_budget, "free_bytes", lambda: num_bytes)

    return leave


def test_live_tensors_are_counted_without_computing():
    class Doubling(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = x + 1  # 400 bytes
            second = torch.cat([first, first], 1)  # 800 more: the most at one time
            del first
            return second.sum()

    with torch.device("meta"):
        network = Doubling()
    assert count_live_bytes(network, (1, 1, 100)).tensors == 1200


def test_skips_are_not_held_while_the_decoder_computes():
    plan = plan_network("plain", planning={"patch_size": (32, 32, 32), "base_features": 8})
    with torch.device("meta"):
        network = build_network(plan, describe()).eval()
    finest = 8 * 32**3 * 4
    live = count_live_bytes(network, (1, 1, 32, 32, 32)).tensors
    # The joined maps, a convolution's output and its norm's; the skip and the upsampled maps, two more, are free.
    assert 4 * finest <= live < 6 * finest


@pytest.mark.parametrize("name", ["plain", "residual_m", "dynunet", "segresnet_ds", "swin_unetr", "mednext"])
def test_every_network_can_be_estimated(name: str):
    memory = memory_of(plan_network(name))
    assert memory.estimate([header((40, 30, 20))], PLAIN, Way(1)).main_bytes > 0


def test_memory_does_not_grow_with_the_scan_beyond_its_own_voxels():
    memory = memory_of(plan_network("plain"))
    short, long = (
        memory.predicting((200, 200, length), (200, 200, length), PLAIN, Way(1)) for length in (400, 1200)
    )
    assert long.main_bytes - short.main_bytes == 200 * 200 * 800  # the mask


def test_more_classes_windows_and_steps_are_estimated_as_more():
    memory = memory_of(plan_network("plain"))
    one, four = (memory.predicting((90, 80, 70), (90, 80, 70), PLAIN, Way(batch)) for batch in (1, 4))
    assert four.main_bytes > one.main_bytes
    mirrored = InferenceConfig(mirror=("left_right",))
    assert memory.predicting((90, 80, 70), (90, 80, 70), mirrored, Way(1)).main_bytes > one.main_bytes


def test_plans_up_to_0_4_are_estimated_with_the_copies_that_monai_makes():
    plan = plan_network("plain", 2).model_copy(update={"resize_to": (32, 24)})
    new, old = (
        memory_of(plan.model_copy(update={"grid": grid})).estimate([header((512, 512, 60))], PLAIN, Way(1))
        for grid in ("extent", "first_voxel")
    )
    scan = 512 * 512 * 60 * 4
    assert 1.5 * scan < new.main_bytes < 2.5 * scan
    assert old.main_bytes > 22 * scan  # measured


def test_the_largest_parts_are_named():
    text = memory_of(plan_network("plain")).estimate([header((512, 512, 900))], PLAIN, Way(1)).describe()
    assert text.startswith("reading it takes about")
    assert "voxels" in text


@pytest.mark.parametrize(
    ("dimensions", "spacing_mm", "expected"),
    [(3, (0.5, 2.0, 1.0), (20, 60, 20)), (2, (0.5, 2.0, 4.0), (20, 60, 20))],
)
def test_the_network_grid_is_known_from_the_header(dimensions, spacing_mm, expected):
    plan = plan_network("plain", dimensions)
    assert network_grid(header((40, 30, 20), spacing_mm), plan) == expected


def test_the_network_grid_follows_the_orientation():
    affine = np.zeros((4, 4))
    affine[[1, 0, 2, 3], [0, 1, 2, 3]] = (
        -2.0,
        1.0,
        1.0,
        1.0,
    )  # the first axis runs to the back, 2 mm a voxel
    turned = replace(header((40, 30, 20)), affine=affine)
    assert network_grid(turned, plan_network("plain")) == (30, 80, 20)


def test_a_card_adds_up_logits_while_they_fit():
    ways = memory_of(plan_network("plain"), device=torch.device("cuda")).ways
    assert ways == [Way(4, True), Way(2, True), Way(1, True), Way(4), Way(2), Way(1)]


def test_large_windows_are_computed_one_by_one_on_a_cpu():
    large = plan_network("plain", planning={"patch_size": (96, 96, 96)})
    assert memory_of(large).ways == [Way(1)]
    assert memory_of(plan_network("plain")).ways == [Way(4), Way(2), Way(1)]


def run_in(memory: CaseMemory) -> list[Way]:
    tried: list[Way] = []

    def run(way: Way) -> None:
        tried.append(way)

    memory.compute((60, 50, 40), (60, 50, 40), PLAIN, run)
    return tried


def test_fewer_windows_at_a_time_are_computed_where_more_do_not_fit(room, caplog):
    memory = memory_of(plan_network("plain"))
    sizes = [
        memory.predicting((60, 50, 40), (60, 50, 40), PLAIN, way).main_bytes for way in memory.ways
    ]  # of 4, 2 and 1 windows
    with caplog.at_level(logging.INFO):
        room(sizes[0])
        assert run_in(memory) == [Way(4)]
        assert not caplog.messages
        room(sizes[0] - 1)
        assert run_in(memory) == [Way(2)]
    assert caplog.messages[0].startswith(
        "Predicting 2 windows at a time: otherwise predicting it takes about"
    )
    room(sizes[2] - 1)
    with pytest.raises(DataError, match=r"GB \(.*\), but .* GB of memory are left. Free memory"):
        run_in(memory)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_where_memory_runs_out_the_next_smaller_way_is_tried(error, caplog):
    tried: list[Way] = []

    def run(way: Way) -> str:
        tried.append(way)
        if way.batch > 1:
            raise error
        return "mask"

    memory = memory_of(plan_network("plain"))
    assert memory.compute((60, 50, 40), (60, 50, 40), PLAIN, run) == "mask"
    assert tried == [Way(4), Way(2), Way(1)]
    assert caplog.messages[-1] == "Memory ran out. The scan is predicted again, 1 window at a time."
    assert memory.budget._expected == []


def test_without_a_smaller_way_running_out_is_an_error():
    def run(way: Way) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        memory_of(plan_network("plain")).compute((60, 50, 40), (60, 50, 40), PLAIN, run)


def test_other_errors_are_not_tried_again():
    tried: list[Way] = []

    def run(way: Way) -> None:
        tried.append(way)
        raise DataError("broken")

    with pytest.raises(DataError):
        memory_of(plan_network("plain")).compute((60, 50, 40), (60, 50, 40), PLAIN, run)
    assert tried == [Way(4)]


def test_a_scan_that_does_not_fit_is_refused_before_it_is_read(room):
    room(2 * GB)
    memory = memory_of(plan_network("plain"))
    with memory.room_for([header((200, 200, 200))], PLAIN):
        pass
    refusal = r"reading it takes about 14 GB .*but 2 GB of memory are left"
    with (
        pytest.raises(DataError, match=refusal),
        memory.room_for([header((1400, 1400, 1200), (0.2, 0.2, 0.2))], PLAIN),
    ):
        pytest.fail("it was read")


def test_a_limit_counts_what_the_process_already_holds():
    budget = MemoryBudget()
    resident_gb = budget._process.memory_info().rss / 1e9
    limited = memory_of(plan_network("plain"), limit_gb=resident_gb + 0.3)
    assert 0.2 < limited.budget.free_bytes() / 1e9 < 0.4
    with (
        pytest.raises(DataError, match=r"Raise --ram-gb, now"),
        limited.room_for([header((512, 512, 300))], PLAIN),
    ):
        pytest.fail("it was read")
    with pytest.raises(InputError, match="--ram-gb: 0 GB is no limit"):
        MemoryBudget(0)


def test_what_one_thread_has_claimed_is_taken_for_the_others(room):
    room(3 * GB)
    budget = MemoryBudget()
    with budget.claim_first([2 * GB]) as place:
        assert place == 0
        assert math.isclose(budget.free_bytes(), GB, rel_tol=0.2)
        waited, seen = threading.Event(), []

        def other() -> None:
            waited.set()
            with budget.claim_first([int(2.5 * GB), 2 * GB]) as place:
                seen.append(place)

        thread = threading.Thread(target=other)
        thread.start()
        waited.wait(5)
        thread.join(0.1)
        assert thread.is_alive(), "it waits for the claim to end"
    thread.join(5)
    assert seen == [0]
    with budget.claim_first([4 * GB]) as place:
        assert place is None, "nothing can end that would make room"


def test_masks_are_the_same_in_every_way(own_run, monkeypatch):
    model = Model.load(own_run.folder.model(0), device=CPU, precision="fp32")
    volume = np.random.default_rng(5).normal(40, 30, (36, 44, 30)).astype(np.float32)
    masks = []
    for way in (Way(4), Way(1)):
        monkeypatch.setattr(CaseMemory, "ways", [way])
        masks.append(model.predict(volume, np.eye(4)))
    assert (masks[0] == masks[1]).mean() > 0.999


def test_a_scan_beyond_the_limit_is_refused_by_name_and_the_others_go_on(own_run, tmp_path, room):
    from medunet.inference.predict import predict_scans
    from tests.inference.test_predict import scans_of

    model = Model.load(own_run.folder.model(0), device=CPU, precision="fp32")
    model = replace(model, budget=MemoryBudget(0.001))
    scan = scans_of(own_run)[0]
    failed = predict_scans(model, [scan], tmp_path / "out", PLAIN)
    assert "Raise --ram-gb, now 0.001" in failed[scan.case]
    assert not (tmp_path / "out" / scan.mask_name).exists()
