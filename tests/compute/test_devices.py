"""Devices and precision: what is asked for is used or refused, never silently replaced."""

import platform

import pytest
import torch

from medunet.base.errors import InputError
from medunet.compute import devices
from medunet.compute.devices import (
    autocast,
    check_precision,
    choose_device,
    keep_freed_memory,
    may_have_bf16,
    use_cores,
)

CPU = torch.device("cpu")


def test_unknown_or_absent_devices_are_refused():
    with pytest.raises(InputError, match="no such device 'gpu0'"):
        choose_device("gpu0")
    with pytest.raises(InputError, match="not supported"):
        choose_device("meta")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="Use --device cpu"):
            choose_device("cuda")
        assert choose_device("auto") == CPU


def test_a_cpu_refuses_fp16():
    for name in ("auto", "fp32", "bf16"):
        check_precision(name, CPU)
    check_precision("fp16", torch.device("cuda"))
    with pytest.raises(InputError, match="fp16 cannot be used on a CPU"):
        check_precision("fp16", CPU)


def test_a_build_without_onednn_has_no_bf16(monkeypatch: pytest.MonkeyPatch):
    assert may_have_bf16() in (True, False)
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert may_have_bf16() is False


def test_torch_computes_on_the_threads_that_it_may_use(monkeypatch: pytest.MonkeyPatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(devices, "num_threads", lambda: 3)
    try:
        use_cores()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_autocast_changes_the_type_only_in_half_precision():
    layer, image = torch.nn.Conv2d(1, 1, 3), torch.zeros(1, 1, 8, 8)
    with autocast(CPU, "fp32"):
        assert layer(image).dtype == torch.float32
    with autocast(CPU, "bf16"):
        assert layer(image).dtype == torch.bfloat16


def test_freed_memory_is_kept_where_the_c_library_can():
    assert keep_freed_memory() is (platform.libc_ver()[0] == "glibc")
