"""The collector program as a device meets it: `python -m collector`, a real Redis, real sockets."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import redis

from telemetry.archive import Archive
from telemetry.config import PROJECT, Settings
from telemetry.hot import Shard
from telemetry.redis_client import connect
from telemetry.setup import set_up
from tests.collector.conftest import HOST, RECEIVED, numbers, tail
from tests.conftest import RedisServer, settings_of

WAIT_S = 20
TIMEOUT_S = 2
MAX_BODY_BYTES = 8 * 2**20
HEAD = f"POST /v1/records HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n".encode()


def free_port() -> int:
    with socket.create_server((HOST, 0)) as found:
        return int(found.getsockname()[1])


class Program:
    """A running `python -m collector`."""

    def __init__(self, settings: Settings, **more: str) -> None:
        self.http_port, self.tcp_port = free_port(), free_port()
        self._environ = {
            "PATH": os.environ["PATH"],
            "WHIMBREL__REDIS__URL": settings.redis.url,
            "WHIMBREL__DATA__DIR": str(settings.data_dir),
            "WHIMBREL__COLLECTOR__HTTP_PORT": str(self.http_port),
            "WHIMBREL__COLLECTOR__TCP_PORT": str(self.tcp_port),
            "WHIMBREL__COLLECTOR__REQUEST_TIMEOUT_S": str(TIMEOUT_S),
            **{f"WHIMBREL__{name.upper()}": value for name, value in more.items()},
        }
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.http_port}"

    def start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "collector"], env=self._environ, cwd=PROJECT, stderr=subprocess.PIPE, text=True
        )
        return self._process

    def wait(self) -> None:
        """Until it listens."""
        assert self._process is not None
        stop_s = time.monotonic() + WAIT_S
        for port in (self.http_port, self.tcp_port):
            while True:
                assert self._process.poll() is None
                assert time.monotonic() < stop_s
                with contextlib.suppress(ConnectionRefusedError), socket.create_connection((HOST, port)):
                    break
                time.sleep(0.02)

    def terminate(self) -> tuple[int, str]:
        """SIGTERM; its exit status, and what it wrote."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        _, errors = self._process.communicate(timeout=WAIT_S)
        return self._process.returncode, errors


@contextlib.contextmanager
def running(settings: Settings, **more: str) -> Iterator[Program]:
    program = Program(settings, **more)
    process = program.start()
    try:
        program.wait()
        yield program
    finally:
        process.kill()
        process.communicate()


class Box(NamedTuple):
    """A running program, its Redis, and what it stored."""

    program: Program
    server: RedisServer
    client: redis.Redis
    shard: Shard

    def numbers(self, device: str) -> list[int]:
        return numbers(tail(self.shard, device))


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """One program for all tests that don't end it; each test has devices of its own."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        settings = settings_of(server.url, Path(folder))
        with contextlib.ExitStack() as stack:
            stack.callback(server.kill)
            client = stack.enter_context(connect(settings))
            [shard] = set_up(client, Archive(settings.archive_dir), 1)
            yield Box(stack.enter_context(running(settings)), server, client, shard)


@pytest.fixture
def http(box: Box) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=box.program.url, timeout=WAIT_S) as found:
        yield found


def post(http: httpx.Client, body: object, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return http.post("/v1/records", content=content, headers=named)


def problem_of(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """The members of a problem besides those that every problem has."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body.pop("type"), body.pop("status")) == (f"urn:whimbrel:problem:{kind}", status)
    assert body.pop("title")
    return body


# Taken -----------------------------------------------------------------------------------------------


def test_a_record_is_visible_as_soon_as_202_arrives(box: Box, http: httpx.Client) -> None:
    for number in range(20):
        answer = post(http, {"device_id": "one", "altitude": number, "lat": 1, "lon": 2})
        assert (answer.status_code, answer.text) == (202, '{"accepted":1}')
        assert answer.headers["content-type"] == "application/json"
        assert box.numbers("one") == list(range(number + 1))
    stored = tail(box.shard, "one")[0]
    assert (stored.record.transport, stored.record.source, stored.record.has_fix) == ("http", "json", True)
    assert abs(stored.record.timestamp_us / 1e6 - time.time()) < WAIT_S


def test_an_array_is_taken_whole_and_in_order(box: Box, http: httpx.Client) -> None:
    answer = post(http, [{"device_id": "many", "altitude": number} for number in range(2_500)])
    assert (answer.status_code, answer.json()) == (202, {"accepted": 2_500})
    assert box.numbers("many") == list(range(2_500))


def test_an_empty_array(http: httpx.Client) -> None:
    answer = post(http, [])
    assert (answer.status_code, answer.json()) == (202, {"accepted": 0})


