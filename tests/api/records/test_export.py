"""Exports over HTTP: every format, read by another's reader, holds what `/v1/records` answers; and none ends early."""

from __future__ import annotations

import asyncio
import csv
import http.client
import io
import json
import os
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from api.execution.pipe_stream import PipeStream
from api.execution.query_pool import Queries
from api.execution.slots import SlotLimits
from api.formats import FORMATS
from api.formats.text_lines import lines
from api.records import sorted_export
from api.records.export import AT_ONCE, WAITING, file_name
from api.records.sorted_export import in_order
from api.snapshot.snapshot import Wanted
from benchmarks import archives
from telemetry.archive.schema import COLUMNS, open_duckdb
from telemetry.archive.table import Archive
from telemetry.hot_store.shard import Shard
from telemetry.model.record import EARLIEST_US, LATEST_US, Sent
from telemetry.model.utc import DAY_US
from tests.api.conftest import Box, assert_problem, box_on, record
from tests.api.records.test_range_query import ATTRIBUTES, GROUPS, MIDNIGHT_US, QUESTIONS, STAGES, Corpus, Query, walk
from tests.api.stores import Stores
from tests.conftest import RedisServer
from worker.saving.save_budget import Bounds

Row = dict[str, Any]
TIMES = ("timestamp", "received_at")
NUMBERS = ("latitude", "longitude", "altitude_m", "speed_kmh", "heading_deg", "accuracy_m")

ODD = [
    Sent(
        "=1+1", record(MIDNIGHT_US + 5, location='say "hi", then,\r\nleave\n', attributes='{"a":\n[1,\r\n"x,\\n\\"y"]}')
    ),
    Sent("@x,y", record(MIDNIGHT_US + 6, fix=False, location="", speed_kmh=0.1 + 0.2)),
    Sent("-7", record(MIDNIGHT_US + 7, latitude=-0.0, longitude=5e-324, location=" \t'\\\x00\x1f\x7f\u2028")),
    Sent("-8", record(MIDNIGHT_US + 7, location="a\rb")),
    Sent("-9", record(MIDNIGHT_US + 7, location="a\nb")),
    Sent("no longitude", record(MIDNIGHT_US + 8, fix=False, latitude=1.5, attributes="{}")),
]
"""What a format might word wrongly."""


# What other readers find in each format: rows as `/v1/records` has them -----------------------------------


def iso(moment: datetime) -> str:
    assert moment.utcoffset() is not None
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def of_csv(data: bytes) -> list[Row]:
    """By the csv module. It tells an empty text and nothing apart only here: the rest of a line has no quotes."""
    assert data.endswith(b"\r\n")
    text = data.decode().replace(',"",', ",\0empty,")
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    found = []
    for row in rows:
        values: Row = {name: None if value == "" else value.replace("\0empty", "") for name, value in row.items()}
        values["id"] = int(values["id"])
        values |= {name: float(values[name]) for name in NUMBERS if values[name] is not None}
        values |= {name: iso(datetime.fromisoformat(values[name])) for name in TIMES}
        values["attributes"] = None if values["attributes"] is None else json.loads(values["attributes"])
        found.append(values)
    return found


def of_ndjson(data: bytes) -> list[Row]:
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


def of_geojson(data: bytes) -> list[Row]:
    found = json.loads(data)
    assert list(found) == ["type", "features"]
    assert found["type"] == "FeatureCollection"
    for one in found["features"]:
        here = one["properties"]
        place = [here["longitude"], here["latitude"]]
        point = None if None in place else {"type": "Point", "coordinates": place}
        assert one == {"type": "Feature", "id": here["id"], "geometry": point, "properties": here}
    return [one["properties"] for one in found["features"]]


def of_rows(rows: list[Row]) -> list[Row]:
    for row in rows:
        row |= {name: iso(row[name]) for name in TIMES}
        row["attributes"] = None if row["attributes"] is None else json.loads(row["attributes"])
    return rows


def of_arrow(data: bytes) -> list[Row]:
    with pa.ipc.open_stream(data) as stream:
        table = stream.read_all()
    assert table.schema == COLUMNS
    return of_rows(table.to_pylist())


