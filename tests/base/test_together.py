"""Files that belong together are all old or all new, at whichever call of the system the process is killed."""

import os
from pathlib import Path

import pytest

from medunet.base.together import finish_together, write_together

OLD, NEW = (
    {name: f"{age} {name}" for name in ("manifest.json", "folds.json", "config.yaml")}
    for age in ("old", "new")
)


def kill_at(folder: Path, number: int) -> bool:
    """Write the new files in a child that ends without cleaning up at its nth file; return whether it came so far."""
    child = os.fork()
    if child == 0:
        replace, calls = Path.replace, [0]

        def count(self: Path, target: Path) -> Path:
            calls[0] += 1
            if calls[0] == number:
                os._exit(9)
            return replace(self, target)

        Path.replace = count  # type: ignore[method-assign]
        write_together(folder, NEW)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def read(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in OLD}


def test_killed_anywhere_all_files_are_old_or_all_are_new(tmp_path: Path) -> None:
    seen = []
    for number in range(1, 20):
        folder = tmp_path / str(number)
        write_together(folder, OLD)
        if not kill_at(folder, number):
            break
        finish_together(folder)
        seen.append(read(folder))
        assert seen[-1] in (OLD, NEW)
        write_together(folder, NEW)
        assert read(folder) == NEW
        assert {path.name for path in folder.iterdir()} == {*NEW}
    assert seen[0] == OLD
    assert seen[-1] == NEW
    assert len(seen) == 7  # three files, their list, and three replacements


def test_what_cannot_be_written_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_together(tmp_path, OLD)
    calls = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ValueError, match="Free disk space"):
        write_together(tmp_path, NEW)
    finish_together(tmp_path)
    assert read(tmp_path) == OLD
