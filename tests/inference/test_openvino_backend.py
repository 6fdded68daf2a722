"""A network in OpenVINO gives torch's logits; it is converted once, kept whole, and nothing is sent anywhere."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY
from openvino_networks import load_converted, load_quantised
from tiny_networks import describe, plan_network
from torch import nn

from medunet.base.errors import InputError
from medunet.inference import openvino_backend
from medunet.inference.openvino_backend import (
    ConversionError,
    OpenVinoBackend,
    check_converted,
    convert_network,
    save_network,
)
from medunet.networks.builder import build_network, to_probabilities
from medunet.records.description import Description
from medunet.records.plan import Plan, count_inputs

CONTENT = {"weights": "abc", "plan": "def"}


def make_network(plan: Plan, description: Description, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_network(plan, description).eval()


def shape_of(plan: Plan, description: Description) -> tuple[int, ...]:
    return (count_inputs(description, plan.context_slices), *plan.patch_size)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return make_network(plan_network("plain", 2), describe())


SHAPE = (1, 32, 24)  # of this network's input


@pytest.fixture(scope="module")
def converted(network: nn.Module) -> Any:
    return convert_network(network, SHAPE)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "medunet" / "openvino"


@pytest.fixture
def conversions(converted: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that were converted for."""
    made: list[tuple[int, ...]] = []

    def convert(network: nn.Module, shape: tuple[int, ...], **_: bool) -> Any:
        made.append(shape)
        time.sleep(0.05)
        return converted

    monkeypatch.setattr(openvino_backend, "convert_network", convert)
    return made


