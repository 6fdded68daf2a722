"""The file system of a path: whether other hosts share it, and whether its locks reach them."""

import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_SHARED = {
    "9p", "afs", "beegfs", "ceph", "cifs", "fhgfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs",
    "panfs", "pvfs2", "quobyte", "smb3", "smbfs", "sshfs", "wekafs",
}  # fmt: skip
_LOCAL_LOCKS = {"nolock", "local_lock=all", "local_lock=flock", "localflock"}  # of NFS and Lustre


def shared_type(path: Path) -> str | None:
    """Return the type of a file system that hosts share over a network, such as `nfs4`; None for any other."""
    kind, _ = _mount_of(path)
    name = kind.removeprefix("fuse.")
    return kind if name in _SHARED else None


def has_local_locks(path: Path) -> bool:
    """Return whether the mount's options keep its locks from other hosts."""
    return bool(_mount_of(path)[1] & _LOCAL_LOCKS)


def _mount_of(path: Path) -> tuple[str, frozenset[str]]:
    """Return type and options of the mount that holds a path; empty if the system does not tell (not Linux)."""
    try:
        lines = _MOUNTS.read_text().splitlines()
    except OSError:
        return "", frozenset()
    resolved = path.resolve()
    found: tuple[int, str, frozenset[str]] = (-1, "", frozenset())
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(_unescape(before.split()[4]))
        if (
            resolved.is_relative_to(point) and len(point.parts) >= found[0]
        ):  # a later mount hides an earlier one
            kind, *_, options = after.split()
            found = len(point.parts), kind, frozenset([*before.split()[5].split(","), *options.split(",")])
    return found[1:]


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