def of_parquet(data: bytes) -> list[Row]:
    """By polars, which has a reader of its own; what is said of the columns by pyarrow."""
    table = pq.read_table(io.BytesIO(data))
    assert table.schema.remove(len(COLUMNS)) == COLUMNS.remove_metadata()
    said = json.loads(table.schema.metadata[b"geo"])
    assert said["primary_column"] == "geometry"
    assert said["columns"]["geometry"]["encoding"] == "WKB"
    rows = of_rows(pl.read_parquet(data).to_dicts())
    for row in rows:
        place = [row["longitude"], row["latitude"]]
        point = row.pop("geometry")
        assert point == (
            None if None in place else b"\1\1\0\0\0" + pa.array(place, pa.float64()).buffers()[1].to_pybytes()
        )
    return rows


READERS: dict[str, Callable[[bytes], list[Row]]] = {
    "json": json.loads,
    "ndjson": of_ndjson,
    "csv": of_csv,
    "geojson": of_geojson,
    "arrow": of_arrow,
    "parquet": of_parquet,
}
TRACKS = ("gpx", "kml")
"""Formats that hold a part of a record alone: test_export_tracks.py."""

MEDIA_TYPES = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8; header=present",
    "geojson": "application/geo+json",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}


def test_every_format_is_read_here() -> None:
    assert [*READERS, *TRACKS] == list(FORMATS)
    assert list(MEDIA_TYPES) == list(READERS)


