"""Honest senders and a reader: how long each waits for its acknowledgement, and what was acknowledged."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable

import httpx

PAUSE_S = 0.05
GIVE_UP_S = 30.0
"""A sender that waits so long has found a fault."""


class Sender(threading.Thread):
    """Sends a record, waits for its acknowledgement, and sends the same again until it comes."""

    def __init__(self, name: str, send: Callable[[dict[str, object]], bool], close: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self.device_id = f"honest-{name}"
        self.waits_s: list[float] = []
        self.retries = 0
        self._send, self._close = send, close
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Send no more, and wait for the last acknowledgement."""
        self._stopping.set()
        self.join(2 * GIVE_UP_S)

    def run(self) -> None:
        while not self._stopping.is_set():
            number = len(self.waits_s)
            record = {"device_id": self.device_id, "latitude": 53.4, "longitude": -2.9, "altitude": number}
            begun_s = time.monotonic()
            while not self._is_acknowledged(record) and time.monotonic() - begun_s < GIVE_UP_S:
                self.retries += 1
                time.sleep(PAUSE_S)
            self.waits_s.append(time.monotonic() - begun_s)
            self._stopping.wait(PAUSE_S)
        self._close()

    def _is_acknowledged(self, record: dict[str, object]) -> bool:
        try:
            return self._send(record)
        except (OSError, httpx.TransportError):
            return False


def over_http(name: str, port: int, key: str) -> Sender:
    """A sender over HTTP, whose retries carry the same `Idempotency-Key`."""
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=GIVE_UP_S)

    def send(record: dict[str, object]) -> bool:
        headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": f"{name}-{record['altitude']}"}
        return client.post("/v1/records", json=record, headers=headers).status_code == 202

    return Sender(name, send, client.close)


def over_tcp(name: str, port: int, key: str) -> Sender:
    """A sender of JSON lines. It connects again where a connection ends, so that a lost answer may double a record."""
    connections: list[socket.socket] = []

    def connected() -> socket.socket:
        if not connections:
            found = socket.create_connection(("127.0.0.1", port), GIVE_UP_S)
            connections.append(found)
            _asked(found, {"token": key})
        return connections[0]

    def send(record: dict[str, object]) -> bool:
        try:
            return _asked(connected(), record).get("message") == "Data received"
        except (OSError, ValueError):
            close()
            raise

    def close() -> None:
        while connections:
            connections.pop().close()

    return Sender(name, send, close)


def _asked(sock: socket.socket, message: dict[str, object]) -> dict[str, object]:
    sock.sendall(json.dumps(message).encode() + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        piece = sock.recv(4_096)
        if not piece:
            raise ConnectionError("the connection has ended")
        answer += piece
    found: dict[str, object] = json.loads(answer)
    return found


def reader(name: str, port: int, key: str, path: str) -> Sender:
    """A reader, timed like a sender: requests the same path again and again."""
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=GIVE_UP_S)

    def ask(_record: dict[str, object]) -> bool:
        answer = client.get(path, headers={"Authorization": f"Bearer {key}"})
        return answer.status_code == 200

    return Sender(name, ask, client.close)
