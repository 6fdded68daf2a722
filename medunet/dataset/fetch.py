"""Downloading one file by HTTP: it goes on after a cut or a kill, gives up in bounded time, and is checked.

What has come lies in a part file beside a note of the server's version of the file (its ETag or date), so that parts
of two versions are never joined.
"""

import hashlib
import http.client
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib import error, request
from urllib.parse import urlsplit

from medunet import __version__
from medunet.base.errors import DataError, InputError
from medunet.base.progress import ByteBar
from medunet.base.record import Record
from medunet.dataset.archives import require_space
from medunet.dataset.public_archives import Checksum

_CHUNK_BYTES = 1 << 20
_WORTH_BYTES = 1 << 20  # a try that brought so much more than any before it does not count as failed
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)  # HTTP's answers that a later try may not get
_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server."""

    timeout_s: float = 30.0  # for a connection, and for the next bytes
    slow_s: float = 60.0  # in which at least `slow_bytes` must come
    slow_bytes: int = 60_000
    num_tries: int = 6  # in a row that bring nothing new
    wait_s: float = 1.0  # before the second try; doubled before each further one


PATIENCE = Patience()


class _CutError(Exception):
    """A try that ended early and may be repeated."""


class _Note(Record):
    """What is known of the file that a part belongs to."""

    checksum: str  # that it should have
    version: str  # its ETag or date, "" where the server tells none
    num_bytes: int | None = None  # of the whole file, where it is known


def download(
    url: str,
    part: Path,
    checksum: Checksum,
    bar: ByteBar,
    *,
    patience: Patience = PATIENCE,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Download a file to `part`, going on with what is there, until it is whole; its bytes are not checked yet.

    Args:
        checksum: that the file should have; a part of another is begun anew.
        say: told of every try that failed and will be repeated.

    Raises:
        InputError: no http(s) address, the server refuses or is out of reach, the disk is too full. The part stays.
    """
    require_web(url)
    num_failed, most = 0, _size(part)
    while True:
        try:
            _try(url, part, checksum, bar, patience)
        except _CutError as cut:
            num_failed = 1 if _size(part) >= most + _WORTH_BYTES else num_failed + 1
            most = max(most, _size(part))
            if num_failed >= patience.num_tries:
                raise InputError(
                    f"{cut}, {num_failed} times in a row",
                    where=_without_secrets(url),
                    hint="Check the network; the same command goes on from here.",
                ) from cut
            wait_s = min(_LONGEST_WAIT_S, patience.wait_s * 2 ** (num_failed - 1))
            say(f"{cut}; again in {wait_s:.0f} s")
            time.sleep(wait_s)
        else:
            return


def verify(path: Path, checksum: Checksum, bar: ByteBar) -> None:
    """Compare a file's bytes with their checksum.

    Raises:
        DataError: they differ.
    """
    digest = hashlib.new(checksum.algorithm, usedforsecurity=False)
    bar.start(path.stat().st_size)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            bar.advance(len(chunk))
    if digest.hexdigest() != checksum.hexadecimal:
        raise DataError(
            f"its {checksum.algorithm} is {digest.hexdigest()}, not {checksum.hexadecimal}",
            where=path.name,
            hint="The file came damaged, or is another one than was asked for.",
        )


def discard(part: Path) -> None:
    """Remove a part file and its note: first the part, so that none ever stands beside another's note."""
    part.unlink(missing_ok=True)
    _note_path(part).unlink(missing_ok=True)


def require_web(url: str, before: str = "") -> None:
    """Refuse addresses other than http and https, and being led from https (`before`) back to http.

    Raises:
        InputError: names the address.
    """
    scheme = urlsplit(url).scheme
    if scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise InputError(
            f"{scheme or 'this'} is no http or https address",
            where=_without_secrets(url),
            hint="Check --url.",
        )
    if urlsplit(before).scheme == "https" and scheme == "http":
        raise InputError("the server leads from https to http", where=_without_secrets(before))


