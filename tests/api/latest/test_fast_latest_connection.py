"""The fast path of `latest`: its responses equal the application's byte by byte; which requests use it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from api.errors import HANDLERS, too_many_at
from api.latest.fast_latest import FastLatest
from api.latest.fast_latest_connection import FastLatestConnection
from api.latest.routes import LatestRoutes
from api.requests.route_scopes import need_of
from telemetry.archive.table import Archive
from telemetry.config.settings import LimitsSection, Settings
from telemetry.hot_store.client import connect, connect_async
from telemetry.hot_store.direct_connection import DirectAsker
from telemetry.hot_store.entry_codec import pack
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.http.authentication import Gate
from telemetry.http.connection import ConnectionLimits
from telemetry.http.rate_limiting import KeyThrottle
from telemetry.http.server import http_server, listen
from telemetry.limits.pending_bytes import Pending
from telemetry.model.api_keys import READ
from telemetry.model.record import Record, Sent
from telemetry.startup.store_setup import set_up
from tests.behind import Behind
from tests.conftest import RedisServer, settings_of
from tests.direct_checks import Front, Guards, Keys

HOST = "127.0.0.1"
PATIENCE_S = 20
KEEP_ALIVE_S = 1
OPEN = Guards()
SOON_MS = 500
"""Maximum busy wait for Redis's reply in these tests, which share their processors."""


