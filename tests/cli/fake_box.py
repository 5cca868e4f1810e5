"""Small servers on real sockets that answer as the box does, with faults on order."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple

import msgpack

Record = dict[str, Any]
Answer = tuple[int | None, int, int, object]


def framed(answer: object) -> bytes:
    """As it goes over TCP."""
    data: bytes = msgpack.packb(answer)
    return len(data).to_bytes(4, "big") + data


class Request(NamedTuple):
    target: str
    headers: dict[str, str]
    body: bytes


class Reply(NamedTuple):
    status: int
    body: object
    headers: Mapping[str, str] = MappingProxyType({})


class Lane:
    """What one connection must send first, having been refused for now."""

    def __init__(self) -> None:
        self.failed = 0

    def must_wait(self, number: int) -> bool:
        if 0 < number <= self.failed:
            self.failed = 0
        return self.failed > 0


class FakeBox:
    """Takes records; refuses a message whole for a latitude beyond 90, as the real one does.

    `faults` are used up one a message: "busy" refuses for now, "cut" drops the message with the
    connection, "lost" stores it and then drops the connection in place of the answer.
    """

    def __init__(self, *faults: str) -> None:
        self.faults = deque(faults)
        self.messages: list[list[Record]] = []
        self.keys: list[str] = []
        self.connections = 0
        self.names_culprit = True
        self.stored: list[Record] = []
        self.numbers: list[tuple[str, int]] = []
        self._last: dict[str, int] = {}
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    @property
    def stored_n(self) -> list[int]:
        return [record["n"] for record in self.stored]

    def http(self, request: Request) -> Reply | None:
        with self._lock:
            records, fault = self._message(request.body)
            key = request.headers["idempotency-key"]
            self.keys.append(key)
            if fault == "busy":
                return Reply(503, {"title": "Busy", "detail": "no room"}, {"Retry-After": "0"})
            if fault == "cut":
                return None
            bad = self._bad(records)
            if bad is not None:
                index = {"index": bad} if self.names_culprit else {}
                value = records[bad]["latitude"]
                reason = {"field": "latitude", "value": value, "reason": "must be between -90 and 90"}
                return Reply(400, {"detail": f"record {bad}: …", **reason, **index})
            if key not in self._seen:
                self.stored += records
            self._seen.add(key)
            return None if fault == "lost" else Reply(202, {"accepted": len(records)})

    def tcp(self, frame: bytes, lane: Lane) -> Answer | None:
        with self._lock:
            version, sender, number, records = msgpack.unpackb(frame)
            assert version == 1
            self.numbers.append((sender, number))
            fault = self._note(records)
            if fault == "busy" or lane.must_wait(number):
                lane.failed = lane.failed or number
                return number, 3, 0, {"reason": "no room"}
            if fault == "cut":
                return None
            bad = self._bad(records)
            if bad is not None:
                index = bad if self.names_culprit else None
                reason = {"index": index, "field": "latitude", "reason": "must be between -90 and 90"}
                return number, 2, 0, reason
            is_repeat = number <= self._last.get(sender, 0)
            if not is_repeat:
                self.stored += records
                self._last[sender] = number
            return None if fault == "lost" else (number, int(is_repeat), 0 if is_repeat else len(records), None)

    def _message(self, body: bytes) -> tuple[list[Record], str]:
        records = json.loads(body)
        return records, self._note(records)

    def _note(self, records: list[Record]) -> str:
        self.messages.append(records)
        return self.faults.popleft() if self.faults else ""

    def _bad(self, records: list[Record]) -> int | None:
        return next((i for i, record in enumerate(records) if abs(float(record.get("latitude", 0))) > 90), None)


@contextlib.contextmanager
def http_server(answer: Callable[[Request], Reply | None], box: FakeBox | None = None) -> Iterator[str]:
    """Serve until the block ends; gives the URL. An answer of None cuts the connection."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            if box is not None:
                box.connections += 1

        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            reply = answer(Request(self.path, headers, body))
            if reply is None:
                self.close_connection = True
                return
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {**reply.headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_args: object) -> None:
            pass

    with _serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def tcp_server(box: FakeBox) -> Iterator[str]:
    """Answer frames until the block ends; gives `HOST:PORT`."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            box.connections += 1
            lane = Lane()
            with contextlib.suppress(ConnectionError):
                while head := self.rfile.read(4):
                    answer = box.tcp(self.rfile.read(int.from_bytes(head, "big")), lane)
                    if answer is None:
                        self._cut()
                        return
                    self.wfile.write(framed(answer))

        def _cut(self) -> None:
            """End our side, then hear the sender out: a reset would swallow the answers before."""
            self.request.shutdown(socket.SHUT_WR)
            self.rfile.read()

    with _serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[int]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