@pytest.mark.parametrize(
    ("name", "dimensions", "description", "planning"),
    [
        ("plain", 3, describe(), {}),
        ("plain", 2, describe(2, regions=True), {"context_slices": 3}),
        ("unet_2015", 2, describe(), {}),
    ],
)
def test_logits_and_labels_are_those_of_torch(
    name: str, dimensions: int, description: Description, planning: dict[str, Any]
) -> None:
    plan = plan_network(name, dimensions, description=description, planning=planning)
    network, shape = make_network(plan, description), shape_of(plan, description)
    backend = OpenVinoBackend(convert_network(network, shape), "fp32")
    images = torch.randn((3, *shape), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network(images)
    found = backend.forward(images)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= 1e-4 * max(1.0, expected.abs().max().item())
    labels = [to_probabilities(each, description, channel_axis=1) > 0.5 for each in (found, expected)]
    unsure = (to_probabilities(expected, description, channel_axis=1) - 0.5).abs() < 1e-3
    assert ((labels[0] == labels[1]) | unsure).all()
    again = backend.forward(images[1:2])  # another size of batch, and no memory of the first result
    assert torch.equal(again[0], found[1])
    part = images.expand(3, *shape).transpose(0, 0)[::2]  # not contiguous
    assert torch.equal(backend.forward(part), found[::2])


def test_threads_that_share_a_network_get_their_own_logits(converted) -> None:
    backend = OpenVinoBackend(converted, "fp32")
    images = torch.randn((64, *SHAPE), generator=torch.Generator().manual_seed(1)).split(4)
    expected = [backend.forward(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(backend.forward, images))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_network_is_converted_once(network, cache: Path, conversions, caplog) -> None:
    caplog.set_level(logging.INFO)
    images = torch.randn((2, *SHAPE))
    first = load_converted(lambda: network, CONTENT, SHAPE, "fp32").forward(images)
    assert "Converting the network for OpenVINO" in caplog.text

    def build() -> nn.Module:
        raise AssertionError("was built for nothing")

    assert torch.equal(load_converted(build, CONTENT, SHAPE, "fp32").forward(images), first)
    assert conversions == [SHAPE]
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1
    load_converted(lambda: network, CONTENT | {"weights": "other"}, SHAPE, "fp32")
    assert len(conversions) == 2


@pytest.mark.parametrize(
    "damage", ["shorter", "changed", "missing", "no entry", "another key", "empty folder"]
)
def test_a_damaged_entry_is_converted_again(network, cache: Path, conversions, damage: str) -> None:
    load_converted(lambda: network, CONTENT, SHAPE, "fp32")
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    weights, entry = folder / "network.bin", folder / "entry.json"
    if damage == "shorter":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "changed":
        (folder / "network.xml").write_text("<xml/>")
    elif damage == "missing":
        weights.unlink()
    elif damage == "no entry":
        entry.unlink()
    elif damage == "another key":
        entry.write_text(json.dumps(json.loads(entry.read_text()) | {"key": {}}))
    else:
        for path in folder.iterdir():
            path.unlink()
    (cache / f".{folder.name}.killed").mkdir()  # left by a killed process
    for _ in range(2):
        check_converted(load_converted(lambda: network, CONTENT, SHAPE, "fp32"), network, SHAPE)
    assert len(conversions) == 2
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_two_at_once_convert_once(network, cache: Path, conversions) -> None:
    def load(_: int) -> torch.Tensor:
        return load_converted(lambda: network, CONTENT, SHAPE, "fp32").forward(torch.ones((1, *SHAPE)))

    with ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(load, range(3))
    assert all(torch.equal(first, other) for other in others)
    assert conversions == [SHAPE]


def test_a_cache_that_cannot_be_written_is_named_and_stops_nothing(
    network, cache: Path, conversions, caplog, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    cache.parent.mkdir()
    cache.write_text("a file")
    check_converted(load_converted(lambda: network, CONTENT, SHAPE, "fp32"), network, SHAPE)
    assert "could not be cached: it is not a folder" in caplog.text
    monkeypatch.setattr(openvino_backend, "cache_folder", lambda: None)
    load_converted(lambda: network, CONTENT, SHAPE, "fp32")
    assert "could not be cached: there is no home folder" in caplog.text


def test_a_conversion_that_gives_other_logits_is_not_kept(cache: Path, conversions) -> None:
    other = make_network(plan_network("plain", 2), describe(), seed=1)
    with pytest.raises(ConversionError, match=r"OpenVINO computes other logits than torch.*--backend torch"):
        load_converted(lambda: other, CONTENT, SHAPE, "fp32")
    assert list(cache.iterdir()) == []


def test_a_network_that_cannot_be_converted_is_named() -> None:
    class Unclear(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image if image.sum() > 0 else -image

    with pytest.raises(ConversionError, match=r"--backend openvino: OpenVINO cannot compute this network \("):
        convert_network(Unclear(), SHAPE)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"not installed.*pip install 'medunet\[openvino\]'"):
        load_converted(lambda: nn.Identity(), CONTENT, SHAPE, "fp32")


def test_a_precision_that_the_processor_lacks_is_refused(converted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_backend, "has_bf16", lambda: False)
    for name in ("bf16", "fp16"):
        with pytest.raises(InputError, match=f"cannot compute in {name} on this processor"):
            OpenVinoBackend(converted, name)  # type: ignore[arg-type]


def test_a_quantised_network_is_read_from_the_model_folder(network, converted, tmp_path: Path) -> None:
    import openvino

    with pytest.raises(InputError, match=r"the model has no int8 network.*medunet calibrate RUN"):
        load_quantised(tmp_path)
    openvino.save_model(converted, tmp_path / "int8" / "network.xml", compress_to_fp16=False)
    backend, first = load_quantised(tmp_path)
    assert (backend.name, backend.precision) == ("openvino", "int8")
    check_converted(backend, network, SHAPE)
    weights = tmp_path / "int8" / "network.bin"
    weights.write_bytes(weights.read_bytes() + bytes(8))
    assert load_quantised(tmp_path)[1] != first
    weights.write_bytes(weights.read_bytes()[:8])
    with pytest.raises(
        ConversionError, match=r"int8: OpenVINO cannot load the int8 network.*medunet calibrate"
    ):
        load_quantised(tmp_path)


def test_a_message_of_openvino_is_the_reason_and_not_a_line_of_its_code(tmp_path: Path) -> None:
    (tmp_path / "network.xml").write_text("<xml/>")
    with pytest.raises(ConversionError) as caught:
        OpenVinoBackend(tmp_path / "network.xml", "fp32")
    assert "Exception from" not in str(caught.value)


def test_another_process_may_be_faster_without_locks(
    network, cache: Path, conversions, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    caplog.set_level(logging.INFO)
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        shutil.copytree(self, target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    load_converted(lambda: network, CONTENT, SHAPE, "fp32")
    assert conversions == [SHAPE]
    assert "could not be cached" not in caplog.text


QUIET = """
import socket
sent = []
class Recorded(socket.socket):
    def __init__(self, *args, **kwargs):
        sent.append(args)
        super().__init__(*args, **kwargs)
socket.socket = Recorded
socket.getaddrinfo = lambda *args, **_: sent.append(args)
{first}
import torch
from medunet.inference.openvino_backend import OpenVinoBackend, convert_network
model = convert_network(torch.nn.Conv2d(1, 2, 3).eval(), (1, 8, 6))
assert OpenVinoBackend(model, "fp32").forward(torch.ones((1, 1, 8, 6))).shape == (1, 2, 6, 4)
import time
time.sleep(0.5)
print(sent)
"""
FIRST = """
import openvino
from openvino_telemetry.utils.sender import TelemetrySender
TelemetrySender.send = lambda *args: sent.append(args)
sent.clear()
"""


@pytest.mark.parametrize("first", ["", FIRST])
def test_nothing_is_sent_and_no_folder_is_made(tmp_path: Path, first: str) -> None:
    """Where another program has imported openvino before, its import has made the folder; we send nothing."""
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "TF_BUILD")}
    environment |= {
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHONPATH": str(REPOSITORY),
    }
    script = QUIET.format(first=first)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stderr
    assert (tmp_path / "intel").exists() == bool(first)


SIGNALLED = """
import os, signal, sys, threading
from pathlib import Path
from medunet.inference.openvino_backend import OpenVinoBackend

signal.signal(signal.SIGUSR1, lambda *_: print("heard", flush=True))
first, second, third = (OpenVinoBackend(Path(sys.argv[1]), "fp32") for _ in range(3))
del first, second
held = [third]
del third
thread = threading.Thread(target=held.clear)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there are no such signals on Windows")
def test_signals_are_heard_when_networks_were_freed_in_any_order(converted: Any, tmp_path: Path) -> None:
    """A core of OpenVINO for each network would leave the process a stack for signals that is freed."""
    save_network(converted, tmp_path)
    command = [sys.executable, "-c", SIGNALLED, str(tmp_path / "network.xml")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert (result.returncode, result.stdout) == (0, "heard\n"), result.stderr
