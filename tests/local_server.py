"""A web server on 127.0.0.1 that misbehaves as it is told."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Server:
    """What the server gives and how, to be changed at will; and what it was asked."""

    url: str
    content: bytes
    version: str = '"1"'  # the ETag; "" tells none
    ranges: bool = True
    tells_length: bool = True
    cut_after: list[int] = field(default_factory=list)  # bytes of the next answers, after which they end
    statuses: list[int] = field(default_factory=list)  # of the next answers
    redirects: list[str] = field(default_factory=list)  # of the next answers
    pause_s: float = 0.0  # before every hundred bytes
    asked: list[dict[str, str]] = field(default_factory=list)  # headers of each request

    @property
    def ranges_asked(self) -> list[str | None]:
        return [headers.get("Range") for headers in self.asked]


@contextmanager
def serve(content: bytes) -> Iterator[Server]:
    """Serve `content` at every path while the `with` lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(dict(self.headers))
            if server.statuses or server.redirects:
                self.send_response(server.statuses.pop(0) if server.statuses else 302)
                if server.redirects:
                    self.send_header("Location", server.redirects.pop(0))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            begin = self._begin()
            if begin and begin >= len(server.content):
                self.send_error(416)
                return
            self.send_response(206 if begin else 200)
            if begin:
                end = len(server.content) - 1
                self.send_header("Content-Range", f"bytes {begin}-{end}/{len(server.content)}")
            if server.version:
                self.send_header("ETag", server.version)
            if server.tells_length:
                self.send_header("Content-Length", str(len(server.content) - begin))
            self.end_headers()
            self._give(server.content[begin:])

        def _begin(self) -> int:
            asked = self.headers.get("Range", "")
            same = self.headers.get("If-Range") == server.version
            return int(asked.removeprefix("bytes=").rstrip("-")) if asked and same and server.ranges else 0

        def _give(self, data: bytes) -> None:
            if server.cut_after:
                data = data[: server.cut_after.pop(0)]
            step = 100 if server.pause_s else len(data) or 1
            try:
                for begin in range(0, len(data), step):
                    if server.pause_s:
                        time.sleep(server.pause_s)
                    self.wfile.write(data[begin : begin + step])
            except OSError:  # the client has gone
                return

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        web.daemon_threads = True
        server = Server(f"http://127.0.0.1:{web.server_address[1]}/data/Task.tar?key=secret", content)
        Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield server
        finally:
            web.shutdown()
