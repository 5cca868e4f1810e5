"""`whimbrel sniff`: data that the collector's ports receive is published while the command runs, and only then."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from cli.trackers.sniff import COMMAND, as_text, is_wanted
from collector.inspection.message_view import Line
from collector.inspection.traffic_capture import MAX_WAITING, Seen
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.coordination import shared_state
from telemetry.hot_store.client import connect
from telemetry.model.errors import WhimbrelError
from telemetry.startup.store_setup import set_up
from telemetry.system import clock
from tests.box import free_ports
from tests.cli.conftest import Run
from tests.collector.conftest import HOST
from tests.collector.posting import WAIT_S, Program, running
from tests.collector.trackers.gt06 import test_decoder
from tests.collector.trackers.teltonika import test_decoder as test_teltonika
from tests.conftest import RedisServer, settings_of


class Ports(NamedTuple):
    """Of a collector: all protocols over TCP, Teltonika over UDP, OsmAnd over HTTP."""

    auto: int
    teltonika: int
    osmand: int


class Sniffer:
    """A running command, its output line by line."""

    def __init__(self, program: Program, port: int, *more: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "sniff", str(port), *more],
            env=program.environ,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._lines.put(line.rstrip("\n"))

    def __enter__(self) -> Sniffer:
        assert self._process.stderr is not None
        assert self._process.stderr.readline().startswith("listening to port")
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=WAIT_S)
        self._reader.join()

    def output(self, provoke: Callable[[], object], is_enough: Callable[[list[str]], bool]) -> list[str]:
        """Lines of output while `provoke` runs repeatedly, until they are enough: publishing may start late."""
        stop_s = time.monotonic() + WAIT_S
        lines: list[str] = []
        while not is_enough(lines):
            assert time.monotonic() < stop_s, lines
            provoke()
            time.sleep(0.3)
            lines += [self._lines.get() for _ in range(self._lines.qsize())]
        return lines


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Program, Ports, Settings]]:
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder, contextlib.ExitStack() as stack:
        server = RedisServer(Path(folder))
        server.start()
        stack.callback(server.kill)
        settings = settings_of(server.url, Path(folder))
        client = stack.enter_context(connect(settings))
        set_up(client, Archive(settings.archive_dir), 1)
        ports = Ports(*free_ports(3))
        listen = [
            {"protocol": "auto", "port": ports.auto},
            {"protocol": "teltonika", "port": ports.teltonika, "transport": "udp"},
            {"protocol": "osmand", "port": ports.osmand, "transport": "http"},
        ]
        yield stack.enter_context(running(settings, collector__listen=json.dumps(listen))), ports, settings


def exchange(port: int, *chunks: bytes) -> None:
    with socket.create_connection((HOST, port), timeout=WAIT_S) as device:
        for chunk in chunks:
            device.sendall(chunk)
            device.recv(100)


Collector = tuple[Program, Ports, Settings]


def test_frames_over_tcp(collector: Collector) -> None:
    program, ports, _ = collector

    def seen_whole(lines: list[str]) -> list[dict[str, Any]]:
        """Two frames of a connection that was captured from its beginning to its end."""
        connections = defaultdict(list)
        for seen in map(json.loads, lines):
            connections[seen.get("connection", "")].append(seen)
        whole = [
            events
            for events in connections.values()
            if (events[0]["event"], events[-1]["event"]) == ("opened", "closed")
        ]
        return whole[0][1:-1] if whole else []

    with Sniffer(program, ports.auto, "--json") as sniffer:
        lines = sniffer.output(
            lambda: exchange(ports.auto, test_decoder.LOGIN, test_decoder.LOCATION),
            lambda lines: bool(seen_whole(lines)),
        )
    login, location = seen_whole(lines)
    assert login["event"] == location["event"] == "frame"
    assert (login["raw"], login["protocol"], login["device_id"]) == (
        test_decoder.LOGIN.hex(),
        "gt06",
        test_decoder.IMEI,
    )
    assert (location["raw"], location["device_id"]) == (test_decoder.LOCATION.hex(), test_decoder.IMEI)
    assert login["connection"] != ""
    [line] = location["lines"]
    assert line["records"][0]["latitude"] == 41.0082
    assert line["answer"].startswith("787805")


def test_frames_for_people_of_one_device(collector: Collector) -> None:
    program, ports, _ = collector
    broken = test_decoder.LOCATION[:-4] + b"\0\0\r\n"

    def both() -> None:
        with socket.create_connection((HOST, ports.auto), timeout=WAIT_S) as device:
            device.sendall(b'{"device_id": "other", "lat": 1, "lon": 2}\n')
            device.recv(100)
        with socket.create_connection((HOST, ports.auto), timeout=WAIT_S) as device:
            device.sendall(test_decoder.LOGIN)
            device.recv(100)
            device.sendall(broken)
            time.sleep(0.2)
            device.sendall(test_decoder.LOCATION[:9])
            time.sleep(0.2)

    refused = f"  gt06  {test_decoder.IMEI}\n  < {broken.hex()}\n    cannot be used: the checksum is "
    rest = "\n    9 bytes wait for the rest of a message"
    with Sniffer(program, ports.auto, "--device", test_decoder.IMEI) as sniffer:
        lines = "\n".join(sniffer.output(both, lambda lines: refused in (text := "\n".join(lines)) and rest in text))
    assert "other" not in lines


def test_datagrams(collector: Collector) -> None:
    program, ports, _ = collector
    datagram = test_teltonika.datagram("999999999999999")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device, Sniffer(program, ports.teltonika) as sniffer:
        lines = sniffer.output(lambda: device.sendto(datagram, (HOST, ports.teltonika)), lambda lines: len(lines) > 1)
    assert lines[0].endswith("  teltonika  999999999999999")
    assert lines[1] == f"  < {datagram.hex()}"


def test_posts_without_their_secrets(collector: Collector) -> None:
    program, ports, _ = collector
    query = {"id": "phone", "lat": "1", "lon": "2", "token": "open sesame", "notificationToken": "abc"}
    with Sniffer(program, ports.osmand) as sniffer:
        url = f"http://{HOST}:{ports.osmand}/"
        lines = sniffer.output(lambda: httpx.get(url, params=query), lambda lines: len(lines) > 3)
    assert lines[1] == "  < GET /?id=phone&lat=1&lon=2&notificationToken=***"
    assert "phone  1, 2" in lines[2]
    assert lines[3] == "    response 200"


def test_nothing_is_published_without_a_request(collector: Collector) -> None:
    _, ports, settings = collector
    with connect(settings) as client:
        frames = shared_state.Frames(client, ports.auto)
        shared_state.request_frames(client, ports.auto, clock.now_ms(), 2_000)
        assert ports.auto in shared_state.requested_ports(client, clock.now_ms())
        assert ports.auto not in shared_state.requested_ports(client, clock.now_ms() + 3_000)
        time.sleep(4)
        while frames.next(0.1) is not None:
            pass
        exchange(ports.auto, test_decoder.LOGIN)
        assert frames.next(1) is None
        frames.close()


def test_a_port_without_a_listener(call: Run) -> None:
    with pytest.raises(WhimbrelError, match=r"it is no port of the collector; its ports are:\n  8000  HTTP"):
        call(COMMAND, Settings(), 1)


def test_filters() -> None:
    of_record = Seen("frame", 0, 1, peer="[::1]:7", lines=[Line("", [{"device_id": "a"}])])
    assert is_wanted(of_record, "a", "")
    assert is_wanted(of_record, "", "::1")
    assert not is_wanted(of_record, "b", "")
    assert not is_wanted(of_record, "", "::2")
    assert is_wanted(Seen("lost", 0, 1, raw_bytes=3), "b", "::2")


def test_lost_chunks_are_reported() -> None:
    assert as_text(Seen("lost", 1_000, 1, raw_bytes=3)) == "00:00:01.000  3 chunks were received too fast to be shown"


def test_text_can_t_command_the_terminal() -> None:
    seen = Seen("frame", 0, 1, peer="h:1", device_id="\x1b[2J", raw=b"a\n".hex(), raw_bytes=MAX_WAITING)
    assert "\x1b" not in as_text(seen)
    assert "  < a\\n (2 of 2000 bytes)" in as_text(seen)
