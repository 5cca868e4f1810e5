"""The attack: open what outlives a request, lose the key, read on. Every such thing ends within 5 s, and no other's."""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import psutil
import pytest
import redis

from telemetry.codec.frames import frame
from telemetry.config.loader import load
from telemetry.coordination import shared_state
from telemetry.hot_store.client import connect
from telemetry.model.api_keys import SCOPES, KeyRequest, device_token, make
from tests.box import Box, plain_http

pytestmark = pytest.mark.slow

RECORDS = 40_000
PADDING = "x" * 200
"""An export of these is larger than all that programs and the kernel hold for a client that reads nothing."""

END_S = 20.0
"""5 s are promised; what does not end goes on for ever, and a busy machine may take its time."""

ENDLESS = "SELECT count(*) FROM records a, records b, records c WHERE a.device_id < b.device_id || c.device_id"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("expiry")
    with Box(folder, auth__required="true", sql__enabled="true", limits__address_wrong_keys_per_min="0") as found:
        key = new_key(found)
        records = [{"device_id": f"van-{number % 8}", "note": f"{number} {PADDING}"} for number in range(RECORDS)]
        for start in range(0, RECORDS, 10_000):
            found.http.post("/v1/records", json=records[start : start + 10_000], headers=bearer(key)).raise_for_status()
        yield found


@pytest.fixture
def keys_of(box: Box) -> Iterator[redis.Redis]:
    with connect(load(environ=box.environ)) as client:
        yield client


def new_key(box: Box, **more: Any) -> str:
    """A key for everything, once all programs know it."""
    wish = KeyRequest(**({"scopes": ("ingest", "read", "sql")} | more))
    text, key = make(wish, int(time.time()), secrets.token_bytes)
    with connect(load(environ=box.environ)) as client:
        assert shared_state.add_key(client, key)
    probe = device_token(text, "probe") if wish.is_fleet else text
    for port, method, path in (
        (box.api_port, "GET", "/v1/devices/probe/latest"),
        (box.api_port, "GET", "/v1/records"),  # of the query program
        (box.http_port, "POST", "/v1/records"),
    ):
        with plain_http(f"http://127.0.0.1:{port}") as http:
            stop_s = time.monotonic() + END_S
            while http.request(method, path, headers=bearer(probe)).status_code == 401:
                assert time.monotonic() < stop_s, "the key is not known"
                time.sleep(0.1)
    return text


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# What outlives a check of its key --------------------------------------------------------------------


class Opened:
    """A connection on which something is under way, and what tells by all that came of it that it was ended."""

    def __init__(self, name: str, connection: socket.socket, is_as_expected: Callable[[bytes], bool]) -> None:
        self.name = name
        self.connection = connection
        self.is_as_expected = is_as_expected
        self.heard = b""

    def read_to_end(self) -> None:
        """Read until the box closes the connection. Raises `TimeoutError` if it does not."""
        stop_s = time.monotonic() + END_S
        while self._read(max(0.01, stop_s - time.monotonic())):
            pass

    def is_open(self) -> bool:
        """Whether nothing has ended it so far."""
        try:
            return self._read(0.01)
        except TimeoutError:
            return True

    def _read(self, timeout_s: float) -> bool:
        self.connection.settimeout(timeout_s)
        try:
            data = self.connection.recv(2**16)
        except ConnectionResetError:  # an answer that broke off
            return False
        self.heard += data
        return bool(data)


