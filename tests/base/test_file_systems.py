"""The file system of a path, from Linux's table of mounts."""

from pathlib import Path

import pytest

from medunet.base import file_systems
from medunet.base.file_systems import has_local_locks, shared_type

TABLE = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /home rw,nosuid - nfs4 server:/home rw,vers=4.2,local_lock=none
31 22 0:41 / /old\040share rw - nfs server:/old rw,vers=3,nolock,local_lock=all
32 22 0:42 / /scratch rw - lustre 10.0.0.1@tcp:/scratch rw,localflock
33 30 8:2 / /home/me/fast rw - xfs /dev/sdb1 rw
34 22 0:43 / /win rw - cifs //server/share rw
35 22 0:44 / /far rw - fuse.sshfs me@far:/ rw
36 22 0:45 / /twice rw - nfs4 server:/a rw
37 22 0:46 / /twice rw - tmpfs tmpfs rw
"""


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_text(TABLE.lstrip())
    monkeypatch.setattr(file_systems, "_MOUNTS", tmp_path / "mountinfo")


@pytest.mark.parametrize(
    ("path", "kind", "is_local"),
    [
        ("/data/run", None, False),
        ("/home/me/run", "nfs4", False),
        ("/home/me/fast/run", None, False),
        ("/homes/run", None, False),
        ("/old share/run", "nfs", True),
        ("/scratch/run", "lustre", True),
        ("/win/run", "cifs", False),
        ("/far/run", "fuse.sshfs", False),
        ("/twice/run", None, False),  # the later mount hides the earlier one
    ],
)
def test_the_mount_tells_what_is_shared(path: str, kind: str | None, is_local: bool):
    assert shared_type(Path(path)) == kind
    assert has_local_locks(Path(path)) == is_local


def test_where_the_system_does_not_tell_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(file_systems, "_MOUNTS", tmp_path / "absent")
    assert shared_type(Path("/home/me")) is None
    assert not has_local_locks(Path("/home/me"))
