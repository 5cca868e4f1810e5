"""Records as receivers get them: the same pieces each time, and the same content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.formats import ndjson
from telemetry.archive.added_file import NewFile
from telemetry.archive.schema import COLUMNS
from worker.courier.delivery.record_batches import json_line, pieces, taken_msgpack

US = 1_795_500_000_000_000


def row(number: int, **more: Any) -> dict[str, Any]:
    plain = dict.fromkeys(COLUMNS.names) | {"device_id": f"d{number}", "timestamp": US + number, "received_at": US}
    return plain | {"id": number + 1, "transport": "tcp", "source": "json"} | more


def written(folder: Path, *files: list[dict[str, Any]]) -> list[NewFile]:
    found = []
    for number, rows in enumerate(files):
        pq.write_table(pa.Table.from_pylist(rows, schema=COLUMNS), folder / f"{number}.parquet", row_group_size=700)
        found.append(NewFile(f"{number}.parquet", 1, len(rows)))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


@pytest.fixture(scope="module")
def files(folder: Path) -> list[NewFile]:
    return written(folder, [row(n) for n in range(2_500)], [row(2_500)], [row(n) for n in range(2_501, 3_000)])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 3_100), st.integers(1, 1_500), st.integers(1, 100_000))
def test_pieces_hold_all_records_behind_those_skipped(
    folder: Path, files: list[NewFile], skipped: int, most_records: int, most_bytes: int
) -> None:
    found = list(pieces(folder, files, skipped, json_line, most_records, most_bytes))
    lines = [json.loads(item) for piece in found for item in piece.items]
    assert [line["id"] for line in lines] == list(range(skipped + 1, 3_001))
    assert [piece.first for piece in found] == [
        skipped + sum(len(p.items) for p in found[:n]) for n in range(len(found))
    ]
    for piece in found:
        assert len(piece.items) <= most_records
        assert len(piece.items) == 1 or sum(len(item) + 1 for item in piece.items) <= most_bytes


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 900), st.integers(100, 50_000), st.data())
def test_a_piece_is_the_same_when_it_is_sent_again(
    folder: Path, files: list[NewFile], most_records: int, most_bytes: int, data: st.DataObject
) -> None:
    found = list(pieces(folder, files, 0, taken_msgpack, most_records, most_bytes))
    at = data.draw(st.integers(0, len(found) - 1))
    assert list(pieces(folder, files, found[at].first, taken_msgpack, most_records, most_bytes)) == found[at:]


FULL = row(
    1,
    timestamp=US + 123_456,
    latitude=1.5,
    longitude=-2.25,
    speed_kmh=3.0,
    location='a "b"',
    attributes='{"n": 12345678901234567890123,\n "x": [1, {"y": null}]}',
)


def test_ndjson_is_what_an_export_holds(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> None:
    """Values compare as text where Python's own JSON would round them."""
    [file] = written(tmp_path, [FULL, row(2)])
    export = tmp_path / "export"
    with export.open("wb") as out:
        ndjson.FORMAT.write(connection, f"SELECT * FROM read_parquet('{tmp_path / file.path}')", out.fileno())
    [piece] = pieces(tmp_path, [file], 0, json_line, 10, 10**6)
    ours = [json.loads(item, parse_int=str) for item in piece.items]
    assert ours == [json.loads(line, parse_int=str) for line in export.read_bytes().splitlines()]
    assert all(b"\n" not in (item) for item in piece.items)


def test_a_collector_gets_what_it_takes(tmp_path: Path) -> None:
    [file] = written(tmp_path, [{**FULL, "attributes": '{"n": 7, "f": 60.0}'}, FULL])
    [piece] = pieces(tmp_path, [file], 0, taken_msgpack, 10, 10**6)
    good, large = piece.items
    assert msgspec.msgpack.decode(good) == {
        "device_id": "d1",
        "timestamp": "2026-11-24T06:00:00.123456Z",
        "latitude": 1.5,
        "longitude": -2.25,
        "speed_kmh": 3.0,
        "location": 'a "b"',
        "attributes": {"n": 7, "f": 60.0},
    }
    attributes = msgspec.msgpack.decode(large)["attributes"]
    assert attributes == {"n": "12345678901234567890123", "x": [1, {"y": None}]}, "msgpack's integers have 64 bits"