def test_as_many_records_as_a_request_may_hold(box: Box, http: httpx.Client) -> None:
    body = b"[" + b",".join([b'{"device_id":"full"}'] * 100_000) + b"]"
    assert post(http, body).json() == {"accepted": 100_000}
    assert len(tail(box.shard, "full")) == 100_000


def test_one_record_more_is_refused(box: Box, http: httpx.Client) -> None:
    body = b"[" + b",".join([b'{"device_id":"over"}'] * 100_001) + b"]"
    problem = problem_of(post(http, body), 413, "body-too-large")
    assert problem == {"detail": "a request may hold 100000 records, not 100001"}
    assert box.numbers("over") == []


@pytest.mark.parametrize(
    "kind",
    [
        "application/json; charset=utf-8",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/vnd.x+json",
        "",
    ],
)
def test_a_body_that_calls_itself_something_else(http: httpx.Client, kind: str) -> None:
    assert post(http, {"device_id": "d"}, Content_Type=kind).status_code == 202


def test_a_chunked_body(box: Box) -> None:
    with httpx.Client(base_url=box.program.url, timeout=WAIT_S) as http:
        body = iter([b'[{"device_id":', b'"chunked","altitude":1}', b"]"])
        answer = http.post("/v1/records", content=body)
    assert answer.request.headers["transfer-encoding"] == "chunked"
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1})
    assert box.numbers("chunked") == [1]


def test_many_at_once(box: Box) -> None:
    def one(number: int) -> None:
        with httpx.Client(base_url=box.program.url, timeout=WAIT_S) as http:
            for _ in range(5):
                assert post(http, {"device_id": "crowd", "altitude": number}).status_code == 202

    threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(box.numbers("crowd")) == sorted(list(range(20)) * 5)


def test_tcp_is_served_by_the_same_program(box: Box) -> None:
    with socket.create_connection((HOST, box.program.tcp_port), timeout=WAIT_S) as sender:
        sender.sendall(b'{"device_id":"wire","altitude":5}\n')
        assert sender.recv(1_000) == RECEIVED
        assert box.numbers("wire") == [5]


def test_alive(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "alive"}


# Refused ---------------------------------------------------------------------------------------------


def test_one_bad_record_refuses_the_whole_request(box: Box, http: httpx.Client) -> None:
    answer = post(http, [{"device_id": "whole"}, {"device_id": "whole", "lat": 91}, {"device_id": ""}])
    assert problem_of(answer, 400, "invalid-record") == {
        "detail": "record 1: latitude: must be between -90 and 90",
        "index": 1,
        "field": "latitude",
        "value": 91,
        "reason": "must be between -90 and 90",
    }
    assert box.numbers("whole") == []
    assert not box.client.zscore(box.shard.keys.devices, "whole")


@pytest.mark.parametrize(
    ("body", "members"),
    [
        ({}, {"index": 0, "field": "device_id", "value": None, "reason": "required"}),
        (5, {"index": 0, "field": None, "value": 5, "reason": "a record must be an object, not a number"}),
        (
            [{"device_id": "d", "speed": "6,5"}],
            {"field": "speed_kmh", "value": "6,5", "reason": "must be a finite number"},
        ),
        ({"device_id": "d", "timestamp": "1999-12-31"}, {"reason": "must be between 2000-01-01 and 2200-01-01"}),
        ({"device_id": "d", "time": 1, "timestamp": 1}, {"reason": "sent twice, the second time as 'timestamp'"}),
        ({"device_id": "x" * 1_000}, {"value": '"' + "x" * 199 + "…"}),
        ({"device_id": "d", "attributes": [1]}, {"value": [1], "reason": "must be an object, not an array"}),
    ],
)
def test_what_is_wrong_is_named(http: httpx.Client, body: object, members: dict[str, object]) -> None:
    problem = problem_of(post(http, body), 400, "invalid-record")
    assert {name: problem[name] for name in members} == members
    assert problem["index"] == 0
    assert problem["detail"].startswith("record 0: ")


