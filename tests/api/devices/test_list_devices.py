"""`/v1/devices`: counts from files and unsaved records, states by silence, and pages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from api.devices.record_counts import Counts
from cli.imports.batches import columns_of
from telemetry.archive.operations.import_progress import Progress
from telemetry.archive.table import Archive
from telemetry.hot_store.keys import shard_of
from telemetry.hot_store.shard import Shard
from telemetry.model.record import Sent
from telemetry.system import clock
from tests.api.conftest import Box, assert_problem, box_on, record, segment
from tests.api.records.test_range_query import MIDNIGHT_US
from tests.api.stores import Stores
from tests.conftest import RedisServer
from worker.bulk_import import Importer
from worker.saving.saver import Saver

Parameter = tuple[str, str | int]
SILENCE_S = 1.5


@pytest.fixture(scope="module")
def box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """b and d fall silent before a and c send; only c and d have no records in the archive."""
    with box_on(shared_redis.url, tmp_path_factory.mktemp("devices"), redis__shards="2") as found:
        found.append(*(Sent(device, record(MIDNIGHT_US + n)) for n in range(3) for device in "ab"))
        found.save()
        found.append(Sent("b", record(MIDNIGHT_US - 86_400_000_000, "tcp")), Sent("d", record(MIDNIGHT_US, "udp")))
        time.sleep(2 * SILENCE_S)
        found.append(Sent("a", record(MIDNIGHT_US + 9)), Sent("c", record(MIDNIGHT_US)))
        yield found


def pages(box: Box, limit: int, *query: Parameter) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: list[Parameter] = []
    while True:
        answer = box.get("/v1/devices", ("limit", limit), *query, *cursor)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["devices"]) <= limit
        found += page["devices"]
        if page["next_cursor"] is None:
            return found
        cursor = [("cursor", page["next_cursor"])]


@pytest.mark.parametrize("limit", [1, 2, 4, 100])
def test_all_devices(box: Box, limit: int) -> None:
    found = pages(box, limit)
    assert [(one["device_id"], one["records"]) for one in found] == [("a", 4), ("b", 4), ("c", 1), ("d", 1)]
    for one in found:
        records = box.get("/v1/records", ("device_id", one["device_id"])).json()["records"]
        assert one["first_seen"] == min(record["received_at"] for record in records)
        assert one["last_seen"] == max(record["received_at"] for record in records)
    assert [one["transport"] for one in found] == ["http", "http", "http", "udp"]


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_devices_of_a_state(box: Box, limit: int) -> None:
    last_seen = box.get("/v1/devices", ("device_id", "c")).json()["devices"][0]["last_seen"]
    silent_for_s = time.time() - time.mktime(time.strptime(last_seen[:19], "%Y-%m-%dT%H:%M:%S")) + time.timezone
    rules: list[Parameter] = [("silent_after_s", f"{silent_for_s + SILENCE_S:.3f}"), ("offline_after_s", 100_000)]
    assert {one["device_id"]: one["state"] for one in pages(box, 100, *rules)}["a"] == "online"
    silent = pages(box, limit, *rules, ("state", "silent"))
    assert {one["state"] for one in silent} <= {"silent"}
    assert [one["device_id"] for one in silent] == ["b", "d"]
    assert [one["device_id"] for one in pages(box, limit, *rules, ("state", "online"))] == ["a", "c"]
    assert pages(box, limit, *rules, ("state", "offline")) == []
    all_offline: list[Parameter] = [("silent_after_s", 0), ("offline_after_s", 0), ("state", "offline")]
    assert len(pages(box, limit, *all_offline)) == 4


def test_named_devices(box: Box) -> None:
    assert [one["device_id"] for one in pages(box, 5, ("device_id", "d"), ("device_id", "unknown"))] == ["d"]


def test_one_device(box: Box) -> None:
    """The same as in the list; the limits of silence can be parameters here, too."""
    for device in pages(box, 100):
        found = box.get(f"/v1/devices/{device['device_id']}", ("silent_after_s", 0), ("offline_after_s", 1_000_000))
        assert (found.status_code, found.json()) == (200, device | {"state": "silent"})
    assert box.http.head("/v1/devices/a").status_code == 200
    assert_problem(box.get("/v1/devices/unknown"), 404, "unknown-device")
    assert_problem(box.get("/v1/devices/a", ("offline_after_s", 1)), 400, "invalid-parameter")
    assert_problem(box.get("/v1/devices/a", ("state", "online")), 400, "invalid-parameter")
    answer = box.http.post("/v1/devices/a")
    assert_problem(answer, 405, "wrong-method")
    assert answer.headers["allow"] == "DELETE, GET, HEAD"


@pytest.mark.parametrize("device", ["x/y", "x", "x/latest", "latest", "/latest", "x/latest/latest", "ü ☂%2F"])
def test_each_device_has_its_own_address(box: Box, device: str) -> None:
    """Also a device whose id ends like the address of another device's latest."""
    box.append(Sent(device, record(MIDNIGHT_US)))
    for end in ("", "/latest"):
        assert box.get(f"/v1/devices/{segment(device)}{end}").json()["device_id"] == device


@pytest.mark.parametrize(
    "query", [("state", "x"), ("silent_after_s", "x"), ("offline_after_s", 1), ("start", "2026-01-01"), ("limit", 0)]
)
def test_invalid_parameters(box: Box, query: Parameter) -> None:
    assert_problem(box.get("/v1/devices", query), 400, "invalid-parameter")


@pytest.mark.parametrize("transport", ["import", "tcp"])
def test_an_imported_device_is_seen_when_its_records_were_measured(box: Box, transport: str) -> None:
    """Also if the file has the transport by which another box received them."""
    shard, year_us = box.shards[0], 365 * 86_400_000_000
    device = next(name for n in count() if shard_of(name := f"{transport} {n}", len(box.shards)) == shard.shard)
    times = [MIDNIGHT_US - year_us, MIDNIGHT_US - 2 * year_us]
    importer = Importer(
        device, box.archive, box.connection, Saver(box.archive, box.connection, clock.now_ms), clock.now_ms, 100, 60
    )
    for at_us in times:
        rows = pa.Table.from_batches([columns_of([Sent(device, record(at_us, transport))])])
        before = importer.progress(shard)
        importer.bring(shard, rows, before, Progress(before.rows + 1))
    [found] = pages(box, 5, ("device_id", device))
    assert [found["last_seen"][:11], found["first_seen"][:11]] == ["2025-01-10T", "2024-01-11T"]
    assert found["state"] == "offline"


def test_counts_evicted_from_the_cache_are_counted_again(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection
) -> None:
    stores = Stores([shard], archive, connection)
    cached, uncached = Counts(stores.snapshots), Counts(stores.snapshots, max_cached_bytes=0)
    for day in range(3):
        stores.append(*(Sent(device, record(MIDNIGHT_US + day * 86_400_000_000)) for device in "ab"))
        stores.save()
        stores.append(Sent("b", record(MIDNIGHT_US)))
        for counts in (cached, uncached):
            found = counts.of(connection, ["a", "b", "c"])
            assert {device: count.records for device, count in found.items()} == {"a": day + 1, "b": 2 * (day + 1)}
    assert cached_files(cached) == 5
    assert cached_files(uncached) == 0


def cached_files(counts: Counts) -> int:
    return len(counts._cache)
