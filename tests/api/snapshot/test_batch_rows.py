"""Batches of records whose texts take bounded memory, whatever the files are like."""

from __future__ import annotations

from collections.abc import Callable

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from api.snapshot.batch_rows import BATCH_BYTES, BatchRows
from telemetry.archive.schema import COLUMNS, records_sql
from telemetry.archive.table import Archive
from telemetry.archive.text_bytes import text_bytes
from telemetry.hot_store.shard import Shard
from telemetry.model.record import Record, Sent
from tests.api.stores import ALL, MIDNIGHT_US, Stores

MOST = 8_192

TEXTS: dict[str, Callable[[int], str | None]] = {
    "none": lambda n: None,
    "short": lambda n: f'{{"n":{n},"t":"{"x" * 100}"}}',
    "long": lambda n: f'"{n:04}{"x" * 50_000}"',
    "the same": lambda n: f'"{"x" * 50_000}"',
    "a few long": lambda n: f'"{"x" * (500_000 if n % 50 == 0 else 10)}"',
}


@pytest.mark.parametrize("is_saved", [True, False])
@pytest.mark.parametrize("kind", TEXTS)
def test_no_batch_has_too_many_bytes(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection, kind: str, is_saved: bool
) -> None:
    stores = Stores([shard], archive, connection)
    sent = [Sent("a", Record(MIDNIGHT_US + n, "tcp", "json", attributes=TEXTS[kind](n))) for n in range(1_000)]
    for at in range(0, len(sent), 100):
        stores.append(*sent[at : at + 100])
    if is_saved:
        stores.save()
    snapshot = stores.snapshots.take(ALL)
    rows = BatchRows().of(snapshot, MOST)
    connection.register("tail", snapshot.records)
    source = records_sql([file.path for file in snapshot.files]) if is_saved else "tail"
    batches = connection.sql(f"SELECT {', '.join(COLUMNS.names)} FROM {source}").to_arrow_reader(rows)
    sizes = [pc.sum(text_bytes(pa.table(batch))).as_py() for batch in batches]
    assert max(sizes) <= BATCH_BYTES
    if kind in ("none", "short"):
        assert rows >= 1_000
