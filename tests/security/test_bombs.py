"""Attacks with few bytes that are dear to read: their cost grows with their size and no faster, and others go on."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import process_time
from typing import NamedTuple

import httpx
import msgpack
import psutil
import pytest
from backports import zstd
from starlette.requests import Request

from cli.imports.readers import sql_dump
from cli.imports.rows.row_parser import Judge, Naming
from cli.imports.rows.source import opened
from collector.framing.decoder import Decoder
from collector.framing.frame_decoder import Options
from collector.http.record_body import JSON, MSGPACK, NDJSON, Form, read_batch
from collector.http.request_headers import HttpLimits, Incoming
from collector.http_protocols import influx, osmand, owntracks, traccar
from collector.http_protocols.protocol import MAX_ASIDE, Post, Read
from collector.ingest.arriving_bytes import Arriving
from collector.listeners.extra_ports import decoder_of
from collector.protocols import PROTOCOLS, TRACKERS, MessageLimits, mqtt_payload
from collector.protocols.json_stream import JsonStream
from telemetry.codec.record_parser import Arrival
from telemetry.http.content_encoding import inflate
from telemetry.http.problem_responses import ProblemError
from telemetry.model import problems
from telemetry.model.errors import SenderError, SyntaxFault, TooLarge
from telemetry.model.mqtt_topics import Filter
from tests.box import free_ports, plain_http
from tests.collector.program import Program, program
from tests.conftest import RedisServer
from tests.senders import wait_until

HOST, PATIENCE_S = "127.0.0.1", 60
ARRIVAL = Arrival(1_795_500_000_000_000)
LIMITS = MessageLimits(2**20, 10_000)

SMALL_BYTES, LARGE_BYTES = 2_000, 16_000
MAX_GROWTH = 5
"""How often the time per byte of the larger input may be that of the smaller one: it is 8 if time is quadratic."""

MAX_S_PER_BYTE = 40e-6
"""Five times what the costliest bytes took on a busy machine. What was quadratic within a frame took 90."""

LEAST_S = 0.02
"""Less is never too much, for it can't be measured."""

# Streams ---------------------------------------------------------------------------------------------

BYTES = [bytes([byte]) for byte in range(256)]
STARTS = [
    *(b"(a", b"(a)", b"($", b"($)", b"$)", b"+RESP:", b"+RESP:$", b"*HQ,", b"*HQ,#", b"*#", b"X*HQ,", b"$\0", b"imei:"),
    *(b"imei:;", b"##,imei:1,A;", b"12345678;", b"xx\r\n", b"yy\r\n", b"xx\x05", b"yy\0\x05", b"\0\0\0\0", b"\0\x0f"),
    *(b"$GPRMC,", b"$GPRMC\n", b"$\n", b"$*00\n", b"IMEI ", b"QZE,\n", b"\0\0\0\1\xc0", b"\x81\xa0\x91", b"\x91\xc1"),
    *(b"{\n", b"[\n", b'"\n', b"[{", b'{"a":', b'{"":"\\', b"[1,", b'"\\"', b'["', b'["a",', b"[[],", b"{} ", b"1e9"),
]
PIECES_BYTES = (LARGE_BYTES, 1_024, 61)
MARKS = [bytes([byte]) for byte in (*b'\0\n "#$()*+,-:;?[\\]{}X09atxy', *range(0x80, 0x100, 9))]
"""Bytes that mean something to one of the protocols, and some that mean something to msgpack."""

DECODERS: dict[str, Callable[[], Decoder]] = {
    name: partial(decoder_of, name, LIMITS, Options()) for name in (*TRACKERS, *PROTOCOLS, "auto")
}


def cost_s(make: Callable[[], Decoder], data: bytes, piece_bytes: int) -> float:
    """CPU time that a stream takes, of connections one after another where one is ended."""
    begun_s, decoder = process_time(), make()
    for at in range(0, len(data), piece_bytes):
        messages = decoder.feed(data[at : at + piece_bytes], ARRIVAL)
        if messages and messages[-1].last:
            decoder = make()
    return process_time() - begun_s


def is_dear(make: Callable[[], Decoder], start: bytes, piece_bytes: int) -> bool:
    """Whether a stream of nothing but repetitions costs too much, three times in a row: others use this machine."""
    for _ in range(3):
        small_s, large_s = (cost_s(make, repeated(start, size), piece_bytes) for size in (SMALL_BYTES, LARGE_BYTES))
        growth = LARGE_BYTES / SMALL_BYTES * MAX_GROWTH
        if large_s < max(LEAST_S, min(growth * small_s, LARGE_BYTES * MAX_S_PER_BYTE)):
            return False
    return True