def get(path: bytes, *headers: bytes, start: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    """A request."""
    return b"\r\n".join([b"%b %b HTTP/%b" % (start, path, version), b"Host: box", *headers, b"", b""])


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telemetry.hot_store.direct_connection.SOON_MS", SOON_MS)


@pytest.fixture
def filled(settings: Settings, tmp_path: Path) -> Settings:
    """Settings of a Redis with one device."""
    fill(settings, tmp_path)
    return settings


def fill(settings: Settings, folder: Path) -> None:
    with connect(settings) as client:
        client.flushall()
        [shard] = set_up(client, Archive(folder / "archive"), 1)
        records = [
            Sent("van-7", Record(1_795_500_000_000_000, "http", "json", 53.44, -2.93, None, 48.5)),
            Sent("van-7", Record(1_795_500_001_500_000, "tcp", "json", attributes='{"fuel":61}')),
            Sent("a/b", Record(1_795_500_000_000_000, "tcp", "json")),
        ]
        append_batches(shard, [Batch(pack(records))], Limits())


@contextlib.asynccontextmanager
async def serving(settings: Settings, is_fast: bool, guards: Guards = OPEN) -> AsyncIterator[tuple[int, Behind]]:
    """The port of a server with or without the fast path, and its application."""
    with connect(settings, PATIENCE_S) as client:
        asker = DirectAsker(client)
        await asker.ask("PING")
        latest = LatestRoutes(connect_async(settings), asker, 1, 10)
        route = Route("/v1/devices/{device_id:path}/latest", latest.get_device)
        front = Front.of(guards)
        application: ASGIApp = Starlette(routes=[route], exception_handlers=HANDLERS)
        if front.rates.key_requests is not None:
            application = KeyThrottle(application, too_many_at)
        behind = Behind(Gate(application, front.keyring, need_of))
        named = front.before(behind)
        fast = FastLatest(asker, 1, front.direct(READ, named))
        make = partial(FastLatestConnection, fast)
        limits = ConnectionLimits(16_384, 1_000, 100, 10.0, KEEP_ALIVE_S, 8_192)
        server = http_server(named, limits, Pending(2**24), make=make if is_fast else None)
        listening = listen(HOST, 0)
        running = asyncio.create_task(server.serve([listening]))
        try:
            yield listening.getsockname()[1], behind
        finally:
            server.should_exit = True
            await running
            asker.close()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(test())


Answer = tuple[bytes, list[bytes], bytes]


async def answers(port: int, requests: bytes, count: int) -> list[Answer]:
    """Status line, headers and body of each response to requests that are sent together."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(requests)
    found = [await answer(reader, is_of_head=requests.startswith(b"HEAD")) for _ in range(count)]
    writer.close()
    return found


async def answer(reader: asyncio.StreamReader, is_of_head: bool = False) -> Answer:
    """The next response. A response to HEAD has no body."""
    async with asyncio.timeout(PATIENCE_S):
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).rstrip().split(b"\r\n")
        length = next(int(line.split(b": ")[1]) for line in lines if line.startswith(b"content-length"))
        body = await reader.readexactly(0 if is_of_head else length)
    return status, [as_ever(line) for line in lines], body


def as_ever(line: bytes) -> bytes:
    """A header line without the parts that differ each time."""
    name, value = line.split(b": ", 1)
    return name if name == b"date" or (name == b"x-request-id" and value.isalnum()) else line


LATEST = b"/v1/devices/van-7/latest"
USUAL = {
    "plain": get(LATEST),
    "of a client": get(LATEST, b"Connection: keep-alive", b"Accept: */*", b"User-Agent: c"),
    "with a name": get(LATEST, b"X-Request-Id: mine-1"),
    "with a bad name": get(LATEST, b"X-Request-Id: mine/1"),
    "with a slash": get(b"/v1/devices/a/b/latest"),
}
UNUSUAL = {
    "escaped": get(b"/v1/devices/a%2Fb/latest"),
    "a query": get(LATEST + b"?", b""),
    "a parameter": get(LATEST + b"?format=csv"),
    "nobody": get(b"/v1/devices/nobody/latest"),
    "no device": get(b"/v1/devices//latest"),
    "another path": get(b"/v1/devices/van-7/latest/"),
    "another method": get(LATEST, start=b"HEAD"),
    "to be closed": get(LATEST, b"Connection: close"),
    "old": get(LATEST, version=b"1.0"),
    "a body": get(LATEST, b"Content-Length: 2") + b"{}",
    "pieces": get(LATEST, b"Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n",
    "an upgrade": get(LATEST, b"Connection: upgrade", b"Upgrade: h2c"),
    "of a host": get(b"http://box" + LATEST),
}


@pytest.mark.parametrize("name", [*USUAL, *UNUSUAL])
def test_answers_are_the_same(filled: Settings, name: str) -> None:
    request = {**USUAL, **UNUSUAL}[name]

    async def test() -> None:
        found = []
        for is_fast in (False, True):
            async with serving(filled, is_fast) as (port, behind):
                found.append(await answers(port, request, 1))
                assert behind.asked == (not is_fast or name in UNUSUAL)
        assert found[0] == found[1]

    run(test)


def test_requests_at_once_are_answered_in_their_order(filled: Settings) -> None:
    requests: Sequence[bytes] = [USUAL["plain"], USUAL["with a name"], UNUSUAL["nobody"], USUAL["with a slash"]] * 3

    async def test() -> None:
        async with serving(filled, is_fast=True) as (port, _):
            found = await answers(port, b"".join(requests), len(requests))
            assert [status for status, _, _ in found] == [b"HTTP/1.1 200 OK"] * 2 + [b"HTTP/1.1 404 Not Found"] + (
                [b"HTTP/1.1 200 OK"] * 3 + [b"HTTP/1.1 404 Not Found"]
            ) * 2 + [b"HTTP/1.1 200 OK"]
            assert [b"van-7" in body for _, _, body in found[3::4]] == [False] * 3

    run(test)


def test_a_connection_stays_as_long_as_any(filled: Settings) -> None:
    async def test() -> None:
        async with serving(filled, is_fast=True) as (port, behind):
            reader, writer = await asyncio.open_connection(HOST, port)
            for _ in range(3):
                writer.write(USUAL["plain"])
                assert await reader.read(65_536)
                await asyncio.sleep(KEEP_ALIVE_S / 2)
            async with asyncio.timeout(PATIENCE_S):
                assert await reader.read() == b""  # closed, some time after the last answer
            writer.close()
            assert behind.asked == 0

    run(test)


def test_the_response_of_a_slow_redis_is_awaited(own_redis: RedisServer, tmp_path: Path) -> None:
    settings = settings_of(own_redis.url, tmp_path)
    fill(settings, tmp_path)

    async def test() -> None:
        async with serving(settings, is_fast=True) as (port, behind):
            with connect(settings) as client:
                client.client_pause(3 * SOON_MS)
            [(status, _, _)] = await answers(port, USUAL["plain"], 1)
            assert (status, behind.asked) == (b"HTTP/1.1 200 OK", 0)
            [(status, _, _)] = await answers(port, USUAL["plain"], 1)
            assert (status, behind.asked) == (b"HTTP/1.1 200 OK", 0)
            own_redis.kill()
            [(status, _, _)] = await answers(port, USUAL["plain"], 1)
            assert (status, behind.asked) == (b"HTTP/1.1 503 Service Unavailable", 1)

    run(test)


def test_requests_during_a_wait_are_answered_after_it(own_redis: RedisServer, tmp_path: Path) -> None:
    settings = settings_of(own_redis.url, tmp_path)
    fill(settings, tmp_path)

    async def test() -> None:
        async with serving(settings, is_fast=True) as (port, behind):
            with connect(settings) as client:
                client.client_pause(3 * SOON_MS)
            reader, writer = await asyncio.open_connection(HOST, port)
            for request in (USUAL["plain"], UNUSUAL["nobody"], USUAL["with a slash"]):
                writer.write(request)
                await asyncio.sleep(0.6 * SOON_MS / 1_000)
            found = [await answer(reader) for _ in range(3)]
            writer.close()
            assert [status for status, *_ in found] == [
                b"HTTP/1.1 200 OK",
                b"HTTP/1.1 404 Not Found",
                b"HTTP/1.1 200 OK",
            ]
            assert all(name in body for name, (_, _, body) in zip((b"van-7", b"nobody", b"a/b"), found, strict=True))
            assert behind.asked == 2  # the last two were parsed together

    run(test)


def test_concurrent_requests_are_answered_directly(filled: Settings) -> None:
    async def test() -> None:
        async with serving(filled, is_fast=True) as (port, behind):
            found = await asyncio.gather(*(answers(port, USUAL["plain"], 1) for _ in range(40)))
            assert {status for [(status, _, _)] in found} == {b"HTTP/1.1 200 OK"}
            assert behind.asked == 0

    run(test)


def test_a_server_that_stops_answers_first(own_redis: RedisServer, tmp_path: Path) -> None:
    settings = settings_of(own_redis.url, tmp_path)
    fill(settings, tmp_path)

    async def test() -> None:
        async with serving(settings, is_fast=True) as (port, behind):
            with connect(settings) as client:
                client.client_pause(3 * SOON_MS)
            asking = [asyncio.create_task(answers(port, data, 1)) for data in (USUAL["plain"], UNUSUAL["nobody"])]
            await asyncio.sleep(1.5 * SOON_MS / 1_000)
        assert [(await task)[0][0][9:12] for task in asking] == [b"200", b"404"]
        assert behind.asked == 1

    run(test)


def bearer(keys: Keys, name: str) -> bytes:
    return b"Authorization: Bearer %b" % keys.texts[name].encode()


ON_FAST_PATH = ("reads", "admin", "bound")


@pytest.mark.parametrize("name", [*ON_FAST_PATH, "writes", "elsewhere", "unknown", ""])
def test_a_key_is_answered_as_by_the_application(filled: Settings, name: str) -> None:
    keys = Keys()
    request = get(LATEST, *([bearer(keys, name)] if name else []))

    async def test() -> None:
        found = []
        for is_fast in (False, True):
            async with serving(filled, is_fast, Guards(keys)) as (port, behind):
                found.append(await answers(port, request, 1))
                assert behind.asked == (not is_fast or name not in ON_FAST_PATH)
        assert found[0] == found[1]
        assert (found[0][0][0] == b"HTTP/1.1 200 OK") == (name in ON_FAST_PATH)

    run(test)


@pytest.mark.parametrize("setting", ["address_requests_per_s", "key_requests_per_s"])
def test_a_limit_is_shown_and_applied_as_by_the_application(filled: Settings, setting: str) -> None:
    keys = Keys()
    limits = LimitsSection(**{setting: 0.001, setting.replace("_per_s", "_burst"): 2})  # type: ignore[arg-type]
    request = get(LATEST, bearer(keys, "reads"))

    async def test() -> None:
        found = []
        for is_fast in (False, True):
            async with serving(filled, is_fast, Guards(keys, limits)) as (port, _):
                found.append([(await answers(port, request, 1))[0] for _ in range(3)])
        assert found[0] == found[1]
        assert [status[9:12] for status, _, _ in found[0]] == [b"200", b"200", b"429"]
        assert any(line.startswith(b"ratelimit:") for line in found[1][0][1])

    run(test)


def test_requests_are_logged(filled: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "access")

    async def test() -> None:
        async with serving(filled, is_fast=True, guards=Guards(logs_access=True)) as (port, behind):
            await answers(port, get(LATEST), 1)
            assert not behind.asked

    run(test)
    [line] = [found for found in caplog.records if found.name == "access"]
    assert line.getMessage().startswith("GET /v1/devices/van-7/latest 200 in ")
