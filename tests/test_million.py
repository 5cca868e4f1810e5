"""Each query over a day of a million records: the result is correct, and the query program's memory stays bounded.

A thousand vehicles report once a minute: they drive north, 600 m a minute, but for 200 minutes in which they stand.
Nine tenths of their records are in one merged file, the rest but for the last three of each in eight files as saves
leave them, and the last ones wait in Redis. The expected results follow from these numbers alone.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import psutil
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from benchmarks.archives import add
from telemetry.archive.schema import COLUMNS, open_duckdb
from telemetry.archive.table import Archive
from tests.box import Box

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEVICES, RECORDS = 1_000, 1_000
ALL = DEVICES * RECORDS
MERGED, LATE, WAITING = 900, 97, 3
FILES = 8
DAY = "2026-03-05"
SPAN = {"start": DAY, "end": DAY}
STEP_S, STEP_M, STOP_AT, GO_AT = 60, 600, 400, 600
STEPS = STOP_AT + RECORDS - GO_AT
DEGREE_M = math.radians(1) * 6_371_008.8
ONE = "car-0500"
MOST_MEMORY_BYTES = 900 * 2**20

MADE = f"""
SELECT printf('car-%04d', i) AS device_id, moment AS timestamp, moment AS received_at,
    1_000_000_000 + i * {RECORDS} + k AS id,
    'http' AS transport, 'json' AS source,
    round((least(k, {STOP_AT}) + greatest(k - {GO_AT - 1}, 0)) * {STEP_M} / {DEGREE_M}, 6) AS latitude,
    i / 100 AS longitude, k::DOUBLE AS altitude_m, if(k < {STOP_AT} OR k >= {GO_AT}, 36.0, 0.0) AS speed_kmh
FROM range(1, {DEVICES} + 1) d(i), range({RECORDS}) r(k),
    LATERAL (SELECT TIMESTAMPTZ '{DAY} 00:00:00+00' + to_seconds(k * {STEP_S}) AS moment)
"""


def made(connection: duckdb.DuckDBPyConnection, where: str) -> pa.Table:
    """All records that match a condition, in the archive's columns."""
    chosen = ", ".join(name if name in MADE else f"NULL AS {name}" for name in COLUMNS.names)
    return connection.sql(f"SELECT {chosen} FROM ({MADE}) WHERE {where} ORDER BY device_id, timestamp").to_arrow_table()


