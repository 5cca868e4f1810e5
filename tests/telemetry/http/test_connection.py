"""Limits of an HTTP connection, by senders that write their own bytes, to both programs that serve HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from telemetry.archive.table import Archive
from telemetry.config.loader import load
from telemetry.config.settings import PROJECT
from telemetry.http.connection import LINGER_S, MAX_HEADERS, MAX_PARAMETERS, MAX_PIPELINED
from telemetry.startup.store_setup import set_up
from tests.conftest import RedisServer

HOST = "127.0.0.1"
WAIT_S = 20.0
HEADER_BYTES = 4_096
BODY_BYTES = 100_000
QUERY_BYTES = 2_500
CONNECTIONS = 20
PER_ADDRESS = 15
OTHER_HOST = "127.0.0.2"
TIMEOUT_S = 1
KEEP_ALIVE_S = 2
ALIVE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/records HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
PADDED = ALIVE[:-2] + b"X: " + b"x" * 500 + b"\r\n\r\n"
"""Long enough for what is received at once not to hold more requests than may wait."""

FLAT_BYTES = 16 * 2**20
"""What a process may grow by for other reasons while it is sent many times as much."""


class Served:
    """One of the programs, running with small limits."""

    def __init__(self, program: str, url: str, folder: Path) -> None:
        with socket.create_server((HOST, 0)) as one, socket.create_server((HOST, 0)) as other:
            self.port, tcp_port = one.getsockname()[1], other.getsockname()[1]
        names = {
            "redis__url": url,
            "data__dir": str(folder / "data"),
            {"api": "api__port", "collector": "collector__http_port"}[program]: str(self.port),
            "collector__tcp_port": str(tcp_port),
            "collector__max_header_bytes": str(HEADER_BYTES),
            "collector__max_query_bytes": str(QUERY_BYTES),
            "collector__max_body_bytes": str(BODY_BYTES),
            "collector__max_http_connections": str(CONNECTIONS),
            "collector__max_http_connections_per_address": str(PER_ADDRESS),
            "collector__request_timeout_s": str(TIMEOUT_S),
            "collector__keep_alive_s": str(KEEP_ALIVE_S),
        }
        self._environ = {f"WHIMBREL__{name.upper()}": value for name, value in names.items()}
        self._command = [sys.executable, "-m", program]
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        settings = load(environ=self._environ)
        with redis.Redis.from_url(settings.redis.url) as client:
            client.flushall()
            set_up(client, Archive(settings.archive_dir), 1)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, cwd=PROJECT, env={**os.environ, **self._environ}, stderr=log
            )
        stop_s = time.monotonic() + WAIT_S
        while True:
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < stop_s
            with contextlib.suppress(ConnectionRefusedError), Sender(self.port) as probe:
                probe.send(ALIVE)
                assert probe.answer()[0] == 200  # else this connection is accepted in one turn with a test's
                return
            time.sleep(0.02)

    def stop(self) -> str:
        """End it; what it logged."""
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(WAIT_S) == 0
        return self._log.read_text()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    @property
    def memory_bytes(self) -> int:
        assert self._process is not None
        return int(psutil.Process(self._process.pid).memory_info().rss)


class Sender:
    """A connection."""

    def __init__(self, port: int, receive_bytes: int = 0, address: str = HOST) -> None:
        self.socket = socket.socket()
        self.socket.bind((address, 0))
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(WAIT_S)
        try:
            self.socket.connect((HOST, port))
        except ConnectionRefusedError:
            self.socket.close()
            raise
        self._received = b""

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, bytes, bytes]:
        """Status, head and body of the next answer; its length must be stated."""
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields[b"content-length"])
        while len(self._received) < length:
            self._receive()
        body, self._received = self._received[:length], self._received[length:]
        return int(head.split()[1]), head, body

    def _receive(self) -> None:
        piece = self.socket.recv(65_536)
        assert piece, f"closed after {self._received!r}"
        self._received += piece

    def refusal(self, status: int, kind: str) -> str:
        """The detail of a problem behind which the connection is closed."""
        found, head, body = self.answer()
        problem: dict[str, Any] = json.loads(body)
        assert (found, problem["status"], problem["type"]) == (status, status, f"urn:whimbrel:problem:{kind}")
        assert b"content-type: application/problem+json\r\n" in head
        assert b"connection: close" in head
        self.wait_closed()
        return str(problem["detail"])

    def wait_closed(self) -> None:
        with contextlib.suppress(ConnectionResetError):
            assert self.socket.recv(1) == b""

    def send_until_nothing_is_taken(self, requests: bytes) -> None:
        self.socket.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while True:
                self.socket.sendall(requests)

    def flood(self, piece: bytes, size: int) -> int:
        """Send `piece` again and again until `size` bytes are gone or the other side has had enough; how many went."""
        gone = 0
        with contextlib.suppress(ConnectionError):
            while gone < size:
                gone += self.socket.send(piece)
        return gone


@pytest.fixture(scope="module", params=["collector", "api"])
def served(
    request: pytest.FixtureRequest, shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    found = Served(request.param, shared_redis.url, tmp_path_factory.mktemp("served"))
    found.start()
    yield found
    log = found.stop()
    assert "Traceback" not in log, log


@pytest.fixture
def sender(served: Served) -> Iterator[Sender]:
    with Sender(served.port) as found:
        yield found


TOO_MUCH = f"request line and headers may have at most {HEADER_BYTES} bytes"
LATE = f"a request may take at most {TIMEOUT_S} s to arrive"


# Bytes -----------------------------------------------------------------------------------------------


def test_as_much_as_may_be(sender: Sender) -> None:
    room = HEADER_BYTES - len(b"/healthzHost: localhost\r\nX: \r\n")
    for _ in range(2):
        sender.send(ALIVE[:-2] + b"X: " + b"x" * room + b"\r\n\r\n")
        assert sender.answer()[0] == 200


@pytest.mark.parametrize("count", [1, 4])
def test_headers_that_are_too_long(sender: Sender, count: int) -> None:
    header = b"X: " + b"x" * (HEADER_BYTES // count) + b"\r\n"
    sender.send(ALIVE[:-2] + header * count + b"\r\n")
    assert sender.refusal(431, "headers-too-large") == TOO_MUCH


def test_headers_that_are_too_many(sender: Sender) -> None:
    sender.send(ALIVE[:-2] + b"x:\r\n" * MAX_HEADERS + b"\r\n")
    assert sender.refusal(431, "headers-too-large") == f"a request may have at most {MAX_HEADERS} headers"


def test_an_address_that_is_too_long(sender: Sender) -> None:
    sender.send(b"GET /healthz?" + b"x" * HEADER_BYTES + b" HTTP/1.1\r\n\r\n")
    assert sender.refusal(414, "address-too-long") == TOO_MUCH


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"GET /healthz?", b"x" * 65_536),
        (ALIVE[:-2] + b"X: ", b"x" * 65_536),
        (ALIVE[:-2], b"x: y\r\n" * 10_000),
        (ALIVE[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"x" * 65_536),
        (ALIVE[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n" * 10_000),
        (ALIVE[:-2] + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 65_536),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"x" * 65_536),
        (b"x" * 10, b"x" * 65_536),
    ],
)
def test_memory_stays_flat_however_much_is_sent(served: Served, sender: Sender, start: bytes, piece: bytes) -> None:
    before = served.memory_bytes
    sender.send(start)
    began_s = time.monotonic()
    sender.flood(piece, 200 * 2**20)
    assert time.monotonic() - began_s < 2 * LINGER_S
    assert served.memory_bytes - before < FLAT_BYTES
    with Sender(served.port) as other:
        other.send(ALIVE)
        assert other.answer()[0] == 200


@pytest.mark.parametrize("length", [b"Content-Length: 1000000000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
@pytest.mark.parametrize("path", [b"/healthz", b"/v1/records"])
def test_a_body_that_nobody_reads(served: Served, sender: Sender, path: bytes, length: bytes) -> None:
    before = served.memory_bytes
    sender.send(b"DELETE " + path + b" HTTP/1.1\r\nHost: localhost\r\n" + length)
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    gone = sender.flood(chunk if b"chunked" in length else b"x" * 65_536, 200 * 2**20)
    assert gone < 200 * 2**20
    assert served.memory_bytes - before < FLAT_BYTES


@pytest.mark.parametrize("length", [b"Content-Length: 100000001\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_who_is_refused_amid_its_body_sees_the_answer(sender: Sender, length: bytes) -> None:
    """Even if it sends on for longer than a connection's buffers last, and only then reads."""
    sender.send(POST + length)
    piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n" if b"chunked" in length else b"x" * 65_536
    for _ in range(300):
        sender.send(piece)
    status, _, body = sender.answer()
    assert (status, json.loads(body)["detail"]) == (413, f"a body may have {BODY_BYTES} bytes")
    sender.wait_closed()


