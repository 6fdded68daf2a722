"""`medunet fetch` from end to end, from a server on 127.0.0.1; stopped anywhere, it goes on."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_server import Server, serve
from tiny_cohort import write_tiny_cohort
from typer.testing import CliRunner

from medunet.base.errors import DataError, InputError
from medunet.cli import app as cli
from medunet.commands import fetch as fetching
from medunet.dataset.fetch import Patience
from medunet.dataset.manifest import make_manifest
from medunet.records.description import load_description

QUICK = Patience(timeout_s=5, num_tries=2, wait_s=0.0)
TASK = "Task04_Hippocampus"


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(os, "sync", lambda: None)  # it flushes the whole machine's disks


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small task in the Decathlon's form, with what macOS leaves in its archives."""
    folder = write_tiny_cohort(tmp_path_factory.mktemp("cohort") / TASK)
    (folder / "imagesTs").mkdir()
    shutil.copy(folder / "imagesTr/case_00.nii.gz", folder / "imagesTs/case_90.nii.gz")
    names = sorted(path.name for path in (folder / "imagesTr").iterdir())
    plain = {
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "modality": {"0": "MRI"},
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
        "test": ["./imagesTs/case_90.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(plain))
    for name in names:
        (folder / "imagesTr" / f"._{name}").write_bytes(b"Mac OS X")
    return folder


def pack(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(folder, arcname=folder.name)
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def server(cohort: Path) -> Iterator[Server]:
    with serve(pack(cohort)) as server:
        yield server


def fetch(server: Server, out: Path, checksum: str | None = None) -> Path:
    checksum = checksum or sha256(server.content)
    return fetching.run_fetch("hippocampus", out, url=server.url, checksum=checksum, patience=QUICK)


def check_whole(folder: Path, out: Path) -> None:
    """Check that the folder is all there is in `out`, and that a manifest can be made of it."""
    assert [path.name for path in out.iterdir()] == [folder.name]
    assert not list(folder.rglob("._*"))
    description = load_description("msd_task04_hippocampus")
    manifest = make_manifest(description, folder)
    assert [case.split for case in manifest.cases].count("train") == 6
    assert manifest.unmatched == ()


def test_an_archive_becomes_a_folder_of_scans(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fetch(server, tmp_path / "new" / "data")
    assert folder == tmp_path / "new" / "data" / TASK
    check_whole(folder, folder.parent)
    said = " ".join(capsys.readouterr().out.split())
    assert "6 training cases, 1 others" in said
    following = f"medunet manifest msd_task04_hippocampus --run runs/hippocampus --data-root {folder}"
    assert following in said
    fetch(server, folder.parent)
    assert "already exists" in capsys.readouterr().out
    assert len(server.asked) == 1
    check_whole(folder, folder.parent)


def test_a_wrong_checksum_removes_the_file_and_says_so(server: Server, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"the download was removed: its sha256 is \w+, not 0000.*Fetch it again"
    ):
        fetch(server, tmp_path / "data", "0" * 64)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    check_whole(fetch(server, tmp_path / "data"), tmp_path / "data")


def test_a_copy_that_was_put_there_is_used_and_kept(server: Server, tmp_path: Path) -> None:
    copy = tmp_path / "Task.tar"  # named as the address ends
    copy.write_bytes(server.content)
    folder = fetch(server, tmp_path)
    assert server.asked == []
    assert copy.read_bytes() == server.content
    copy.unlink()
    check_whole(folder, tmp_path)
    shutil.rmtree(folder)
    copy.write_bytes(b"another")
    with pytest.raises(DataError, match=r"Task\.tar: its sha256 is"):
        fetch(server, tmp_path)
    assert copy.exists()


@pytest.mark.parametrize("place", ["download", "verify", "unpack", "mark", "remove"])
def test_stopped_anywhere_it_goes_on(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    server.cut_after = [20_000] if place == "download" else []

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if place == "download":
            patch.setattr(time, "sleep", stop)
        elif place == "verify":
            patch.setattr(fetching, "verify", stop)
        elif place == "unpack":
            patch.setattr("medunet.dataset.archives.require_space", stop)
        elif place == "mark":
            patch.setattr(fetching, "write_json", stop)
        else:
            patch.setattr("medunet.commands.fetch.shutil.rmtree", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch(server, tmp_path)
    check_whole(fetch(server, tmp_path), tmp_path)
    assert server.ranges_asked == ([None, "bytes=20000-"] if place == "download" else [None])


def test_killed_it_goes_on(server: Server, tmp_path: Path) -> None:
    """By a signal that cannot be caught, while another fetch of the same is refused."""
    server.pause_s = 0.001
    arguments = ("hippocampus", "--url", server.url, "--checksum", sha256(server.content), "--out", tmp_path)
    command = [sys.executable, "-m", "medunet.cli", "fetch", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    part = tmp_path / f".{TASK}.fetch" / "archive.part"
    while not (part.exists() and part.stat().st_size > 1000):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    with pytest.raises(
        InputError, match=rf"`medunet fetch` for {TASK} is already running.*process {process.pid}"
    ):
        fetch(server, tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    server.pause_s = 0.0
    check_whole(fetch(server, tmp_path), tmp_path)
    assert server.ranges_asked[0] is None
    assert server.ranges_asked[1] is not None


def test_a_folder_of_another_archive_is_not_taken_for_it(server: Server, tmp_path: Path) -> None:
    folder = fetch(server, tmp_path)
    with pytest.raises(
        InputError, match=r"came from another archive, with checksum sha256:.* instead of md5:0000"
    ):
        fetch(server, tmp_path, "0" * 32)
    (folder / ".fetched.json").unlink()  # as it was unpacked by hand
    fetch(server, tmp_path, "0" * 32)
    assert len(server.asked) == 1


@pytest.mark.parametrize("listed", [True, False])
def test_missing_files_are_named(server: Server, cohort: Path, tmp_path: Path, listed: bool) -> None:
    poor = shutil.copytree(cohort, tmp_path / TASK)
    (poor / "labelsTr/case_01.nii.gz").unlink()
    (poor / "labelsTr/case_04.nii.gz").unlink()
    if not listed:
        (poor / "dataset.json").unlink()
    server.content = pack(poor)
    named = (
        r"labelsTr/case_01\.nii\.gz, labelsTr/case_04"
        if listed
        else r"imagesTr/case_01\.nii\.gz, imagesTr/case_04"
    )
    with pytest.raises(DataError, match=rf"2 file\(s\) are missing or lack their label: {named}"):
        fetch(server, tmp_path / "data")


def test_a_hostile_archive_leaves_nothing(server: Server, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(f"{TASK}/../../evil")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"1"))
    server.content = buffer.getvalue()
    with pytest.raises(DataError, match="is outside the folder"):
        fetch(server, tmp_path / "deep" / "data")
    assert not list(tmp_path.rglob("evil"))
    assert not (tmp_path / "deep" / "data" / TASK).exists()


def test_any_other_archive(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fetching.run_fetch(
        "my_scans", tmp_path, url=server.url, checksum=sha256(server.content), patience=QUICK
    )
    assert folder == tmp_path / "my_scans"
    said = capsys.readouterr().out
    assert "14 files" in said
    assert "medunet manifest DATASET --run runs/my_scans" in said


def test_the_command(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call: Callable[..., object] = CliRunner().invoke
    monkeypatch.delenv("MEDUNET_DATA_ROOT", raising=False)
    listed = CliRunner().invoke(cli.app, ["fetch", "--list"], catch_exceptions=False).output
    assert all(name in listed for name in ("hippocampus", "liver", "brain-tumour", "27 GB"))
    with pytest.raises(InputError, match="no archive is named"):
        call(cli.app, ["fetch"], catch_exceptions=False)
    with pytest.raises(InputError, match="Add --out FOLDER or set MEDUNET_DATA_ROOT"):
        call(cli.app, ["fetch", "hippocampus"], catch_exceptions=False)
    monkeypatch.setenv("MEDUNET_DATA_ROOT", str(tmp_path))
    arguments = ["fetch", "hippocampus", "--url", server.url, "--checksum", sha256(server.content)]
    done = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    check_whole(tmp_path / TASK, tmp_path)
