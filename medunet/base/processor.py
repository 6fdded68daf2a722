"""The computer's processor: name, instruction sets within the environment's limits, usable cores, and other load.

Benchmark figures name the processor, because the speed on a CPU depends mainly on its instruction sets.
"""

import os
import platform
import re
import subprocess
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import psutil

Kind = Literal["AVX2", "AVX-512", "AVX-512 with bf16", "other"]
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
_MUCH, _MUCH_OF_ALL = (
    0.3,
    0.1,
)  # load of other processes worth a warning: in cores, and as a fraction of the usable cores
_LEAST_S = 0.25  # shortest measurement: the system counts in hundredths of a second

# Instruction sets that decide how fast a network is computed, by their flag in /proc/cpuinfo, oldest first, each
# with the lowest limit of oneDNN and of ATen that still allows it.
_SETS: dict[str, tuple[str, str]] = {
    "sse4_1": ("sse41", "default"),
    "avx": ("avx", "default"),
    "avx2": ("avx2", "avx2"),
    "avx_vnni": ("avx2_vnni", "avx2"),
    "avx512f": ("avx512_core", "avx512"),
    "avx512bw": ("avx512_core", "avx512"),
    "avx512vl": ("avx512_core", "avx512"),
    "avx512dq": ("avx512_core", "avx512"),
    "avx512_vnni": ("avx512_core_vnni", "avx512"),
    "avx512_bf16": ("avx512_core_bf16", "avx512"),
    "avx512_fp16": ("avx512_core_fp16", "avx512"),
    "amx_bf16": ("avx512_core_amx", "avx512"),
    "amx_int8": ("avx512_core_amx", "avx512"),
    "asimd": ("", ""),  # arm64
    "sve": ("", ""),
    "bf16": ("", ""),
}
_ONEDNN = (
    "sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2", "avx512_core", "avx512_core_vnni", "avx512_core_bf16",
    "avx512_core_fp16", "avx512_core_amx", "avx512_core_amx_fp16",
)  # fmt: skip
_ATEN = ("default", "avx2", "avx512")