def test_a_short_body_that_nobody_reads_leaves_the_connection_open(sender: Sender) -> None:
    for _ in range(3):
        sender.send(ALIVE[:-2] + b"Content-Length: 50000\r\n\r\n")
        assert sender.answer()[0] == 200
        sender.send(b"x" * 50_000)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01 hello\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /caf\xc3\xa9 HTTP/1.1\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"CONNECT box:443 HTTP/1.1\r\n\r\n",
        POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        POST + b"Content-Length: 99999999999999999999\r\n\r\n",
    ],
)
def test_what_is_not_http(sender: Sender, data: bytes) -> None:
    sender.send(data)
    assert sender.refusal(400, "invalid-request")


parts = st.sampled_from(
    [
        ALIVE,
        POST,
        b"GET / HTTP/1.1\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
        b"X: " + b"x" * 3_000 + b"\r\n",
        b"\r\n",
        b"[]",
        b"2\r\n[]\r\n",
        b"0\r\n\r\n",
    ]
)


@given(st.lists(parts | st.binary(max_size=8), max_size=12).map(b"".join))
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_answered_or_end_their_connection(served: Served, data: bytes) -> None:
    """What it logs is looked at in the end."""
    with Sender(served.port) as sender, contextlib.suppress(ConnectionError):
        sender.send(data)
        sender.socket.shutdown(socket.SHUT_WR)
        while sender.socket.recv(65_536):
            pass
    with Sender(served.port) as other:
        other.send(ALIVE)
        assert other.answer()[0] == 200


