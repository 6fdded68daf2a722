"""Predictions under a limit of memory, each in a process of its own, whose peak is measured."""

import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="limits and peaks of memory are Linux's"),
]

# A model of many classes, whose network is a stand-in that allocates `extra` bytes for each window.
_MODEL = """
import resource
from types import SimpleNamespace
import numpy as np, psutil, torch
from medunet.inference.memory_budget import MemoryBudget
from medunet.inference.model import Model
from medunet.records.config import InferenceConfig
from medunet.records.description import Description
from medunet.transforms.chain import preprocess_chain
from tests.tiny_networks import plan_network

NUM_CLASSES = {num_classes}

class StandIn:
    name, precision, device, num_members = "torch", "fp32", torch.device("cpu"), 1
    batches = []

    def forward(self, images):
        self.batches.append(len(images))
        torch.empty(len(images) * {extra} // 4)  # taken, never touched
        return images * torch.linspace(-1, 1, NUM_CLASSES + 1).view(1, -1, 1, 1, 1)

description = Description(
    name="many", layout="pairs", channels={{"MR0": {{"modality": "MR"}}}},
    labels={{"background": 0, **{{f"structure{{n}}": n for n in range(1, NUM_CLASSES + 1)}}}},
)
plan = plan_network("plain", description=description)
scan = np.zeros({shape}, np.float32)
scan[20:60, 20:60, 30:60] = np.random.default_rng(0).normal(5, 1, (40, 40, 30))
process = psutil.Process()

def model(budget=None):
    card = SimpleNamespace(
        plan=plan, description=description, inference=InferenceConfig(), nnunet=None
    )
    return Model(card, StandIn(), preprocess_chain(plan, with_label=False), budget=budget or MemoryBudget())

def peak_bytes():  # getrusage would have the peak of the process that started this one, too
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

model().predict(scan[:, :, :64], np.eye(4))  # loads what is loaded once
"""


def run(
    code: str, *, num_classes: int = 2, extra: int = 0, shape: tuple[int, int, int] = (80, 80, 96)
) -> str:
    setup = _MODEL.format(num_classes=num_classes, extra=extra, shape=shape)
    result = subprocess.run([sys.executable, "-c", setup + code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_long_scan_with_many_classes_stays_below_its_limit():
    shape, num_classes = (80, 80, 600), 60
    printed = run(
        """
room = 220e6
limit = process.memory_info().rss + room
mask = model(MemoryBudget(limit / 1e9)).predict(scan, np.eye(4))
assert mask.any() and not mask.all()
print(int(limit), peak_bytes(), int(room))
""",
        num_classes=num_classes,
        shape=shape,
    )
    limit, peak, room = map(int, printed.split())
    assert peak < limit
    all_logits = 4 * (num_classes + 1) * 80 * 80 * 600
    assert all_logits > 4 * room, "logits of the whole scan would be far beyond it"


def test_a_scan_that_cannot_stay_below_the_limit_is_refused():
    printed = run(
        """
from medunet.base.errors import DataError
try:
    model(MemoryBudget(process.memory_info().rss / 1e9 + 0.02)).predict(scan, np.eye(4))
except DataError as error:
    print(error)
"""
    )
    assert "GB of memory are left. Raise --ram-gb, now " in printed


def test_where_the_system_refuses_memory_fewer_windows_are_computed_at_a_time():
    printed = run(
        """
import logging
logging.basicConfig(format="%(message)s")
data = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (data + 900_000_000,) * 2)
limited = model()
limited.backend.batches.clear()
assert limited.predict(scan, np.eye(4)).any()
print(limited.backend.batches[0], limited.backend.batches[-1] <= 2, 2 in limited.backend.batches)
""",
        extra=300_000_000,
    )
    assert printed.split() == ["4", "True", "True"]