def _try(url: str, part: Path, checksum: Checksum, bar: ByteBar, patience: Patience) -> None:
    """Bring the part to its whole length, or raise what stopped it."""
    note = _read_note(part, checksum)
    if note and _size(part) == note.num_bytes:
        return
    begun = _size(part) if note and note.version else 0
    headers = {"User-Agent": f"medunet/{__version__}", "Accept-Encoding": "identity"}
    if note and begun:
        headers |= {"Range": f"bytes={begun}-", "If-Range": note.version}
    try:
        response = _opener().open(request.Request(url, headers=headers), timeout=patience.timeout_s)
    except error.HTTPError as refusal:
        _explain(refusal, url, part)
    except (OSError, http.client.HTTPException) as trouble:
        reason = getattr(trouble, "reason", trouble)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise InputError(
                f"its certificate is not trusted ({reason.verify_message})",
                where=_without_secrets(url),
                hint="If your network has a certificate of its own, set SSL_CERT_FILE to it.",
            ) from trouble
        raise _CutError(f"the server cannot be reached ({reason or type(trouble).__name__})") from trouble
    with response:
        num_bytes = _whole_length(response, begun)
        if response.status != 206 or note is None:
            begun, num_bytes = 0, _number(response.headers.get("Content-Length"))
            discard(part)
            note = _Note(checksum=str(checksum), version=_version(response), num_bytes=num_bytes)
            note.write(_note_path(part))
        elif num_bytes is None or note.num_bytes not in (None, num_bytes):
            discard(part)
            raise _CutError("the server's answer does not join what is here, which is begun anew")
        require_space(part.parent, 2 * (num_bytes or 0) - begun)  # it will be unpacked beside its archive
        bar.start(num_bytes, begun)
        with part.open("ab") as target:
            _receive(response, target, bar, patience)
    if num_bytes is not None and _size(part) != num_bytes:
        raise _CutError(f"the connection was cut after {_size(part)} of {num_bytes} bytes")
    note.model_copy(update={"num_bytes": _size(part)}).write(_note_path(part))


def _receive(response: http.client.HTTPResponse, target: IO[bytes], bar: ByteBar, patience: Patience) -> None:
    """Write what comes until the stream ends."""
    since, received = time.monotonic(), 0
    while True:
        try:
            chunk = response.read1(_CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as trouble:
            raise _CutError(f"the connection broke ({trouble or type(trouble).__name__})") from trouble
        if not chunk:
            return
        require_space(Path(target.name).parent, 0)
        target.write(chunk)
        bar.advance(len(chunk))
        received += len(chunk)
        if time.monotonic() - since > patience.slow_s:
            if received < patience.slow_bytes:
                raise _CutError(f"only {received} bytes came in {patience.slow_s:.0f} s")
            since, received = time.monotonic(), 0


def _explain(refusal: error.HTTPError, url: str, part: Path) -> NoReturn:
    """Raise what an HTTP error means for the download."""
    refusal.close()
    if refusal.code == 416:  # the server's file ends before what is here
        discard(part)
        raise _CutError("the server's file is shorter than what is here, which is begun anew") from refusal
    if refusal.code in _MAY_PASS:
        raise _CutError(f"the server answers {refusal.code} {refusal.reason}") from refusal
    raise InputError(
        f"the server answers {refusal.code} {refusal.reason}",
        where=_without_secrets(url),
        hint="Check the address, or give another with --url.",
    ) from refusal


def _whole_length(response: Any, begun: int) -> int | None:
    """Return the whole file's length as a partial answer tells it, None where it does not, or begins elsewhere."""
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
    return int(match[3]) if match and int(match[1]) == begun else None


def _version(response: Any) -> str:
    """Return what `If-Range` may name: a strong ETag, else the date of the last change."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _note_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path, checksum: Checksum) -> _Note | None:
    """Return the note beside a part, None where there is none of this checksum."""
    note = _Note.read(_note_path(part)) if _note_path(part).exists() else None
    return note if note and note.checksum == str(checksum) else None


def _without_secrets(url: str) -> str:
    """Return an address without its query and password, either of which may be a key."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{parts.path}" if parts.hostname else parts.path


class _Redirects(request.HTTPRedirectHandler):
    def redirect_request(
        self, req: request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> request.Request | None:
        require_web(newurl, before=req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> request.OpenerDirector:
    """Return what opens http and https alone, through the proxies of the environment."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPErrorProcessor,
        _Redirects,
    ):
        opener.add_handler(handler())
    return opener
