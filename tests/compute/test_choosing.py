"""Choices of precision and layout: as requested, from the cache, or by a benchmark; cached if reliable."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from compute.test_benchmark import Computer

from medunet.base.errors import InputError
from medunet.compute import choice_cache, choosing
from medunet.compute.benchmark import Workload
from medunet.compute.choice_cache import change_settings, list_choices
from medunet.compute.choosing import choice_key, choose_on_cpu, requested_options

SIZES = (0.02, 1.0, 10.0, 45.0, 90.0)
AUTO = ("auto", "auto")


@pytest.fixture(autouse=True)
def quiet_computer(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(choosing, "may_have_bf16", lambda: True)
    others_take(monkeypatch, 0.0)


def others_take(monkeypatch: pytest.MonkeyPatch, cores: float) -> None:
    monkeypatch.setattr(choosing.CoreWatch, "other_load", lambda self: cores)


def choose(
    computer: Computer, asked: tuple[str, str] = AUTO, purpose: Any = "training", asked_by: str = "asked for"
):
    key = choice_key(purpose, asked, {"features": [16, 32]}, (40, 56, 40), 2)
    return choose_on_cpu(key, (asked_by, asked_by), lambda: computer.workloads(*SIZES), clock=computer.clock)


def refuse() -> Sequence[Workload]:
    raise AssertionError("was tried again")


def test_the_fastest_variant_is_chosen_with_its_reasons():
    computer = Computer(fp32=0.02, last=0.019, bf16=0.01, bf16_last=0.008)
    choice = choose(computer)
    assert (choice.precision, choice.channels_last) == ("bf16", True)
    assert choice.seconds == pytest.approx(0.008 * 90, rel=0.01)
    assert choice.why == "45 took 360 ms in bf16, 900 ms in fp32"
    assert choice.channels_last_why == "45 took 360 ms with it, 450 ms without"


@pytest.mark.parametrize(
    ("rates", "precision", "channels_last"),
    [
        ({"fp32": 0.01, "last": 0.0099, "bf16": 0.0095, "bf16_last": 0.0095}, "fp32", False),  # by chance
        ({"fp32": 0.01, "last": 0.009, "bf16": 0.0095, "bf16_last": 0.0095}, "fp32", True),
        ({"fp32": 0.01, "last": 0.02, "bf16": 0.02, "bf16_last": 0.02}, "fp32", False),
        ({"fp32": 0.02, "last": 0.005, "bf16": 0.004, "bf16_last": 0.012}, "bf16", False),
        ({"fp32": 0.01, "last": 0.01, "bf16": 3.0, "bf16_last": 3.0}, "fp32", False),  # reference code
    ],
)
def test_the_default_yields_to_a_clear_gain_alone(rates, precision, channels_last):
    choice = choose(Computer(**rates))
    assert (choice.precision, choice.channels_last) == (precision, channels_last)


def test_reference_code_costs_tenths_of_a_second():
    computer = Computer(fp32=0.01, last=0.01, bf16=3.0, bf16_last=3.0)
    choice = choose(computer)
    assert {gflop for gflop, variant in computer.done if variant.precision == "bf16"} == {SIZES[0]}
    assert "0.02 took 60.2 ms in bf16" in choice.why
    assert computer.now < 6.5


def test_what_onednn_denies_is_not_tried(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choosing, "may_have_bf16", lambda: False)
    computer = Computer(fp32=0.01, last=0.01)
    assert choose(computer).why == "oneDNN has no bf16 for this processor"
    assert {variant.precision for _, variant in computer.done} == {"fp32"}


def test_a_choice_is_kept_and_not_tried_again(capsys: pytest.CaptureFixture[str]):
    choice = choose(Computer(fp32=0.02, last=0.02, bf16=0.01, bf16_last=0.01))
    said = capsys.readouterr().err
    assert "6.5 seconds at most" in said
    assert "Chosen for a training step: bf16" in said
    assert choose_on_cpu(list_choices()[0].key, ("", ""), refuse) == choice
    assert capsys.readouterr().err == ""
    assert (
        choose(Computer(fp32=0.01, last=0.01, bf16=0.02, bf16_last=0.02), purpose="inference").precision
        == "fp32"
    )


def test_what_was_found_beside_other_work_is_used_once(monkeypatch, capsys: pytest.CaptureFixture[str]):
    others_take(monkeypatch, 1.0)
    choice = choose(Computer(fp32=0.02, last=0.02, bf16=0.012, bf16_last=0.010))
    assert (choice.precision, choice.channels_last) == (
        "bf16",
        False,
    )  # a fifth is enough on a quiet computer
    assert list_choices() == []
    assert (
        "Other programs used 1.0 cores during the benchmark: its result is used now but not cached."
        in capsys.readouterr().err
    )


def test_what_could_not_time_the_network_is_not_kept():
    choice = choose(Computer(fp32=2.0, last=2.0, bf16=2.0, bf16_last=2.0))
    assert (choice.precision, choice.channels_last) == ("fp32", False)
    assert "the network itself was not timed" in choice.why
    assert choice.seconds > 100
    assert list_choices() == []


def test_a_cache_that_cannot_be_written_is_named_and_stops_nothing(monkeypatch, capsys):
    monkeypatch.setattr(choice_cache, "cache_folder", lambda: None)
    assert choose(Computer(fp32=0.02, last=0.02, bf16=0.01, bf16_last=0.01)).precision == "bf16"
    assert "could not be cached: there is no home folder" in capsys.readouterr().err


def test_what_is_asked_for_is_timed_alone():
    computer = Computer(fp32=0.02, bf16=0.01)
    choice = choose(computer, ("bf16", "off"), asked_by="set by you")
    assert {str(variant) for _, variant in computer.done} == {"bf16"}
    assert (choice.precision, choice.why, choice.channels_last_why) == ("bf16", "set by you", "set by you")
    assert choice.seconds == pytest.approx(0.9, rel=0.01)
    with pytest.raises(InputError, match="fp16 cannot be used on a CPU"):
        choose(Computer(), ("fp16", "off"))


def test_the_configuration_comes_before_what_the_user_set():
    assert requested_options("training")[0] == AUTO
    change_settings(["training.precision=fp32", "inference.channels_last=on"])
    assert requested_options("training") == (("fp32", "auto"), ("set by you", "set by you"))
    assert requested_options("training", "bf16", "off") == (("bf16", "off"), ("asked for", "asked for"))
    assert requested_options("inference", "fp32") == (("fp32", "on"), ("asked for", "set by you"))


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA"])
def test_another_processor_or_thread_count_is_another_key(monkeypatch: pytest.MonkeyPatch, name: str):
    before = choice_key("training", AUTO, {}, (16, 16), 2)
    monkeypatch.setenv(name, {"OMP_NUM_THREADS": "97", "ONEDNN_MAX_CPU_ISA": "SSE41"}[name])
    assert choice_key("training", AUTO, {}, (16, 16), 2) != before


TRIED = """
import json, sys
from medunet.compute.choosing import choose_on_cpu, choice_key
from medunet.compute.workloads import _convolution_workload
from medunet.compute.benchmark import Benchmark, Variant
from medunet.base.processor import read_processor
benchmark = Benchmark([Variant("fp32"), Variant("bf16")], 60.0)
benchmark.run([_convolution_workload(3, training=True)])
from medunet.compute.devices import may_have_bf16
dropped = [str(variant) for variant in benchmark.dropped]
times = {str(variant): seconds for variant, seconds in benchmark.best["a small convolution"].items()}
print(json.dumps({"kind": read_processor().kind, "asked": may_have_bf16(), "dropped": dropped, "times": times}))
"""


@pytest.mark.parametrize("limit", ["AVX2", "AVX512_CORE"])
def test_bf16_without_instructions_is_denied_or_dropped_at_the_first_workload(limit: str):
    aten = {"AVX2": "avx2", "AVX512_CORE": "avx512"}[limit]
    environment = {
        **os.environ,
        "ONEDNN_MAX_CPU_ISA": limit,
        "ATEN_CPU_CAPABILITY": aten,
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", TRIED], env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    if found["kind"] == "other":
        pytest.skip("this processor has no AVX2")
    assert not found["kind"].endswith("bf16")
    assert not found["asked"] or "bf16" in found["dropped"] or found["times"]["bf16"] < 0.1