_open: list[socket.socket] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Close what a test opened, also one that fails."""
    yield
    while _open:
        _open.pop().close()


def dial(port: int, data: bytes) -> socket.socket:
    """A connection that keeps little of what it does not read, with a request on its way."""
    found = socket.socket()
    _open.append(found)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
    found.connect(("127.0.0.1", port))
    found.sendall(data)
    return found


def request(key: str, method: str, path: str, *lines: str, body: bytes = b"") -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: box", "Connection: close", f"Authorization: Bearer {key}", *lines]
    return "\r\n".join([*head, "", ""]).encode() + body


def sql(key: str) -> bytes:
    body = json.dumps({"query": ENDLESS}).encode()
    return request(key, "POST", "/v1/sql", "Content-Type: application/json", f"Content-Length: {len(body)}", body=body)


def refused(data: bytes) -> bool:
    return data.startswith(b"HTTP/1.1 401 ") and b"urn:whimbrel:problem:wrong-key" in data


def broke_off(data: bytes) -> bool:
    return data.startswith(b"HTTP/1.1 200 ") and not data.endswith(b"0\r\n\r\n")


def said_why(data: bytes) -> bool:
    return names_why(data) and data.endswith(b"0\r\n\r\n")


def names_why(data: bytes) -> bool:
    return b"unknown key" in data or b"this key" in data


def not_authorized(data: bytes) -> bool:
    return b"Not authorized." in data.splitlines()[-1]


def reading(box: Box, key: str) -> list[Opened]:
    """What reads, over HTTP."""
    export = dial(box.api_port, request(key, "GET", "/v1/export"))
    export.recv(1, socket.MSG_PEEK)
    return [
        Opened("live", dial(box.api_port, request(key, "GET", "/v1/live?device_id=van-1")), said_why),
        Opened("an export", export, broke_off),
        Opened("sql that runs", dial(box.api_port, sql(key)), refused),
        Opened("sql that waits", dial(box.api_port, sql(key)), refused),
    ]


def writing(box: Box, key: str) -> list[Opened]:
    """What writes: requests whose body has yet to come, and TCP that said its key."""
    part = request(key, "POST", "/v1/records", "Content-Length: 1000", body=b'[{"device_id": "a"')
    token = json.dumps({"token": key}).encode() + b"\n"
    record = {"device_id": "van-1", "token": key}
    return [
        Opened("an upload to the API", dial(box.api_port, part), refused),
        Opened("an upload to the collector", dial(box.http_port, part), refused),
        Opened("a hello in JSON", dial(box.tcp_port, token), not_authorized),
        Opened("a token in a record", dial(box.tcp_port, json.dumps(record).encode() + b"\n"), not_authorized),
        Opened("half a message", dial(box.tcp_port, token + b'[{"device_id": "van-1", '), not_authorized),
        Opened("a hello in msgpack", dial(box.tcp_port, msgpack.packb({"token": key})), lambda data: b"Not a" in data),
        Opened("a hello in frames", dial(box.tcp_port, frame([0, key])), names_why),
    ]


def all_of(box: Box, key: str) -> list[Opened]:
    return [*reading(box, key), *writing(box, key)]


def fail_unless_ended(opened: list[Opened]) -> None:
    __tracebackhide__ = True
    for one in opened:
        try:
            one.read_to_end()
        except TimeoutError:
            pytest.fail(f"{one.name} goes on")
        assert one.is_as_expected(one.heard), (one.name, one.heard[-300:])


def sql_children(box: Box) -> list[psutil.Process]:
    return [one for one in psutil.Process(box.pid).children(recursive=True) if is_sql_child(one)]


def is_sql_child(process: psutil.Process) -> bool:
    try:
        return process.is_running() and "api.sql.sandbox_process" in process.cmdline()
    except psutil.NoSuchProcess:  # it has just ended
        return False


# The attack ------------------------------------------------------------------------------------------


def test_all_that_a_revoked_key_opened_ends_and_nothing_else(box: Box) -> None:
    key, other = new_key(box), new_key(box)
    of_others = [one for one in all_of(box, other) if not one.name.startswith(("sql", "an upload"))]
    opened = all_of(box, key)
    time.sleep(0.5)
    assert [one.name for one in opened if not one.is_open()] == []
    assert box.whimbrel("keys", "revoke", key.split("_")[1]).returncode == 0
    fail_unless_ended(opened)
    assert [one.name for one in of_others if not one.is_open()] == []


def test_all_that_an_expired_key_opened_ends(box: Box) -> None:
    key = new_key(box, expires_s=int(time.time()) + 5)
    opened = all_of(box, key)
    fail_unless_ended(opened)
    stop_s = time.monotonic() + END_S
    while sql_children(box):
        assert time.monotonic() < stop_s, "a question in SQL is still being answered"
        time.sleep(0.1)


def test_the_token_of_one_device_is_revoked(box: Box) -> None:
    fleet = new_key(box, scopes=("ingest", "read"), is_fleet=True)
    lost, kept = (device_token(fleet, device) for device in ("van-1", "van-2"))
    live = Opened("live", dial(box.api_port, request(lost, "GET", "/v1/live")), said_why)
    opened, of_others = [live, *writing(box, lost)], writing(box, kept)
    time.sleep(0.5)
    assert [one.name for one in opened if not one.is_open()] == []
    assert box.whimbrel("keys", "revoke", fleet.split("_")[1], "--device", "van-1").returncode == 0
    fail_unless_ended(opened)
    assert [one.name for one in of_others if not one.is_open()] == []
    box.whimbrel("keys", "revoke", fleet.split("_")[1])
    fail_unless_ended(of_others)


def test_what_a_key_allows_is_changed(box: Box, keys_of: redis.Redis) -> None:
    text, key = make(KeyRequest(SCOPES), int(time.time()), secrets.token_bytes)
    shared_state.add_key(keys_of, key)
    stop_s = time.monotonic() + END_S
    while box.http.get("/v1/latest", headers=bearer(text)).status_code != 200:
        assert time.monotonic() < stop_s
    live = dial(box.api_port, request(text, "GET", "/v1/live"))
    live.recv(1, socket.MSG_PEEK)
    shared_state.change_key(keys_of, type(key)(key.id, key.hash, ("ingest",), key.created_s))
    fail_unless_ended([Opened("live", live, said_why)])
