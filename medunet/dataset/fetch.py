"""Download a file by HTTP with retries, resumption after interruption, time limits and a checksum.

Received bytes are stored in a part file next to a record of the server's version of the file (its ETag or date), so
that parts of two versions are never combined.
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
_PROGRESS_BYTES = (
    1 << 20
)  # an attempt that received at least this many new bytes resets the number of failures
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)  # HTTP status codes for which to try again
_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True)
class Patience:
    """Timeouts and number of retries of a download."""

    timeout_s: float = 30.0  # for a connection, and for the next bytes
    slow_s: float = 60.0  # in which at least `slow_bytes` must be received
    slow_bytes: int = 60_000
    num_tries: int = 6  # successive attempts without progress
    wait_s: float = 1.0  # before the second attempt; doubled before each further one


PATIENCE = Patience()


class _CutError(Exception):
    """An attempt failed and may be repeated."""


class _PartRecord(Record):
    """The record of the file that a part belongs to."""

    checksum: str  # expected
    version: str  # ETag or date, "" if the server gives none
    num_bytes: int | None = None  # of the whole file, None if unknown


def download(
    url: str,
    part: Path,
    checksum: Checksum,
    bar: ByteBar,
    *,
    patience: Patience = PATIENCE,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Download a file to `part`, resuming an earlier download, until it is complete; its checksum is not verified.

    Args:
        checksum: expected checksum; a part of a file with another one is downloaded again.
        say: called with a message for every failed attempt that will be repeated.

    Raises:
        InputError: it is not an http(s) address, the server refuses or cannot be reached, or the disk is too full.
            The part is kept.
    """
    require_web(url)
    num_failed, most = 0, _size(part)
    while True:
        try:
            _try(url, part, checksum, bar, patience)
        except _CutError as cut:
            num_failed = 1 if _size(part) >= most + _PROGRESS_BYTES else num_failed + 1
            most = max(most, _size(part))
            if num_failed >= patience.num_tries:
                raise InputError(
                    f"{cut}, {num_failed} times in a row",
                    where=_without_secrets(url),
                    hint="Check the network, and run the same command again to resume.",
                ) from cut
            wait_s = min(_LONGEST_WAIT_S, patience.wait_s * 2 ** (num_failed - 1))
            say(f"{cut}; next attempt in {wait_s:.0f} s")
            time.sleep(wait_s)
        else:
            return


def verify(path: Path, checksum: Checksum, bar: ByteBar) -> None:
    """Verify the checksum of a file.

    Raises:
        DataError: it differs.
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
            hint="Download the file again, or check that it is the right one.",
        )


def discard(part: Path) -> None:
    """Remove a part file and then its record, so that a part never has the record of another file."""
    part.unlink(missing_ok=True)
    _record_path(part).unlink(missing_ok=True)


def require_web(url: str, before: str = "") -> None:
    """Check that an address is http or https, and not http after a redirect from https (`before`).

    Raises:
        InputError: it is not.
    """
    scheme = urlsplit(url).scheme
    if scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise InputError(
            f"{scheme or 'this'} is not an http or https address",
            where=_without_secrets(url),
            hint="Check --url.",
        )
    if urlsplit(before).scheme == "https" and scheme == "http":
        raise InputError("the server redirects from https to http", where=_without_secrets(before))


def _try(url: str, part: Path, checksum: Checksum, bar: ByteBar, patience: Patience) -> None:
    """Download the rest of the part in one attempt, or raise an error."""
    record = _read_record(part, checksum)
    if record and _size(part) == record.num_bytes:
        return
    start = _size(part) if record and record.version else 0
    headers = {"User-Agent": f"medunet/{__version__}", "Accept-Encoding": "identity"}
    if record and start:
        headers |= {"Range": f"bytes={start}-", "If-Range": record.version}
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
                hint="If your network uses its own certificate, set SSL_CERT_FILE to it.",
            ) from trouble
        raise _CutError(f"the server cannot be reached ({reason or type(trouble).__name__})") from trouble
    with response:
        num_bytes = _total_length(response, start)
        if response.status != 206 or record is None:
            start, num_bytes = 0, _number(response.headers.get("Content-Length"))
            discard(part)
            record = _PartRecord(checksum=str(checksum), version=_version(response), num_bytes=num_bytes)
            record.write(_record_path(part))
        elif num_bytes is None or record.num_bytes not in (None, num_bytes):
            discard(part)
            raise _CutError("the server's answer does not continue the partial file; starting again")
        require_space(part.parent, 2 * (num_bytes or 0) - start)  # the archive and its unpacked content
        bar.start(num_bytes, start)
        with part.open("ab") as target:
            _receive(response, target, bar, patience)
    if num_bytes is not None and _size(part) != num_bytes:
        raise _CutError(f"the connection was closed after {_size(part)} of {num_bytes} bytes")
    record.model_copy(update={"num_bytes": _size(part)}).write(_record_path(part))


def _receive(response: http.client.HTTPResponse, target: IO[bytes], bar: ByteBar, patience: Patience) -> None:
    """Write the received bytes until the stream ends."""
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
                raise _CutError(f"only {received} bytes were received in {patience.slow_s:.0f} s")
            since, received = time.monotonic(), 0


def _explain(refusal: error.HTTPError, url: str, part: Path) -> NoReturn:
    """Raise the error of the download that corresponds to an HTTP error."""
    refusal.close()
    if refusal.code == 416:  # the requested range is beyond the end of the server's file
        discard(part)
        raise _CutError("the server's file is shorter than the partial file; starting again") from refusal
    if refusal.code in _TEMPORARY:
        raise _CutError(f"the server answers {refusal.code} {refusal.reason}") from refusal
    raise InputError(
        f"the server answers {refusal.code} {refusal.reason}",
        where=_without_secrets(url),
        hint="Check the address, or give another with --url.",
    ) from refusal


def _total_length(response: Any, start: int) -> int | None:
    """Return the total length given in a partial response; None if it is missing or the range starts elsewhere."""
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
    return int(match[3]) if match and int(match[1]) == start else None


def _version(response: Any) -> str:
    """Return the version for `If-Range`: a strong ETag or, without one, the date of the last modification."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _record_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_record(part: Path, checksum: Checksum) -> _PartRecord | None:
    """Return the record of a part, or None if there is none with this checksum."""
    record = _PartRecord.read(_record_path(part)) if _record_path(part).exists() else None
    return record if record and record.checksum == str(checksum) else None


def _without_secrets(url: str) -> str:
    """Return an address without its query and password, which may contain secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{parts.path}" if parts.hostname else parts.path


class _Redirects(request.HTTPRedirectHandler):
    def redirect_request(
        self, req: request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> request.Request | None:
        require_web(newurl, before=req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> request.OpenerDirector:
    """Return an opener for http and https only, with the proxies of the environment."""
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