@dataclass(frozen=True)
class Processor:
    """A processor, as usable in this environment.

    `instruction_sets` are those that both oneDNN and ATen may use; `limits` are the environment variables that
    disable others.
    """

    name: str
    instruction_sets: tuple[str, ...]
    limits: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """Kind of processor by its vector instructions: one of the three that benchmarks distinguish, or "other"."""
        sets = set(self.instruction_sets)
        if {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= sets:
            return "AVX-512 with bf16" if sets & {"avx512_bf16", "amx_bf16"} else "AVX-512"
        return "AVX2" if "avx2" in sets else "other"

    def describe(self) -> str:
        """Return a one-line description for benchmarks and logs: name, kind, instruction sets, limits."""
        kind = self.kind if self.kind != "other" else "neither AVX2 nor AVX-512"
        limits = f", limited by {' '.join(self.limits)}" if self.limits else ""
        return f"{self.name}: {kind} ({' '.join(self.instruction_sets) or 'unknown'}{limits})"

    def to_dict(self) -> dict[str, object]:
        """Return the fields as a dictionary for JSON files and cache keys."""
        return {
            "processor": self.name,
            "kind": self.kind,
            "instruction_sets": list(self.instruction_sets),
            "limits": list(self.limits),
        }


def read_processor() -> Processor:
    """Return this computer's processor with the instruction sets that the environment allows now.

    `ONEDNN_MAX_CPU_ISA` (or `DNNL_MAX_CPU_ISA`) limits convolutions, `ATEN_CPU_CAPABILITY` everything else. An
    instruction set disabled by either is left out. Set both to emulate an older processor.
    """
    name, flags = _name_and_flags()
    given = {key: os.environ[key].lower() for key in LIMITS if os.environ.get(key)}
    onednn = given.get("ONEDNN_MAX_CPU_ISA", given.get("DNNL_MAX_CPU_ISA", ""))
    aten = given.get("ATEN_CPU_CAPABILITY", "")
    sets = tuple(
        flag
        for flag, (least_onednn, least_aten) in _SETS.items()
        if flag in flags and _allows(_ONEDNN, onednn, least_onednn) and _allows(_ATEN, aten, least_aten)
    )
    return Processor(name, sets, tuple(f"{key}={os.environ[key]}" for key in given))


def _allows(ranks: tuple[str, ...], limit: str, least: str) -> bool:
    """Return whether a limit still allows an instruction set; values that the library does not know are ignored."""
    if limit not in ranks or least not in ranks:
        return True
    return ranks.index(limit) >= ranks.index(least)


@lru_cache(maxsize=1)
def _name_and_flags() -> tuple[str, frozenset[str]]:
    try:
        rows = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return _name_elsewhere(), frozenset({"asimd"} if platform.machine() in ("arm64", "aarch64") else ())
    facts = {key.strip(): value.strip() for key, _, value in (row.partition(":") for row in rows)}
    name = facts.get("model name", platform.machine())
    if "model" in facts:  # a virtual machine often hides the name
        name += f", family {facts.get('cpu family', '?')} model {facts['model']}"
    return re.sub(r"\s+", " ", name), frozenset(facts.get("flags", facts.get("Features", "")).split())


def _name_elsewhere() -> str:
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.stdout.strip():
            return asked.stdout.strip()
    return platform.processor() or platform.machine() or "unknown"


# ---- cores ------------------------------------------------------------------------------------------------------


def usable_cores() -> int:
    """Return how many physical cores this process may use (at least 1), by CPU affinity and cgroup quota."""
    allowed = _allowed_cpus()
    try:  # hardware threads of one core have the same siblings list
        folder = Path("/sys/devices/system/cpu")
        cores = len({(folder / f"cpu{n}/topology/thread_siblings_list").read_text() for n in allowed})
    except OSError:
        cores = min(len(allowed), psutil.cpu_count(logical=False) or len(allowed))
    quota = _cgroup_quota()
    return max(1, cores if quota is None else min(cores, int(quota)))


def num_threads() -> int:
    """Return the number of compute threads: OMP_NUM_THREADS if set, otherwise one thread per usable core."""
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(given) if given.isdigit() and int(given) else usable_cores()


def _allowed_cpus() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _cgroup_quota(root: Path = Path("/")) -> float | None:
    """Return the CPU quota, in cores, of the process's control group and its parents; None without a limit.

    Both cgroup versions are read: `cpu.max` (v2) and `cpu.cfs_quota_us` (v1). `root` is for tests.
    """
    try:
        rows = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for row in rows:
        _, controllers, path = row.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = (
            ["sys/fs/cgroup"] if not controllers else [f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu"]
        )
        for mount in mounts:
            top = root / mount
            own = top / path.strip("/")
            for folder in (own, *(parent for parent in own.parents if parent.is_relative_to(top))):
                quotas.append(_quota_of(folder))
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_of(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


class CoreWatch:
    """Measures, from its creation on, how many of the usable cores other processes or virtual machines use."""

    def __init__(self) -> None:
        self._start = self._count()

    def other_load(self) -> float:
        """Return the mean load of other processes, in cores, since the creation of this object.

        Waits if too little time has passed. The use by this process and its children is not counted. Returns 0 if
        the system does not report it.
        """
        if self._start is None:
            return 0.0
        time.sleep(max(0.0, _LEAST_S - (time.monotonic() - self._start[0])))
        end = self._count()
        if end is None:
            return 0.0
        seconds, busy, own = (late - early for early, late in zip(self._start, end, strict=True))
        others = max(0.0, busy - own) / seconds
        free = len(_allowed_cpus()) - others
        return round(min(max(0.0, usable_cores() - free), usable_cores()), 2)

    @staticmethod
    def _count() -> tuple[float, float, float] | None:
        """Return the time, the busy seconds of the allowed CPUs, and those of this process and its children."""
        try:
            each = psutil.cpu_times(percpu=True)
            times = [each[n] for n in _allowed_cpus()]
            process = psutil.Process()
            used = [part.cpu_times() for part in (process, *process.children(recursive=True))]
        except (psutil.Error, OSError, IndexError):
            return None
        busy = sum(
            time.user + time.system + getattr(time, "irq", 0) + getattr(time, "softirq", 0)
            + getattr(time, "nice", 0) + getattr(time, "steal", 0)
            for time in times
        )  # fmt: skip
        own = sum(one.user + one.system for one in used) + sum(
            getattr(used[0], f"children_{key}", 0) for key in ("user", "system")
        )
        return time.monotonic(), busy, own


def is_heavy_load(load: float) -> bool:
    """Return whether the load of other processes, in cores, slows down computation noticeably.

    The threshold is 0.3 cores and a tenth of the usable cores, whichever is larger.
    """
    return load >= max(_MUCH, _MUCH_OF_ALL * usable_cores())


def load_warning(load: float) -> str | None:
    """Return a warning about the load of other processes, in cores; None if it is low."""
    if not is_heavy_load(load):
        return None
    return (
        f"Other processes use {load:.1f} of the {usable_cores()} cores that this process may use: computation may "
        "take up to three times as long (with one of two cores in use, a training step took 2.7 times as long)."
    )
