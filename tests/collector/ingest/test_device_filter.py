"""Devices that a port accepts, over TCP, UDP and HTTP of a real collector; others are rejected and counted."""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from telemetry.archive.table import Archive
from telemetry.coordination import known_devices, shared_state
from telemetry.hot_store.client import connect
from telemetry.hot_store.operations.quarantine import quarantine_counts
from telemetry.startup.store_setup import set_up
from tests.box import free_ports
from tests.collector.conftest import HOST, tail
from tests.collector.posting import WAIT_S, Box, running
from tests.collector.trackers.teltonika import test_decoder
from tests.conftest import RedisServer, settings_of

OURS, PREFIX = test_decoder.IMEI, "99"
ACK = b"\x00\x00\x00\x01"


class Ports(NamedTuple):
    listed: int
    known: int
    udp: int
    http: int
    json: int


@pytest.fixture(scope="module")
def filtering() -> Iterator[tuple[Box, Ports]]:
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder, contextlib.ExitStack() as stack:
        server = RedisServer(Path(folder))
        server.start()
        stack.callback(server.kill)
        settings = settings_of(server.url, Path(folder))
        client = stack.enter_context(connect(settings))
        [shard] = set_up(client, Archive(settings.archive_dir), 1)
        ports = Ports(*free_ports(5))
        listeners = [
            {"protocol": "teltonika", "port": ports.listed, "devices": [OURS], "device_prefixes": [PREFIX]},
            {"protocol": "teltonika", "port": ports.known, "known_devices_only": True},
            {"protocol": "teltonika", "port": ports.udp, "transport": "udp", "known_devices_only": True},
            {"protocol": "osmand", "port": ports.http, "transport": "http", "known_devices_only": True},
            {"protocol": "json", "port": ports.json, "device_prefixes": ["van-"]},
        ]
        program = stack.enter_context(running(settings, collector__listen=json.dumps(listeners)))
        yield Box(program, server, client, shard), ports


def logs_in(port: int, imei: str) -> bool:
    """Whether a tracker's login, record and acknowledgement succeed; else its connection must end without a byte."""
    with socket.create_connection((HOST, port), timeout=WAIT_S) as device:
        device.sendall(b"\x00\x0f" + imei.encode())
        if device.recv(1) != b"\x01":
            return False
        device.sendall(test_decoder.ONE)
        assert device.recv(4) == ACK
        return True


def refused(box: Box) -> int:
    """How many were counted, once the collector has reported them."""
    time.sleep(1.5)
    return shared_state.refused(box.client).get("device-refused", 0)


def test_a_list_and_prefixes(filtering: tuple[Box, Ports]) -> None:
    box, ports = filtering
    before = refused(box)
    assert logs_in(ports.listed, OURS)
    assert logs_in(ports.listed, "991234567890123")
    assert not logs_in(ports.listed, "351234567890123")
    assert refused(box) == before + 1
    assert len(tail(box.shard, "991234567890123")) == 1
    assert not box.client.exists(box.shard.keys.stream("351234567890123"))


def test_known_devices_only(filtering: tuple[Box, Ports]) -> None:
    """Known by a record that came another way, or since it was added: at once."""
    box, ports = filtering
    stranger, ours = "861111111111111", "861111111111112"
    assert not logs_in(ports.known, stranger)
    known_devices.add(box.client, [stranger])
    time.sleep(1.1)
    assert logs_in(ports.known, stranger)
    answer = httpx.post(f"{box.program.url}/v1/records", json={"device_id": ours, "altitude": 1})
    assert answer.status_code == 202
    assert logs_in(ports.known, ours)
    assert len(tail(box.shard, ours)) == 2


def test_datagrams_of_known_devices_only(filtering: tuple[Box, Ports]) -> None:
    box, ports = filtering
    imei = "862222222222222"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.settimeout(1)
        device.sendto(test_decoder.datagram(imei), (HOST, ports.udp))
        with pytest.raises(TimeoutError):
            device.recv(100)
        known_devices.add(box.client, [imei])
        time.sleep(1.1)  # an unknown device is remembered for a second from its look-up on
        device.settimeout(10)
        device.sendto(test_decoder.datagram(imei), (HOST, ports.udp))
        assert device.recv(100) == bytes.fromhex("00050000010501")
    assert len(tail(box.shard, imei)) == 1


def test_posts_of_known_devices_only(filtering: tuple[Box, Ports]) -> None:
    box, ports = filtering
    url = f"http://{HOST}:{ports.http}/?id=phone&lat=1&lon=2"
    answer = httpx.get(url)
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:whimbrel:problem:device-refused")
    assert answer.json()["index"] == 0
    known_devices.add(box.client, ["phone"])
    time.sleep(1.1)
    assert httpx.get(url).status_code == 200
    assert len(tail(box.shard, "phone")) == 1


def test_json_of_others_costs_only_that_message(filtering: tuple[Box, Ports]) -> None:
    box, ports = filtering
    with socket.create_connection((HOST, ports.json), timeout=WAIT_S) as device, device.makefile("rb") as answers:
        device.sendall(b'{"device_id":"bus-1","altitude":1}\n{"device_id":"van-1","altitude":1}\n')
        first, second = json.loads(answers.readline()), json.loads(answers.readline())
    assert (first["status"], first["retry"]) == (403, False)
    assert "this port does not take device 'bus-1'" in first["error"]
    assert second["accepted"] == 1
    assert not box.client.exists(box.shard.keys.stream("bus-1"))


def test_strangers_fill_no_quarantine(filtering: tuple[Box, Ports]) -> None:
    box, ports = filtering
    before = quarantine_counts(box.shard).kept
    with socket.create_connection((HOST, ports.listed), timeout=WAIT_S) as device:
        broken = bytearray(test_decoder.ONE)
        broken[-1] ^= 1
        device.sendall(b"\x00\x0f351234567890123" + bytes(broken))
        assert device.recv(1) == b""
    assert quarantine_counts(box.shard).kept == before