def exported(box: Box, kind: str, *query: tuple[str, str | int]) -> list[Row]:
    answer = box.get("/v1/export", ("format", kind), *query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPES[kind]
    return READERS[kind](answer.content)


def in_export_order(rows: list[Row]) -> list[Row]:
    """By day, device, time and id. The order of devices is that of their bytes, as text has it."""
    return sorted(
        rows,
        key=lambda row: (row["timestamp"][:10], row["device_id"], datetime.fromisoformat(row["timestamp"]), row["id"]),
    )


@pytest.fixture(scope="module", params=STAGES)
def corpus(
    request: pytest.FixtureRequest, shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Corpus]:
    with box_on(shared_redis.url, tmp_path_factory.mktemp("export"), redis__shards="2") as box:
        GROUPS.append(ODD)
        try:
            yield Corpus(box, request.param)
        finally:
            GROUPS.pop()


@pytest.fixture
def fresh(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box for one test."""
    with box_on(shared_redis.url, tmp_path_factory.mktemp("export")) as box:
        yield box


ASKED = (
    "all",
    "one device",
    "two devices, one unknown, one twice",
    "quotes, backslash and line break",
    "start is inclusive",
    "one microsecond",
    "two whole days",
    "start after end",
    "all at once",
)
"""Of the questions that `/v1/records` is asked, those that differ for an export."""


@pytest.fixture(scope="module")
def pages(corpus: Corpus) -> dict[str, list[Row]]:
    """What `/v1/records` answers to each question, page by page."""
    return {name: [one for page in walk(corpus.box, query_of(name), 7) for one in page] for name in ASKED}


def query_of(question: str) -> Query:
    return [pair for pair in QUESTIONS[question][0] if pair[0] != "limit"]


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("question", ASKED)
def test_an_export_is_what_records_answers_page_by_page(
    corpus: Corpus, pages: dict[str, list[Row]], question: str, kind: str
) -> None:
    found = exported(corpus.box, kind, ("plausible", "false"), *query_of(question))
    assert found == in_export_order(pages[question])
    assert len(found) == len(corpus.expected(QUESTIONS[question][1]))


@pytest.mark.parametrize("kind", ["json", "ndjson", "geojson"])
def test_attributes_come_as_they_were_sent(corpus: Corpus, kind: str) -> None:
    assert f'"attributes":{ATTRIBUTES}}}' in corpus.box.get("/v1/export", ("format", kind)).text


def test_a_text_that_looks_like_a_formula_stays_as_it_is(corpus: Corpus) -> None:
    lines = corpus.box.get("/v1/export", ("format", "csv"), ("start", "2026-01-10"), ("end", "2026-01-10")).content
    assert b"\r\n=1+1,2026-01-10T00:00:00.000005Z," in lines
    assert b'\r\n"@x,y",2026-01-10T00:00:00.000006Z,' in lines


# Order ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slice_bytes", [100, 2**23])
@pytest.mark.parametrize("is_by_device", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_any_mixture_of_files_and_tail_comes_in_order(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, seed: int, is_by_device: bool, slice_bytes: int
) -> None:
    """Days of one file, of several, with a tail and of nothing else, in slices of a few records or texts."""
    monkeypatch.setattr(sorted_export, "SLICE_ROWS", 3)
    monkeypatch.setattr(sorted_export, "SLICE_BYTES", slice_bytes)
    chance = random.Random(seed)
    for _ in range(5):
        day_us = MIDNIGHT_US + chance.randrange(6) * DAY_US
        for _ in range(20):
            text = f'"{"x" * chance.randrange(90)}"'
            sent = record(day_us + chance.randrange(9))
            stores.append(Sent(chance.choice("abcdü"), replace(sent, attributes=text)))
        if chance.random() < 0.8:
            stores.save(Bounds(max_records=chance.choice([7, 1_000])))
    wanted = Wanted(chance.choice([(), ("b", "d")]), MIDNIGHT_US, MIDNIGHT_US + 5 * DAY_US)
    expected = sorted(
        (0 if is_by_device else one.record.timestamp_us // DAY_US, one.device_id, one.record.timestamp_us, one.id)
        for one in stores.stored
        if wanted.matches(one) and (not wanted.devices or one.device_id in wanted.devices)
    )
    with in_order(stores.connection, stores.snapshots.take(wanted), wanted, is_by_device) as records:
        rows = stores.connection.execute(f"SELECT device_id, epoch_us(timestamp), id FROM ({records})").fetchall()
    assert [(0 if is_by_device else row[1] // DAY_US, *row) for row in rows] == expected
    assert len(rows) > 20


def test_files_are_read_as_they_are_and_in_order(stores: Stores) -> None:
    """More rows than one thread takes at once, in several row groups, with a filter."""
    rows = 300_000
    archives.add(stores.archive, [many(rows, day) for day in (1, 0)])
    wanted = Wanted((), MIDNIGHT_US + 1, LATEST_US)
    with in_order(stores.connection, stores.snapshots.take(wanted), wanted) as records:
        found = stores.connection.sql(f"SELECT id FROM ({records})").to_arrow_table()["id"]
    assert found.to_pylist() == [*range(2, rows + 1), *range(rows + 1, 2 * rows + 1)]


@pytest.mark.parametrize("most", [2, 30, 65_536])
def test_days_are_read_device_by_device(stores: Stores, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Devices with more records than a slice has, alone in it and before others, and the same with less than that."""
    monkeypatch.setattr(sorted_export, "SLICE_ROWS", most)
    for day in range(3):
        for device, many in (("a", 1), ("b", 20), ("c", 1), ("d", 20), ("e", 20)):
            stores.append(*(Sent(device, record(MIDNIGHT_US + day * DAY_US + n)) for n in range(many)))
        if day < 2:
            stores.save()
    wanted = Wanted((), MIDNIGHT_US + 1, MIDNIGHT_US + 2 * DAY_US + 10)
    with in_order(stores.connection, stores.snapshots.take(wanted), wanted, is_by_device=True) as records:
        rows = stores.connection.execute(f"SELECT device_id, epoch_us(timestamp), id FROM ({records})").fetchall()
    matching = (one for one in stores.stored if wanted.matches(one))
    assert rows == sorted((one.device_id, one.record.timestamp_us, one.id) for one in matching)


def many(rows: int, day: int = 0) -> pa.Table:
    """Records of a day, each of a device of its own; their ids rise with devices and days."""
    first, start_us = day * rows + 1, MIDNIGHT_US + day * DAY_US
    made = {
        "device_id": "printf('%09d', id)",
        "timestamp": f"make_timestamptz(id - {first} + {start_us})",
        "received_at": f"make_timestamptz({start_us})",
        "id": "id",
        "transport": "'tcp'",
        "source": "'json'",
        **dict.fromkeys(NUMBERS, "NULL"),
        "latitude": "id / 1e8",
        "longitude": "-id / 1e7",
        "location": "'somewhere'",
        "attributes": "NULL",
    }
    columns = ", ".join(f"{made[name]} AS {name}" for name in COLUMNS.names)
    with open_duckdb() as connection:
        found = connection.sql(f"SELECT {columns} FROM range({first}, {first + rows}) AS r(id)")
        return found.to_arrow_table().cast(COLUMNS)


@pytest.fixture
def stores(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> Stores:
    """Both stores, empty."""
    return Stores([shard], archive, connection)


# While records arrive and are saved -------------------------------------------------------------------


def test_no_gap_and_no_double_while_a_worker_saves_all_the_time(fresh: Box) -> None:
    before = fresh.append(*(Sent(f"d{n % 7}", record(MIDNIGHT_US + n % 11 * DAY_US // 8)) for n in range(60)))
    expected = {one.id for one in before}
    stop = threading.Event()
    chance = random.Random(7)

    def work() -> int:
        saves = 0
        while not stop.is_set():
            fresh.append(Sent(chance.choice("xyz"), record(MIDNIGHT_US + chance.randint(0, 13) * DAY_US // 8)))
            fresh.save(bounds=Bounds(max_records=chance.choice([1, 3, 1000])))
            saves += 1
        return saves

    with ThreadPoolExecutor(1) as pool:
        saves = pool.submit(work)
        try:
            for kind in list(READERS) * 2:
                rows = exported(fresh, kind)
                ids = [row["id"] for row in rows]
                assert len(set(ids)) == len(ids), "a double"
                assert expected <= set(ids), "a gap"
                assert rows == in_export_order(rows)
        finally:
            stop.set()
        assert saves.result() > 5


# Formats and names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "json"),
        ("*/*", "json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "json"),
        ("text/csv", "csv"),
        ("text/*", "csv"),
        ("TEXT/CSV; charset=utf-8", "csv"),
        ("*/*, text/csv", "csv"),
        ("application/*;q=0.5, text/csv;q=0.4", "json"),
        ("application/json;q=0, application/*", "ndjson"),
        ("application/x-ndjson", "ndjson"),
        ("application/jsonl", "ndjson"),
        ("application/geo+json, application/json;q=0.9", "geojson"),
        ("application/vnd.apache.arrow.stream", "arrow"),
        ("application/vnd.apache.parquet", "parquet"),
        ("text/csv;q=odd", "csv"),
    ],
)
def test_accept_chooses_the_format(box: Box, accept: str | None, kind: str) -> None:
    request = box.http.build_request("HEAD", "/v1/export", headers={"Accept": accept or ""})
    if accept is None:
        del request.headers["Accept"]
    answer = box.http.send(request)
    assert (answer.status_code, answer.headers["content-type"]) == (200, MEDIA_TYPES[kind])
    assert answer.headers["vary"] == ("Accept" if kind == "parquet" else "Accept, Accept-Encoding")
    assert answer.content == b""
    assert "content-length" not in answer.headers, "nobody knows it"


def test_format_goes_before_accept(box: Box) -> None:
    answer = box.http.get("/v1/export?format=csv", headers={"Accept": "image/png"})
    assert answer.headers["content-type"] == MEDIA_TYPES["csv"]


@pytest.mark.parametrize("accept", ["image/png", "text/html", "text/csv;q=0", "application/json;q=0.000", "x"])
def test_what_none_is_acceptable_of_is_refused(box: Box, accept: str) -> None:
    found = assert_problem(box.http.get("/v1/export", headers={"Accept": accept}), 406, "not-acceptable")
    assert "text/csv" in str(found["detail"])


@pytest.mark.parametrize(
    ("name", "value"),
    [("format", "xlsx"), ("format", ""), ("format", "CSV"), ("start", "x"), ("limit", "5"), ("end", "-")],
)
def test_what_can_not_be_used_is_refused_by_name(box: Box, name: str, value: str) -> None:
    found = assert_problem(box.get("/v1/export", (name, value)), 400, "invalid-parameter")
    assert found["parameter"] == name


def test_a_format_that_is_unknown_names_those_that_are_not(box: Box) -> None:
    detail = str(assert_problem(box.get("/v1/export", ("format", "xlsx")), 400, "invalid-parameter")["detail"])
    assert all(name in detail for name in FORMATS)


def test_only_get_is_answered(box: Box) -> None:
    assert_problem(box.http.post("/v1/export"), 405, "wrong-method")


AT_US = MIDNIGHT_US + 37_500_123_456


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (Wanted((), EARLIEST_US, LATEST_US), "whimbrel"),
        (Wanted((), MIDNIGHT_US, MIDNIGHT_US + DAY_US), "whimbrel-2026-01-10"),
        (Wanted((), MIDNIGHT_US, MIDNIGHT_US + 3 * DAY_US), "whimbrel-2026-01-10_2026-01-12"),
        (Wanted(("a", "b"), MIDNIGHT_US, AT_US), "whimbrel-2026-01-10_2026-01-10T102500Z"),
        (Wanted(("van-7",), AT_US, LATEST_US), "whimbrel-van-7-from-2026-01-10T102500Z"),
        (Wanted((), EARLIEST_US, MIDNIGHT_US), "whimbrel-until-2026-01-09"),
        (Wanted(('../a"b\r\n;ü/\\',), EARLIEST_US, LATEST_US), "whimbrel-.._a_b______"),
        (Wanted(("x" * 255,), EARLIEST_US, LATEST_US), "whimbrel-" + "x" * 64),
    ],
)
def test_a_file_has_a_proper_name(wanted: Wanted, name: str) -> None:
    assert file_name(wanted) == name


@pytest.mark.parametrize(("kind", "suffix"), [(name, "arrows" if name == "arrow" else name) for name in READERS])
def test_the_name_comes_with_the_answer(box: Box, kind: str, suffix: str) -> None:
    query: Query = [("format", kind), ("device_id", "ü 1"), ("start", "2026-11-24"), ("end", "2026-11-24")]
    said = box.get("/v1/export", *query).headers["content-disposition"]
    assert said == f'attachment; filename="whimbrel-__1-2026-11-24.{suffix}"'


# What does not come to its end ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", READERS)
def test_an_export_that_fails_half_way_is_seen_to_be_broken(broken: Box, kind: str) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", broken.port, timeout=10)) as connection:
        connection.request("GET", f"/v1/export?format={kind}&plausible=false")
        answer = connection.getresponse()
        assert answer.status == 200
        with pytest.raises(http.client.IncompleteRead) as caught:
            answer.read()
    assert len(caught.value.partial) > 100_000, "it had begun"
    if kind in ENDS:
        assert not caught.value.partial.endswith(ENDS[kind])
        assert broken.get(
            "/v1/export", ("format", kind), ("plausible", "false"), ("end", "2026-01-10")
        ).content.endswith(ENDS[kind])


ENDS = {"json": b"\n]\n", "geojson": b"\n]}\n", "arrow": b"\xff\xff\xff\xff\0\0\0\0", "parquet": b"PAR1"}
"""How a whole file ends, where the format says."""


@pytest.fixture(scope="module")
def broken(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box with a file that can't be read to its end."""
    with box_on(shared_redis.url, tmp_path_factory.mktemp("broken")) as box:
        archives.add(box.archive, [many(150_000, 0), many(200_000, 1)])
        file = max(box.archive.live(box.archive.open()), key=lambda one: one.day)
        with Path(file.path).open("r+b") as there:
            there.seek(file.size_bytes * 8 // 10)
            there.write(bytes(file.size_bytes // 10))
        yield box
        log = box._log.read_text()
        assert "an export broke off: " in log
        assert "Exception ignored" not in log
        os.truncate(box._log, 0)  # the server's own words for it are a Traceback


def test_what_fails_before_the_first_byte_has_a_status_of_its_own(fresh: Box) -> None:
    fresh.append(Sent("a", record(MIDNIGHT_US)))
    fresh.client.flushall()
    for kind in READERS:
        assert "not set up" in str(assert_problem(fresh.get("/v1/export", ("format", kind)), 503, "busy")["detail"])
    assert fresh.http.head("/v1/export").status_code == 200, "it asks nobody"
    fresh.set_up()
    assert exported(fresh, "csv") == []


# Who reads slowly, not at all, or leaves --------------------------------------------------------------

MANY = 400_000
"""Records: as CSV ten times what can be on its way."""


@contextmanager
def large(url: str, folder: Path, **more: str) -> Iterator[Box]:
    """A box with many records, where one address may have all places."""
    with box_on(url, folder, api__max_share_percent="100", **more) as box:
        archives.add(box.archive, [many(MANY)])
        yield box


def asking(box: Box, stack: ExitStack) -> socket.socket:
    """A client that asked for all as CSV and has not read anything."""
    client = stack.enter_context(socket.socket())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    client.settimeout(20)
    client.connect(("127.0.0.1", box.port))
    client.sendall(b"GET /v1/export?format=csv HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return client


def take_all_places(box: Box, stack: ExitStack) -> None:
    """Have clients that read the first bytes alone. Of others, who wait for them and leave, one too many is refused."""
    for client in [asking(box, stack) for _ in range(AT_ONCE)]:
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    with ExitStack() as waiting:
        others = [asking(box, waiting) for _ in range(WAITING + 1)]
        [refused, *_], _, _ = select.select(others, [], [], 10)
        assert refused.recv(100).startswith(b"HTTP/1.1 503 ")


def wait_for_a_place(box: Box, most_s: float) -> None:
    stop_s = time.monotonic() + most_s
    while box.get("/v1/export", ("device_id", "nobody")).status_code == 503:
        assert time.monotonic() < stop_s
        time.sleep(0.05)


def test_clients_that_leave_give_their_places_back(shared_redis: RedisServer, tmp_path: Path) -> None:
    with large(shared_redis.url, tmp_path) as box:
        for _ in range(2):
            with ExitStack() as stack:
                take_all_places(box, stack)
                assert box.get("/v1/records", ("limit", 1)).status_code == 200, "pages have places of their own"
            wait_for_a_place(box, 5)
        assert len(box.get("/v1/export", ("format", "ndjson")).content.splitlines()) == MANY


def test_what_nobody_wants_any_more_is_not_written_to_its_end(connection: duckdb.DuckDBPyConnection) -> None:
    def work(cursor: duckdb.DuckDBPyConnection, file: int) -> int:
        return lines("CAST(n AS VARCHAR)")(cursor, "SELECT range AS n FROM range(1000000000000)", file)

    async def run() -> None:
        queries = Queries(connection, SlotLimits(1, 1, 5), timeout_s=0)
        piped = PipeStream(queries, work)
        assert await piped.read()
        await asyncio.sleep(0.2)  # the writer waits by now
        piped.close()
        async with asyncio.timeout(10):
            assert await queries.run(lambda cursor: cursor.execute("SELECT 1").fetchall()) == [(1,)]
        await queries.close()

    asyncio.run(run())


def test_who_reads_slowly_gets_all_and_who_does_not_is_cut_off(shared_redis: RedisServer, tmp_path: Path) -> None:
    """An export takes longer than a query may, if its client does."""
    settings = {"collector__keep_alive_s": "2", "api__query_timeout_s": "1"}
    with large(shared_redis.url, tmp_path, **settings) as box, ExitStack() as stack:
        with box.http.stream("GET", "/v1/export?format=csv") as answer:
            parts = answer.iter_bytes()
            lines = next(parts).count(b"\n")
            time.sleep(1.3)
            lines += sum(part.count(b"\n") for part in parts)
        assert lines == MANY + 1
        take_all_places(box, stack)
        wait_for_a_place(box, 15)