def test_a_time_too_far_ahead_of_the_box(http: httpx.Client) -> None:
    good, bad = ({"device_id": "d", "timestamp": time.time() + hours * 3_600} for hours in (23.9, 24.1))
    assert post(http, good).status_code == 202
    problem = problem_of(post(http, bad), 400, "invalid-record")
    assert (problem["field"], problem["value"]) == ("timestamp", bad["timestamp"])
    assert "ahead of the box's clock" in problem["reason"]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "cut short"),
        (b'{"device_id":', "cut short"),
        (b"{device_id:1}", "object keys must be strings at byte 1"),
        (b'{"device_id":1} {', "trailing characters at byte 16"),
        (b'{"device_id":1,"speed":NaN}', "invalid character at byte 23"),
        (b'{"device_id":1,"speed":1e400}', "Number out of range at byte 23"),
        (b'{"device_id":"\xff"}', "not UTF-8: invalid start byte"),
        (b"\xef\xbb\xbf{}", "invalid character at byte 0"),
        (b"[" * 100_000, "nested too deeply at byte 500"),
        (b"[" + b"[]," * 800_000 + b"[]]", "more than 800000 objects and arrays"),
    ],
)
def test_what_is_no_json(http: httpx.Client, body: bytes, detail: str) -> None:
    assert problem_of(post(http, body), 400, "invalid-json") == {"detail": detail}


def test_no_such_address(http: httpx.Client) -> None:
    assert problem_of(http.get("/v1/nothing"), 404, "not-found") == {"detail": "GET /v1/nothing"}


def test_no_such_method(http: httpx.Client) -> None:
    answer = http.get("/v1/records")
    assert problem_of(answer, 405, "wrong-method") == {"detail": "GET /v1/records"}
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("kind", ["application/xml", "multipart/form-data; boundary=x", "application/msgpack"])
def test_a_body_of_another_kind(http: httpx.Client, kind: str) -> None:
    problem = problem_of(post(http, {"device_id": "d"}, Content_Type=kind), 415, "unsupported-type")
    assert problem == {"detail": f"send application/json, not {kind.partition(';')[0]}"}


def test_a_compressed_body(box: Box, http: httpx.Client) -> None:
    body = gzip.compress(b'{"device_id":"zip"}')
    problem = problem_of(post(http, body, Content_Encoding="gzip"), 415, "unsupported-type")
    assert problem == {"detail": "send the body without Content-Encoding"}
    assert post(http, {"device_id": "d"}, Content_Encoding="identity").status_code == 202
    assert box.numbers("zip") == []