def repeated(start: bytes, size_bytes: int) -> bytes:
    return (start * (size_bytes // len(start) + 1))[:size_bytes]


@pytest.mark.parametrize("name", DECODERS)
def test_each_byte_and_each_start_costs_as_much_as_it_is_long(name: str) -> None:
    dear = [
        (start, piece_bytes)
        for start in (*(BYTES if name in TRACKERS else MARKS[::3]), *(STARTS if name in TRACKERS else STARTS[-30:]))
        for piece_bytes in (PIECES_BYTES if name in TRACKERS and start in MARKS else PIECES_BYTES[2:])
        if is_dear(DECODERS[name], start, piece_bytes)
    ]
    assert not dear


@pytest.mark.parametrize("tracker", ["tk103", "h02", "gl200", "auto"])
def test_a_mebibyte_of_starts(tracker: str) -> None:
    starts = {"tk103": b"(", "h02": b"$", "gl200": b"+RESP:", "auto": b"("}
    assert cost_s(DECODERS[tracker], repeated(starts[tracker], 2**20), 2**14) < 2**20 * MAX_S_PER_BYTE / 4


@pytest.mark.parametrize("name", TRACKERS)
def test_a_datagram_costs_as_much_as_it_is_long(name: str) -> None:
    for start in (*STARTS[:24], *(bytes([byte]) for byte in b"($+*x#,\n")):
        data = repeated(start, 2**16 - 100)
        begun_s = process_time()
        TRACKERS[name](Options()).datagram(data, ARRIVAL)
        assert process_time() - begun_s < len(data) * MAX_S_PER_BYTE, start


def test_silences_amid_a_long_value_cost_no_parse_each() -> None:
    decoder = JsonStream(2**20, 10)
    decoder.feed(b'[{"device_id":"' + b"a" * 500_000, ARRIVAL)
    assert decoder.quiet(ARRIVAL) == []
    looked = decoder._value.checked_bytes
    for _ in range(1_000):
        decoder.feed(b"a", ARRIVAL)
        assert decoder.quiet(ARRIVAL) == []
    assert decoder._value.checked_bytes == looked
    decoder.feed(b'"} oops' + b"a" * 100_000, ARRIVAL)
    assert decoder.quiet(ARRIVAL) != [] or decoder._held is not None


# Bodies ----------------------------------------------------------------------------------------------

MIB = 2**20
BODIES: dict[str, tuple[Form, bytes]] = {
    "nested arrays": (JSON, b"[" * MIB),
    "nested objects": (JSON, b'{"a":' * (MIB // 5)),
    "nested and closed": (JSON, b"[" * 400_000 + b"]" * 400_000),
    "nested within a record": (JSON, b'{"device_id":"a","x":' + b"[" * 40_000 + b"]" * 40_000 + b"}"),
    "an exponent": (JSON, b'{"device_id":"a","latitude":1e999999}'),
    "an exponent in text": (JSON, b'{"device_id":"a","latitude":"1e999999"}'),
    "digits": (JSON, b'{"device_id":"a","x":' + b"9" * 100_000 + b"}"),
    "digits in text": (JSON, b'{"device_id":"a","latitude":"' + b"9" * MIB + b'"}'),
    "digits of a fraction": (JSON, b'{"device_id":"a","x":1.' + b"1" * MIB + b"}"),
    "digits of a time": (JSON, b'{"device_id":"a","timestamp":"' + b"9" * MIB + b'"}'),
    "digits of a device": (JSON, b'{"device_id":' + b"9" * 4_000 + b"}"),
    "names that are the same": (JSON, b'{"device_id":"a"' + b',"k":1' * (MIB // 6) + b"}"),
    "names that differ": (JSON, json.dumps({"device_id": "a", **{f"k{n}": 1 for n in range(90_000)}}).encode()),
    "small objects": (JSON, b"[" + b"{}," * (MIB // 3) + b"{}]"),
    "empty lines": (NDJSON, b"\n" * MIB),
    "short lines": (NDJSON, b"{\n" * (MIB // 2)),
    "backslashes": (JSON, b'{"device_id":"' + b"\\" * MIB),
    "msgpack, nested": (MSGPACK, b"\x91" * MIB),
    "msgpack, nested maps": (MSGPACK, b"\x81\xa1a" * (MIB // 3)),
    "msgpack, an announced array": (MSGPACK, b"\xdd\xff\xff\xff\xff"),
    "msgpack, an announced map": (MSGPACK, b"\xdf\xff\xff\xff\xff" * 10),
    "msgpack, numbers as names": (MSGPACK, msgpack.packb({number << 44: 1 for number in range(90_000)})),
    "msgpack, empty maps": (MSGPACK, b"\x80" * MIB),
}


@pytest.mark.parametrize("bomb", BODIES)
def test_a_body_costs_little_memory_and_time(bomb: str) -> None:
    form, body = BODIES[bomb]
    tracemalloc.start()
    begun_s = process_time()
    try:
        batch = read_batch(form, body, 10_000, ARRIVAL, 100)
        assert len(batch.records) + len(batch.refused) <= 10_000
    except (SyntaxFault, TooLarge):
        pass
    finally:
        took_s, (_, most_bytes) = process_time() - begun_s, tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most_bytes < 64 * MIB
    assert took_s < 20


GIB = 2**30


def squeezed(name: str) -> bytes:
    """A tenth of a gibibyte of zeros, and for gzip more of them in a second layer of members."""
    if name == "zstd":
        return zstd.compress(bytes(GIB // 10), 1)
    if name == "deflate":
        return zlib.compress(bytes(GIB // 10), 1)
    return gzip.compress(bytes(MIB), 9) * 100


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
def test_a_body_inflates_to_no_more_than_it_may(name: str) -> None:
    bomb = squeezed(name)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            inflate(bomb, name, 10 * MIB)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 40 * MIB


# As they were run ------------------------------------------------------------------------------------


class Running(NamedTuple):
    """A collector and the port on which any tracker may speak, and that of TK103."""

    program: Program
    ports: dict[str, int]

    def cpu_s(self) -> float:
        """CPU time that its process has used."""
        assert self.program.process is not None
        times = psutil.Process(self.program.process.pid).cpu_times()
        return times.user + times.system

    def http(self) -> httpx.Client:
        return plain_http(f"http://{HOST}:{self.program.http_port}")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, shared_redis: RedisServer) -> Iterator[Running]:
    with shared_redis.client() as client:
        client.flushall()
        client.config_set("maxmemory", 0)
    ports = dict(zip(("auto", "tk103"), free_ports(2), strict=True))
    listen = json.dumps([{"protocol": protocol, "port": port} for protocol, port in ports.items()])
    folder = tmp_path_factory.mktemp("bombs")
    more = {"collector__listen": listen, "collector__max_pending_bytes": str(3 * MIB)}
    with program(shared_redis, folder, **more) as found:
        with plain_http(f"http://{HOST}:{found.http_port}") as http:
            wait_until(lambda: is_ready(http), PATIENCE_S)
        yield Running(found, ports)


def is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("protocol", ["auto", "tk103"])
def test_a_mebibyte_of_parentheses_costs_a_collector_little(running: Running, protocol: str) -> None:
    before_s = running.cpu_s()
    with socket.create_connection((HOST, running.ports[protocol]), PATIENCE_S) as device:
        device.sendall(b"(" * MIB)
        device.sendall(b"(012345678901BP00000012345678901HSO)")
        assert device.recv(100) == b"(012345678901AP01HSO)"
    assert running.cpu_s() - before_s < 5


# Uploads that stall ----------------------------------------------------------------------------------

STALLED_BYTES, WHOLE_BYTES = 400_000, 900_000
SMALL_STALLED_BYTES = 60_000
OTHER = "127.0.0.2"


def connected(port: int, address: str = HOST) -> socket.socket:
    return socket.create_connection((HOST, port), PATIENCE_S, source_address=(address, 0))


def head(length: int) -> bytes:
    return b"POST /v1/records HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % length


def record_of(size_bytes: int) -> bytes:
    start, end = b'{"device_id":"a","x":"', b'"}'
    return start + b"x" * (size_bytes - len(start) - len(end)) + end


def statuses(devices: list[socket.socket]) -> list[bytes]:
    """What those heard that were answered."""
    found = []
    for device in devices:
        device.setblocking(False)
        try:
            found.append(device.recv(12)[-3:])
        except BlockingIOError:
            continue
        except ConnectionResetError:
            found.append(b"503")
    return found


def test_stalled_uploads_of_one_sender_make_room_for_a_large_body_of_another(running: Running) -> None:
    port = running.program.http_port
    with contextlib.ExitStack() as stack:
        stalled = [stack.enter_context(connected(port)) for _ in range(8)]
        for device in stalled:
            device.sendall(head(WHOLE_BYTES) + record_of(WHOLE_BYTES)[:STALLED_BYTES])
        for _ in range(3):
            with connected(port, OTHER) as device:
                device.sendall(head(WHOLE_BYTES) + record_of(WHOLE_BYTES))
                assert device.recv(12) == b"HTTP/1.1 202"
        assert set(statuses(stalled)) == {b"503"}


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_whole_bodies_that_wait_for_a_thread_are_bounded(encoding: str) -> None:
    limits = HttpLimits(8 * MIB, 10_000, 600, Arriving(10 * MIB))
    body = bytes(4 * MIB)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": gzip.compress(body, 1) if encoding else body}

    async def test() -> None:
        scope = {"type": "http", "method": "POST", "headers": [], "client": (HOST, 1)}
        incoming = [Incoming(Request(scope, receive), limits) for _ in range(5)]
        with contextlib.ExitStack() as stack:
            for one in incoming:
                stack.enter_context(one)
            found = await asyncio.gather(*(one.read(encoding) for one in incoming), return_exceptions=True)
            assert [one for one in found if isinstance(one, bytes)] == [body, body]
            assert [one.kind for one in found if isinstance(one, ProblemError)] == [problems.BUSY] * 3
        assert limits.arriving.bytes == 0

    asyncio.run(test())


def test_unfinished_posts_on_the_quick_way_are_bounded(running: Running) -> None:
    port = running.program.http_port
    most = 3 * MIB // SMALL_STALLED_BYTES
    with contextlib.ExitStack() as stack:
        stalled = [stack.enter_context(connected(port)) for _ in range(2 * most)]
        for device in stalled:
            device.sendall(head(SMALL_STALLED_BYTES + 10) + record_of(SMALL_STALLED_BYTES)[:-1])
        found: list[bytes] = []

        def are_refused() -> bool:
            found.extend(statuses(stalled))
            return len(found) >= most - 1

        wait_until(are_refused, PATIENCE_S)
        assert set(found) == {b"503"}, "not 408, once they are late"
        with running.http() as http:
            assert http.post("/v1/records", json={"device_id": "a"}).status_code == 202


def test_unfinished_messages_of_one_address_make_room_for_those_of_another(running: Running) -> None:
    port = running.program.port
    with contextlib.ExitStack() as stack:
        stalled = [stack.enter_context(connected(port)) for _ in range(8)]
        for device in stalled:
            device.sendall(record_of(WHOLE_BYTES)[:STALLED_BYTES])
        time.sleep(0.2)
        for _ in range(3):
            with connected(port, OTHER) as device:
                device.sendall(record_of(WHOLE_BYTES) + b"\n")
                assert json.loads(device.makefile("rb").readline())["accepted"] == 1


# Bodies of other protocols ---------------------------------------------------------------------------

ITEMS = 150_000
POSTS: dict[str, tuple[Read, bytes]] = {
    "owntracks": (owntracks.read, b"[" + b'{"_type":"location"},' * ITEMS + b"{}]"),
    "traccar": (
        traccar.read,
        b"[" + b",".join([b'{"position":{"a":1},"device":{"uniqueId":1}}'] * (ITEMS // 4)) + b"]",
    ),
    "osmand": (osmand.read, b'{"device_id":"a","location":[' + b"{}," * ITEMS + b"{}]}"),
    "influx, refused": (influx.read, b"a\n" * 1_000_000),
    "influx, good": (influx.read, b"m,host=a v=1\n" * ITEMS),
}


@pytest.mark.parametrize("name", POSTS)
def test_a_post_of_short_items_costs_little_memory(name: str) -> None:
    read, body = POSTS[name]
    tracemalloc.start()
    try:
        with contextlib.suppress(TooLarge):
            told = read(Post([], {"content-type": "application/json"}, body, "user", 10_000), Options(), ARRIVAL)
            assert len(told.aside) <= MAX_ASIDE
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 100 * MIB


def test_a_message_of_mqtt_sets_aside_no_more_than_a_post() -> None:
    payload = b"[" + b"{}," * ITEMS + b"{}]"
    heard = mqtt_payload.read("a", payload, [Filter.of("#")], Options(), ARRIVAL)
    assert len(heard.aside) <= MAX_ASIDE
    assert heard.refused == len(heard.aside) == 1
    heard = mqtt_payload.read("a", b"[" + b"{}," * 5_000 + b"{}]", [Filter.of("#")], Options(), ARRIVAL)
    assert (len(heard.aside), heard.refused) == (MAX_ASIDE, 5_001)


# Imports ---------------------------------------------------------------------------------------------


def test_a_quote_without_an_end_ends_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_dump, "MAX_TEXT_BYTES", 3 * MIB)
    file = tmp_path / "dump.sql"
    file.write_bytes(b"INSERT INTO `other` VALUES ('" + b"a" * (8 * MIB))
    judge = Judge(Naming(), ARRIVAL, "mysqldump")
    with opened(file) as source, pytest.raises(SenderError, match="no end of the text that begins"):
        list(sql_dump.read(source, judge))
