"""Shared fixtures: an intake and a TCP collector on real sockets, in the caller's event loop."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, NamedTuple

import pytest
import redis
import uvloop

from collector.framing.decoder import Decoder
from collector.ingest.day_limit import DeviceDays
from collector.ingest.device_filter import DeviceFilter
from collector.ingest.group_commit import Intake
from collector.ingest.watermarks import Watermarks
from collector.listeners.connection.time_limits import Timeouts
from collector.listeners.tcp import TcpCollector
from collector.listeners.tracker_logins import Logins
from collector.program import watch_connections
from collector.protocols import PROTOCOLS, MessageLimits
from telemetry.access.key_cache import Keyring
from telemetry.codec.record_parser import Arrival
from telemetry.config.settings import Settings
from telemetry.hot_store.client import connect
from telemetry.hot_store.entry_codec import read_entry
from telemetry.hot_store.operations.append import Limits
from telemetry.hot_store.shard import Shard
from telemetry.http.server import listen
from telemetry.limits.concurrency import tcp_share
from telemetry.limits.connections import Connections
from telemetry.model.record import Record, Sent, Stored

NOW_US = 1_795_500_000_000_000
HOST = "127.0.0.1"
PENDING_BYTES = 2**20

RECEIVED = b'{"message": "Data received", "accepted": 1}\n'
NOT_PROCESSED = "There was an error processing the data."

Connect = Callable[[], redis.Redis]


def sent(device: str = "d", number: int = 0) -> Sent:
    return Sent(device, Record(NOW_US + number, "tcp", "json", altitude_m=float(number)))


def line(device: str, number: int = 0) -> bytes:
    return json.dumps({"device_id": device, "altitude": number}).encode() + b"\n"


def numbers(stored: list[Stored]) -> list[int]:
    """The altitudes, which identify the records of these tests, in the order of storage."""
    return [int(one.record.altitude_m or 0) for one in stored]


def tail(shard: Shard, device: str) -> list[Stored]:
    """All that a shard holds of a device."""
    [entries] = shard.entries([(device, "-", "+")])
    return [stored for raw in entries for stored in read_entry(device, raw, shard.shards)]


def calls(client: redis.Redis) -> int:
    """How many functions Redis was asked to run."""
    return int(client.info("commandstats").get("cmdstat_fcall", {"calls": 0})["calls"])


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test in the event loop that the program uses."""
    uvloop.run(test())


@contextlib.asynccontextmanager
async def taking(
    connect_to: Connect,
    shards: int = 1,
    limits: Limits | None = None,
    max_pending_bytes: int = PENDING_BYTES,
    marks: Watermarks | None = None,
    device_days: DeviceDays | None = None,
) -> AsyncIterator[Intake]:
    """A running intake."""
    intake = Intake(connect_to, shards, limits or Limits(), max_pending_bytes, marks, device_days=device_days)
    intake.start()
    try:
        yield intake
    finally:
        await intake.stop()


class Collecting(NamedTuple):
    """A running TCP collector."""

    port: int
    intake: Intake
    tcp: TcpCollector


@contextlib.asynccontextmanager
async def collecting(
    connect_to: Connect,
    timeouts: Timeouts | None = None,
    max_connections: int = 2_000,
    max_per_address: int = 0,
    max_pending_bytes: int = PENDING_BYTES,
    max_message_bytes: int = 2**20,
    max_held_bytes: int = 2**26,
    keyring: Keyring | None = None,
    make_decoder: Callable[[], Decoder] | None = None,
    logins: Logins | None = None,
    devices: DeviceFilter | None = None,
) -> AsyncIterator[Collecting]:
    """A running TCP collector on a free port."""
    async with taking(connect_to, max_pending_bytes=max_pending_bytes) as intake:
        connections = Connections(tcp_share(max_connections, max_per_address), time.monotonic)
        limits = MessageLimits(max_message_bytes, 1_000)
        watch_connections(connections.share)
        tcp = TcpCollector(
            intake,
            lambda _address: make_decoder() if make_decoder else PROTOCOLS["any"](limits),
            lambda: Arrival(NOW_US),
            timeouts or Timeouts(),
            connections,
            max_held_bytes,
            keyring=keyring,
            logins=logins,
            devices=devices,
        )
        listening = listen(HOST, 0)
        await tcp.start(listening)
        try:
            yield Collecting(listening.getsockname()[1], intake, tcp)
        finally:
            await tcp.stop(1)


@pytest.fixture
def connect_shared(shard: Shard, settings: Settings) -> Connect:
    """Function that connects to the shared Redis with a new store."""
    return lambda: connect(settings)
