"""Which backend predicts: as asked for, as set, as cached, or by a comparison that short jobs are spared."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_networks import describe, plan_network

from medunet.base.errors import InputError
from medunet.compute.choice_cache import Choice, change_settings, list_choices
from medunet.inference import probe
from medunet.inference.openvino_backend import ConversionError
from medunet.inference.probe import choose_for_model, count_windows
from medunet.records.config import InferenceConfig
from medunet.records.model_card import ModelCard

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@dataclass
class Computer:
    """A computer whose windows take so many seconds, on its own clock."""

    torch: Choice = field(default_factory=lambda: Choice("fp32", seconds=1.0))
    openvino: dict[str, float] = field(default_factory=lambda: {"fp32": 0.6})
    now: float = 0.0
    loaded: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def choose(self, plan: Any, description: Any, device: Any, precision: str, **_: Any) -> Choice:
        self.asked.append(precision)
        return self.torch

    def load(self, folder: Path, *, precision: str, backend: str, **_: Any) -> Any:
        assert backend == "openvino"
        self.loaded.append(precision)

        def forward(image: torch.Tensor) -> torch.Tensor:
            self.now += self.openvino[precision]
            return image

        return SimpleNamespace(backend=SimpleNamespace(forward=forward))


@pytest.fixture
def card() -> ModelCard:
    return ModelCard(medunet_version="0", description=describe(), plan=plan_network("plain"), fold=0)


@pytest.fixture
def computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Computer:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    computer = Computer()
    monkeypatch.setattr(probe, "choose_prediction", computer.choose)
    monkeypatch.setattr(probe.Model, "load", computer.load)
    monkeypatch.setattr(probe, "import_openvino", lambda: SimpleNamespace(__version__="2026.4"))
    monkeypatch.setattr(probe, "has_bf16", lambda: "bf16" in computer.openvino)
    others_take(monkeypatch, 0.0)
    return computer


def others_take(monkeypatch: pytest.MonkeyPatch, cores: float) -> None:
    monkeypatch.setattr(probe, "CoreWatch", lambda: SimpleNamespace(other_load=lambda: cores))


@pytest.fixture
def choose(computer: Computer, card: ModelCard) -> Callable[..., Choice]:
    def call(*asked: str, device: torch.device = CPU, **options: Any) -> Choice:
        return choose_for_model(Path("model"), card, device, *asked, clock=lambda: computer.now, **options)

    return call


def test_the_faster_backend_is_chosen_once_and_remembered(choose, computer: Computer, caplog) -> None:
    caplog.set_level(logging.INFO)
    choice = choose()
    assert (choice.backend, choice.precision, choice.seconds) == ("openvino", "fp32", 0.6)
    assert choice.backend_why == "a window took 600 ms in OpenVINO, 1.0 s in torch"
    assert "Chosen for a prediction: fp32 in openvino" in caplog.text
    assert computer.loaded == ["fp32"]
    assert computer.now <= 4 * 0.6
    assert choose(num_windows=1) == choice  # a short job, too
    assert computer.loaded == ["fp32"]
    assert [kept.choice for kept in list_choices()] == [choice]


@pytest.mark.parametrize(
    ("of_torch", "openvino", "expected"),
    [
        (Choice("fp32", seconds=1.0), {"fp32": 0.97}, ("torch", "fp32")),  # by chance
        (Choice("fp32", True, seconds=1.0), {"fp32": 1.7}, ("torch", "fp32")),
        (Choice("bf16", seconds=0.5), {"fp32": 0.6}, ("torch", "bf16")),
        (Choice("bf16", seconds=0.5), {"fp32": 0.6, "bf16": 0.3}, ("openvino", "bf16")),
        (Choice("bf16", seconds=0.55), {"fp32": 0.5, "bf16": 0.6}, ("openvino", "fp32")),
        (Choice("fp32", seconds=1.0), {"fp32": 0.6, "bf16": 0.55}, ("openvino", "fp32")),
        (Choice("fp32", seconds=1.0), {"fp32": 1.2, "bf16": 0.55}, ("openvino", "bf16")),
    ],
)
def test_torch_and_fp32_yield_to_a_clear_gain_alone(
    choose, computer: Computer, of_torch: Choice, openvino: dict[str, float], expected: tuple[str, str]
) -> None:
    computer.torch, computer.openvino = of_torch, openvino
    choice = choose()
    assert (choice.backend, choice.precision) == expected
    assert choice.channels_last == (expected[0] == "torch" and of_torch.channels_last)
    assert "in OpenVINO" in choice.backend_why


def test_a_short_job_converts_nothing(choose, computer: Computer) -> None:
    choice = choose(num_windows=9)
    assert (choice.backend, choice.backend_why) == ("torch", "OpenVINO was not tried: the job is short")
    assert computer.loaded == []
    assert list_choices() == []
    assert choose(num_windows=11).backend == "openvino"


def test_a_slow_window_is_timed_once_or_twice(choose, computer: Computer) -> None:
    computer.torch, computer.openvino = Choice(seconds=20.0), {"fp32": 8.0}
    assert choose().seconds == 8.0
    assert computer.now == 8.0


def test_what_was_found_beside_other_work_is_used_once(choose, computer, monkeypatch, caplog) -> None:
    others_take(monkeypatch, 1.0)
    assert choose().backend == "openvino"
    assert "its result is used now but not cached" in caplog.text
    assert list_choices() == []
    computer.openvino = {"fp32": 0.7}  # would be enough on a quiet computer
    assert choose().backend == "torch"


def test_torch_goes_on_where_openvino_cannot(choose, computer: Computer, monkeypatch, caplog) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise ConversionError("OpenVINO cannot compute this network (rare)", where="--backend openvino")

    monkeypatch.setattr(probe.Model, "load", load)
    choice = choose()
    assert (choice.backend, choice.precision) == ("torch", "fp32")
    assert choice.backend_why == "OpenVINO cannot compute this network (rare)"
    assert "Prediction goes on in torch." in caplog.text
    assert choose() == choice  # not tried again
    assert caplog.text.count("goes on in torch") == 1
    with pytest.raises(ConversionError):
        choose("auto", "openvino", timed=True)


def test_fp32_goes_on_where_openvino_fails_in_bf16(choose, computer: Computer, monkeypatch, caplog) -> None:
    """As where oneDNN is limited to AVX2 on a processor with bf16."""
    computer.openvino["bf16"] = 0.3
    load_each = probe.Model.load

    def load(*given: Any, **named: Any) -> Any:
        if named["precision"] == "bf16":
            raise ConversionError("OpenVINO cannot load the converted network (rare)")
        return load_each(*given, **named)

    monkeypatch.setattr(probe.Model, "load", load)
    choice = choose()
    assert (choice.backend, choice.precision, choice.seconds) == ("openvino", "fp32", pytest.approx(0.6))
    assert "(rare) It is not used in bf16." in caplog.text


def test_what_is_asked_for_is_not_compared(choose, computer: Computer) -> None:
    choice = choose("auto", "torch")
    assert (choice.backend, choice.backend_why, computer.loaded) == ("torch", "asked for", [])
    choice = choose("fp32", "openvino")
    assert (choice.backend, choice.precision, choice.why) == ("openvino", "fp32", "asked for")
    choice = choose("auto", "openvino")
    assert (choice.precision, choice.why) == ("fp32", "OpenVINO has no bf16 for this processor")
    choice = choose("int8")
    assert (choice.backend, choice.precision, choice.seconds) == ("openvino", "int8", 0.0)
    assert computer.loaded == []
    assert choose("fp32", "openvino", timed=True).seconds == pytest.approx(0.6)
    computer.openvino["bf16"] = 0.3
    choice = choose("auto", "openvino")
    assert (choice.backend, choice.precision) == ("openvino", "bf16")
    assert choice.why == "a window took 300 ms in bf16, 600 ms in fp32"


def test_the_setting_holds_on_the_cpu(choose, computer: Computer) -> None:
    change_settings(["inference.backend=torch"])
    assert choose().backend_why == "set by you"
    assert choose("fp32", "openvino").backend == "openvino"
    change_settings(["inference.backend=openvino"])
    assert choose().backend == "openvino"
    assert choose(device=CUDA).backend == "torch"


def test_options_that_contradict_are_refused(choose, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"OpenVINO computes on the CPU. Add --device cpu"):
        choose("auto", "openvino", device=CUDA)
    for asked, device in ((("int8", "torch"), CPU), (("int8",), CUDA)):
        with pytest.raises(InputError, match="int8 is computed by OpenVINO on the CPU"):
            choose(*asked, device=device)
    with pytest.raises(InputError, match="fp16 cannot be used on a CPU"):
        choose("fp16")


def test_without_the_package_torch_predicts(choose, computer: Computer, monkeypatch) -> None:
    def missing() -> Any:
        raise InputError("OpenVINO is not installed")

    monkeypatch.setattr(probe, "import_openvino", missing)
    choice = choose()
    assert (choice.backend, choice.backend_why) == ("torch", "OpenVINO is not installed")


@pytest.mark.parametrize("dimensions", [2, 3])
def test_windows_are_counted_by_the_header(card: ModelCard, tmp_path: Path, dimensions: int) -> None:
    plan = plan_network("plain", dimensions)
    card = card.model_copy(update={"plan": plan})
    path, broken = tmp_path / "scan.nii.gz", tmp_path / "broken.nii.gz"
    affine = np.diag([2 * plan.spacing_mm[0], plan.spacing_mm[1], plan.spacing_mm[2] / 2, 1.0])
    nib.Nifti1Image(np.zeros((40, 60, 48), np.int16), affine).to_filename(path)  # 80 × 60 × 24 of the network
    broken.write_bytes(b"")
    each = {3: 4 * 4 * 2, 2: 48 * 4 * 4}[dimensions]  # slices are not resampled
    assert count_windows([path, broken], card, InferenceConfig()) == each
    twice = InferenceConfig(mirror=("left_right", "left_right"), shifts=2)  # an axis is mirrored once
    assert count_windows([path] * 3, card, twice) == 12 * each


@pytest.mark.parametrize("sform", [np.nan, np.inf, 1e30])
def test_a_header_that_describes_no_volume_has_no_windows(
    card: ModelCard, tmp_path: Path, sform: float
) -> None:
    """Its case fails when it is read; the others are predicted."""
    flat, odd, good = (tmp_path / f"{name}.nii" for name in ("flat", "odd", "good"))
    nib.Nifti1Image(np.zeros((40, 60), np.int16), np.eye(4)).to_filename(flat)
    for path in (odd, good):
        nib.Nifti1Image(np.zeros((20, 20, 20), np.int16), np.eye(4)).to_filename(path)
    content = bytearray(odd.read_bytes())
    content[280:284] = np.float32(sform).tobytes()
    odd.write_bytes(content)
    found = count_windows([flat, odd, good], card, InferenceConfig())
    assert found == count_windows([good], card, InferenceConfig()) > 0
