"""Unpacking: whole or not at all, nothing outside the folder, and every trick of a hostile archive refused."""

import contextlib
import gzip
import io
import os
import random
import shutil
import tarfile
import zipfile
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medunet.base.errors import DataError, InputError, MedunetError
from medunet.dataset import archive_entries, archives
from medunet.dataset.archives import Limits, require_space

FILES = {
    "Top/imagesTr/a.nii.gz": b"image" * 1000,
    "Top/labelsTr/a.nii.gz": b"label",
    "Top/dataset.json": b"{}",
}


@pytest.fixture(autouse=True)
def leave_the_disk_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what flushes the whole machine's disks."""
    monkeypatch.setattr(os, "sync", lambda: None)


def unpack(archive: Path, folder: Path, **options: Any) -> None:
    archives.unpack(archive, folder, folder.with_name(".unpacking"), **options)


def entry(name: str, content: bytes = b"", **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, content


def write_tar(path: Path, entries: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
@pytest.mark.parametrize("with_top", [True, False])
def test_every_kind_of_archive_is_unpacked(tmp_path: Path, mode: str, with_top: bool) -> None:
    files = FILES if with_top else {name.removeprefix("Top/"): data for name, data in FILES.items()}
    if mode == "zip":
        archive = write_zip(tmp_path / "a.zip", files)
    else:
        archive = write_tar(tmp_path / "a", [entry(name, data) for name, data in files.items()], mode)
    done: list[int] = []
    unpack(archive, tmp_path / "out", advance=done.append)
    assert tree(tmp_path / "out") == {name.removeprefix("Top/"): data for name, data in FILES.items()}
    assert sum(done) == sum(map(len, FILES.values()))
    assert sorted(path.name for path in tmp_path.iterdir()) == [archive.name, "out"]
    with pytest.raises(InputError, match="exists already"):
        unpack(archive, tmp_path / "out")


def test_long_names_and_large_files_arrive_whole(tmp_path: Path) -> None:
    files = {f"Top/{'long/' * 30}é.nii.gz": b"x", "Top/large.nii": os.urandom(3_000_001), "Top/empty": b""}
    unpack(write_tar(tmp_path / "a.tar", [entry(n, d) for n, d in files.items()]), tmp_path / "out")
    assert tree(tmp_path / "out") == {name.removeprefix("Top/"): data for name, data in files.items()}


def test_what_macos_adds_is_left_out(tmp_path: Path) -> None:
    names = [
        "Top/a.nii.gz",
        "Top/._a.nii.gz",
        "._Top",
        "__MACOSX/Top/._a",
        "Top/.DS_Store",
        "Top/labelsTr/._b",
    ]
    unpack(write_tar(tmp_path / "a.tar", [entry(name, b"1") for name in names]), tmp_path / "out")
    assert set(tree(tmp_path / "out")) == {"a.nii.gz"}


def test_modes_and_owners_are_not_taken_over(tmp_path: Path) -> None:
    archive = write_tar(
        tmp_path / "a.tar", [entry("Top/a", b"1", mode=0o6777, uid=0), entry("Top/b", b"", mode=0)]
    )
    unpack(archive, tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        assert path.stat().st_mode & 0o7111 == 0
        assert os.access(path, os.R_OK | os.W_OK)


HOSTILE: dict[str, tuple[list[tuple[tarfile.TarInfo, bytes]], str]] = {
    "traversal": ([entry("Top/../../evil", b"1")], "is outside the folder"),
    "parent folder": ([entry("..", type=tarfile.DIRTYPE)], "is outside the folder"),
    "absolute": ([entry("/tmp/evil", b"1")], "is outside the folder"),
    "backslashes": ([entry("..\\..\\evil", b"1")], "is outside the folder"),
    "drive": ([entry("C:evil", b"1")], "is outside the folder"),
    "symlink": ([entry("Top/l", type=tarfile.SYMTYPE, linkname="/etc")], "contains a link, 'Top/l'"),
    "file through a symlink": (
        [entry("Top/l", type=tarfile.SYMTYPE, linkname=".."), entry("Top/l/evil", b"1")],
        "contains a link",
    ),
    "hardlink": ([entry("Top/h", type=tarfile.LNKTYPE, linkname="../../secret")], "contains a link"),
    "device": ([entry("Top/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)], "contains a device"),
    "pipe": ([entry("Top/pipe", type=tarfile.FIFOTYPE)], "contains a device"),
    "case alone": ([entry("Top/A", b"1"), entry("Top/a", b"2")], "are the same on some disks"),
    "case of a folder": ([entry("Top/A/x", b"1"), entry("Top/a/y", b"2")], "are the same on some disks"),
    "sharp s": ([entry("Top/straße", b"1"), entry("Top/STRASSE", b"2")], "are the same on some disks"),
    "two spellings of an accent": (
        [entry("Top/\u00e9", b"1"), entry("Top/e\u0301", b"2")],
        "are the same on some",
    ),
    "twice": ([entry("Top/a", b"1"), entry("Top/./a", b"2")], "are the same on some disks"),
    "file and folder": ([entry("Top/a", b"1"), entry("Top/a/b", b"2")], "are the same on some disks"),
    "folder and file": ([entry("Top/a/b", b"1"), entry("Top/a", b"2")], "are the same on some disks"),
    "line break": ([entry("Top/a\nb", b"1")], "is not a valid file name"),
    "right to left": ([entry("Top/a\u202egz.exe", b"1")], "is not a valid file name"),
    "no name": ([entry("./", b"1", type=tarfile.REGTYPE)], "is not a valid file name"),
    "huge sparse file": (
        [entry("Top/s", b"x" * 512, pax_headers={"GNU.sparse.map": "0,512", "GNU.sparse.size": f"{10**12}"})],
        "unpacks to more than 0.1 GB",
    ),
    "huge promise": ([entry("Top/s", b"", size=10**15)], "unpacks to more than 0.1 GB"),
}


@pytest.mark.parametrize("trick", HOSTILE)
def test_hostile_archives_are_refused_and_leave_nothing(tmp_path: Path, trick: str) -> None:
    entries, message = HOSTILE[trick]
    inside = tmp_path / "deep" / "data"
    inside.mkdir(parents=True)
    (tmp_path / "secret").write_text("mine")
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in [entry("Top/first", b"1"), *entries]:
            assert tar.fileobj is not None  # `addfile` itself refuses to promise what it is not given
            tar.fileobj.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
            tar.fileobj.write(content.ljust(-(-len(content) // 512) * 512, b"\0"))
    with pytest.raises(DataError, match=message):
        unpack(tmp_path / "a.tar", inside / "out")
    assert list(inside.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "deep", "secret"]
    assert (tmp_path / "secret").read_text() == "mine"


def test_hostile_zips_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("Top/l")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as packed:
        packed.writestr("Top/a", "1")
        packed.writestr(link, "/etc")
    cases: dict[Path, str] = {
        tmp_path / "link.zip": "contains a link",
        write_zip(tmp_path / "up.zip", {"../evil": b"1"}): "is outside",
        write_zip(tmp_path / "case.zip", {"A": b"1", "a": b"2"}): "the same on some disks",
        write_zip(tmp_path / "bomb.zip", {"zeros": bytes(110_000_000)}): "unpacks to more than 0.1 GB",
    }
    secret = bytearray(write_zip(tmp_path / "locked.zip", {"a": b"1"}).read_bytes())
    secret[secret.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(secret)
    cases[tmp_path / "locked.zip"] = "is encrypted"
    for archive, message in cases.items():
        with pytest.raises(DataError, match=message):
            unpack(archive, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".*"))


def test_a_bomb_in_the_headers_is_stopped_while_it_unpacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files promise little: what counts is all that comes out."""
    monkeypatch.setattr(archives, "_SMALL_BYTES", 1_000_000)
    monkeypatch.setattr(archive_entries, "_MAX_HEADERS_BYTES", 1_000_000)
    with gzip.open(tmp_path / "many.tgz", "wb") as packed:
        for number in range(4):
            info = entry(f"Top/{number}", pax_headers={"comment": "x" * 1_000_000})[0]
            packed.write(info.tobuf(tarfile.PAX_FORMAT))
    with pytest.raises(DataError, match=r"unpacks to more than 0\.001 GB"):
        unpack(tmp_path / "many.tgz", tmp_path / "out")
    with gzip.open(tmp_path / "digits.tgz", "wb") as packed:
        packed.write(entry("Top/a", pax_headers={"comment": "0" * 1_000_000})[0].tobuf(tarfile.PAX_FORMAT))
    with pytest.raises(DataError, match="a number of 100 digits"):
        unpack(tmp_path / "digits.tgz", tmp_path / "out")
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 8_000_000_000
    with gzip.open(tmp_path / "name.tgz", "wb") as packed:
        packed.write(header.tobuf(tarfile.GNU_FORMAT))
        packed.write(bytes(1_000_000))
    with pytest.raises(DataError, match=r"has a header of 8000000\d+ bytes"):
        unpack(tmp_path / "name.tgz", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_limits_on_number_and_size(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", [entry(f"Top/{i}", b"12345678") for i in range(20)])
    with pytest.raises(DataError, match="contains more than 19 files"):
        unpack(archive, tmp_path / "out", limits=Limits(num_files=19))
    with pytest.raises(DataError, match=r"unpacks to more than 1\.59e-07 GB"):
        unpack(archive, tmp_path / "out", limits=Limits(num_bytes=159))
    unpack(archive, tmp_path / "out", limits=Limits(num_files=20, num_bytes=100_000))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_broken_archives_are_named_wherever_they_are_cut(tmp_path: Path, mode: str) -> None:
    contents = {f"Top/{i}": random.Random(i).randbytes(700) for i in range(5)}
    if mode == "zip":
        whole = write_zip(tmp_path / "a", contents).read_bytes()
    else:
        whole = write_tar(tmp_path / "a", [entry(n, d) for n, d in contents.items()], mode).read_bytes()
    end = 5 * (512 + 1024) if mode == "w" else len(whole) - 16  # the last bytes only close a bz2 stream
    for length in range(0, end, 131 if mode != "w" else 256):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(DataError):
            unpack(tmp_path / "cut", tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_broken_header_in_the_middle_is_no_end(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", [entry(f"Top/{i}", b"1") for i in range(4)])
    whole = bytearray(archive.read_bytes())
    whole[2 * 1024 + 150] ^= 1  # in the third header's checksum
    archive.write_bytes(whole)
    with pytest.raises(DataError, match="broken or truncated after its last readable file"):
        unpack(archive, tmp_path / "out")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), mode=st.sampled_from(["w", "w:gz", "zip"]))
def test_damaged_archives_never_write_outside_and_never_crash(
    tmp_path: Path, data: st.DataObject, mode: str
) -> None:
    files = {"Top/a": b"image" * 30, "Top/b/c": b"label"}
    inside = tmp_path / "inside"
    if mode == "zip":
        archive = write_zip(tmp_path / "a", files)
    else:
        archive = write_tar(tmp_path / "a", [entry(n, d) for n, d in files.items()], mode)
    damaged = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    archive.write_bytes(damaged)
    with contextlib.suppress(MedunetError):
        unpack(archive, inside / "out")
    assert {path.name for path in tmp_path.iterdir()} <= {"a", "inside"}
    assert {path.name for path in inside.iterdir()} <= {"out"}
    shutil.rmtree(inside)


def test_an_interrupted_unpacking_begins_anew(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", [entry(name, data) for name, data in FILES.items()])
    left = tmp_path / ".unpacking" / "Top"
    left.mkdir(parents=True)
    (left / "half").write_text("half a file")
    unpack(archive, tmp_path / "out")
    assert len(tree(tmp_path / "out")) == 3
    assert not (tmp_path / ".unpacking").exists()


def test_a_full_disk_is_refused_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_tar(tmp_path / "a.tar", [entry(name, data) for name, data in FILES.items()])
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12, 2 * 10**8))
    with pytest.raises(InputError, match=r"0\.2 GB free, but 0\.3 GB are needed\. Free some space"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".unpacking").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, 10**12))
    require_space(tmp_path, 10**11)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", [entry("Top/a", b"1")])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "file" / "out")
