"""A batch sent again after a lost response is acknowledged and stored once, also after faults in between."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgpack
import pytest

from telemetry.hot_store.client import connect
from telemetry.hot_store.keys import Keys, shard_of
from telemetry.hot_store.shard import Shard, attach
from tests.collector.conftest import HOST, numbers, tail
from tests.collector.program import Program, connected, program
from tests.conftest import RedisServer

pytestmark = pytest.mark.slow

DEVICES = [f"device {number}" for number in range(12)]
RECORDS = [{"device_id": device, "altitude": number} for number, device in enumerate(DEVICES)]
ONCE = {device: [number] for number, device in enumerate(DEVICES)}
WAIT_S = 60
AT_ONCE = 8


def post_under_a_key(found: Program, number: int) -> socket.socket:
    """Send all records as one request; the answer is not read yet."""
    body = json.dumps(RECORDS).encode()
    head = f"POST /v1/records HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    fields = f"Idempotency-Key: batch {number}\r\nContent-Length: {len(body)}\r\n\r\n"
    sender = connected(found.http_port, WAIT_S)
    sender.sendall((head + fields).encode() + body)
    return sender


def was_posted(sender: socket.socket) -> bool:
    """Whether the answer is 202; the other that may be is 503."""
    with sender, sender.makefile("rb") as answer:
        status = answer.readline().split()[1]
    assert status in (b"202", b"503")
    return status == b"202"


def send_frame(found: Program, number: int) -> socket.socket:
    """Send all records as one frame; the answer is not read yet."""
    data = msgpack.packb([1, "gateway", number, RECORDS])
    sender = connected(found.port, WAIT_S)
    sender.sendall(len(data).to_bytes(4, "big") + data)
    return sender


def was_taken(sender: socket.socket) -> bool:
    """Whether the batch is stored, now or before; the other that may be is that it can't be now."""
    with sender, sender.makefile("rb") as answer:
        status = msgpack.unpackb(answer.read(int.from_bytes(answer.read(4), "big")))[1]
    assert status in (0, 1, 3)
    return bool(status != 3)


Way = tuple[Callable[[Program, int], socket.socket], Callable[[socket.socket], bool]]
WAYS: dict[str, Way] = {"HTTP": (post_under_a_key, was_posted), "frames": (send_frame, was_taken)}


@pytest.fixture(params=list(WAYS.values()), ids=list(WAYS))
def way(request: pytest.FixtureRequest) -> Way:
    """How a batch is sent, and its answer read."""
    found: Way = request.param
    return found


@contextlib.contextmanager
def shards_of(found: Program) -> Iterator[list[Shard]]:
    with connect(found.settings) as client:
        yield attach(client, found.settings.redis.shards)


def stored(found: Program) -> dict[str, list[int]]:
    """The unsaved records of each device."""
    with shards_of(found) as shards:
        tails = {device: numbers(tail(shards[shard_of(device, len(shards))], device)) for device in DEVICES}
    return {device: kept for device, kept in tails.items() if kept}


def until_taken(way: Way, found: Program, number: int) -> None:
    send, was_stored = way
    stop_s = time.monotonic() + WAIT_S
    while not was_stored(send(found, number)):
        assert time.monotonic() < stop_s
        time.sleep(0.05)


def restart_collector(found: Program, _server: RedisServer) -> None:
    found.kill()
    found.start()


def restart_redis(_found: Program, server: RedisServer) -> None:
    server.kill()
    server.start()


def restart_both(found: Program, server: RedisServer) -> None:
    found.kill()
    restart_redis(found, server)
    found.start()


@pytest.mark.parametrize("happens", [restart_collector, restart_redis, restart_both])
def test_after_a_lost_answer_and_a_restart(
    happens: Callable[[Program, RedisServer], None], way: Way, own_redis: RedisServer, tmp_path: Path
) -> None:
    send, _ = way
    with program(own_redis, tmp_path) as found:
        with send(found, 1):
            while stored(found) != ONCE:
                time.sleep(0.01)
        happens(found, own_redis)
        until_taken(way, found, 1)
        assert stored(found) == ONCE
        until_taken(way, found, 2)
        assert stored(found) == {device: 2 * kept for device, kept in ONCE.items()}, "another batch is another"


def test_two_that_come_at_the_same_time(way: Way, own_redis: RedisServer, tmp_path: Path) -> None:
    """Over connections of several processes, which meet only in Redis."""
    with (
        program(own_redis, tmp_path, collector__processes="2") as found,
        ThreadPoolExecutor(AT_ONCE) as senders,
        own_redis.client() as client,
    ):
        until_taken(way, found, 1)
        client.client_pause(500, all=False)
        list(senders.map(lambda _: until_taken(way, found, 2), range(AT_ONCE)))
        assert stored(found) == {device: 2 * kept for device, kept in ONCE.items()}


@pytest.mark.parametrize("broken", [0, 1])
def test_the_first_try_reached_only_some_shards(broken: int, way: Way, own_redis: RedisServer, tmp_path: Path) -> None:
    send, was_stored = way
    home = shard_of("batch 2", 3) if send is post_under_a_key else None
    with program(own_redis, tmp_path, redis__shards="3") as found, connect(found.settings) as client:
        until_taken(way, found, 1)
        client.rename(Keys(broken).store, "aside")
        assert not was_stored(send(found, 2))
        client.rename("aside", Keys(broken).store)
        some = sum(map(len, stored(found).values())) - len(DEVICES)
        assert some < len(DEVICES)
        assert some > 0 or broken == home, "the shard that remembers a key is asked before the others"
        found.kill()
        found.start()
        until_taken(way, found, 2)
        assert stored(found) == {device: 2 * kept for device, kept in ONCE.items()}
