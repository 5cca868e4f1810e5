"""Where a device stands by its column's runs: where Arrow finds it, or it is left to Arrow."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.records.page_skipping import NotRead
from api.records.rle_lookup import places

SORTED = {
    "one": ["a"] * 5_000,
    "two": ["a"] * 2_047 + ["b"] * 2_953,
    "some": [device for n in range(40) for device in [f"ship {n:02}"] * (n * n % 300 + 1)],
    "many": [f"sim-{n // 3:06}" for n in range(6_000)],
    "each once": [f"{n:04}" for n in range(4_000)],
    "unlike": sorted(device for n in range(300) for device in ["ü/😀" * (n % 5) + str(n)] * Random(n).randrange(1, 60)),
}
OPTIONS: dict[str, Any] = {"max_rows_per_page": 1_024, "compression": "zstd", "use_dictionary": True}


def written(path: Path, devices: list[str], **more: Any) -> pq.FileMetaData:
    pq.write_table(pa.table({"device_id": devices}), path, **OPTIONS | more)
    return pq.read_metadata(path)


def found(path: Path, metadata: pq.FileMetaData, device: str, group: int = 0) -> range:
    with pa.OSFile(str(path)) as file:
        levels = metadata.schema.column(0).max_definition_level
        return places(file, metadata.row_group(group).column(0), levels, device)


@pytest.mark.parametrize("kind", SORTED)
def test_each_device_is_where_it_is(kind: str, tmp_path: Path) -> None:
    devices, path = SORTED[kind], tmp_path / "x.parquet"
    metadata = written(path, devices)
    for device in Random(1).sample(sorted(set(devices)), min(len(set(devices)), 50)):
        begin = devices.index(device)
        assert found(path, metadata, device) == range(begin, begin + devices.count(device))
    assert not found(path, metadata, "nobody")


@pytest.mark.parametrize("order", ["device", "device DESC"])
def test_files_of_duckdb_are_looked_through_too(order: str, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    devices = sorted(SORTED["some"], reverse="DESC" in order)
    with duckdb.connect() as connection:
        connection.register("found", pa.table({"device": devices}))
        connection.execute(f"COPY (FROM found ORDER BY {order}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
    metadata = pq.read_metadata(path)
    for device in sorted(set(devices)):
        begin = devices.index(device)
        assert found(path, metadata, device) == range(begin, begin + devices.count(device))


@pytest.mark.parametrize(
    "more",
    [
        {"data_page_version": "2.0"},
        {"compression": "snappy"},
        {"use_dictionary": False},
        {"dictionary_pagesize_limit": 10},
        {"write_statistics": False},
    ],
)
def test_what_is_written_otherwise_is_left_to_arrow(more: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    metadata = written(path, SORTED["some"], **more)
    with pytest.raises(NotRead):
        found(path, metadata, "ship 39")


def test_a_device_in_several_places_is_left_to_arrow(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    metadata = written(path, ["a"] * 3_000 + ["b"] * 3_000 + ["a"])
    assert found(path, metadata, "b") == range(3_000, 6_000)
    with pytest.raises(NotRead):
        found(path, metadata, "a")


def test_missing_devices_are_left_to_arrow(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"device_id": pa.array(["a", None, "b"])}), path, **OPTIONS)
    with pytest.raises(NotRead):
        found(path, pq.read_metadata(path), "b")


def test_noise_is_not_read(tmp_path: Path) -> None:
    """Whatever a byte is, who looks through the column ends, with rows of it or without."""
    path, dice = tmp_path / "x.parquet", Random(1)
    metadata = written(path, SORTED["some"])
    chunk, whole = metadata.row_group(0).column(0), path.read_bytes()
    for _ in range(500):
        noisy = bytearray(whole)
        noisy[chunk.dictionary_page_offset + dice.randrange(chunk.total_compressed_size)] = dice.randrange(256)
        path.write_bytes(noisy)
        try:
            rows = found(path, metadata, "ship 20")
        except NotRead:
            continue
        assert 0 <= rows.start <= rows.stop
