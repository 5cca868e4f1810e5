"""Invalid input to a whole box: it is answered or its connection closed, it is counted, and others are not affected."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from telemetry.config.loader import load
from telemetry.coordination import shared_state
from telemetry.hot_store.client import connect
from tests import bad_input
from tests.bad_input import Body
from tests.box import Box

pytestmark = pytest.mark.slow

HOST = "127.0.0.1"
WAIT_S = 30.0
TIMEOUT_S = 2
PENDING_BYTES = 16 * 2**20
MAX_GROWTH_BYTES = 80 * 2**20
"""Maximum growth of a process at its peak: a few bodies of 8 MiB, as bytes and as values. Measured: 33 MiB, and 63 on a
busy machine."""

MERGE_BYTES = 120 * 2**20
"""Memory of a merge, which the worker may begin at any time: the neighbour's records make files."""

OLDER_KINDS = {400: "invalid-record", 413: "body-too-large", 415: "unsupported-type"}
RESET = struct.pack("ii", 1, 0)
GOOD_LINE = b'{"device_id":"neighbour"}\n'


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box in a folder whose path is short enough for sockets, its waits short."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        found = Box(
            Path(folder),
            collector__request_timeout_s=str(TIMEOUT_S),
            collector__max_pending_bytes=str(PENDING_BYTES),
            data__min_free_bytes="0",
        )
        with found:
            yield found
        log = "".join(found.output)
        assert "Traceback" not in log, log


class Neighbour:
    """A valid sender and reader in addition to the invalid ones; it receives responses all the time."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._error: BaseException | None = None
        self.rounds = 0

    def __enter__(self) -> Neighbour:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._done.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self.rounds > 0

    def _run(self) -> None:
        try:
            with (
                socket.create_connection((HOST, self._box.tcp_port), timeout=WAIT_S) as line,
                httpx.Client(timeout=WAIT_S) as http,
            ):
                while not self._done.is_set() or not self.rounds:
                    self._round(line, http)
                    self.rounds += 1
                    time.sleep(0.02)
        except BaseException as error:
            self._error = error

    def _round(self, line: socket.socket, http: httpx.Client) -> None:
        line.sendall(GOOD_LINE)
        assert json.loads(line.recv(1_000))["accepted"] == 1
        for port in (self._box.http_port, self._box.api_port):
            answer = http.post(f"http://{HOST}:{port}/v1/records", json={"device_id": "neighbour"})
            assert answer.status_code == 202, answer.text
        assert http.get(f"http://{HOST}:{self._box.api_port}/v1/devices/neighbour/latest").status_code == 200


def processes(box: Box) -> list[psutil.Process]:
    """The programs of a box, Redis among them."""
    return psutil.Process(box.pid).children(recursive=True)


def memory_bytes(process: psutil.Process, name: str) -> int:
    """`VmRSS` or `VmHWM`, the peak since it was last reset."""
    for line in Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1_024
    raise AssertionError(name)


@contextlib.contextmanager
def harmless(box: Box) -> Iterator[None]:
    """Within this a good neighbour is answered, no program ends, and none needs much more memory at its peak."""
    before: dict[psutil.Process, int] = {}
    with Neighbour(box):
        for process in processes(box):
            Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="ascii")
            before[process] = memory_bytes(process, "VmRSS")
        yield
    assert set(processes(box)) == set(before)
    grown = {(one.cmdline()[-1], one.pid): memory_bytes(one, "VmHWM") - bytes_ for one, bytes_ in before.items()}
    assert all(bytes_ < max_growth_bytes(program) for (program, _), bytes_ in grown.items()), grown


def max_growth_bytes(program: str) -> int:
    return MAX_GROWTH_BYTES + (MERGE_BYTES if program == "worker" else 0)


def refused(box: Box) -> Counter[str]:
    with connect(load(environ=box.environ)) as client:
        return Counter(shared_state.refused(client))


@contextlib.contextmanager
def counted(box: Box) -> Iterator[Counter[str]]:
    """Check that each reason's rejections rise by the numbers that the test adds to the counter."""
    expected: Counter[str] = Counter()
    before = refused(box)
    yield expected
    stop_s = time.monotonic() + WAIT_S
    while (found := refused(box) - before) != expected and time.monotonic() < stop_s:
        time.sleep(0.2)
    assert found == expected


# Bodies ----------------------------------------------------------------------------------------------


