"""The query program behind the API: answers pass as they are, its absence is an answer, and who leaves ends a query."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator

import duckdb
import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from api.execution.client_disconnect import CancelOnDisconnect
from api.execution.query_pool import Queries
from api.execution.slots import SlotLimits
from api.query_proxy.forward import START_S, Start
from telemetry.model.record import Sent
from tests.api.conftest import Box, assert_problem, box_on, record
from tests.conftest import RedisServer

AT_US = 1_769_250_300_000_000


@pytest.fixture
def own_box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box whose query program may be killed."""
    with box_on(shared_redis.url, tmp_path_factory.mktemp("forward")) as found:
        yield found


def test_headers_and_bodies_pass_as_they_are(box: Box) -> None:
    box.append(Sent("a", record(AT_US)))
    answer = box.http.get("/v1/records?device_id=a")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers.get("connection", "keep-alive") == "keep-alive"
    assert len(answer.headers.get_list("date")) == 1
    headed = box.http.head("/v1/records?device_id=a")
    assert (headed.status_code, headed.content) == (200, b"")
    assert headed.headers["content-length"] == answer.headers["content-length"]


def test_what_nobody_knows_is_not_found(box: Box) -> None:
    assert_problem(box.http.get("/v1/nothing"), 404, "not-found")
    assert box.http.get("/nothing").headers["content-type"].startswith("text/html")


def test_a_body_where_none_is_read_does_no_harm(box: Box) -> None:
    """Its bytes are no second request."""
    with socket.create_connection(("127.0.0.1", box.port), timeout=10) as connection:
        body = b"GET /v1/latest HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(
            b"GET /v1/records HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
            % len(body)
            + body
        )
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("target", [b"*", b"//evil/x", b"/a/../b", b"/%zz?%", b"http://evil/x?y#z", b"/a?b#c"])
def test_odd_addresses_and_headers_are_answered(box: Box, target: bytes) -> None:
    """The query program is asked, whatever host an address seems to name, and says that it knows none of these."""
    head = b"OPTIONS %b HTTP/1.1\r\nHost: \xe9.localhost\r\nConnection: close\r\nX-Odd: \xff\t,\r\n\r\n"
    with socket.create_connection(("127.0.0.1", box.port), timeout=10) as connection:
        connection.sendall(head % target)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 404 ")


def test_an_old_client_without_host_gets_links_all_the_same(box: Box) -> None:
    box.append(*(Sent("host", record(AT_US + n)) for n in range(60)))
    with socket.create_connection(("127.0.0.1", box.port), timeout=10) as connection:
        connection.sendall(b"GET /tracking/data/list/?device_id=host HTTP/1.0\r\n\r\n")
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    assert b'"next":"http://127.0.0.1:%d/tracking/data/list/?device_id=host&page=2"' % box.port in answer


def test_a_query_program_that_has_yet_to_start_is_no_warning() -> None:
    now_s = 100.0
    start, late = Start(lambda: now_s), Start(lambda: now_s)
    now_s += START_S - 1
    assert start.unanswered_level == logging.DEBUG
    start.end()
    assert start.unanswered_level == logging.WARNING
    assert late.unanswered_level == logging.DEBUG
    now_s += 1
    assert late.unanswered_level == logging.WARNING


def test_without_the_query_program_the_rest_goes_on(own_box: Box) -> None:
    own_box.append(Sent("a", record(AT_US)))
    query = own_box._processes.pop(0)
    query.send_signal(signal.SIGKILL)
    query.wait()
    assert own_box.http.get("/v1/devices/a/latest").status_code == 200
    assert own_box.http.post("/v1/records", json={"device_id": "a"}).status_code == 202
    answer = own_box.http.get("/v1/records")
    assert_problem(answer, 503, "busy")
    assert answer.headers["retry-after"] == "1"
    older = own_box.http.get("/tracking/data/list/")
    assert (older.status_code, list(older.json()), older.headers["allow"]) == (503, ["detail"], "GET, HEAD, OPTIONS")
    ready = own_box.http.get("/readyz")
    assert (ready.status_code, ready.json()["reasons"]) == (503, ["the query program does not answer"])
    own_box.start_program("api.query")
    stop_s = time.monotonic() + 20
    while own_box.http.get("/v1/records").status_code == 503:
        assert time.monotonic() < stop_s
        time.sleep(0.05)
    assert len(own_box.http.get("/v1/records").json()["records"]) == 2


def test_a_query_program_that_hangs_costs_only_its_own_answers(
    shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with box_on(shared_redis.url, tmp_path_factory.mktemp("hangs")) as box:
        query = box._processes[0]
        query.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(httpx.ReadTimeout):
                httpx.get(f"http://127.0.0.1:{box.port}/v1/records", timeout=0.3)
            assert box.http.get("/healthz").status_code == 200
            assert box.http.post("/v1/records", json={"device_id": "a"}).status_code == 202
        finally:
            query.send_signal(signal.SIGCONT)
        assert box.http.get("/v1/records").status_code == 200


# Who leaves ------------------------------------------------------------------------------------------


def test_a_client_that_leaves_ends_its_query(connection: duckdb.DuckDBPyConnection) -> None:
    async def run() -> None:
        queries = Queries(connection, SlotLimits(1, 1, 60), 60)
        begun = threading.Event()

        def ask(cursor: duckdb.DuckDBPyConnection) -> object:
            begun.set()
            return cursor.execute("SELECT sum(hash(r.range)) FROM range(1000000000000) r").fetchall()

        async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
            await queries.run(ask)

        async def receive() -> Message:
            await asyncio.to_thread(begun.wait, 10)
            return {"type": "http.disconnect"}

        async def send(_: Message) -> None:
            raise AssertionError("nobody is there")

        async with asyncio.timeout(10):
            await CancelOnDisconnect(app)({"type": "http"}, receive, send)
            assert await queries.run(lambda cursor: cursor.execute("SELECT 1").fetchall()) == [(1,)]
        await queries.close()

    asyncio.run(run())


def test_one_that_waits_never_begins_when_its_client_leaves(connection: duckdb.DuckDBPyConnection) -> None:
    async def run() -> None:
        queries = Queries(connection, SlotLimits(1, 5, 60), 60)
        go = threading.Event()
        asked: list[int] = []
        first = asyncio.create_task(queries.run(lambda _: go.wait(10)))
        others = [asyncio.create_task(queries.run(lambda _, n=n: asked.append(n))) for n in range(3)]  # type: ignore[misc]
        await asyncio.sleep(0.05)
        others[1].cancel()
        await asyncio.sleep(0)
        go.set()
        assert await first
        await asyncio.gather(*others, return_exceptions=True)
        assert asked == [0, 2]
        await queries.close()

    asyncio.run(run())


def test_what_the_application_raises_is_raised() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ValueError("broken")

    async def receive() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    async def send(_: Message) -> None: ...

    async def run() -> None:
        with pytest.raises(ValueError, match="broken"):
            await CancelOnDisconnect(app)({"type": "http"}, receive, send)

    asyncio.run(run())
