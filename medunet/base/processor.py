"""What this computer computes with: its processor, what the environment leaves of it, and the cores to be had.

Every figure names the processor that it was measured on: speed on a CPU depends first of all on its instruction sets.
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
)  # cores, and of the usable ones, that other work takes before it is worth a line
_LEAST_S = 0.25  # of watching: the system counts in hundredths of a second

# Instruction sets that decide how fast a network is computed, by their flag in /proc/cpuinfo, the lesser first, each
# with the least limit of oneDNN and of ATen that still leaves it.
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
    """A processor as programs started in this environment see it.

    `instruction_sets` are those that oneDNN and ATen may both use; `limits` the variables that take others away.
    """

    name: str
    instruction_sets: tuple[str, ...]
    limits: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """Which of the three kinds that figures are given for, or another one."""
        sets = set(self.instruction_sets)
        if {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= sets:
            return "AVX-512 with bf16" if sets & {"avx512_bf16", "amx_bf16"} else "AVX-512"
        return "AVX2" if "avx2" in sets else "other"

    def describe(self) -> str:
        """Return one line for benchmarks and logs: name, kind, instruction sets, limits."""
        kind = self.kind if self.kind != "other" else "neither AVX2 nor AVX-512"
        limits = f", limited by {' '.join(self.limits)}" if self.limits else ""
        return f"{self.name}: {kind} ({' '.join(self.instruction_sets) or 'unknown'}{limits})"

    def plain(self) -> dict[str, object]:
        """Return plain values for files of figures and for keys."""
        return {
            "processor": self.name,
            "kind": self.kind,
            "instruction_sets": list(self.instruction_sets),
            "limits": list(self.limits),
        }


def read_processor() -> Processor:
    """Return this computer's processor, its instruction sets as limited by the environment now.

    `ONEDNN_MAX_CPU_ISA` (or `DNNL_MAX_CPU_ISA`) limits convolutions, `ATEN_CPU_CAPABILITY` the rest; what either
    takes away is not counted. Both must be set to emulate a lesser processor.
    """
    name, flags = _name_and_flags()
    given = {key: os.environ[key].lower() for key in LIMITS if os.environ.get(key)}
    onednn = given.get("ONEDNN_MAX_CPU_ISA", given.get("DNNL_MAX_CPU_ISA", ""))
    aten = given.get("ATEN_CPU_CAPABILITY", "")
    sets = tuple(
        flag
        for flag, (least_onednn, least_aten) in _SETS.items()
        if flag in flags and _leaves(_ONEDNN, onednn, least_onednn) and _leaves(_ATEN, aten, least_aten)
    )
    return Processor(name, sets, tuple(f"{key}={os.environ[key]}" for key in given))


def _leaves(ranks: tuple[str, ...], limit: str, least: str) -> bool:
    """Say whether a limit leaves an instruction set; words that the library does not know limit nothing."""
    if limit not in ranks or least not in ranks:
        return True
    return ranks.index(limit) >= ranks.index(least)


@lru_cache(maxsize=1)
def _name_and_flags() -> tuple[str, frozenset[str]]:
    try:
        rows = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
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
    """Return how many cores this process may use, 1 or more: physical ones, by affinity and the cgroup's quota."""
    allowed = _allowed_cpus()
    try:  # threads of one core share a line
        folder = Path("/sys/devices/system/cpu")
        cores = len({(folder / f"cpu{n}/topology/thread_siblings_list").read_text() for n in allowed})
    except OSError:
        cores = min(len(allowed), psutil.cpu_count(logical=False) or len(allowed))
    quota = _cgroup_quota()
    return max(1, cores if quota is None else min(cores, int(quota)))


def num_threads() -> int:
    """Return how many threads to compute with: the user's OMP_NUM_THREADS, else a thread for each usable core."""
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(given) if given.isdigit() and int(given) else usable_cores()


def _allowed_cpus() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _cgroup_quota(root: Path = Path("/")) -> float | None:
    """Return the cores that the process's control group may use, or a group above it; None without a limit.

    Both versions are read: v2's `cpu.max`, v1's `cpu.cfs_quota_us`. `root` is for tests.
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
    """Watches, from when it is made, how many of the usable cores other work takes: other programs, other guests."""

    def __init__(self) -> None:
        self._start = self._count()

    def taken(self) -> float:
        """Return the usable cores taken by others on average until now; waits if too little time has gone by.

        What this process and its children used is not counted. 0 where the system does not tell.
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
        """Return a clock, the busy seconds of the allowed cores, and those of this process and its children."""
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


def are_taken(taken: float) -> bool:
    """Say whether so many cores, taken by other work, make a difference: a third of one, and a tenth of all."""
    return taken >= max(_MUCH, _MUCH_OF_ALL * usable_cores())


def busy_line(taken: float) -> str | None:
    """Return the line that warns where other work takes cores, or None where it takes none to speak of."""
    if not are_taken(taken):
        return None
    return (
        f"Other work takes {taken:.1f} of the {usable_cores()} cores that this process may use: expect it to take "
        "longer, up to three times as long (with one of two cores taken a training step took 2.7 times as long)."
    )
