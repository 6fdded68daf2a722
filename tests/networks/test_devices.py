"""Devices and precision: what is asked for is used or refused, never silently replaced."""

import platform

import pytest
import torch

from medunet.errors import InputError
from medunet.networks.devices import (
    autocast,
    choose_device,
    choose_precision,
    keep_freed_memory,
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


def test_precision_is_as_asked_or_probed_with_its_reason():
    assert choose_precision("fp32", CPU).precision == "fp32"
    probed = choose_precision("auto", CPU)
    assert probed.precision in ("fp32", "bf16")
    assert "ms in bf16" in probed.why
    with pytest.raises(InputError, match="fp16 cannot be used on a CPU"):
        choose_precision("fp16", CPU)


def test_autocast_changes_the_type_only_in_half_precision():
    layer, image = torch.nn.Conv2d(1, 1, 3), torch.zeros(1, 1, 8, 8)
    with autocast(CPU, "fp32"):
        assert layer(image).dtype == torch.float32
    with autocast(CPU, "bf16"):
        assert layer(image).dtype == torch.bfloat16


def test_freed_memory_is_kept_where_the_c_library_can():
    assert keep_freed_memory() is (platform.libc_ver()[0] == "glibc")
