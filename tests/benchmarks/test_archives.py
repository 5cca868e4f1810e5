"""The archives that benchmarks write themselves: as many records a device and day as they say, on the way it drove."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks import archives
from telemetry.archive.schema import COLUMNS
from telemetry.archive.table import Archive

DEVICES, A_DEVICE = 12, 100


@pytest.fixture(scope="module")
def day() -> pa.Table:
    return archives.one_day(DEVICES, A_DEVICE)


def test_days_of_as_many_records_each(day: pa.Table, connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    archives.add_days(archive, day, 0, 2)
    archives.add_days(archive, day, 2, 3)
    table = archive.open()
    assert [(str(one.day), one.files, one.records) for one in archive.days(table)] == [
        (f"2026-01-0{n}", 1, DEVICES * A_DEVICE) for n in (1, 2, 3)
    ]
    counts = connection.sql(
        f"SELECT device_id, CAST(timestamp AS DATE), count(*), count(DISTINCT id), bool_and(received_at >= timestamp) "
        f"FROM read_parquet({archive.files(table)}) GROUP BY ALL"
    ).fetchall()
    assert {row[2:] for row in counts} == {(A_DEVICE, A_DEVICE, True)}
    assert len(counts) == 3 * DEVICES
    assert archive.committed(table, 0) == "0", "no business of the box's own worker"


def test_a_denser_day_in_saves(day: pa.Table, connection: duckdb.DuckDBPyConnection) -> None:
    saves = list(archives.denser(connection, day, 10, 4))
    assert len(saves) == 4
    assert {table.num_rows for table in saves} == {10 * DEVICES * A_DEVICE // 4}
    assert all(table.schema == COLUMNS for table in saves)
    times = [pc.min_max(table["timestamp"]).as_py() for table in saves]
    assert [one["min"] for one in times] == sorted(one["min"] for one in times)
    all_of_it = pa.concat_tables(saves)
    assert len(pc.unique(all_of_it["id"])) == 10 * DEVICES * A_DEVICE
    for name in ("latitude", "longitude"):
        assert pc.min_max(all_of_it[name]) == pc.min_max(day[name]), "on the way between two records"


def test_the_first_records() -> None:
    found = archives.first_records(3_000)
    assert found["id"].to_pylist() == [archives.FIRST_ID + n for n in range(3_000)]
    assert pc.all(pc.less_equal(found["timestamp"], found["received_at"])).as_py()
    assert len(pc.unique(archives.in_batches(found)["received_at"])) == 3


def test_too_few_records_a_device() -> None:
    with pytest.raises(ValueError, match="smaller interval"):
        archives._thinned(["a"] * 5, 6)
