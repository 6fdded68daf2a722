"""How much of the computer's memory is free, within what the process's control groups allow."""

from pathlib import Path

import psutil

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def free_bytes() -> int:
    """Return the memory that this process can still take; a container's or a batch job's limit counts."""
    return max(0, min([psutil.virtual_memory().available, *_left_in_groups(_GROUPS, _OWN_GROUPS)]))


def _left_in_groups(groups: Path, own_groups: Path) -> list[int]:
    """Return the bytes that are left below each limit of the process's control groups and those above them.

    Of version 2 and 1; file pages that the system can drop count as left. An empty list where nothing limits.
    """
    try:
        lines = own_groups.read_text().splitlines()
    except OSError:  # no Linux
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
            except OSError:  # the root has no limit; within a container the groups above are out of sight
                continue
            left.append(int(bound) - taken)
    return left
