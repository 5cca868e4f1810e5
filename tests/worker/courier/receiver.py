"""An HTTP server that keeps what is posted to it, and answers as a test wants, or doesn't."""

from __future__ import annotations

import gzip
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

HANG_UP, NO_ANSWER = 0, -1
"""Instead of a status: the connection is closed, or nothing is said until the client leaves."""

SAID = "X-Said"
"""A header whose value is said as the body, too, in place of `ok`."""

LONGEST_S = 60


class Post(NamedTuple):
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def lines(self) -> list[bytes]:
        """Those of a compressed body."""
        return gzip.decompress(self.body).splitlines()


class Receiver:
    """An HTTP server that keeps what is posted. `answer` chooses what is said to each: status and headers."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.posts: list[Post] = []
        self.answer: Callable[[Post], tuple[int, dict[str, str]]] = lambda _: (200, {})
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                post = Post(self.path, dict(self.headers.items()), body)
                status, headers = receiver.answer(post)
                if status in (HANG_UP, NO_ANSWER):
                    if status == NO_ANSWER:
                        self.connection.settimeout(LONGEST_S)
                        self.rfile.read(1)
                    self.close_connection = True
                    return
                if 200 <= status < 300:
                    receiver.posts.append(post)
                self.send_response(status)
                for name, value in {"Content-Length": "2", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(headers.get(SAID, "ok").encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_port}/in"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