def test_an_upgrade_is_not_made(sender: Sender) -> None:
    sender.send(ALIVE[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    assert sender.answer()[0] == 200


# Requests behind one another -------------------------------------------------------------------------


def test_requests_sent_at_once_are_answered_in_their_order(sender: Sender) -> None:
    sender.send(ALIVE + ALIVE.replace(b"GET", b"PUT") + ALIVE)
    assert [sender.answer()[0] for _ in range(3)] == [200, 405, 200]


def test_a_short_answer_comes_in_one_piece(sender: Sender) -> None:
    sender.send(ALIVE)
    answer = sender.socket.recv(65_536)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert body


def test_a_head_alone_does_not_wait_for_a_body(sender: Sender) -> None:
    sender.send(ALIVE.replace(b"GET", b"HEAD"))
    head = sender.socket.recv(65_536)
    assert b"content-length: " in head
    assert head.endswith(b"\r\n\r\n")
    sender.send(ALIVE)
    assert sender.answer()[0] == 200


def test_who_asks_whether_to_go_on_is_told_before_the_answer(sender: Sender) -> None:
    sender.send(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert sender.socket.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    sender.send(b"[]")
    assert sender.answer()[0] in (200, 202, 422)


def test_the_answer_before_a_refusal_is_whole(sender: Sender) -> None:
    sender.send(ALIVE + b"GET /healthz HTTP/1.1\r\nX: " + b"x" * HEADER_BYTES + b"\r\n\r\n")
    assert sender.answer()[0] == 200
    sender.wait_closed()


def test_more_requests_at_once_than_may_wait_are_all_answered(served: Served, sender: Sender) -> None:
    count = 100 * MAX_PIPELINED
    served.signal(signal.SIGSTOP)
    sender.send(ALIVE.replace(b"GET", b"PUT") + b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n" * count)
    served.signal(signal.SIGCONT)
    assert [sender.answer()[0] for _ in range(count + 1)] == [405, *[200] * count]
    sender.send(ALIVE)
    assert sender.answer()[0] == 200


# Time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start",
    [
        b"GET /",
        ALIVE[:-2],
        POST + b"Content-Length: 1000\r\n\r\n[",
        POST + b"Transfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_a_request_that_trickles_in(sender: Sender, start: bytes) -> None:
    began_s = time.monotonic()
    trickle = b"1\r\n \r\n" if b"chunked" in start else b"x"
    sender.send(start)
    with contextlib.suppress(ConnectionError, BlockingIOError):
        sender.socket.settimeout(0)
        while time.monotonic() < began_s + 3 * TIMEOUT_S:
            sender.send(trickle)
            time.sleep(0.1)
            with contextlib.suppress(BlockingIOError):
                if sender.socket.recv(1, socket.MSG_PEEK):
                    break
    sender.socket.settimeout(WAIT_S)
    assert TIMEOUT_S - 0.1 <= time.monotonic() - began_s < TIMEOUT_S + 0.5
    assert sender.refusal(408, "timed-out") == LATE


def test_a_body_that_nobody_reads_and_that_never_ends(sender: Sender) -> None:
    began_s = time.monotonic()
    sender.send(ALIVE[:-2] + b"Content-Length: 1000\r\n\r\n")
    assert sender.answer()[0] == 200
    sender.wait_closed()
    assert TIMEOUT_S - 0.1 <= time.monotonic() - began_s < TIMEOUT_S + 0.5


@pytest.mark.parametrize("start", [b"", ALIVE, ALIVE + b"\r\n\r\n"])
def test_an_idle_connection_is_closed(sender: Sender, start: bytes) -> None:
    began_s = time.monotonic()
    sender.send(start)
    if start:
        assert sender.answer()[0] == 200
    sender.wait_closed()
    assert KEEP_ALIVE_S - 0.1 <= time.monotonic() - began_s < KEEP_ALIVE_S + 0.5


def test_line_breaks_before_a_request_do_not_keep_a_connection(sender: Sender) -> None:
    began_s = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < began_s + 2 * KEEP_ALIVE_S:
            sender.send(b"\r\n")
            time.sleep(0.1)
    assert time.monotonic() - began_s < KEEP_ALIVE_S + 0.5


def test_a_request_begun_while_another_is_answered_is_not_cut_off_as_idle(sender: Sender) -> None:
    for _ in range(3):
        sender.send(ALIVE + ALIVE[:10])
        assert sender.answer()[0] == 200
        time.sleep(0.8 * TIMEOUT_S)
        sender.send(ALIVE[10:])
        assert sender.answer()[0] == 200


def test_a_sender_that_reads_no_answer_is_cut_off(served: Served) -> None:
    with Sender(served.port, receive_bytes=4_096) as sender:
        sender.send_until_nothing_is_taken(PADDED * 100)
        poll = select.poll()
        poll.register(sender.socket, 0)
        assert poll.poll(3_000 * KEEP_ALIVE_S)[0][1] & select.POLLHUP


def test_an_answer_may_be_read_slowly(served: Served) -> None:
    with Sender(served.port, receive_bytes=4_096) as sender:
        sender.send_until_nothing_is_taken(PADDED * 100)
        sender.socket.settimeout(WAIT_S)
        for _ in range(6 * KEEP_ALIVE_S):
            time.sleep(0.25)
            for _ in range(20):
                assert sender.socket.recv(4_096)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        (b"a=" + b"x" * QUERY_BYTES, f"a query may have at most {QUERY_BYTES} bytes"),
        (b"&" * MAX_PARAMETERS, f"a query may have at most {MAX_PARAMETERS} parameters"),
    ],
)
def test_a_query_that_is_too_long(sender: Sender, query: bytes, why: str) -> None:
    sender.send(ALIVE.replace(b"/healthz", b"/healthz?" + query))
    status, _, body = sender.answer()
    assert (status, json.loads(body)["detail"]) == (414, why)
    sender.wait_closed()


def test_a_query_as_long_as_may_be(sender: Sender) -> None:
    for query in (b"a=" + b"x" * (QUERY_BYTES - 2), b"&" * (MAX_PARAMETERS - 1)):
        sender.send(ALIVE.replace(b"/healthz", b"/healthz?" + query))
        assert sender.answer()[0] == 200


# Connections -----------------------------------------------------------------------------------------


def test_one_connection_more_than_may_be(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        addresses = [HOST] * PER_ADDRESS + [OTHER_HOST] * (CONNECTIONS - PER_ADDRESS)
        senders = [stack.enter_context(Sender(served.port, address=address)) for address in addresses]
        for one in senders:
            one.send(ALIVE)
            assert one.answer()[0] == 200
        with Sender(served.port, address=OTHER_HOST) as more:
            more.send(ALIVE)
            status, head, body = more.answer()
            assert (status, json.loads(body)["detail"]) == (
                503,
                f"{CONNECTIONS} connections are open already (collector.max_http_connections)",
            )
            assert b"retry-after: 2" in head
            more.wait_closed()
    stop_s = time.monotonic() + WAIT_S
    while True:
        with Sender(served.port) as again:
            again.send(ALIVE)
            if again.answer()[0] == 200:
                break
        assert time.monotonic() < stop_s


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
def test_one_connection_more_than_one_address_may_have(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        senders = [stack.enter_context(Sender(served.port)) for _ in range(PER_ADDRESS)]
        for one in senders:
            one.send(ALIVE)
            assert one.answer()[0] == 200
        with Sender(served.port) as more, Sender(served.port, address=OTHER_HOST) as other:
            more.send(ALIVE)
            status, head, body = more.answer()
            why = f"{PER_ADDRESS} connections are open already from {HOST} (collector.max_http_connections_per_address)"
            assert (status, json.loads(body)["detail"]) == (503, why)
            assert b"retry-after: 2" in head
            other.send(ALIVE)
            assert other.answer()[0] == 200
    stop_s = time.monotonic() + WAIT_S
    while True:
        with Sender(served.port) as again:
            again.send(ALIVE)
            if again.answer()[0] == 200:
                break
        assert time.monotonic() < stop_s