def post_all(url: str, bodies: Iterable[Body], kind_of: Callable[[httpx.Response], str], kinds: Counter[str]) -> None:
    """Post bodies one after another; count the kinds of rejections, and fail for other responses."""
    wrong = []
    with httpx.Client(timeout=WAIT_S) as http:
        for body in bodies:
            headers = {b"Content-Type": body.kind.encode("latin-1"), b"Content-Encoding": body.encoding.encode()}
            answer = http.post(url, content=body.data, headers={k: v for k, v in headers.items() if v})
            if answer.status_code not in body.may_be:
                wrong.append((body.name, answer.status_code, answer.text[:200]))
            elif answer.status_code != 202:
                kinds[kind_of(answer)] += 1
    assert not wrong


def problem_kind(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["detail"]
    return str(found["type"]).rpartition(":")[2]


@pytest.mark.parametrize("program", ["http_port", "api_port"])
def test_bodies(box: Box, program: str) -> None:
    with counted(box) as kinds, harmless(box):
        post_all(f"http://{HOST}:{getattr(box, program)}/v1/records", bad_input.bodies(), problem_kind, kinds)
    assert set(kinds) > {"invalid-json", "invalid-msgpack", "invalid-encoding", "invalid-record", "body-too-large"}


def test_bodies_to_the_older_address(box: Box) -> None:
    with counted(box) as kinds, harmless(box):
        post_all(
            f"http://{HOST}:{box.api_port}/tracking/data/",
            bad_input.older_bodies(),
            lambda answer: OLDER_KINDS[answer.status_code],
            kinds,
        )


def test_records_that_are_left_out(box: Box) -> None:
    lines = b'{"device_id":"neighbour"}\n' + b"nonsense\n" * 150
    with counted(box) as kinds:
        url = f"http://{HOST}:{box.http_port}/v1/records?on_error=skip"
        answer = httpx.post(url, content=lines, headers={"Content-Type": bad_input.NDJSON})
        assert (answer.status_code, answer.json()["refused"]) == (202, 150)
        kinds["invalid-record"] = 150
    told = box.http.get("/status", headers={"Accept": "application/json"}).json()
    assert told["refused"] == box.json("status")["refused"] == refused(box)


def test_what_looks_bad_and_is_good_comes_back_as_it_was_sent(box: Box) -> None:
    sent = {name: json.loads(text) for name, text in bad_input.ODD_BUT_GOOD.items()}
    with harmless(box):
        for text in bad_input.ODD_BUT_GOOD.values():
            box.http.post("/v1/records", content=text).raise_for_status()
        assert box.whimbrel("drain").returncode == 0
        stored = box.http.get("/v1/records", params=[("device_id", one["device_id"]) for one in sent.values()]).json()
    found = [one for one in stored["records"] if one["device_id"].startswith("odd")]
    assert [(one["device_id"], one["location"], one["latitude"], one["attributes"]) for one in found] == [
        (
            one["device_id"],
            one.get("location"),
            one.get("latitude"),
            {name: one[name] for name in one if name not in ("device_id", "location", "latitude", "longitude")} or None,
        )
        for one in sent.values()
    ]


# Questions and whole requests ------------------------------------------------------------------------


def asked(port: int, target: str) -> httpx.Response:
    """GET a target as it stands, which no client would send."""
    with socket.create_connection((HOST, port), timeout=WAIT_S) as sender:
        sender.sendall(b"GET " + target.encode() + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return answers_of(received(sender))[0]


def received(sender: socket.socket) -> bytes:
    """All that comes until the other end closes."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sender.recv(65_536):
            found += piece
    return found


def answers_of(data: bytes) -> list[httpx.Response]:
    """The answers on a connection, as far as their lengths are stated."""
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        status, *fields = head.decode("latin-1").split("\r\n")
        assert status.startswith("HTTP/1.1 "), status
        headers = httpx.Headers([(name, value.strip()) for name, _, value in (f.partition(":") for f in fields)])
        length = int(headers.get("content-length", len(rest)))
        found.append(httpx.Response(int(status.split()[1]), headers=headers, content=rest[:length]))
        data = rest[length:]
    return found


def test_questions(box: Box) -> None:
    wrong = []
    with counted(box) as kinds, harmless(box):
        for target in bad_input.questions():
            answer = asked(box.api_port, target)
            if answer.status_code >= 500:
                wrong.append((target[:100], answer.status_code, answer.text[:200]))
            elif answer.status_code == 400 and not target.startswith(("/tracking", "/tcp_tracking")):
                kinds[problem_kind(answer)] += 1
            elif answer.status_code == 400:
                kinds["invalid-record"] += 1
            elif answer.status_code in (405, 414):
                kinds[problem_kind(answer)] += 1
        assert not wrong
    assert kinds["invalid-parameter"] > 100


@pytest.mark.parametrize("program", ["http_port", "api_port"])
def test_no_request_is_taken_for_two(box: Box, program: str) -> None:
    with counted(box) as kinds, harmless(box), contextlib.ExitStack() as stack:
        senders = {
            name: stack.enter_context(socket.create_connection((HOST, getattr(box, program)), timeout=WAIT_S))
            for name in bad_input.SMUGGLING
        }
        for name, sender in senders.items():
            sender.sendall(bad_input.SMUGGLING[name])
        found = {name: [answer.status_code for answer in answers_of(received(one))] for name, one in senders.items()}
        kinds["invalid-request"] = len(senders)
    assert found == {name: [400] for name in senders}


# TCP -------------------------------------------------------------------------------------------------


def told(port: int, data: bytes) -> bytes:
    """All replies to a device until the connection ends."""
    with socket.create_connection((HOST, port), timeout=WAIT_S) as sender:
        with contextlib.suppress(ConnectionError):
            sender.sendall(data)
            sender.shutdown(socket.SHUT_WR)
        return received(sender)


def test_messages(box: Box) -> None:
    before = refused(box)
    unanswered = []
    with harmless(box):
        for name, data in bad_input.messages().items():
            if not told(box.tcp_port, data):
                unanswered.append(name)
    assert not unanswered
    stop_s = time.monotonic() + WAIT_S
    while (found := refused(box) - before).total() < len(bad_input.messages()) - 4 and time.monotonic() < stop_s:
        time.sleep(0.2)
    assert set(found) == {"invalid-json", "invalid-msgpack", "invalid-record", "body-too-large", "invalid-request"}
    assert found.total() >= len(bad_input.messages()) - 4  # which are two good lines, or end behind the first


def test_halves_of_messages_are_bounded_together(box: Box) -> None:
    """Each connection may keep an unfinished message of 1 MiB, but not all of them at once."""
    half = b'{"device_id":"' + b"x" * 1_000_000
    with harmless(box), contextlib.ExitStack() as stack:
        senders = [
            stack.enter_context(socket.create_connection((HOST, box.tcp_port), timeout=WAIT_S)) for _ in range(150)
        ]
        closed = 0
        for sender in senders:
            with contextlib.suppress(ConnectionError):
                sender.sendall(half)
        for sender in senders:
            closed += received(sender) == b""
        assert closed == len(senders)  # the first ones when their time was up
    assert refused(box)["busy"] >= 150 - 2 * PENDING_BYTES // len(half)


# Connections -----------------------------------------------------------------------------------------

REQUEST = bad_input.POST + b"Connection: close\r\nContent-Length: 22\r\n\r\n" + b'{"device_id":"reset" }'
CONVERSATIONS = {
    "http_port": REQUEST,
    "api_port": REQUEST,
    "tcp_port": b'{"device_id":"reset"}\n' * 2,
}


@pytest.mark.parametrize("port", CONVERSATIONS)
def test_a_reset_behind_each_byte(box: Box, port: str) -> None:
    data = CONVERSATIONS[port]
    with harmless(box):
        for size in range(len(data) + 1):
            with socket.create_connection((HOST, getattr(box, port)), timeout=WAIT_S) as sender:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                sender.sendall(data[:size])
    records = box.http.get("/v1/records", params={"device_id": "reset"}).json()["records"]
    assert len(records) <= 3 * 2 * 25, "whole messages and none else"


def test_idle_and_half_open_connections(box: Box) -> None:
    """Each port with as many as an ordinary limit of open files allows a test; benchmarks/connections.py has more."""
    begun = (b"", b"POST /v1/rec", REQUEST[:-5], b'{"dev', b"\x00\x00", b"\x81")
    with harmless(box), contextlib.ExitStack() as stack:
        for port in CONVERSATIONS:
            for number in range(200):
                sender = stack.enter_context(socket.create_connection((HOST, getattr(box, port)), timeout=WAIT_S))
                sender.sendall(begun[number % len(begun)])
        time.sleep(TIMEOUT_S)
