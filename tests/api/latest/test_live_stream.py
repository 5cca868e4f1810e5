"""`/v1/live`: current states, then changes; filtered, resumed, with slow readers and with too many."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import pytest

from api.latest import live_stream
from api.latest.change_log import State
from api.latest.live_stream import Filter, LiveRoutes, Subscription
from api.latest.reader_limits import Readers
from api.latest.routes import LatestRoutes
from api.latest.state_tracker import StateTracker
from api.requests.key_devices import Devices
from telemetry.coordination import shared_state
from telemetry.hot_store.async_query import asker
from telemetry.hot_store.client import connect_async
from telemetry.hot_store.entry_codec import pack
from telemetry.hot_store.keys import Keys, shard_of
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.limits.connections import NOBODY_TRUSTED
from telemetry.model.record import Sent
from tests.api.conftest import Box, assert_problem, box_on, record
from tests.api.records.test_range_query import MIDNIGHT_US
from tests.conftest import RedisServer

WAIT_S = 20.0
READERS = 6
Row = dict[str, Any]


@pytest.fixture(
    scope="module",
    params=[pytest.param("1", id="one shard", marks=pytest.mark.thorough), pytest.param("3", id="three shards")],
)
def box(
    request: pytest.FixtureRequest, shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    more = {"redis__shards": request.param, "api__max_live_readers": str(READERS)}
    with box_on(shared_redis.url, tmp_path_factory.mktemp("live"), **more) as found:
        found.append(*(at(device, 0, 10.0) for device in "abc"))
        yield found


def at(device: str, second: float, latitude: float) -> Sent:
    return Sent(device, record(MIDNIGHT_US + round(second * 1e6), latitude=latitude, longitude=20.0))


class Reader:
    """Reads events in a thread."""

    def __init__(self, box: Box, last_id: str = "", **query: str | list[str]) -> None:
        self._events: queue.Queue[tuple[str, list[Row]]] = queue.Queue()
        self._query, self._headers = query, {"Last-Event-ID": last_id} if last_id else {}
        self._client = httpx.Client(base_url=box.http.base_url, timeout=WAIT_S)
        self._thread = threading.Thread(target=self._read)
        self.last_id = ""

    def _read(self) -> None:
        fields: dict[str, str] = {}
        with (
            contextlib.suppress(httpx.TransportError, RuntimeError),
            self._client.stream("GET", "/v1/live", params=self._query, headers=self._headers) as answer,
        ):
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            self._answer = answer
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name:
                    fields[name] = value
                elif "data" in fields:
                    assert fields["event"] == "latest"
                    self._events.put((fields.get("id", ""), json.loads(fields["data"])["records"]))
                    fields = {}

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        with contextlib.suppress(AttributeError):
            self._answer.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self._thread.join(WAIT_S)
        self._client.close()

    def next(self, within_s: float = WAIT_S) -> list[Row]:
        """The records of the next event."""
        event_id, records = self._events.get(timeout=within_s)
        self.last_id = event_id or self.last_id
        return records

    def until(self, is_so: Callable[[list[Row]], bool]) -> list[Row]:
        """All records up to the event that meets the condition."""
        found: list[Row] = []
        while not is_so(found):
            found += self.next()
        return found

    @property
    def is_silent(self) -> bool:
        """True if no event arrives for a while."""
        time.sleep(1)
        return self._events.empty()


def latest(box: Box, device: str) -> Row:
    found: Row = box.get(f"/v1/devices/{device}/latest").json()
    return found


def devices(records: list[Row]) -> set[str]:
    return {one["device_id"] for one in records}


def test_current_states_come_first_then_changes(box: Box) -> None:
    with Reader(box) as reader:
        found = reader.until(lambda records: devices(records) >= set("abc"))
        assert sorted(found, key=lambda one: one["device_id"])[:3] == [latest(box, device) for device in "abc"]
        box.append(at("b", 10, 11.0))
        assert reader.next() == [latest(box, "b")]
        box.append(at("new", 10, 11.0), at("c", 10, 12.0))
        found = reader.until(lambda records: devices(records) == {"new", "c"})
        assert {one["device_id"]: one for one in found} == {name: latest(box, name) for name in ("new", "c")}


def test_a_late_record_changes_only_last_seen(box: Box) -> None:
    with Reader(box, device_id="a") as reader:
        [before] = reader.next()
        box.append(at("a", -3_600, 1.0))
        [after] = reader.next()
        assert after["last_seen"] > before["last_seen"]
        assert {**after, "last_seen": None} == {**before, "last_seen": None}


def test_intermediate_states_are_omitted(box: Box) -> None:
    with Reader(box, device_id="a", interval_ms="2000") as reader:
        reader.next()
        for second in range(100, 150):
            box.append(at("a", second, 10.0))
            time.sleep(0.02)
        found = reader.until(lambda records: bool(records) and records[-1] == latest(box, "a"))
        assert len(found) <= 3


def test_a_stream_resumes_after_the_last_event(box: Box) -> None:
    with Reader(box) as other:
        with Reader(box) as reader:
            reader.until(lambda records: devices(records) >= set("abc"))
            assert reader.last_id
        box.append(at("c", 200, 10.0))
        assert other.until(lambda records: latest(box, "c") in records)
        with Reader(box, last_id=reader.last_id) as again:
            assert again.next() == [latest(box, "c")]
            assert again.is_silent


@pytest.mark.parametrize("last_id", ["0000000000000000-1", "nonsense"])
def test_an_event_id_of_another_epoch_starts_over(box: Box, last_id: str) -> None:
    with Reader(box, last_id=last_id) as reader:
        assert reader.until(lambda records: devices(records) >= set("abc"))


def test_without_current_states(box: Box) -> None:
    with Reader(box, snapshot="false") as reader:
        assert reader.is_silent
        box.append(at("a", 300, 10.0))
        assert devices(reader.next()) == {"a"}


def test_a_deleted_device_is_not_shown(box: Box) -> None:
    box.append(at("gone", 350, 10.0))
    with Reader(box) as reader:
        reader.until(lambda records: "gone" in devices(records))
        assert box.http.delete("/v1/devices/gone").status_code == 202
        box.append(at("a", 351, 10.0))
        reader.until(lambda records: latest(box, "a") in records)
        with Reader(box) as other:
            found = other.until(lambda records: devices(records) >= set("abc"))
            assert "gone" not in devices(found)


def test_named_devices_and_an_area(box: Box) -> None:
    with Reader(box, device_id=["a", "nobody"]) as named, Reader(box, bbox="19,39,21,41", snapshot="false") as inside:
        assert devices(named.next()) == {"a"}
        assert inside.is_silent
        box.append(at("b", 400, 40.0))
        assert devices(inside.next()) == {"b"}
        box.append(at("b", 401, 10.0))
        [left] = inside.next()
        assert left["position"]["latitude"] == 10.0
        box.append(at("b", 402, 11.0))
        assert inside.is_silent
        assert named.is_silent


def test_a_connection_to_redis_that_breaks_loses_nothing(box: Box) -> None:
    with Reader(box, device_id="a") as reader:
        reader.next()
        box.client.client_kill_filter(_type="pubsub")
        box.append(at("a", 500, 10.0))
        assert reader.next() == [latest(box, "a")]
        box.append(at("a", 501, 10.0))
        assert reader.next() == [latest(box, "a")]


@pytest.mark.parametrize("value", [b"\xc1", b"\xc1" * 20_000], ids=["small", "large"])
def test_an_undecodable_latest_is_skipped(box: Box, value: bytes) -> None:
    latest_key = Keys(shard_of("broken", len(box.shards))).latest
    with Reader(box) as reader:
        reader.until(lambda records: devices(records) >= set("abc"))
        box.client.hset(latest_key, "broken", value)
        box.client.publish(shared_state.CHANGED, "broken")
        time.sleep(0.5)  # so that it is read before the next change
        box.append(at("a", 550, 10.0))
        reader.until(lambda records: latest(box, "a") in records)
    box.client.zadd(Keys(shard_of("broken", len(box.shards))).devices, {"broken": 0})
    with Reader(box) as alone:  # all devices are read again
        found = alone.until(lambda records: devices(records) >= set("abc"))
        assert "broken" not in devices(found)
    box.client.hdel(latest_key, "broken")
    box.client.zrem(Keys(shard_of("broken", len(box.shards))).devices, "broken")


def test_a_large_state_is_shown_whole(box: Box) -> None:
    """It is read from Redis for each event, and not kept in memory."""
    with Reader(box) as reader:
        reader.until(lambda records: devices(records) >= set("abc"))
        sent: Row = {"device_id": "large", "latitude": 1, "longitude": 2, "text": "ü" * 100_000}
        assert box.http.post("/v1/records", json=sent).status_code == 202
        box.append(at("a", 600, 10.0))
        found = reader.until(lambda records: devices(records) >= {"large", "a"})
        assert latest(box, "large") in found
        assert latest(box, "a") in found
    assert box.http.delete("/v1/devices/large").status_code == 202


def store(box: Box, sent: list[Sent]) -> None:
    """Store records without reading the stream."""
    for number, shard in enumerate(box.shards):
        part = [one for one in sent if shard_of(one.device_id, len(box.shards)) == number]
        append_batches(shard, [Batch(pack(part))], Limits())


def test_a_slow_reader_misses_intermediate_states(box: Box) -> None:
    """It does not read while 400 devices change repeatedly; when it reads, it soon has the newest state of each."""
    names = [f"slow-{number}" for number in range(400)]
    target = box.http.base_url
    with socket.create_connection((target.host, target.port or 80), timeout=WAIT_S) as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        reader.sendall(b"GET /v1/live?interval_ms=100&snapshot=false HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert reader.recv(1).startswith(b"H")
        for second in range(60):
            store(box, [at(name, second, 10.0) for name in names])
            time.sleep(0.12)
        newest = {name: latest(box, name)["id"] for name in names}
        text, seen = b"", 0
        while not all(f'"id":{number},'.encode() in text for number in newest.values()):
            piece = reader.recv(65_536)
            assert piece
            text += piece
            seen += len(piece)
        assert seen < 40 * 400 * 400  # a state has more than 400 bytes


def test_too_many_readers_are_rejected(box: Box) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(READERS):
            stack.enter_context(Reader(box)).next()
        answer = box.get("/v1/live")
        assert_problem(answer, 503, "busy")
        assert answer.headers["retry-after"]
    with Reader(box) as reader:
        assert reader.next()


def test_a_burst_of_readers_is_admitted_up_to_the_limit(box: Box) -> None:
    """Their requests are parsed in one turn of the event loop, before any of their streams has begun."""
    target, statuses = box.http.base_url, list[bytes]()
    with contextlib.ExitStack() as stack:
        readers = [
            stack.enter_context(socket.create_connection((target.host, target.port or 80), timeout=WAIT_S))
            for _ in range(4 * READERS)
        ]
        os.kill(box.pid("api"), signal.SIGSTOP)
        try:
            for reader in readers:
                reader.sendall(b"GET /v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        finally:
            os.kill(box.pid("api"), signal.SIGCONT)
        statuses += [reader.recv(12).rpartition(b" ")[2] for reader in readers]
    found = Counter(statuses)
    assert found[b"200"] + found[b"503"] == 4 * READERS
    assert READERS - 1 <= found[b"200"] <= READERS, "the box may not have noticed yet that an earlier reader has left"


@pytest.mark.parametrize(
    "query", [("interval_ms", "50"), ("interval_ms", "x"), ("snapshot", "no"), ("bbox", "1"), ("start", "2026-01-01")]
)
def test_invalid_parameters_are_rejected(box: Box, query: tuple[str, str]) -> None:
    assert_problem(box.get("/v1/live", query), 400, "invalid-parameter")


def test_streams_end_at_shutdown(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    with box_on(shared_redis.url, tmp_path_factory.mktemp("end")) as found:
        found.append(at("a", 0, 10.0))
        stack = contextlib.ExitStack()
        reader = stack.enter_context(Reader(found))
        reader.next()
        begun_s = time.monotonic()
    assert time.monotonic() - begun_s < 8
    stack.close()


# Parts ------------------------------------------------------------------------------------------------


def test_heartbeats_are_sent(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_stream, "HEARTBEAT_S", 0.05)

    async def test() -> bytes:
        client = connect_async(box.settings)
        latest = LatestRoutes(client, asker(box.settings), box.settings.redis.shards, 10)
        routes = LiveRoutes(StateTracker(latest, client), latest, Readers(NOBODY_TRUSTED, 1))
        text = b""

        async def send(pieces: Sequence[bytes]) -> None:
            nonlocal text
            text += b"".join(pieces)
            if text.endswith(b": nothing has changed\n") and b"data" in text:
                routes.end()

        async with asyncio.timeout(WAIT_S):
            await routes._serve(Subscription(Devices([]), None, 0.01), "", True, send)
        await client.aclose()
        return text

    text = asyncio.run(test())
    assert text.startswith(b"retry: 1000\n")
    ended = text.split(b"\n\n")[:-1]
    assert ended
    assert all(b"\ndata: " in event for event in ended), "an empty line ends an event with data, and nothing else"


def test_a_filter_by_prefix() -> None:
    selected = Filter(Subscription(Devices(["x"], "van-"), None, 1.0))
    state = State(1, None, b"")
    assert [selected.matches(name, state) for name in ("x", "van-1", "van", "bus")] == [True, True, False, False]
