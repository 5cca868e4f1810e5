"""The fast path of `POST /v1/records`: the same answers, byte by byte, as the application's, and when it is taken."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import NamedTuple

import msgpack
import pytest
import redis

from collector.http.fast_post import FastPosts
from collector.http.fast_post_connection import FastPostConnection
from collector.http.record_body import FORMS
from collector.http.request_headers import LARGE_BODY_BYTES, HttpLimits
from collector.http.routes import app
from collector.ingest.arriving_bytes import Arriving
from collector.ingest.group_commit import Intake
from telemetry.access.key_cache import Keyring
from telemetry.codec.record_parser import Arrival
from telemetry.codec.typed_decoder import LEARN_RECORDS
from telemetry.config.settings import LimitsSection
from telemetry.hot_store.operations.append import Limits
from telemetry.hot_store.shard import Shard
from telemetry.http.connection import ConnectionLimits
from telemetry.http.server import Server, http_server, listen
from telemetry.limits.pending_bytes import Pending
from telemetry.model.api_keys import INGEST
from tests.behind import Behind
from tests.collector.conftest import HOST, NOW_US, Connect, numbers, run, tail, taking
from tests.direct_checks import Front, Guards, Keys

PATIENCE_S = 20
PAUSE_MS = 60_000
KEEP_ALIVE_S = 1
LIMITS = HttpLimits(2_000, 3, 600, Arriving(2**20))
OPEN = Guards()


def post(body: bytes, *headers: bytes, length: bool = True, start: bytes = b"POST /v1/records HTTP/1.1") -> bytes:
    """A request."""
    more = [b"content-length: %d" % len(body)] if length else []
    return b"\r\n".join([start, b"Host: box", *headers, *more, b"", body])


def record(number: int = 7, device: bytes = b"d") -> bytes:
    return b'{"device_id":"%b","altitude":%d}' % (device, number)


class Serving(NamedTuple):
    """A running server."""

    port: int
    server: Server
    intake: Intake
    behind: Behind
    keyring: Keyring | None


@contextlib.asynccontextmanager
async def serving(
    connect_to: Connect,
    is_fast: bool = True,
    guards: Guards = OPEN,
    max_pending_bytes: int = 2**20,
    max_devices: int = 10,
    request_timeout_s: float = 10,
) -> AsyncIterator[Serving]:
    """A server with the fast path, or without."""
    for form in set(FORMS.values()):
        form.shapes.learn([{"device_id": "d", "altitude": 7}], LEARN_RECORDS)
    async with taking(connect_to, limits=Limits(max_devices), max_pending_bytes=max_pending_bytes) as intake:
        arrival = Arrival(NOW_US)
        front = Front.of(guards)
        application = app(intake, LIMITS, lambda: arrival, front.keyring, front.rates.key_requests is not None)
        behind = Behind(application)
        named = front.before(behind)
        posts = FastPosts(intake, LIMITS, lambda: arrival, front.direct(INGEST, named))
        make = partial(FastPostConnection, posts)
        limits = ConnectionLimits(16_384, LIMITS.max_body_bytes, 100, request_timeout_s, KEEP_ALIVE_S, 8_192)
        server = http_server(named, limits, Pending(2**24), make=make if is_fast else None)
        listening = listen(HOST, 0)
        running = asyncio.create_task(server.serve([listening]))
        try:
            yield Serving(listening.getsockname()[1], server, intake, behind, front.keyring)
        finally:
            server.should_exit = True
            await running


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Status line, headers and body of the next answer; of what differs each time only that it is there."""
    async with asyncio.timeout(PATIENCE_S):
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).rstrip().split(b"\r\n")
        headers: dict[bytes, bytes] = {}
        for name, value in (line.split(b": ", 1) for line in lines):
            assert name not in headers or name == b"www-authenticate"
            headers[name] = headers.get(name, b"") + value
        body = await reader.readexactly(int(headers.get(b"content-length", 0)))
    headers[b"date"] = b"now"
    if headers.get(b"x-request-id", b"").decode().isalnum():
        headers[b"x-request-id"] = b"made"
    return status, headers, body


async def answers(port: int, pieces: Sequence[bytes], count: int = 1) -> list[tuple[bytes, dict[bytes, bytes], bytes]]:
    """What is answered to pieces that are sent one after another."""
    reader, writer = await asyncio.open_connection(HOST, port)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0.0002 if len(pieces) > 1 else 0)
    found = [await answer(reader) for _ in range(count)]
    writer.close()
    return found


async def until_waiting(intake: Intake) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not intake._pending_bytes:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


