"""Free main memory, within the limits of the process's control groups (cgroups), and the most that it held."""

from pathlib import Path

import psutil

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_OWN_STATUS = Path("/proc/self/status")


def free_bytes() -> int:
    """Return how many bytes this process can still allocate, within the limit of its container or batch job."""
    return max(0, min([psutil.virtual_memory().available, *_left_in_groups(_GROUPS, _OWN_GROUPS)]))


def _left_in_groups(groups: Path, own_groups: Path) -> list[int]:
    """Return the bytes left under each memory limit of the process's control groups and their parents.

    Both cgroup versions are read. File cache that the system can drop counts as free. The list is empty if there
    is no limit.
    """
    try:
        lines = own_groups.read_text().splitlines()
    except OSError:  # not Linux
        return []
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, used, droppable = groups, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, used = groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            droppable = "total_inactive_file"
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder == root.parent:
                break
            try:
                bound = (folder / limit).read_text().strip()
                if bound == "max":
                    continue
                statistics = dict(row.split() for row in (folder / "memory.stat").read_text().splitlines())
                taken = int((folder / used).read_text()) - int(statistics.get(droppable, 0))
            except (
                OSError
            ):  # the root group has no limit; inside a container the parent groups are not visible
                continue
            left.append(int(bound) - taken)
    return left


def peak_bytes() -> int | None:
    """Return the most main memory that this process has held so far; None where the system does not tell."""
    try:
        rows = _OWN_STATUS.read_text().splitlines()
        return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("VmHWM:"))
    except (OSError, StopIteration):  # not Linux
        return None
