"""A ZIP is the same for the same files, whatever their order, times and modes, and is written whole."""

import os
import zipfile
from pathlib import Path

import pytest

from medunet.base.errors import InputError
from medunet.base.zips import write_zip

FILES = {"b/two.bin": bytes(range(256)) * 9, "a.txt": b"one\n", "b/a.txt": b""}


def make(folder: Path, names: list[str], time_s: int, mode: int) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FILES[name])
        path.chmod(mode)
        os.utime(path, (time_s, time_s))
    return folder


def test_the_same_files_give_the_same_bytes(tmp_path: Path):
    one = make(tmp_path / "one", list(FILES), 1_000_000_000, 0o600)
    two = make(tmp_path / "two", list(FILES)[::-1], 1_700_000_000, 0o755)
    write_zip(tmp_path / "one.zip", one)
    write_zip(tmp_path / "two.zip", two)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as packed:
        assert packed.testzip() is None
        assert {name: packed.read(name) for name in packed.namelist()} == FILES
        assert packed.namelist() == sorted(FILES)
        assert {info.date_time[0] for info in packed.infolist()} == {1980}


def test_a_zip_that_cannot_be_finished_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_zip(tmp_path / "x.zip", make(tmp_path / "x", ["a.txt"], 0, 0o600))
    before = (tmp_path / "x.zip").read_bytes()

    def stop(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", stop)
    with pytest.raises(InputError, match="No space left"):
        write_zip(tmp_path / "x.zip", make(tmp_path / "x", list(FILES), 0, 0o600))
    assert (tmp_path / "x.zip").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "x.zip"]
