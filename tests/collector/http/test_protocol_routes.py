"""Protocols of phones and servers over HTTP, as their senders meet them: `python -m collector`, a real Redis."""

from __future__ import annotations

import contextlib
import gzip
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from telemetry.archive.table import Archive
from telemetry.hot_store.client import connect
from telemetry.hot_store.operations.quarantine import read_quarantine
from telemetry.startup.store_setup import set_up
from tests.box import plain_http
from tests.collector.conftest import tail
from tests.collector.posting import WAIT_S, Box, running
from tests.conftest import RedisServer, settings_of


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder, contextlib.ExitStack() as stack:
        server = RedisServer(Path(folder))
        server.start()
        stack.callback(server.kill)
        settings = settings_of(server.url, Path(folder))
        client = stack.enter_context(connect(settings))
        [shard] = set_up(client, Archive(settings.archive_dir), 1)
        yield Box(stack.enter_context(running(settings)), server, client, shard)


@pytest.fixture
def http(box: Box) -> Iterator[httpx.Client]:
    with plain_http(box.program.url, WAIT_S) as found:
        yield found


def places(box: Box, device: str) -> list[tuple[float | None, float | None]]:
    return [(one.record.latitude, one.record.longitude) for one in tail(box.shard, device)]


def test_osmand_asks_and_posts(box: Box, http: httpx.Client) -> None:
    asked = http.get("/osmand", params={"id": "phone", "lat": "1.5", "lon": "2.5", "speed": "10"})
    posted = http.post("/osmand", data={"id": "phone", "lat": "3.5", "lon": "4.5"})
    assert [(answer.status_code, answer.text) for answer in (asked, posted)] == [(200, "")] * 2
    assert places(box, "phone") == [(1.5, 2.5), (3.5, 4.5)]
    assert [entry.record.speed_kmh for entry in tail(box.shard, "phone")] == [36, None]


def test_a_phone_never_hears_that_its_record_is_bad(box: Box, http: httpx.Client) -> None:
    before = len(list(read_quarantine(box.shard)))
    assert http.get("/osmand", params={"id": "bad", "lat": "abc", "lon": "2.5"}).status_code == 200
    *_, last = read_quarantine(box.shard)
    assert len(list(read_quarantine(box.shard))) == before + 1
    assert (last.device_id, last.raw) == ("bad", b"id=bad&lat=abc&lon=2.5")
    assert last.reason.startswith("lat: must be a finite number")


def test_who_is_no_phone_hears_what_is_missing(http: httpx.Client) -> None:
    answer = http.get("/osmand")
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:whimbrel:problem:invalid-record")


@pytest.mark.parametrize("path", ["/owntracks", "/pub"])
def test_owntracks(box: Box, http: httpx.Client, path: str) -> None:
    message = {"_type": "location", "lat": 1.5, "lon": 2.5, "tst": 1772366400, "tid": "xx"}
    answer = http.post(path, json=message, headers={"X-Limit-D": path[1:]}, auth=("ann", "secret"))
    assert (answer.status_code, answer.json()) == (200, [])
    assert places(box, f"owntracks/ann/{path[1:]}") == [(1.5, 2.5)]
    assert http.post(path, json={"_type": "transition"}).json() == []


def test_traccar_forwards(box: Box, http: httpx.Client) -> None:
    position = {
        "latitude": 1.5,
        "longitude": 2.5,
        "fixTime": "2026-03-01T12:00:00.000+00:00",
        "speed": 1,
        "valid": True,
    }
    answer = http.post("/traccar", json={"position": position, "device": {"uniqueId": "t1"}})
    assert (answer.status_code, places(box, "t1")) == (200, [(1.5, 2.5)])


@pytest.mark.parametrize("path", ["/write?db=x&precision=s", "/api/v2/write?bucket=b&org=o&precision=s"])
def test_telegraf_writes_lines(box: Box, http: httpx.Client, path: str) -> None:
    device = f"v{len(path)}"
    lines = f"gps,host={device} lat=1.5,lon=2.5 1772366400\ngps,host={device} lat=3.5,lon=4.5 1772366401\n".encode()
    answer = http.post(path, content=gzip.compress(lines), headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert places(box, device) == [(1.5, 2.5), (3.5, 4.5)]


def test_a_line_that_is_none_is_told_and_the_others_are_stored(box: Box, http: httpx.Client) -> None:
    answer = http.post("/write", content=b"gps,host=v0 lat=1.5,lon=2.5\nnonsense\n")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert places(box, "v0") == [(1.5, 2.5)]


def test_more_records_than_may_be_are_refused_whole(box: Box, http: httpx.Client) -> None:
    body = b"m,host=many a=1\n" * 100_001
    assert http.post("/write", content=body).status_code == 413
    assert tail(box.shard, "many") == []


def test_what_is_not_posted_is_not_read(http: httpx.Client) -> None:
    answer = http.put("/owntracks", content=json.dumps({}))
    assert answer.status_code == 405