def sent(table: pa.Table) -> bytes:
    """Records as a sender posts them."""
    names = ("device_id", "timestamp", "latitude", "longitude", "altitude_m", "speed_kmh")
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    return b"\n".join(json.dumps(dict(zip(names, row, strict=True)), default=str).encode() for row in rows)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box that has them all; it saves none of those that wait."""
    folder = tmp_path_factory.mktemp("million")
    with Box(folder, persist__flush_seconds="3600", sql__enabled="true") as found, open_duckdb() as connection:
        behind = MERGED + LATE
        parts = [f"altitude_m < {MERGED}"]
        parts += [f"altitude_m >= {MERGED} AND altitude_m < {behind} AND id % {FILES} = {n}" for n in range(FILES)]
        add(Archive(found.data / "archive"), (made(connection, part).cast(COLUMNS) for part in parts))
        body = sent(made(connection, f"altitude_m >= {behind}"))
        headers = {"Content-Type": "application/x-ndjson"}
        assert found.http.post("/v1/records", content=body, headers=headers).json() == {"accepted": WAITING * DEVICES}
        yield found


@pytest.fixture(autouse=True)
def memory(box: Box) -> Iterator[None]:
    """Sees that no question takes the query program above its bound."""
    yield
    [program] = [p for p in psutil.Process(box.pid).children(recursive=True) if p.cmdline()[-1] == "api.query"]
    assert program.memory_info().rss < MOST_MEMORY_BYTES


def get(box: Box, path: str, **params: object) -> dict[str, Any]:
    answer = box.http.get(path, params=params, timeout=120)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def pages(box: Box, path: str, name: str, **params: object) -> Iterator[list[dict[str, Any]]]:
    """All pages of an answer."""
    cursor: dict[str, str] = {}
    while True:
        page = get(box, path, **params, **cursor)
        yield page[name]
        if page["next_cursor"] is None:
            return
        cursor = {"cursor": page["next_cursor"]}


def everything(box: Box, path: str, name: str, **params: object) -> list[dict[str, Any]]:
    return [one for page in pages(box, path, name, **params) for one in page]


def car(number: int) -> str:
    return f"car-{number:04}"


CARS = [car(number) for number in range(1, DEVICES + 1)]


def test_pages_hold_each_record_once_in_order(box: Box) -> None:
    count, last = 0, ("", 0)
    for page in pages(box, "/v1/records", "records", **SPAN, limit=50_000):
        keys = [(one["timestamp"], one["id"]) for one in page]
        assert last < keys[0]
        assert keys == sorted(set(keys))
        count, last = count + len(page), keys[-1]
    assert count == ALL


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_device_s_day(box: Box, order: str) -> None:
    found = everything(box, "/v1/records", "records", **SPAN, device_id=ONE, order=order, limit=300)
    expected = list(range(RECORDS))
    assert [one["altitude_m"] for one in found] == (expected if order == "asc" else expected[::-1])
    assert {one["device_id"] for one in found} == {ONE}


def test_an_hour_of_the_fleet_in_another_zone(box: Box) -> None:
    span = {"start": f"{DAY}T11:00:00+01:00", "end": f"{DAY}T12:00:00+01:00"}
    found = everything(box, "/v1/records", "records", **span, limit=50_000)
    assert len(found) == 60 * DEVICES
    assert {one["altitude_m"] for one in found} == set(range(600, 660))


def test_an_area(box: Box) -> None:
    found = everything(box, "/v1/records", "records", **SPAN, bbox="1.995,-1,2.045,90", limit=50_000)
    assert {one["device_id"] for one in found} == {car(number) for number in range(200, 205)}
    assert len(found) == 5 * RECORDS


def test_thinned(box: Box) -> None:
    hourly = everything(box, "/v1/records", "records", **SPAN, every="1h", limit=50_000)
    assert len(hourly) == DEVICES * math.ceil(RECORDS / 60)
    track = everything(box, "/v1/records", "records", **SPAN, device_id=ONE, simplify_m=5)
    assert (track[0]["altitude_m"], track[-1]["altitude_m"]) == (0, RECORDS - 1)
    assert len(track) < 10  # a straight line, and where it stands


def test_nothing_there(box: Box) -> None:
    assert get(box, "/v1/records", start="2026-03-06", end="2026-03-09")["records"] == []
    assert get(box, "/v1/records", **SPAN, device_id="nobody")["records"] == []


def ids_of(name: str, data: bytes) -> Sequence[int]:
    """The ids in an exported file."""
    if name == "csv":
        return [int(row["id"]) for row in csv.DictReader(io.StringIO(data.decode()))]
    if name == "ndjson":
        return [json.loads(line)["id"] for line in data.splitlines()]
    table = pyarrow.ipc.open_stream(data).read_all() if name == "arrow" else pq.read_table(io.BytesIO(data))
    return table["id"].to_pylist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["arrow", "csv", pytest.param("ndjson", marks=pytest.mark.thorough), "parquet"])
def test_an_export_of_all(box: Box, name: str) -> None:
    answer = box.http.get("/v1/export", params={**SPAN, "format": name}, timeout=120)
    assert answer.status_code == 200
    found = ids_of(name, answer.content)
    assert len(found) == len(set(found)) == ALL


def test_an_export_of_all_as_points(box: Box) -> None:
    """256 MB: counted as they come."""
    count = 0
    with box.http.stream("GET", "/v1/export", params={**SPAN, "format": "geojson"}, timeout=120) as answer:
        for chunk in answer.iter_bytes():
            count += chunk.count(b'"Feature"')
    assert abs(count - ALL) < 1_000  # some lie across two chunks


@pytest.mark.parametrize(("name", "point"), [("gpx", "<trkpt"), ("kml", "<when>")])
def test_an_export_of_a_track(box: Box, name: str, point: str) -> None:
    answer = box.http.get("/v1/export", params={**SPAN, "device_id": ONE, "format": name}, timeout=120)
    assert answer.text.count(point) == RECORDS


def test_a_summary(box: Box) -> None:
    found = everything(box, "/v1/summary", "summaries", **SPAN)
    assert [one["device_id"] for one in found] == CARS
    for one in found:
        assert one["count"] == RECORDS
        assert one["distance_km"] == pytest.approx(STEPS * STEP_M / 1_000, rel=1e-4)
        assert one["speed_kmh_mean"] == pytest.approx(36 * (STEPS / RECORDS))
        assert one["stopped_seconds"] == (GO_AT - STOP_AT - 1) * STEP_S


def test_an_hourly_summary_in_pages(box: Box) -> None:
    found = everything(box, "/v1/summary", "summaries", **SPAN, every="1h", fields="count", limit=5_000)
    assert len(found) == DEVICES * math.ceil(RECORDS / 60)
    assert sum(one["count"] for one in found) == ALL


def test_trips_and_stops(box: Box) -> None:
    trips = everything(box, "/v1/trips", "trips", **SPAN, limit=300)
    assert [one["device_id"] for one in trips] == [device for device in CARS for _ in range(2)]
    assert sum(one["distance_km"] for one in trips) == pytest.approx(DEVICES * STEPS * STEP_M / 1_000, rel=1e-3)
    stops = everything(box, "/v1/stops", "stops", **SPAN, limit=300)
    assert [one["device_id"] for one in stops] == CARS
    for one in stops:
        assert one["start"] == f"{DAY}T06:40:00.000000Z"
        assert one["duration_s"] == pytest.approx((GO_AT - STOP_AT) * STEP_S, abs=STEP_S)


def test_devices(box: Box) -> None:
    found = everything(box, "/v1/devices", "devices", limit=300)
    assert [one["device_id"] for one in found] == CARS
    assert {one["records"] for one in found} == {RECORDS}


def test_latest_then_and_now(box: Box) -> None:
    now = everything(box, "/v1/latest", "records", limit=300)
    assert [one["altitude_m"] for one in now] == [RECORDS - 1] * DEVICES
    then = everything(box, "/v1/latest", "records", at=f"{DAY}T10:00:30Z", limit=300)
    assert [one["device_id"] for one in then] == CARS
    assert {one["altitude_m"] for one in then} == {600}


def test_sql(box: Box) -> None:
    query = "SELECT device_id, count(*), max(altitude_m) FROM records GROUP BY ALL ORDER BY device_id"
    answer = box.http.post("/v1/sql", json={"query": query}, timeout=120)
    assert answer.json()["rows"] == [[device, RECORDS, RECORDS - 1] for device in CARS]
