"""Processor name and instruction sets, limits of the environment, usable cores and other load."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from medunet.base import processor
from medunet.base.processor import (
    CoreWatch,
    Processor,
    load_warning,
    num_threads,
    read_processor,
    usable_cores,
)

OLD = "sse4_1 avx avx2"
MIDDLE = f"{OLD} avx512f avx512bw avx512vl avx512dq avx512_vnni"
NEW = f"{MIDDLE} avx512_bf16"


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*processor.LIMITS, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("flags", "limits", "kind"),
    [
        (OLD, {}, "AVX2"),
        (MIDDLE, {}, "AVX-512"),
        (NEW, {}, "AVX-512 with bf16"),
        (NEW.replace("avx512dq ", ""), {}, "AVX2"),
        (f"{MIDDLE} amx_bf16", {}, "AVX-512 with bf16"),
        ("sse4_1 avx", {}, "other"),
        ("asimd sve", {}, "other"),
        (NEW, {"ONEDNN_MAX_CPU_ISA": "AVX2"}, "AVX2"),
        (NEW, {"DNNL_MAX_CPU_ISA": "avx2"}, "AVX2"),
        (NEW, {"ATEN_CPU_CAPABILITY": "avx2"}, "AVX2"),
        (NEW, {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}, "AVX2"),
        (NEW, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, "AVX-512"),
        (NEW, {"ONEDNN_MAX_CPU_ISA": "avx512_core_bf16"}, "AVX-512 with bf16"),
        (NEW, {"ONEDNN_MAX_CPU_ISA": "ALL"}, "AVX-512 with bf16"),
        (OLD, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, "AVX2"),
    ],
)
def test_the_kind_follows_from_flags_and_limits(unlimited, flags: str, limits: dict[str, str], kind: str):
    unlimited.setattr(processor, "_name_and_flags", lambda: ("P", frozenset(flags.split())))
    for name, value in limits.items():
        unlimited.setenv(name, value)
    found = read_processor()
    assert found.kind == kind
    assert found.limits == tuple(f"{name}={value}" for name, value in limits.items())
    assert set(found.instruction_sets) <= set(flags.split())
    assert found.describe().startswith("P: ")
    assert all(name in found.describe() for name in (*found.instruction_sets, *found.limits))
    assert found.to_dict()["kind"] == kind


def test_this_computer_has_a_name():
    assert read_processor().name
    assert Processor("P", ()).describe() == "P: neither AVX2 nor AVX-512 (unknown)"


def test_threads_are_the_users_word_or_the_usable_cores(unlimited):
    unlimited.setattr(processor, "usable_cores", lambda: 5)
    assert num_threads() == 5
    for text, threads in (("3", 3), ("4,2", 4), ("0", 5), ("many", 5), ("", 5)):
        unlimited.setenv("OMP_NUM_THREADS", text)
        assert num_threads() == threads


def test_affinity_limits_the_cores(unlimited):
    one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from medunet.base.processor import *; "
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    code = f"{one}print(usable_cores(), num_threads())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000"}, None),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "250000 100000"}, 2.5),
        ("0::/a/b\n", {"sys/fs/cgroup/a/cpu.max": "150000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, 1.5),
        ("0::/a/b\n", {"sys/fs/cgroup/a/cpu.max": "400000 100000", "sys/fs/cgroup/a/b/cpu.max": "50000 100000"}, 0.5),
        (
            "3:cpuset:/\n2:cpu,cpuacct:/docker/x\n",
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            3.0,
        ),
        (
            "1:cpu:/\n",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            None,
        ),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "broken"}, None),
        ("0::/\n", {}, None),
    ],
)  # fmt: skip
def test_both_versions_of_control_groups_limit_the_cores(tmp_path: Path, groups: str, files: dict, quota):
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert processor._cgroup_quota(tmp_path) == quota


def test_a_quota_gives_whole_cores_and_one_at_least(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processor, "_allowed_cpus", lambda: [100_000 + n for n in range(8)])
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 6)
    for quota, cores in ((None, 6), (2.5, 2), (0.5, 1), (64.0, 6)):
        monkeypatch.setattr(processor, "_cgroup_quota", lambda quota=quota: quota)
        assert usable_cores() == cores


def test_cores_that_others_take_are_counted_and_our_own_are_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processor, "usable_cores", lambda: 2)
    monkeypatch.setattr(processor, "_allowed_cpus", lambda: [0, 1])
    monkeypatch.setattr(time, "sleep", lambda _: None)
    for busy, own, taken in ((15.0, 5.0, 1.0), (10.0, 10.0, 0.0), (20.0, 0.0, 2.0), (8.0, 9.0, 0.0)):
        counts = iter([(0.0, 0.0, 0.0), (10.0, busy, own)])
        monkeypatch.setattr(CoreWatch, "_count", staticmethod(lambda counts=counts: next(counts)))
        assert CoreWatch().other_load() == taken
    # Four hardware threads, two of them idle, of which we may use two cores' worth: nothing is taken from us.
    monkeypatch.setattr(processor, "_allowed_cpus", lambda: [0, 1, 2, 3])
    counts = iter([(0.0, 0.0, 0.0), (10.0, 20.0, 0.0)])
    monkeypatch.setattr(CoreWatch, "_count", staticmethod(lambda: next(counts)))
    assert CoreWatch().other_load() == 0.0


def test_a_busy_child_is_our_own(monkeypatch: pytest.MonkeyPatch):
    watch = CoreWatch._count
    before = watch()
    code = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    after = watch()
    if before is None or after is None:
        pytest.skip("this system does not tell")
    assert after[2] - before[2] >= 0.4


def test_a_system_that_does_not_tell_is_not_busy(monkeypatch: pytest.MonkeyPatch):
    def refuse(**_: object) -> SimpleNamespace:
        raise psutil.AccessDenied(1)

    monkeypatch.setattr(psutil, "cpu_times", refuse)
    assert CoreWatch().other_load() == 0.0


def test_only_much_other_work_is_worth_a_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processor, "usable_cores", lambda: 2)
    assert load_warning(0.1) is None
    assert "1.0 of the 2 cores" in (load_warning(1.0) or "")
    monkeypatch.setattr(processor, "usable_cores", lambda: 32)
    assert load_warning(1.0) is None  # a usual background, which slows nothing
    assert load_warning(4.0) is not None