USUAL = {
    "a record": post(record()),
    "kept": post(record(), b"Connection: keep-alive"),
    "long": post(b" " * 1_950 + record()),
    "with a name": post(record(), b"X-Request-Id: mine-1"),
    "with a bad name": post(record(), b"X-Request-Id: mine/1"),
    "several": post(b"[%b,%b]" % (record(), record(8)), b"Content-Type: application/json"),
    "lines": post(record() + b"\n" + record(8), b"Content-Type: application/x-ndjson"),
    "msgpack": post(msgpack.packb({"device_id": "d", "altitude": 7}), b"Content-Type: application/msgpack"),
}
UNUSUAL = {
    "a key": post(record(), b"Idempotency-Key: k"),
    "a number": post(record(), b"Sender-Id: s"),
    "an encoding": post(record(), b"Content-Encoding: identity"),
    "a query": post(record(), start=b"POST /v1/records?x=1 HTTP/1.1"),
    "another path": post(record(), start=b"POST /v1/record HTTP/1.1"),
    "another method": post(record(), start=b"PUT /v1/records HTTP/1.1"),
    "an older version": post(record(), start=b"POST /v1/records HTTP/1.0"),
    "the last": post(record(), b"Connection: close"),
    "an upgrade": post(record(), b"Connection: upgrade", b"Upgrade: websocket"),
    "chunks": post(b"%x\r\n%b\r\n0\r\n\r\n" % (len(record()), record()), b"Transfer-Encoding: chunked", length=False),
    "nothing": post(b""),
    "no JSON": post(b"{"),
    "text for a number": post(b'{"device_id":"d","altitude":"7"}'),
    "out of bounds": post(b'{"device_id":"d","latitude":91}'),
    "too many": post(b"[%b]" % b",".join([record()] * 4)),
    "too long": post(b" " * 2_000 + record()),
    "records that share a line": post(record() + record(8), b"Content-Type: application/x-ndjson"),
    "a record on two lines": post(record().replace(b",", b",\n"), b"Content-Type: application/x-ndjson"),
    "a large one": post(b" " * LARGE_BODY_BYTES + record()),
    "another form": post(record(), b"Content-Type: image/png"),
}


@pytest.mark.parametrize("name", [*USUAL, *UNUSUAL])
def test_answers_are_the_same(connect_shared: Connect, shard: Shard, name: str) -> None:
    data = USUAL.get(name) or UNUSUAL[name]

    async def test() -> None:
        async with serving(connect_shared, is_fast=False) as plain:
            expected = await answers(plain.port, [data])
        stored = numbers(tail(shard, "d"))
        async with serving(connect_shared) as fast:
            assert await answers(fast.port, [data]) == expected
            assert fast.behind.asked == (name in UNUSUAL)
        repeated = 0 if name == "a key" else len(stored)
        assert len(numbers(tail(shard, "d"))) == len(stored) + repeated

    run(test)


def test_several_at_once_are_answered_in_their_order(connect_shared: Connect, shard: Shard) -> None:
    requests = [post(record(n)) for n in range(40)]
    requests[7:9] = UNUSUAL["out of bounds"], UNUSUAL["a key"]

    async def test(is_fast: bool, pieces: Sequence[bytes]) -> list[bytes]:
        async with serving(connect_shared, is_fast) as served:
            return [status for status, *_ in await answers(served.port, pieces, len(requests))]

    async def tests() -> None:
        expected = await test(is_fast=False, pieces=[b"".join(requests)])
        assert len(set(expected)) == 2
        assert await test(is_fast=True, pieces=[b"".join(requests)]) == expected
        assert await test(is_fast=True, pieces=requests) == expected

    run(tests)
    ours = [n for n in range(40) if n not in (7, 8)]
    found = numbers(tail(shard, "d"))
    assert [found[:7], found[8:39]] == [ours[:7], ours[7:]]  # between them that with the key
    assert found[39:] == ours * 2


def test_a_body_behind_its_head(connect_shared: Connect, shard: Shard) -> None:
    head, body = post(record())[: -len(record())], record()

    async def test() -> None:
        async with serving(connect_shared) as fast:
            for _ in range(2):
                [(status, _, _)] = await answers(fast.port, [head, body])
                assert status.startswith(b"HTTP/1.1 202")
            assert not fast.behind.asked

    run(test)


def test_a_body_that_does_not_come(connect_shared: Connect, shard: Shard) -> None:
    async def late(is_fast: bool) -> tuple[bytes, dict[bytes, bytes], bytes]:
        async with serving(connect_shared, is_fast, request_timeout_s=0.2) as served:
            return (await answers(served.port, [post(record())[:-5]]))[0]

    async def test() -> None:
        expected = await late(is_fast=False)
        assert expected[0].startswith(b"HTTP/1.1 408")
        assert await late(is_fast=True) == expected

    run(test)