class Raw:
    """A sender that writes its own HTTP."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=WAIT_S)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> httpx.Response:
        """The one answer on a connection that is closed behind it."""
        received = b""
        with contextlib.suppress(ConnectionResetError):  # by what we sent and nobody read
            while piece := self.socket.recv(65_536):
                received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        status, *fields = head.decode().split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (field.partition(":") for field in fields)]
        return httpx.Response(int(status.split()[1]), headers=headers, content=body)


def test_a_body_too_large_by_its_own_account_is_refused_at_once(box: Box) -> None:
    with Raw(box.program.http_port) as sender:
        sender.send(HEAD + f"Content-Length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode())
        assert problem_of(sender.answer(), 413, "body-too-large") == {
            "detail": f"a body may have {MAX_BODY_BYTES} bytes"
        }


def test_a_chunked_body_that_grows_too_large_is_refused(box: Box) -> None:
    chunk = b"%x\r\n%s\r\n" % (2**20, b" " * 2**20)
    with Raw(box.program.http_port) as sender:
        sender.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(9):
                sender.send(chunk)
        assert problem_of(sender.answer(), 413, "body-too-large") == {
            "detail": f"a body may have {MAX_BODY_BYTES} bytes"
        }


def test_a_client_that_sends_a_large_body_hears_why_it_is_refused(http: httpx.Client) -> None:
    problem_of(post(http, b" " * (MAX_BODY_BYTES + 2**20)), 413, "body-too-large")


def test_a_body_of_the_full_size_is_read(http: httpx.Client) -> None:
    body = b'{"device_id":"d"}'.ljust(MAX_BODY_BYTES)
    assert post(http, body).status_code == 202


@pytest.mark.slow
def test_a_body_that_takes_too_long(box: Box) -> None:
    with Raw(box.program.http_port) as sender:
        sender.send(HEAD + b"Content-Length: 100\r\n\r\n[")
        assert problem_of(sender.answer(), 408, "timed-out") == {
            "detail": f"a request may take {TIMEOUT_S} s to arrive"
        }


def test_a_refusal_leaves_the_connection_as_it_was(box: Box, http: httpx.Client) -> None:
    for _ in range(3):
        assert post(http, {}).status_code == 400
        assert post(http, b"nonsense").status_code == 400
        assert post(http, {"device_id": "after"}, Content_Type="image/png").status_code == 415
        assert post(http, {"device_id": "after"}).status_code == 202
    assert len(tail(box.shard, "after")) == 3


# Idempotency-Key -------------------------------------------------------------------------------------


def test_a_request_with_a_key_is_stored_once(box: Box, http: httpx.Client) -> None:
    for _ in range(3):
        answer = post(http, [{"device_id": "key", "altitude": 1}], Idempotency_Key="a key")
        assert (answer.status_code, answer.json()) == (202, {"accepted": 1})
    assert box.numbers("key") == [1]
    assert post(http, [{"device_id": "key", "altitude": 1}], Idempotency_Key="another").status_code == 202
    assert box.numbers("key") == [1, 1]


def test_a_key_with_another_body(box: Box, http: httpx.Client) -> None:
    assert post(http, {"device_id": "reused", "altitude": 1}, Idempotency_Key="reused").status_code == 202
    answer = post(http, {"device_id": "reused", "altitude": 2}, Idempotency_Key="reused")
    assert "another body" in problem_of(answer, 422, "idempotency-key-reused")["detail"]
    assert box.numbers("reused") == [1]


def test_a_refused_request_does_not_use_up_its_key(box: Box, http: httpx.Client) -> None:
    assert post(http, {"device_id": "spare", "lat": 91}, Idempotency_Key="spare").status_code == 400
    assert post(http, {"device_id": "spare", "altitude": 9}, Idempotency_Key="spare").status_code == 202
    assert box.numbers("spare") == [9]


def test_the_length_of_a_key(http: httpx.Client) -> None:
    assert post(http, {"device_id": "d"}, Idempotency_Key="x" * 255).status_code == 202
    for key in ("x" * 256, ""):
        problem = problem_of(post(http, {"device_id": "d"}, Idempotency_Key=key), 400, "invalid-parameter")
        assert problem == {
            "detail": "Idempotency-Key must have 1 to 255 characters",
            "parameter": "Idempotency-Key",
        }


# The store, and the end ------------------------------------------------------------------------------


def test_while_redis_is_away_the_answer_is_503(box: Box, http: httpx.Client) -> None:
    assert post(http, {"device_id": "away", "altitude": 1}).status_code == 202
    box.server.kill()
    try:
        answer = post(http, {"device_id": "away", "altitude": 2})
        assert "cannot reach Redis" in problem_of(answer, 503, "busy")["detail"]
        assert int(answer.headers["retry-after"]) >= 1
        assert http.get("/healthz").status_code == 200
    finally:
        box.server.start()
    assert post(http, {"device_id": "away", "altitude": 3}).status_code == 202
    assert box.numbers("away") == [1, 3]


def test_sigterm_ends_it_while_connections_are_open(client: redis.Redis, archive: Archive, settings: Settings) -> None:
    set_up(client, archive, 1)
    with running(settings) as program, contextlib.ExitStack() as stack:
        http = stack.enter_context(httpx.Client(base_url=program.url))
        idle, half, silent = (
            stack.enter_context(socket.create_connection((HOST, program.tcp_port), timeout=WAIT_S)) for _ in range(3)
        )
        raw = stack.enter_context(Raw(program.http_port))
        assert post(http, {"device_id": "d"}).status_code == 202
        idle.sendall(b'{"device_id":"d"}\n')
        assert idle.recv(1_000) == RECEIVED
        half.sendall(b'{"device_id":')
        raw.send(HEAD)
        began_s = time.monotonic()
        status, errors = program.terminate()
        assert (status, "Traceback" in errors) == (0, False), errors
        assert time.monotonic() - began_s < 5
        assert [sender.recv(1_000) for sender in (idle, half, silent)] == [b""] * 3


def test_sigterm_lets_what_is_under_way_be_stored_and_answered(
    client: redis.Redis, archive: Archive, settings: Settings
) -> None:
    [shard] = set_up(client, archive, 1)
    with (
        running(settings) as program,
        httpx.Client(base_url=program.url, timeout=WAIT_S) as http,
        socket.create_connection((HOST, program.tcp_port), timeout=WAIT_S) as sender,
    ):
        assert post(http, {"device_id": "d", "altitude": 0}).status_code == 202
        client.client_pause(1_000, all=False)
        answers: list[int] = []
        request = {"device_id": "d", "altitude": 1}
        posting = threading.Thread(target=lambda: answers.append(post(http, request).status_code))
        posting.start()
        sender.sendall(b'{"device_id":"d","altitude":2}\n')
        time.sleep(0.2)
        status, errors = program.terminate()
        posting.join()
        assert (status, answers, sender.recv(1_000)) == (0, [202], RECEIVED), errors
    assert sorted(numbers(tail(shard, "d"))) == [0, 1, 2]


@pytest.mark.parametrize("which", ["http_port", "tcp_port"])
def test_a_port_that_is_taken_is_named(shard: Shard, settings: Settings, which: str) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        process = Program(settings, **{f"collector__{which}": str(port)}).start()
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 2
    assert errors.splitlines()[-1].startswith(f"collector: cannot listen on {HOST}:{port}: Address already in use")
