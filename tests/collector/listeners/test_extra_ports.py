"""Additional ports from the settings: each protocol over its transport, in one process and in several."""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from collector.framing.frame_decoder import Options
from collector.http_protocols import BY_NAME
from collector.listeners.extra_ports import decoder_of
from collector.protocols import PROTOCOLS, TRACKERS, MessageLimits
from telemetry.archive.table import Archive
from telemetry.config.settings import ListenProtocol, Settings
from telemetry.hot_store.client import connect
from telemetry.hot_store.shard import Shard
from telemetry.startup.store_setup import set_up
from tests.box import free_ports
from tests.collector.conftest import HOST, tail
from tests.collector.posting import WAIT_S, Box, Program, running
from tests.collector.protocols.three_ways import feed
from tests.collector.protocols.trackers import attributes, records
from tests.collector.trackers.gt06 import test_decoder
from tests.collector.trackers.teltonika import test_decoder as test_teltonika
from tests.conftest import RedisServer, settings_of


def names(literal: object) -> set[str]:
    """All values of a Literal, those inside another among them."""
    found: set[str] = set()
    for one in getattr(literal, "__args__", ()):
        found |= {one} if isinstance(one, str) else names(one)
    return found


def test_the_settings_know_every_protocol() -> None:
    assert names(ListenProtocol) == {"auto", *PROTOCOLS, *TRACKERS, *BY_NAME}


def entries(ports: list[int], **more: object) -> str:
    auto, teltonika, osmand, nmea = ports
    return json.dumps(
        [
            {"protocol": "auto", "port": auto, **more},
            {"protocol": "teltonika", "port": teltonika, "transport": "udp"},
            {"protocol": "osmand", "port": osmand, "transport": "http", "speed_unit": "ms"},
            {"protocol": "nmea", "port": nmea, "answers_all": True},
        ]
    )


@pytest.fixture(scope="module", params=[1, 2])
def listening(request: pytest.FixtureRequest) -> Iterator[tuple[Box, list[int]]]:
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder, contextlib.ExitStack() as stack:
        server = RedisServer(Path(folder))
        server.start()
        stack.callback(server.kill)
        settings = settings_of(server.url, Path(folder))
        client = stack.enter_context(connect(settings))
        [shard] = set_up(client, Archive(settings.archive_dir), 1)
        ports = free_ports(4)
        more = {"collector__listen": entries(ports), "collector__processes": str(request.param)}
        yield Box(stack.enter_context(running(settings, **more)), server, client, shard), ports


def exchange(port: int, data: bytes, size: int) -> bytes:
    with socket.create_connection((HOST, port), timeout=WAIT_S) as device:
        device.sendall(data)
        found = b""
        while len(found) < size and (piece := device.recv(1_000)):
            found += piece
        return found


def test_auto_over_tcp(listening: tuple[Box, list[int]]) -> None:
    box, (port, *_) = listening
    before = {device: len(tail(box.shard, device)) for device in (test_decoder.IMEI, "j")}
    answers = exchange(port, test_decoder.LOGIN + test_decoder.LOCATION, 20)
    assert answers[3:4] + answers[13:14] == b"\x01\x12"
    assert exchange(port, b'{"device_id": "j", "lat": 1, "lon": 2}\n', 10).startswith(b'{"message"')
    for device, count in before.items():
        assert len(tail(box.shard, device)) == count + 1


def test_a_tracker_keeps_one_connection_in_each_process(listening: tuple[Box, list[int]]) -> None:
    """Its older ones are closed a little after the login over a newer one."""
    _, (port, *_) = listening
    with contextlib.ExitStack() as stack:
        trackers = [stack.enter_context(socket.create_connection((HOST, port), WAIT_S)) for _ in range(8)]
        for tracker in trackers:
            tracker.sendall(test_decoder.LOGIN)
            assert len(tracker.recv(100)) == 10
        time.sleep(4)
        still_open = [tracker for tracker in trackers if is_open(tracker)]
    assert 1 <= len(still_open) <= 2


def is_open(tracker: socket.socket) -> bool:
    tracker.setblocking(False)
    try:
        return tracker.recv(1) != b""
    except BlockingIOError:
        return True


def test_teltonika_over_udp(listening: tuple[Box, list[int]]) -> None:
    box, (_, port, *_) = listening
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.settimeout(WAIT_S)
        device.sendto(test_teltonika.datagram("999999999999999"), (HOST, port))
        assert device.recv(100) == bytes.fromhex("00050000010501")
    assert tail(box.shard, "999999999999999")[-1].record.transport == "udp"


@pytest.mark.parametrize("path", ["/", "/any/path"])
def test_osmand_over_http_at_any_path_in_its_own_unit(listening: tuple[Box, list[int]], path: str) -> None:
    box, (_, _, port, _) = listening
    answer = httpx.get(f"http://{HOST}:{port}{path}", params={"id": f"p{path}", "lat": 1, "lon": 2, "speed": 10})
    assert answer.status_code == 200
    assert tail(box.shard, f"p{path}")[-1].record.speed_kmh == 36


def test_a_receiver_that_tells_no_name_is_its_address(listening: tuple[Box, list[int]]) -> None:
    box, (*_, port) = listening
    assert exchange(port, b"$GPRMC,120000,A,4100.4920,N,02858.7040,E,019.44,270,010326,,*35\r\n", 5) == b"OK1\r\n"
    assert tail(box.shard, HOST)[-1].record.latitude == pytest.approx(41.0082)


def test_a_port_that_is_taken_stops_the_start(shard: Shard, settings: Settings) -> None:
    ports = free_ports(4)
    with socket.create_server((HOST, ports[0])):
        process = Program(settings, collector__listen=entries(ports)).start()
        _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 2
    assert f"cannot listen on {HOST}:{ports[0]}" in err


def test_frames_can_be_kept() -> None:
    decoder = decoder_of("gt06", MessageLimits(1_000, 10), Options(keep_frames=True))
    (found,) = records(feed(decoder, [test_decoder.LOGIN, test_decoder.LOCATION]))
    assert attributes(found)["frame"] == test_decoder.LOCATION.hex()
