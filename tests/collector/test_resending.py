"""Trackers that receive no reply and send again: collectors as programs, a real Redis, each record stored once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from collector.trackers.gt06.decoder import framed
from telemetry.hot_store.client import connect
from telemetry.hot_store.shard import Shard, attach
from tests.box import free_ports
from tests.collector.conftest import HOST, tail
from tests.collector.program import Program, connected, program
from tests.collector.trackers.gt06 import test_decoder as gt06
from tests.collector.trackers.teltonika import test_decoder as teltonika
from tests.conftest import RedisServer, running_redis

WAIT_S = 20
QUIET_S = 0.3
LOSS = 0.3
PACKET = teltonika.packet(8, *[teltonika.record(teltonika.AT_MS + 1_000 * number) for number in range(5)])
STORED_5 = b"\x00\x00\x00\x05"
HEARTBEAT = framed(0x13, bytes((0x45, 4, 3, 0, 2)), gt06.SERIAL)


class Collectors(NamedTuple):
    """Two collectors on one Redis, their ports for trackers, and the stored records."""

    programs: list[Program]
    teltonika: list[int]
    gt06: list[int]
    udp: list[int]
    server: RedisServer
    shard: Shard

    def count(self, device: str) -> int:
        return len(tail(self.shard, device))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collectors]:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running_redis())
        programs: list[Program] = []
        ports: list[list[int]] = []
        for _ in range(2):
            three = free_ports(3)
            listen = [
                {"protocol": "teltonika", "port": three[0]},
                {"protocol": "gt06", "port": three[1]},
                {"protocol": "teltonika", "port": three[2], "transport": "udp"},
            ]
            folder: Path = tmp_path_factory.mktemp("box")
            one = program(server, folder, collector__listen=json.dumps(listen))
            programs.append(stack.enter_context(one))
            ports.append(three)
        client = stack.enter_context(connect(programs[0].settings))
        [shard] = attach(client, 1)
        for running in programs:
            connected(running.port, WAIT_S).close()
        by_protocol = [[one[at] for one in ports] for at in range(3)]
        yield Collectors(programs, by_protocol[0], by_protocol[1], by_protocol[2], server, shard)


def exactly(sender: socket.socket, count: int) -> bytes:
    heard = b""
    while len(heard) < count and (piece := sender.recv(count - len(heard))):
        heard += piece
    return heard


def hello(imei: str) -> bytes:
    return b"\x00\x0f" + imei.encode()


def send_packet(port: int, imei: str, packet: bytes = PACKET) -> bytes:
    """Send a Teltonika packet over a connection of its own; returns its answer."""
    with connected(port, WAIT_S) as sender:
        sender.sendall(hello(imei) + packet)
        assert exactly(sender, 1) == b"\x01"
        return exactly(sender, 4)


def test_a_packet_over_new_connections_to_any_collector(found: Collectors) -> None:
    imei = "350000000000001"
    for port in (*found.teltonika, *found.teltonika):
        assert send_packet(port, imei) == STORED_5
    assert found.count(imei) == 5


def test_a_packet_that_is_put_together_otherwise(found: Collectors) -> None:
    """A tracker sends unacknowledged records together with new ones."""
    imei, times = "350000000000002", [teltonika.AT_MS + 1_000 * number for number in range(9)]
    for part in (times[:5], times[3:], times[:1] + times[8:], times):
        answer = send_packet(found.teltonika[0], imei, teltonika.packet(8, *map(teltonika.record, part)))
        assert answer == len(part).to_bytes(4, "big")
    assert [one.record.timestamp_us // 1_000 for one in tail(found.shard, imei)] == times


@pytest.mark.parametrize("collector", [0, 1])
def test_while_redis_is_stopped(found: Collectors, collector: int) -> None:
    """Both packets reach a collector, and are stored when Redis goes on."""
    imei = f"35000000000001{collector}"
    pid = found.shard.client.info("server")["process_id"]
    with connected(found.teltonika[0], WAIT_S) as first, connected(found.teltonika[collector], WAIT_S) as second:
        os.kill(pid, signal.SIGSTOP)
        try:
            for sender in (first, second):
                sender.sendall(hello(imei) + PACKET)
                assert exactly(sender, 1) == b"\x01"
                sender.settimeout(QUIET_S)
                with pytest.raises(TimeoutError):
                    sender.recv(4)
        finally:
            os.kill(pid, signal.SIGCONT)
        for sender in (first, second):
            sender.settimeout(WAIT_S)
            assert exactly(sender, 4) == STORED_5
    assert found.count(imei) == 5


def test_after_collector_and_redis_were_killed(own_redis: RedisServer, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    listen = json.dumps([{"protocol": "teltonika", "port": port}])
    with program(own_redis, tmp_path, collector__listen=listen) as one:
        assert send_packet(port, teltonika.IMEI) == STORED_5
        one.kill()
        own_redis.kill()
        own_redis.start()
        one.start()
        assert send_packet(port, teltonika.IMEI) == STORED_5
        with connect(one.settings) as client:
            [shard] = attach(client, 1)
            assert len(tail(shard, teltonika.IMEI)) == 5


def test_over_udp_with_loss_each_way(found: Collectors) -> None:
    """Three in ten datagrams are lost, and three in ten answers; each is sent until an answer comes."""
    imei, chance, tries = "350000000000003", random.Random(7), 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.connect((HOST, found.udp[0]))
        for number in range(300):
            data = of_udp(imei, number)
            while True:
                tries += 1
                if chance.random() < LOSS:
                    continue
                device.settimeout(WAIT_S)
                device.send(data)
                answer = device.recv(100)  # of this one: the answer before was waited for, too
                assert answer[-1:] == b"\x01"
                if chance.random() >= LOSS:
                    break
    assert tries > 450
    assert found.count(imei) == 300


def of_udp(imei: str, number: int) -> bytes:
    """A datagram of one record; a packet that is sent again has a number of its own."""
    body = teltonika.packet(8, teltonika.record(teltonika.AT_MS + 1_000 * number))[8:-4]
    channel = struct.pack(">HBBH", 0xCAFE, 1, number & 0xFF, 15) + imei.encode() + body
    return len(channel).to_bytes(2, "big") + channel


def test_the_same_datagram_many_times_at_once(found: Collectors) -> None:
    """All are in few calls to Redis, of two collectors."""
    imei = "350000000000004"
    with contextlib.ExitStack() as stack:
        devices = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in found.udp]
        for device, port in zip(devices, found.udp, strict=True):
            device.connect((HOST, port))
            device.settimeout(WAIT_S)
        for _ in range(50):
            for device in devices:
                device.send(of_udp(imei, 1))
        for device in devices:
            for _ in range(50):
                assert device.recv(100)[-1:] == b"\x01"
    assert found.count(imei) == 1


@pytest.mark.parametrize("serial", [gt06.SERIAL, b"\x00\x63"], ids=["the same serial", "a new serial"])
def test_gt06_after_a_lost_connection(found: Collectors, serial: bytes) -> None:
    imei = f"356307042441{serial[1]:03}"
    login = framed(0x01, bytes.fromhex("0" + imei) + b"\x00\x36", b"\x00\x01")
    for number, port in ((gt06.SERIAL, found.gt06[0]), (serial, found.gt06[0]), (serial, found.gt06[1])):
        with connected(port, WAIT_S) as sender:
            sender.sendall(login + framed(0x12, gt06.place() + gt06.CELL, number))
            assert exactly(sender, 20) == framed(0x01, b"", b"\x00\x01") + framed(0x12, b"", number)
    assert found.count(imei) == 1


def test_frames_without_a_time_are_all_stored(found: Collectors) -> None:
    """A record without a time is stored twice if it arrives twice."""
    imei = "356307042441098"
    login = framed(0x01, bytes.fromhex("0" + imei) + b"\x00\x36", b"\x00\x01")
    for _ in range(2):
        with connected(found.gt06[0], WAIT_S) as sender:
            sender.sendall(login + HEARTBEAT + HEARTBEAT)
            assert len(exactly(sender, 30)) == 30
    assert found.count(imei) == 4


def test_a_phone_that_tries_again(found: Collectors) -> None:
    asked = {"id": "phone", "lat": "1.5", "lon": "2.5", "timestamp": "1772366400", "speed": "10"}
    for one in (found.programs[0], found.programs[1], found.programs[0]):
        assert httpx.get(f"http://{HOST}:{one.http_port}/osmand", params=asked).status_code == 200
    assert found.count("phone") == 1
    del asked["timestamp"]
    for _ in range(2):
        assert httpx.get(f"http://{HOST}:{found.programs[0].http_port}/osmand", params=asked).status_code == 200
    assert found.count("phone") == 3


POSTS = {
    "InfluxDB lines": ("/api/v2/write", b"gps,device_id=DEVICE lat=1.5,lon=2.5 1772366400000000000", 204),
    "OwnTracks": ("/owntracks", b'{"_type":"location","tid":"DEVICE","lat":1.5,"lon":2.5,"tst":1772366400}', 200),
    "Traccar": (
        "/traccar",
        b'{"device":{"uniqueId":"DEVICE"},"position":{"latitude":1.5,"longitude":2.5,"fixTime":"2026-03-01T12:00:00Z"}}',
        200,
    ),
}


@pytest.mark.parametrize("name", POSTS)
def test_a_post_that_is_tried_again(found: Collectors, name: str) -> None:
    path, body, status = POSTS[name]
    device = name.replace(" ", "-")
    for one in (found.programs[0], found.programs[1], found.programs[0]):
        answer = httpx.post(f"http://{HOST}:{one.http_port}{path}", content=body.replace(b"DEVICE", device.encode()))
        assert answer.status_code == status
    assert found.count(device) == 1


def test_equal_requests_to_v1_records_are_two(found: Collectors) -> None:
    """A program that means one gives it an Idempotency-Key."""
    body = {"device_id": "van", "lat": 1.5, "lon": 2.5, "timestamp": "2026-03-01T12:00:00Z"}
    for _ in range(2):
        assert httpx.post(f"http://{HOST}:{found.programs[0].http_port}/v1/records", json=body).status_code == 202
    assert found.count("van") == 2