def test_the_end_comes_within_a_body(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with serving(connect_shared) as fast:
            reader, writer = await asyncio.open_connection(HOST, fast.port)
            data = post(record())
            writer.write(post(record()) + data[:-5])
            await answer(reader)
            fast.server.should_exit = True
            await asyncio.sleep(0.3)
            writer.write(data[-5:])
            assert (await answer(reader))[0].startswith(b"HTTP/1.1 202")
            assert await reader.read() == b""
            writer.close()

    run(test)


@pytest.mark.parametrize("name", ["several", "no JSON"])
def test_a_request_in_pieces(connect_shared: Connect, shard: Shard, name: str) -> None:
    data = USUAL.get(name) or UNUSUAL[name]

    async def test() -> None:
        async with serving(connect_shared, is_fast=False) as plain:
            expected = await answers(plain.port, [data])
        async with serving(connect_shared) as fast:
            assert await answers(fast.port, [data[at : at + 1] for at in range(len(data))]) == expected
            head, body = data[:-5], data[-5:] + data
            assert await answers(fast.port, [head, body], 2) == expected * 2

    run(test)


def test_what_comes_while_one_waits_is_answered_behind_it(
    connect_shared: Connect, shard: Shard, client: redis.Redis
) -> None:
    async def test() -> None:
        async with serving(connect_shared) as fast:
            client.client_pause(PAUSE_MS, all=False)
            reader, writer = await asyncio.open_connection(HOST, fast.port)
            writer.write(post(record(1)))
            await until_waiting(fast.intake)
            for data in (post(record(2)), UNUSUAL["no JSON"], post(record(3))):
                writer.write(data)
                await asyncio.sleep(0.01)
            client.client_unpause()
            assert [(await answer(reader))[0][9:12] for _ in range(4)] == [b"202", b"202", b"400", b"202"]
            writer.close()

    run(test)
    assert numbers(tail(shard, "d")) == [1, 2, 3]


def test_what_was_taken_is_answered_before_the_end(connect_shared: Connect, shard: Shard, client: redis.Redis) -> None:
    async def test() -> None:
        async with serving(connect_shared) as fast:
            client.client_pause(PAUSE_MS, all=False)
            reader, writer = await asyncio.open_connection(HOST, fast.port)
            writer.write(post(record()))
            await until_waiting(fast.intake)
            fast.server.should_exit = True
            await asyncio.sleep(0.3)
            client.client_unpause()
            assert (await answer(reader))[0].startswith(b"HTTP/1.1 202")
            assert await reader.read() == b""
            writer.close()

    run(test)


def test_who_is_gone_disturbs_nobody(connect_shared: Connect, shard: Shard, client: redis.Redis) -> None:
    async def test() -> None:
        async with serving(connect_shared) as fast:
            client.client_pause(PAUSE_MS, all=False)
            _, writer = await asyncio.open_connection(HOST, fast.port)
            writer.write(post(record(1)))
            await until_waiting(fast.intake)
            writer.transport.abort()
            await asyncio.sleep(0.05)
            client.client_unpause()
            assert (await answers(fast.port, [post(record(2))]))[0][0].startswith(b"HTTP/1.1 202")

    run(test)
    assert numbers(tail(shard, "d")) == [1, 2]


def test_an_idle_connection_is_closed(connect_shared: Connect, shard: Shard) -> None:
    async def test() -> None:
        async with serving(connect_shared) as fast, asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(HOST, fast.port)
            writer.write(post(record()))
            await answer(reader)
            assert await reader.read() == b""
            writer.close()

    run(test)


@pytest.mark.parametrize(("max_pending_bytes", "max_devices"), [(0, 10), (2**20, 1)])
def test_what_is_full_is_the_same_problem(
    connect_shared: Connect, shard: Shard, max_pending_bytes: int, max_devices: int
) -> None:
    data = post(b"[%b,%b]" % (record(), record(8, b"e")))

    async def test() -> None:
        found = []
        for is_fast in (False, True):
            async with serving(connect_shared, is_fast, OPEN, max_pending_bytes, max_devices) as served:
                found.append(await answers(served.port, [data]))
        assert found[0] == found[1]
        assert found[0][0][0].startswith(b"HTTP/1.1 503")

    run(test)
    assert tail(shard, "d") == []


# With keys, limits and an access log -----------------------------------------------------------------


def bearer(keys: Keys, name: str) -> bytes:
    return b"Authorization: Bearer %b" % keys.texts[name].encode()


ON_FAST_PATH = ("writes", "admin", "bound")


@pytest.mark.parametrize("name", [*ON_FAST_PATH, "reads", "elsewhere", "expired", "unknown", ""])
def test_a_key_is_answered_as_by_the_application(connect_shared: Connect, shard: Shard, name: str) -> None:
    keys = Keys()
    data = post(record(), *([bearer(keys, name)] if name else []))

    async def test() -> None:
        async with serving(connect_shared, is_fast=False, guards=Guards(keys)) as plain:
            expected = await answers(plain.port, [data])
        async with serving(connect_shared, guards=Guards(keys)) as fast:
            assert await answers(fast.port, [data]) == expected
            assert fast.behind.asked == (name not in ON_FAST_PATH)
            assert fast.keyring is not None
            assert len(fast.keyring.take_used()) == (name not in ("expired", "unknown", ""))
        assert expected[0][0].startswith(b"HTTP/1.1 202") == (name in ON_FAST_PATH)

    run(test)


@pytest.mark.parametrize(
    "setting", ["address_requests_per_s", "address_records_per_s", "key_requests_per_s", "key_records_per_s"]
)
def test_a_limit_is_shown_and_applied_as_by_the_application(
    connect_shared: Connect, shard: Shard, setting: str
) -> None:
    keys = Keys()
    limits = LimitsSection(**{setting: 0.001, setting.replace("_per_s", "_burst"): 3})  # type: ignore[arg-type]
    request = post(b"[%b,%b]" % (record(), record(8)), bearer(keys, "writes"))

    async def test() -> None:
        found = []
        for is_fast in (False, True):
            async with serving(connect_shared, is_fast, Guards(keys, limits)) as served:
                found.append([(await answers(served.port, [request]))[0] for _ in range(4)])
        assert found[0] == found[1]
        statuses = [status[9:12] for status, _, _ in found[0]]
        accepted = 1 if "records" in setting else 3
        assert statuses == [b"202"] * accepted + [b"429"] * (4 - accepted)
        assert {b"ratelimit", b"ratelimit-policy"} <= found[1][0][1].keys()

    run(test)


def test_a_key_that_is_withdrawn_within_a_body(connect_shared: Connect, shard: Shard) -> None:
    keys = Keys()
    data = post(record(), bearer(keys, "writes"))

    async def withdrawn(is_fast: bool) -> tuple[bytes, dict[bytes, bytes], bytes]:
        known = keys.known
        async with serving(connect_shared, is_fast, Guards(keys)) as served:
            assert served.keyring is not None
            await served.keyring.end_withdrawn()
            reader, writer = await asyncio.open_connection(HOST, served.port)
            writer.write(data[: -len(record())])
            await asyncio.sleep(0.1)
            keys.known = {}
            await served.keyring.read_again()
            await served.keyring.end_withdrawn()
            found = await answer(reader)
            writer.close()
        keys.known = known
        return found

    async def test() -> None:
        expected = await withdrawn(is_fast=False)
        assert expected[0].startswith(b"HTTP/1.1 401")
        found = await withdrawn(is_fast=True)
        assert (found[0], found[1]) == (expected[0], expected[1])

    run(test)
    assert tail(shard, "d") == []


def test_a_key_is_released_after_its_body(connect_shared: Connect, shard: Shard) -> None:
    keys = Keys()
    data = post(record(), bearer(keys, "writes"))

    async def test() -> None:
        async with serving(connect_shared, guards=Guards(keys)) as fast:
            assert fast.keyring is not None
            reader, writer = await asyncio.open_connection(HOST, fast.port)
            for _ in range(2):
                writer.write(data[:-5])
                await asyncio.sleep(0.05)
                assert fast.keyring._holds.ids
                writer.write(data[-5:])
                assert (await answer(reader))[0].startswith(b"HTTP/1.1 202")
                assert not fast.keyring._holds.ids
            writer.write(data[:-5])
            await asyncio.sleep(0.05)
            writer.close()
            await asyncio.sleep(0.05)
            assert not fast.keyring._holds.ids
            assert not fast.behind.asked

    run(test)


def test_requests_are_logged(connect_shared: Connect, shard: Shard, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "access")

    async def test() -> None:
        async with serving(connect_shared, guards=Guards(logs_access=True)) as fast:
            await answers(fast.port, [post(record(), b"X-Request-Id: mine-1")])
            assert not fast.behind.asked

    run(test)
    [line] = [found for found in caplog.records if found.name == "access"]
    assert line.getMessage().startswith("POST /v1/records 202 in ")
