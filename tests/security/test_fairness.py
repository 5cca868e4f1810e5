"""The attack: hold what all share, exports read slowly and queues filled. Everybody else is answered all the same."""

from __future__ import annotations

import json
import random
import select
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.box import Box

pytestmark = pytest.mark.slow

RECORDS = 30_000
PADDING_BYTES = 300
"""An export of these is larger than all that programs and the kernel hold for a client that reads nothing, also when it
is compressed: they are random."""

ANSWER_S = 20.0
"""5 s are promised; a busy machine may take its time. Before, nothing came for as long as the readers stayed."""

SQL_TIMEOUT_S = 4
ENDLESS = "SELECT count(*) FROM range(100000000) a, range(100000000) b"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("fairness")
    with Box(
        folder,
        api__min_read_bytes_per_s=str(2**17),
        api__min_read_window_s="2",
        sql__enabled="true",
        sql__timeout_s=str(SQL_TIMEOUT_S),
    ) as found:
        padding = random.Random(1).randbytes
        notes = (f"{number} {padding(PADDING_BYTES).hex()}" for number in range(RECORDS))
        records = [{"device_id": f"van-{number % 8}", "note": note} for number, note in enumerate(notes)]
        for start in range(0, RECORDS, 10_000):
            found.http.post("/v1/records", json=records[start : start + 10_000]).raise_for_status()
        yield found


class Attacker:
    """Connections from some addresses of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._is_over = threading.Event()
        self._reading: threading.Thread | None = None
        self.connections: list[socket.socket] = []

    def __enter__(self) -> Attacker:
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_over.set()
        if self._reading is not None:
            self._reading.join()
        for one in self.connections:
            one.close()

    def ask(self, address: str, request: bytes) -> socket.socket:
        found = socket.socket()
        self.connections.append(found)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
        found.bind((address, 0))
        found.connect(("127.0.0.1", self._port))
        found.sendall(request)
        return found

    def export(self, address: str, coding: bytes = b"identity") -> socket.socket:
        """One that has begun to come."""
        headers = b"Host: localhost\r\nConnection: close\r\nAccept-Encoding: %b\r\n" % coding
        found = self.ask(address, b"GET /v1/export HTTP/1.1\r\n%b\r\n" % headers)
        found.settimeout(ANSWER_S)
        assert found.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 200"
        return found

    def read_slowly(self) -> None:
        """Take 5 kB/s of each connection."""
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        while not self._is_over.wait(0.2):
            for one in self.connections:
                try:
                    one.recv(1_000, socket.MSG_DONTWAIT)
                except (BlockingIOError, ConnectionResetError):
                    continue


def first_answer(box: Box, path: str) -> tuple[int, float]:
    """The status of an answer, and after how many seconds its first byte came."""
    begun_s = time.monotonic()
    with box.http.stream("GET", path, timeout=ANSWER_S) as answer:
        taken_s = time.monotonic() - begun_s
        if answer.status_code == 503:
            assert int(answer.headers["Retry-After"]) >= 1
        for _ in answer.iter_raw():
            pass
        return answer.status_code, taken_s


def test_exports_of_one_address_leave_a_slot_to_others(box: Box) -> None:
    with Attacker(box.api_port) as attacker:
        for _ in range(3):
            attacker.export("127.0.0.2")
        one_more = attacker.ask("127.0.0.2", b"GET /v1/export HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _ in range(3):
            assert first_answer(box, "/v1/export?device_id=van-1")[0] == 200
        one_more.settimeout(ANSWER_S)
        assert one_more.recv(12) in (b"HTTP/1.1 503", b"HTTP/1.1 200")  # 200: one of its own was too slow


@pytest.mark.parametrize("coding", [b"identity", b"gzip", b"zstd"])
def test_slow_readers_lose_their_slots_to_others(box: Box, coding: bytes) -> None:
    with Attacker(box.api_port) as attacker:
        before = len(box.output)
        for address in ("127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.3"):
            attacker.export(address, coding)
        attacker.read_slowly()
        stop_s = time.monotonic() + 2 * ANSWER_S
        while (found := first_answer(box, "/v1/export?device_id=van-1"))[0] != 200:
            assert found[0] == 503
            assert time.monotonic() < stop_s, "the slow readers keep their slots"
        assert any("read too slowly while others waited" in line for line in list(box.output)[before:])


def test_an_address_that_fills_the_queue_of_sql_waits_for_its_turns(box: Box) -> None:
    body = json.dumps({"query": ENDLESS}).encode()
    head = f"POST /v1/sql HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    request = f"{head}Content-Type: application/json\r\n\r\n".encode() + body
    with Attacker(box.api_port) as attacker:
        asked = [attacker.ask("127.0.0.2", request) for _ in range(9)]
        refused, _, _ = select.select(asked, [], [], ANSWER_S)
        assert refused[0].recv(12) == b"HTTP/1.1 503"  # one address has six of the eight waiting places
        answer = httpx.post(
            f"http://127.0.0.1:{box.api_port}/v1/sql", json={"query": "SELECT 42"}, timeout=ANSWER_S, trust_env=False
        )
        assert answer.json()["rows"] == [[42]]
        answered, _, _ = select.select(asked, [], [], 0)
        assert len(answered) <= 5, "it had its turn after all others"
