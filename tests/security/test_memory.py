"""Memory of the API and the query program while clients ask for large answers and do not read them.

Each attack is run as it was found, against the real programs; the peak of a program's resident memory must stay below
the `MemoryMax` of its systemd unit. Meanwhile others are answered.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.services.systemd import MEMORY_MAX
from tests.api.conftest import Box, box_on
from tests.conftest import RedisServer

pytestmark = pytest.mark.slow

RECORD_BYTES = 10**6
DEVICES = 200
CLIENTS = 1_000
ADDRESSES = 5
"""Addresses that the clients come from: a single one would meet the limits for one address first."""

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
SHARE = 0.75
"""Part of `MemoryMax` that an attack may take at most."""

WAIT_S = 60.0


@pytest.fixture(scope="module")
def box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with box_on(shared_redis.url, tmp_path_factory.mktemp("memory")) as found:
        found.http.timeout = httpx.Timeout(WAIT_S)
        post(found, "ordinary", 100)
        yield found


def post(box: Box, device: str, size: int) -> None:
    """Store a record with attributes of so many bytes."""
    record = {"device_id": device, "latitude": 1, "longitude": 2, "text": "x" * size}
    assert box.http.post("/v1/records", json=record).status_code == 202


def limit_bytes(program: str) -> float:
    """What an attack may take a program to."""
    text = MEMORY_MAX[program]
    return SHARE * int(text[:-1]) * UNITS[text[-1]]


class Peak:
    """The peak of a program's resident memory since this was made, as the kernel counts it."""

    def __init__(self, box: Box, module: str) -> None:
        self._folder = Path("/proc") / str(box.pid(module))
        (self._folder / "clear_refs").write_text("5")

    @property
    def bytes(self) -> int:
        status = (self._folder / "status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1_024


@contextlib.contextmanager
def unread(box: Box, path: str, clients: int = CLIENTS, coding: str = "identity") -> Iterator[list[socket.socket]]:
    """Clients that send a request each and never read the response."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: {coding}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        found = []
        for number in range(clients):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.bind((f"127.0.0.{2 + number % ADDRESSES}", 0))
            client.connect(("127.0.0.1", box.port))
            client.sendall(request)
            found.append(client)
        yield found


def answered(box: Box, device: str = "ordinary") -> None:
    """An ordinary client is answered."""
    assert box.http.get(f"/v1/devices/{device}/latest").json()["device_id"] == device


def stand(box: Box, peak: Peak, seconds: float, most: float) -> None:
    """Ask for a while as an ordinary client does, and see that the program stays below its limit."""
    stop_s = time.monotonic() + seconds
    while time.monotonic() < stop_s:
        answered(box)
        assert peak.bytes < most, f"{peak.bytes / 1e6:.0f} MB"
        time.sleep(0.1)


class Events:
    """A client that reads `/v1/live`."""

    def __init__(self, box: Box, path: str) -> None:
        self._stream = httpx.stream("GET", f"http://127.0.0.1:{box.port}{path}", timeout=WAIT_S)

    def __enter__(self) -> Events:
        self._lines = self._stream.__enter__().iter_lines()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stream.__exit__(*error)

    def next(self) -> list[dict[str, Any]]:
        """The records of the next event."""
        text = next(line for line in self._lines if line.startswith("data: "))
        found: list[dict[str, Any]] = json.loads(text.removeprefix("data: "))["records"]
        return found


def test_a_thousand_unread_streams_of_a_large_record(box: Box) -> None:
    post(box, "large", RECORD_BYTES)
    peak = Peak(box, "api")
    with Events(box, "/v1/live?device_id=ordinary") as healthy, unread(box, "/v1/live"):
        assert healthy.next()
        for number in range(5):
            post(box, "large", RECORD_BYTES - number)
            post(box, "ordinary", 100 + number)
            assert [one["device_id"] for one in healthy.next()] == ["ordinary"]
            stand(box, peak, 1, limit_bytes("api"))
    print(f"live: {peak.bytes / 1e6:.0f} MB")


def test_a_thousand_unread_streams_of_one_device(box: Box) -> None:
    post(box, "large", RECORD_BYTES)
    peak = Peak(box, "api")
    with unread(box, "/v1/live?device_id=large"):
        stand(box, peak, 4, limit_bytes("api"))
    print(f"live of one: {peak.bytes / 1e6:.0f} MB")


@pytest.mark.parametrize("coding", ["identity", pytest.param("gzip", marks=pytest.mark.thorough), "zstd"])
def test_a_thousand_unread_answers_of_a_large_latest(box: Box, coding: str) -> None:
    text = random.Random(1).randbytes(RECORD_BYTES // 2).hex()  # so that also the compressed body has to wait
    record = {"device_id": "dense", "latitude": 1, "longitude": 2, "text": text}
    assert box.http.post("/v1/records", json=record).status_code == 202
    peak = Peak(box, "api")
    with unread(box, "/v1/devices/dense/latest", coding=coding):
        stand(box, peak, 4, limit_bytes("api"))
    print(f"latest, {coding}: {peak.bytes / 1e6:.0f} MB")


@pytest.fixture(scope="module")
def fleet(box: Box) -> Box:
    """A box with many devices whose latest records are large."""
    for number in range(DEVICES):
        post(box, f"fleet-{number:03}", RECORD_BYTES)
    return box


def test_one_reader_of_a_fleet_with_large_records(fleet: Box) -> None:
    peak = Peak(fleet, "api")
    with Events(fleet, "/v1/live") as reader:
        seen: set[str] = set()
        while len(seen) < DEVICES:
            seen |= {one["device_id"] for one in reader.next() if one["device_id"].startswith("fleet-")}
            assert peak.bytes < limit_bytes("api")
    print(f"live of a fleet: {peak.bytes / 1e6:.0f} MB")


def test_one_page_of_a_fleet_with_large_records(fleet: Box) -> None:
    peak = Peak(fleet, "api")
    with fleet.http.stream("GET", "/v1/latest", headers={"Accept-Encoding": "identity"}) as response:
        size = sum(map(len, response.iter_raw(2**20)))
    assert size > 2 * DEVICES * RECORD_BYTES
    assert peak.bytes < limit_bytes("api")
    print(f"page of a fleet: {peak.bytes / 1e6:.0f} MB")


def test_unread_pages_of_a_fleet_with_large_records(fleet: Box) -> None:
    peak = Peak(fleet, "api")
    with unread(fleet, "/v1/latest", 300):
        stand(fleet, peak, 5, limit_bytes("api"))
    print(f"unread pages of a fleet: {peak.bytes / 1e6:.0f} MB")


def test_pages_of_a_fleet_in_another_format_end_early(fleet: Box) -> None:
    peak, seen, cursor = Peak(fleet, "api.query"), list[str](), ""
    while True:
        response = fleet.http.get(f"/v1/latest?format=ndjson&limit=1000&cursor={cursor}")
        assert response.status_code == 200, response.text[:200]
        seen += [json.loads(line)["device_id"] for line in response.text.splitlines()]
        cursor = response.headers.get("next-cursor", "")
        if not cursor:
            break
    assert [device for device in seen if device.startswith("fleet-")] == [f"fleet-{n:03}" for n in range(DEVICES)]
    assert peak.bytes < limit_bytes("query")
    print(f"pages of a fleet as NDJSON: {peak.bytes / 1e6:.0f} MB")


def test_unread_pages_of_the_query_program(fleet: Box) -> None:
    peak, api = Peak(fleet, "api.query"), Peak(fleet, "api")
    with unread(fleet, "/v1/latest?bbox=0,0,10,10", 200):
        stand(fleet, api, 8, limit_bytes("api"))
        assert peak.bytes < limit_bytes("query")
    print(f"unread pages of the query program: {peak.bytes / 1e6:.0f} MB, of the API {api.bytes / 1e6:.0f} MB")


@pytest.mark.parametrize("coding", [pytest.param("gzip", marks=pytest.mark.thorough), "zstd"])
def test_unread_compressed_exports(fleet: Box, coding: str) -> None:
    peak, api = Peak(fleet, "api.query"), Peak(fleet, "api")
    with unread(fleet, "/v1/export?format=ndjson", 200, coding):
        stand(fleet, api, 3, limit_bytes("api"))
        assert peak.bytes < limit_bytes("query")
    print(f"unread exports, {coding}: {peak.bytes / 1e6:.0f} MB, of the API {api.bytes / 1e6:.0f} MB")


READERS = 8
WHOLE_FLEET = (
    "/v1/records?limit=10000",
    "/v1/records?limit=10000&order=desc",
    "/v1/summary?start=2020-01-01&end=2030-01-01",
    "/v1/trips?start=2020-01-01&end=2030-01-01",
    "/v1/export?format=csv",
    "/v1/export?format=ndjson",
    "/v1/export?format=parquet",
)


def test_questions_about_large_records_that_are_not_saved_yet(fleet: Box) -> None:
    peak = Peak(fleet, "api.query")
    one = [f"{path}&device_id=fleet-{number:03}" for path in WHOLE_FLEET for number in range(READERS)]
    with ThreadPoolExecutor(READERS) as readers:
        statuses = Counter(readers.map(lambda path: read_status(fleet, path), WHOLE_FLEET * READERS + tuple(one)))
    print(f"questions about large unsaved records: {peak.bytes / 1e6:.0f} MB, {dict(statuses)}")
    assert peak.bytes < limit_bytes("query")
    assert statuses.keys() <= {200, 503}
    answered(fleet)
    found = fleet.http.get("/v1/records", params={"device_id": "fleet-000"})
    assert (found.status_code, len(found.json()["records"])) == (200, 1)


def read_status(box: Box, path: str) -> int:
    """The status of an answer that is read to its end; 0 if it broke off."""
    try:
        with box.http.stream("GET", path) as found:
            for _ in found.iter_bytes():
                pass
            return found.status_code
    except httpx.RemoteProtocolError:
        return 0


@pytest.fixture(scope="module")
def saved_fleet(fleet: Box) -> Box:
    """The same, saved: tests of it come last, since the others need unsaved records."""
    while any(shard.unsaved() for shard in fleet.shards):
        fleet.save()
    return fleet


def test_pages_of_large_saved_records(saved_fleet: Box) -> None:
    fleet = saved_fleet
    for query in ("", "&order=desc", "&format=ndjson"):
        peak, seen, cursor = Peak(fleet, "api.query"), Counter[str](), ""
        while True:
            found = fleet.http.get(f"/v1/records?limit=10000&cursor={cursor}{query}")
            assert found.status_code == 200, found.text[:200]
            assert len(found.content) < 20 * RECORD_BYTES
            is_json = not query.startswith("&format")
            rows = found.json()["records"] if is_json else map(json.loads, found.text.splitlines())
            seen.update(row["device_id"] for row in rows)
            cursor = (found.json()["next_cursor"] if is_json else found.headers.get("next-cursor")) or ""
            if not cursor:
                break
        assert {seen[f"fleet-{number:03}"] for number in range(DEVICES)} == {1}
        print(f"pages of large saved records{query}: {peak.bytes / 1e6:.0f} MB")
        assert peak.bytes < limit_bytes("query")


EXPORTED = ("csv", "ndjson", "json", "geojson", "parquet", "arrow", "kml", "gpx")


@pytest.mark.parametrize("kind", EXPORTED)
def test_exports_of_large_saved_records(saved_fleet: Box, kind: str) -> None:
    peak = Peak(saved_fleet, "api.query")
    with saved_fleet.http.stream("GET", f"/v1/export?format={kind}", headers={"Accept-Encoding": "identity"}) as found:
        assert found.status_code == 200
        size = sum(map(len, found.iter_raw(2**20)))
    if kind in ("csv", "ndjson", "json", "geojson"):
        assert size > DEVICES * RECORD_BYTES
    print(f"export of large saved records as {kind}: {peak.bytes / 1e6:.0f} MB")
    assert peak.bytes < limit_bytes("query")


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("", id="json"),
        pytest.param("&format=ndjson", id="ndjson", marks=pytest.mark.thorough),
        pytest.param("&bbox=0,0,10,10", id="area", marks=pytest.mark.thorough),
    ],
)
def test_pages_of_a_moment_of_a_fleet_with_large_records(saved_fleet: Box, query: str) -> None:
    peak, seen, cursor = Peak(saved_fleet, "api.query"), list[str](), ""
    target = "/v1/latest?at=2035-01-01&within_days=3660&limit=1000"
    while True:
        found = saved_fleet.http.get(f"{target}&cursor={cursor}{query}")
        assert found.status_code == 200, found.text[:200]
        is_json = "ndjson" not in query
        rows = found.json()["records"] if is_json else map(json.loads, found.text.splitlines())
        seen += [row["device_id"] for row in rows]
        cursor = (found.json()["next_cursor"] if is_json else found.headers.get("next-cursor")) or ""
        if not cursor:
            break
    assert [device for device in seen if device.startswith("fleet-")] == [f"fleet-{n:03}" for n in range(DEVICES)]
    assert peak.bytes < limit_bytes("query")
    print(f"pages of a moment{query}: {peak.bytes / 1e6:.0f} MB")
