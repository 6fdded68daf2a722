"""Downloads from a server on 127.0.0.1 that cuts, stalls, lies and changes its mind."""

import hashlib
import importlib.util
import os
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_server import Server, serve

from medunet.base.errors import DataError, InputError
from medunet.base.progress import ByteBar
from medunet.dataset.fetch import Patience, discard, download, require_web, verify
from medunet.dataset.public_archives import ARCHIVES, Checksum, choose_archive, parse_checksum

CONTENT = os.urandom(5_000_000)
CHECKSUM = Checksum("sha256", hashlib.sha256(CONTENT).hexdigest())
QUICK = Patience(timeout_s=5, num_tries=3, wait_s=0.0)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(CONTENT) as server:
        yield server


def get(server: Server, part: Path, patience: Patience = QUICK, checksum: Checksum = CHECKSUM) -> list[str]:
    """Download to `part`; return what was said."""
    said: list[str] = []
    with ByteBar("Download") as bar:
        download(server.url, part, checksum, bar, patience=patience, say=said.append)
    return said


def test_a_whole_file_comes_in_one_go(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "part"
    assert get(server, part) == []
    assert part.read_bytes() == CONTENT
    assert server.ranges_asked == [None]
    assert server.asked[0]["Accept-Encoding"] == "identity"
    get(server, part)
    assert len(server.asked) == 1, "what is whole is not asked for again"
    with ByteBar("Checksum") as bar:
        verify(part, CHECKSUM, bar)
    discard(part)
    assert list(tmp_path.iterdir()) == []


def test_cut_connections_go_on_where_they_were_cut(server: Server, tmp_path: Path) -> None:
    server.cut_after = [2_000_000, 1_500_000]
    said = get(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert server.ranges_asked == [None, "bytes=2000000-", "bytes=3500000-"]
    assert server.asked[1]["If-Range"] == '"1"'
    assert "closed after 2000000 of 5000000 bytes" in said[0]


def test_a_stopped_fetch_goes_on_in_another_process(server: Server, tmp_path: Path) -> None:
    server.cut_after = [3_000_000]
    with pytest.raises(
        InputError, match=r"closed after 3000000 .*1 times in a row.*run the same command again"
    ):
        get(server, tmp_path / "part", Patience(num_tries=1))
    assert (tmp_path / "part").stat().st_size == 3_000_000
    get(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert server.ranges_asked == [None, "bytes=3000000-"]


def test_a_server_without_ranges_begins_anew(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cut_after = False, [2_000_000]
    get(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert server.ranges_asked == [None, "bytes=2000000-"]


@pytest.mark.parametrize("version", ["", 'W/"1"'])
def test_without_a_version_to_name_nothing_is_joined(server: Server, tmp_path: Path, version: str) -> None:
    server.version, server.cut_after = version, [2_000_000]
    get(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert server.ranges_asked == [None, None]


@pytest.mark.parametrize("num_bytes", [5_000_000, 4_000_000, 1_000_000])
def test_a_file_that_changed_in_between_begins_anew(server: Server, tmp_path: Path, num_bytes: int) -> None:
    server.cut_after = [2_000_000]
    with pytest.raises(InputError):
        get(server, tmp_path / "part", Patience(num_tries=1))
    server.content, server.version = os.urandom(num_bytes), '"2"'
    get(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == server.content


@pytest.mark.parametrize("num_bytes", [4_000_000, 1_000_000])
def test_a_server_that_changes_a_file_without_saying_so(
    server: Server, tmp_path: Path, num_bytes: int
) -> None:
    server.cut_after = [2_000_000]
    with pytest.raises(InputError):
        get(server, tmp_path / "part", Patience(num_tries=1))
    server.content = os.urandom(num_bytes)
    assert "starting again" in get(server, tmp_path / "part")[0]
    assert (tmp_path / "part").read_bytes() == server.content


def test_a_part_of_another_archive_is_not_used(server: Server, tmp_path: Path) -> None:
    server.cut_after = [2_000_000]
    with pytest.raises(InputError):
        get(server, tmp_path / "part", Patience(num_tries=1), Checksum("md5", "0" * 32))
    get(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert server.ranges_asked == [None, None]


def test_a_part_without_its_note_is_not_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"who knows")
    get(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT


def test_a_server_that_tells_no_length(server: Server, tmp_path: Path) -> None:
    server.tells_length = False
    get(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    get(server, tmp_path / "part")
    assert len(server.asked) == 1


def test_tries_are_bounded_and_only_progress_renews_them(server: Server, tmp_path: Path) -> None:
    server.cut_after = [1_500_000, 10, 1_500_000, 10, 0]
    with pytest.raises(InputError, match="closed after 3000020 of 5000000 bytes, 3 times in a row"):
        get(server, tmp_path / "part")
    assert len(server.asked) == 5


@pytest.mark.parametrize("status", [429, 500, 503])
def test_answers_that_may_pass_are_asked_again(server: Server, tmp_path: Path, status: int) -> None:
    server.statuses = [status, status]
    assert len(get(server, tmp_path / "part")) == 2
    assert (tmp_path / "part").read_bytes() == CONTENT
    server.statuses = [status] * 3
    with pytest.raises(InputError, match=f"the server answers {status}"):
        get(server, tmp_path / "other")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_refusals_end_at_once_without_the_addresss_keys(server: Server, tmp_path: Path, status: int) -> None:
    server.statuses = [status] * 2
    with pytest.raises(InputError, match=rf"/data/Task\.tar: the server answers {status}") as caught:
        get(server, tmp_path / "part")
    assert "secret" not in str(caught.value)
    assert len(server.asked) == 1


def test_a_server_that_falls_silent_is_given_up(server: Server, tmp_path: Path) -> None:
    server.pause_s = 0.5
    with pytest.raises(InputError, match=r"the connection broke \(timed out\), 2 times in a row"):
        get(server, tmp_path / "part", Patience(timeout_s=0.1, num_tries=2, wait_s=0.0))


def test_a_server_that_drips_is_given_up(server: Server, tmp_path: Path) -> None:
    server.pause_s = 0.01
    with pytest.raises(InputError, match=r"only \d+ bytes were received in 0 s, 2 times in a row"):
        get(server, tmp_path / "part", Patience(slow_s=0.1, slow_bytes=100_000, num_tries=2, wait_s=0.0))


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with serve(b"") as server:
        pass
    with pytest.raises(InputError, match=r"cannot be reached \(.*refused.*\), 3 times in a row"):
        get(server, tmp_path / "part")


def test_redirects_are_followed_to_http_alone(server: Server, tmp_path: Path) -> None:
    server.redirects = ["/elsewhere.tar"]
    get(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    (tmp_path / "secret").write_text("mine")
    for target in (f"file://{tmp_path}/secret", "ftp://127.0.0.1/x", "data:text/plain,x"):
        server.redirects = [target]
        with pytest.raises(InputError, match=r"not an http or https address|not allowed"):
            get(server, tmp_path / "other")
    server.redirects = ["/again"] * 50
    with pytest.raises(InputError, match="the server answers 302"):
        get(server, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/a.tar", "/data/a.tar", "http:///a.tar", ""]
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="not an http or https address"):
        require_web(url)


def test_https_does_not_lead_to_http() -> None:
    require_web("https://b/x", before="http://a/x")
    require_web("https://b/x", before="https://a/x")
    with pytest.raises(InputError, match="from https to http"):
        require_web("http://b/x", before="https://a/x")


def test_a_disk_without_room_is_named_before_it_fills(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, 270_000_000))
    with pytest.raises(InputError, match=r"0\.3 GB free.*Free some space"):
        get(server, tmp_path / "part")
    assert not (tmp_path / "part").exists()
    assert len(server.asked) == 1, "it is not tried again"


def test_a_checksum_that_differs_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"other")
    with ByteBar("Checksum") as bar, pytest.raises(DataError, match=r"a\.tar: its md5 is 795f.*, not 0000"):
        verify(tmp_path / "a.tar", Checksum("md5", "0" * 32), bar)


def test_the_ten_tasks_are_known_as_monai_knows_them() -> None:
    spec = importlib.util.find_spec("monai")
    assert spec is not None
    assert spec.origin is not None
    source = (Path(spec.origin).parent / "apps" / "datasets.py").read_text()  # importing it takes seconds
    for archive in ARCHIVES.values():
        assert f'"{archive.folder}": "{archive.url}"' in source
        assert f'"{archive.folder}": "{archive.checksum.hexadecimal}"' in source
    assert len(ARCHIVES) == 10


def test_archives_are_chosen_by_name_with_other_addresses() -> None:
    for name in ("brain-tumour", "Brain_Tumour", "Task01_BrainTumour", "task01_braintumour"):
        assert choose_archive(name).dataset == "msd_task01_brain_tumour"
    mirror = choose_archive("spleen", "https://mirror/spleen.tar")
    assert (mirror.url, mirror.checksum, mirror.folder) == (
        "https://mirror/spleen.tar",
        ARCHIVES["spleen"].checksum,
        "Task09_Spleen",
    )
    other = choose_archive("my_livers", "https://host/x.zip", "sha256:" + "a" * 64)
    assert (other.folder, other.dataset, str(other.checksum)) == ("my_livers", None, "sha256:" + "a" * 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("hipocampus",),
            r"no public archive 'hipocampus'. Did you mean hippocampus\? Choose one of brain-tumour,",
        ),
        (("mine", "https://host/x.tar"), "needs a checksum"),
        (("mine", "https://host/x.tar", "crc:12"), "'crc:12' is not a checksum"),
        (("mine", "https://host/x.tar", "a" * 33), "is not a checksum"),
        (("mine", "https://host/x.tar", "md5:" + "a" * 64), "is not a checksum"),
        (("../mine", "https://host/x.tar", "a" * 32), "cannot name the archive's folder"),
        ((".mine", "https://host/x.tar", "a" * 32), "cannot name the archive's folder"),
    ],
)
def test_archives_that_cannot_be_chosen(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_archive(*arguments)


def test_checksums_are_told_apart_by_their_length() -> None:
    assert parse_checksum(" MD5:" + "AB" * 16) == Checksum("md5", "ab" * 16)
    assert parse_checksum("0" * 32).algorithm == "md5"
    assert parse_checksum("0" * 64).algorithm == "sha256"
