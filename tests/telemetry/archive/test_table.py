"""The archive: what is written, what the log says of it, and which files a question needs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from telemetry.archive.operations import commits
from telemetry.archive.schema import columns
from telemetry.archive.table import Archive, commit_number
from telemetry.hot_store.entry_codec import Block, count_of
from telemetry.model.record import EARLIEST_US, LATEST_US, Record, Stored
from telemetry.model.utc import DAY_US, day_of

NOW_US = 1_795_500_000_000_000


def stored(number: int, timestamp_us: int = NOW_US, device: str = "a", **more: object) -> Stored:
    return Stored(device, number, NOW_US // 1_000, Record(timestamp_us, "http", "json", **more))  # type: ignore[arg-type]


def save(archive: Archive, *records: Stored, previous: str = "0") -> str:
    number = commit_number(previous)
    files = archive.data_files.write(columns(map(Block.of, records)), number)
    commits.commit(archive, archive.open(), files, 0, number, NOW_US // 1_000)
    return number


def rows(connection: duckdb.DuckDBPyConnection, files: list[str]) -> list[tuple[object, ...]]:
    if not files:
        return []
    return connection.execute("SELECT id FROM read_parquet($1) ORDER BY id", [files]).fetchall()


def test_numbers_rise_and_are_never_shared() -> None:
    numbers = ["0"]
    for _ in range(100):
        numbers.append(commit_number(numbers[-1]))
    assert [count_of(number) for number in numbers] == list(range(101))
    assert len({commit_number("0") for _ in range(100)}) == 100


def test_every_column_survives(archive: Archive) -> None:
    archive.open()
    full = stored(
        7,
        latitude=1.5,
        longitude=-2.5,
        altitude_m=3.0,
        speed_kmh=4.0,
        heading_deg=5.0,
        accuracy_m=6.0,
        location="Ünï 'quoted' 🚚",
        attributes='{"a":12345678901234567890}',
    )
    save(archive, full, stored(8, device="é/ %"))
    [file] = archive.files(archive.open())
    first, second = pq.read_table(file, partitioning=None).to_pylist()
    assert first == {
        "device_id": "a",
        "timestamp": datetime.fromtimestamp(NOW_US / 1e6, UTC),
        "received_at": datetime.fromtimestamp(NOW_US / 1e6, UTC),
        "id": 7,
        "transport": "http",
        "source": "json",
        "latitude": 1.5,
        "longitude": -2.5,
        "altitude_m": 3.0,
        "speed_kmh": 4.0,
        "heading_deg": 5.0,
        "accuracy_m": 6.0,
        "location": "Ünï 'quoted' 🚚",
        "attributes": '{"a":12345678901234567890}',
    }
    assert second["latitude"] is None
    assert pq.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD"


def test_other_tools_read_the_table(archive: Archive) -> None:
    archive.open()
    save(archive, stored(1), stored(2, NOW_US - DAY_US))
    table = DeltaTable(str(archive.root)).to_pandas()
    assert sorted(table["id"]) == [1, 2]
    assert sorted(map(str, table["date"])) == ["2026-11-23", "2026-11-24"]


def test_the_greatest_id_is_that_of_the_live_files(archive: Archive) -> None:
    assert archive.greatest_id(archive.open()) == 0
    save(archive, stored(2**52), stored(3, NOW_US - DAY_US))
    assert archive.greatest_id(archive.open()) == 2**52


def test_the_log_bounds_are_exact_to_the_microsecond(archive: Archive) -> None:
    archive.open()
    save(archive, stored(1, NOW_US + 1), stored(2, NOW_US + 123_457))
    log = (archive.root / "_delta_log" / f"{1:020}.json").read_text(encoding="utf-8")
    [add] = [json.loads(line)["add"] for line in log.splitlines() if line.startswith('{"add"')]
    stats = json.loads(add["stats"])
    assert stats["numRecords"] == 2
    assert stats["minValues"]["timestamp"].endswith(".000001Z")
    assert stats["maxValues"]["timestamp"].endswith(".123457Z")


MOMENTS = st.integers(EARLIEST_US, EARLIEST_US + 5 * DAY_US) | st.sampled_from(
    [EARLIEST_US, EARLIEST_US + DAY_US - 1, EARLIEST_US + DAY_US, LATEST_US - 1, NOW_US]
)
DEVICES = st.sampled_from(["a", "a'b", "ä", "b", "🚚", "", "~"]).map(lambda text: text or "A")


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_question_misses_a_file(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, connection: duckdb.DuckDBPyConnection
) -> None:
    archive = Archive(tmp_path_factory.mktemp("pruned") / "archive")
    archive.open()
    drawn = data.draw(st.lists(st.tuples(MOMENTS, DEVICES), min_size=1, max_size=6))
    records = [stored(n, timestamp_us, device) for n, (timestamp_us, device) in enumerate(drawn)]
    number = save(archive, *records[::2])
    if records[1::2]:
        save(archive, *records[1::2], previous=number)
    start_us, end_us = sorted([data.draw(MOMENTS), data.draw(MOMENTS) + 1])
    devices = data.draw(st.lists(DEVICES, max_size=2))
    files = [file.path for file in archive.live(archive.open()) if file.may_hold(start_us, end_us, devices)]
    found = {row[0] for row in rows(connection, files)}
    wanted = {
        one.id
        for one in records
        if start_us <= one.record.timestamp_us < end_us and (not devices or one.device_id in devices)
    }
    assert wanted <= found


def test_the_log_says_what_each_file_holds(archive: Archive) -> None:
    archive.open()
    first = [stored(1, NOW_US, "b"), stored(2, NOW_US + 1, "a'ä")]
    number = save(archive, *first)
    mixed = [stored(3, NOW_US), stored(4, NOW_US)._replace(record=Record(NOW_US, "udp", "json"))]
    save(archive, *mixed, previous=number)
    one, two = sorted(archive.live(archive.open()), key=lambda file: str(file.transport))[::-1]
    assert (one.rows, one.first_device, one.last_device) == (2, "a'ä", "b")
    assert (one.first_us, one.last_us, one.day) == (NOW_US, NOW_US + 1, day_of(NOW_US))
    assert one.size_bytes == Path(one.path).stat().st_size
    assert (one.transport, two.transport) == (first[0].record.transport, None)


def test_a_handle_is_newest_until_the_next_commit(archive: Archive) -> None:
    table = archive.open()
    assert archive.is_newest(table)
    save(archive, stored(1, NOW_US))
    assert not archive.is_newest(table)
    table.update_incremental()
    assert archive.is_newest(table)
