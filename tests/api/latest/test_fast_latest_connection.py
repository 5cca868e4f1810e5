"""The quickest way of latest: the same answers, byte by byte, as without it, and when it isn't taken."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop
from starlette.applications import Starlette
from starlette.routing import Route

from api.errors import HANDLERS
from api.latest.fast_latest import QuickLatest
from api.latest.fast_latest_connection import QuickAnswers, QuickConnection
from api.latest.routes import LatestRoutes
from telemetry.archive.table import Archive
from telemetry.browsers.host_names import Hosts
from telemetry.config.settings import Settings
from telemetry.hot_store.client import connect, connect_async
from telemetry.hot_store.direct_connection import DirectAsker
from telemetry.hot_store.entry_codec import pack
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.http.connection import ConnectionLimits
from telemetry.http.request_id import RequestIds
from telemetry.http.server import http_server, listen
from telemetry.limits.pending_bytes import Pending
from telemetry.model.record import Record, Sent
from telemetry.startup.store_setup import set_up
from tests.behind import Behind
from tests.conftest import RedisServer, settings_of

HOST = "127.0.0.1"
PATIENCE_S = 20
KEEP_ALIVE_S = 1
SOON_MS = 500
"""How long Redis's answer is waited for on the spot here: tests share their processors."""


def get(path: bytes, *headers: bytes, start: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    """A request."""
    return b"\r\n".join([b"%b %b HTTP/%b" % (start, path, version), b"Host: box", *headers, b"", b""])


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telemetry.hot_store.direct_connection.SOON_MS", SOON_MS)


@pytest.fixture
def filled(settings: Settings, tmp_path: Path) -> Settings:
    """A Redis that knows a device."""
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
async def serving(settings: Settings, is_quick: bool) -> AsyncIterator[tuple[int, Behind]]:
    """The port of a server with the quickest way, or without, and what is behind it."""
    with connect(settings, PATIENCE_S) as client:
        asker = DirectAsker(client)
        await asker.ask("PING")
        latest = LatestRoutes(connect_async(settings), asker, 1, 10)
        route = Route("/v1/devices/{device_id:path}/latest", latest.get_device)
        behind = Behind(QuickLatest(Starlette(routes=[route], exception_handlers=HANDLERS), latest))
        named = RequestIds(behind)
        make = partial(QuickConnection, QuickAnswers(asker, 1, named.name_of, Hosts(["box"]).has))
        limits = ConnectionLimits(16_384, 1_000, 100, 10.0, KEEP_ALIVE_S, 8_192)
        server = http_server(named, limits, Pending(2**24), make=make if is_quick else None)
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
    """Status line, headers and body of each answer to requests that are sent at once."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(requests)
    found = []
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(count):
            status, *lines = (await reader.readuntil(b"\r\n\r\n")).rstrip().split(b"\r\n")
            length = next(int(line.split(b": ")[1]) for line in lines if line.startswith(b"content-length"))
            body = await reader.readexactly(0 if requests.startswith(b"HEAD") else length)
            found.append((status, [as_ever(line) for line in lines], body))
    writer.close()
    return found


def as_ever(line: bytes) -> bytes:
    """A line of a head without what is another each time."""
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
        for is_quick in (False, True):
            async with serving(filled, is_quick) as (port, behind):
                found.append(await answers(port, request, 1))
                assert behind.asked == (not is_quick or name in UNUSUAL)
        assert found[0] == found[1]

    run(test)


def test_requests_at_once_are_answered_in_their_order(filled: Settings) -> None:
    requests: Sequence[bytes] = [USUAL["plain"], USUAL["with a name"], UNUSUAL["nobody"], USUAL["with a slash"]] * 3

    async def test() -> None:
        async with serving(filled, is_quick=True) as (port, behind):
            found = await answers(port, b"".join(requests), len(requests))
            assert [status for status, _, _ in found] == [b"HTTP/1.1 200 OK"] * 2 + [b"HTTP/1.1 404 Not Found"] + (
                [b"HTTP/1.1 200 OK"] * 3 + [b"HTTP/1.1 404 Not Found"]
            ) * 2 + [b"HTTP/1.1 200 OK"]
            assert [b"van-7" in body for _, _, body in found[3::4]] == [False] * 3
            assert behind.asked < len(requests)

    run(test)


def test_a_connection_stays_as_long_as_any(filled: Settings) -> None:
    async def test() -> None:
        async with serving(filled, is_quick=True) as (port, behind):
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


def test_a_redis_that_is_slow_or_gone_is_the_applications(own_redis: RedisServer, tmp_path: Path) -> None:
    settings = settings_of(own_redis.url, tmp_path)
    fill(settings, tmp_path)

    async def test() -> None:
        async with serving(settings, is_quick=True) as (port, behind):
            with connect(settings) as client:
                client.client_pause(3 * SOON_MS)
            [(status, _, _)] = await answers(port, USUAL["plain"], 1)
            assert (status, behind.asked) == (b"HTTP/1.1 200 OK", 1)
            [(status, _, _)] = await answers(port, USUAL["plain"], 1)
            assert (status, behind.asked) == (b"HTTP/1.1 200 OK", 1)
            own_redis.kill()
            [(status, _, _)] = await answers(port, USUAL["plain"], 1)
            assert (status, behind.asked) == (b"HTTP/1.1 503 Service Unavailable", 2)

    run(test)
