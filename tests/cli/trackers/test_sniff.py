"""`whimbrel sniff`: what comes to the collector's ports is seen while somebody looks, and only then."""

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

from cli.trackers.sniff import COMMAND, is_wanted, text_of
from collector.inspection.traffic_capture import MAX_WAITING, Seen
from collector.protocols.message_view import Line
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

    def said(self, provoke: Callable[[], object], is_enough: Callable[[list[str]], bool]) -> list[str]:
        """What is said of what is done again and again, until that is enough: collectors may begin to show it amid."""
        stop_s = time.monotonic() + WAIT_S
        said: list[str] = []
        while not is_enough(said):
            assert time.monotonic() < stop_s, said
            provoke()
            time.sleep(0.3)
            said += [self._lines.get() for _ in range(self._lines.qsize())]
        return said


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


def exchange(port: int, *pieces: bytes) -> None:
    with socket.create_connection((HOST, port), timeout=WAIT_S) as device:
        for piece in pieces:
            device.sendall(piece)
            device.recv(100)


Collector = tuple[Program, Ports, Settings]


def test_frames_over_tcp(collector: Collector) -> None:
    program, ports, _ = collector

    def seen_whole(said: list[str]) -> list[dict[str, Any]]:
        """Two frames of a connection that was seen from its beginning to its end."""
        connections = defaultdict(list)
        for one in map(json.loads, said):
            connections[one.get("connection", "")].append(one)
        whole = [
            found for found in connections.values() if (found[0]["event"], found[-1]["event"]) == ("opened", "closed")
        ]
        return whole[0][1:-1] if whole else []

    with Sniffer(program, ports.auto, "--json") as sniffer:
        said = sniffer.said(
            lambda: exchange(ports.auto, test_decoder.LOGIN, test_decoder.LOCATION), lambda said: bool(seen_whole(said))
        )
    login, location = seen_whole(said)
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

    refused = f"  gt06  {test_decoder.IMEI}\n  < {broken.hex()}\n    can't be used: the checksum is "
    rest = "\n    9 bytes wait for the rest of a message"
    with Sniffer(program, ports.auto, "--device", test_decoder.IMEI) as sniffer:
        said = "\n".join(sniffer.said(both, lambda said: refused in (text := "\n".join(said)) and rest in text))
    assert "other" not in said


def test_datagrams(collector: Collector) -> None:
    program, ports, _ = collector
    datagram = test_teltonika.datagram("999999999999999")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device, Sniffer(program, ports.teltonika) as sniffer:
        said = sniffer.said(lambda: device.sendto(datagram, (HOST, ports.teltonika)), lambda said: len(said) > 1)
    assert said[0].endswith("  teltonika  999999999999999")
    assert said[1] == f"  < {datagram.hex()}"


def test_posts_without_their_secrets(collector: Collector) -> None:
    program, ports, _ = collector
    query = {"id": "phone", "lat": "1", "lon": "2", "token": "open sesame", "notificationToken": "abc"}
    with Sniffer(program, ports.osmand) as sniffer:
        url = f"http://{HOST}:{ports.osmand}/"
        said = sniffer.said(lambda: httpx.get(url, params=query), lambda said: len(said) > 3)
    assert said[1] == "  < GET /?id=phone&lat=1&lon=2&notificationToken=***"
    assert "phone  1, 2" in said[2]
    assert said[3] == "    answered 200"


def test_nothing_is_published_once_nobody_looks(collector: Collector) -> None:
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


def test_a_port_that_nobody_listens_on(call: Run) -> None:
    with pytest.raises(WhimbrelError, match=r"port 1 is not the collector's; these are:\n  8000  HTTP"):
        call(COMMAND, Settings(), 1)


def test_what_is_wanted() -> None:
    of_record = Seen("frame", 0, 1, peer="[::1]:7", lines=[Line("", [{"device_id": "a"}])])
    assert is_wanted(of_record, "a", "")
    assert is_wanted(of_record, "", "::1")
    assert not is_wanted(of_record, "b", "")
    assert not is_wanted(of_record, "", "::2")
    assert is_wanted(Seen("lost", 0, 1, raw_bytes=3), "b", "::2")


def test_what_is_lost_is_said() -> None:
    assert text_of(Seen("lost", 1_000, 1, raw_bytes=3)) == "00:00:01.000  3 pieces came too fast to be shown"


def test_text_can_t_command_the_terminal() -> None:
    seen = Seen("frame", 0, 1, peer="h:1", device_id="\x1b[2J", raw=b"a\n".hex(), raw_bytes=MAX_WAITING)
    assert "\x1b" not in text_of(seen)
    assert "  < a\\n (2 of 2000 bytes)" in text_of(seen)
