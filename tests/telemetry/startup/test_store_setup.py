"""Stores and archives of older and newer releases."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import duckdb
import msgspec
import pytest
import redis
from deltalake import DeltaTable

from telemetry.archive.operations import layout_upgrade
from telemetry.archive.schema import COLUMNS, layout_of, records_sql
from telemetry.archive.table import LAYOUT_KEY, Archive, layout_of_table
from telemetry.hot_store import shard as hot
from telemetry.hot_store.entry_codec import read_block
from telemetry.hot_store.keys import Keys
from telemetry.hot_store.operations.setup import upgrade
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import LayoutError, NotSetUp, OtherStoreError
from telemetry.model.record import Record
from telemetry.startup.store_setup import set_up
from tests.telemetry.archive.operations.test_layout_upgrade import older_table
from tests.worker.conftest import Ledger, archived
from tests.worker.saving.test_saver import drain

STORE = Keys(0).store


def test_a_new_table_has_its_layout(shard: Shard, archive: Archive) -> None:
    assert DeltaTable(str(archive.root)).metadata().configuration[LAYOUT_KEY] == "1"
    assert layout_upgrade.upgrade(archive) == []
    assert archive.open().version() == 0


def test_a_table_without_a_layout_and_without_columns_gets_them(
    client: redis.Redis, archive: Archive, connection: duckdb.DuckDBPyConnection
) -> None:
    older_table(archive)
    [shard] = set_up(client, archive, 1)
    table = archive.open()
    assert {field.name for field in table.schema().fields} == {*COLUMNS.names, "date"}
    assert layout_of_table(table, unwritten=0) == 1
    version = table.version()
    assert layout_upgrade.upgrade(archive) == []
    assert archive.open().version() == version
    ledger = Ledger()
    ledger.append(shard, "ab")
    drain(shard, archive)
    assert archived(connection, archive) == ledger.acknowledged


def test_a_newer_table_is_opened_by_nobody(client: redis.Redis, shard: Shard, archive: Archive) -> None:
    DeltaTable(str(archive.root)).alter.set_table_properties({LAYOUT_KEY: "2"}, raise_if_not_exists=False)
    client.flushall()
    uses: list[Callable[[], object]] = [archive.open, archive.open_existing, lambda: layout_upgrade.upgrade(archive)]
    uses.append(lambda: set_up(client, archive, 1))
    for use in uses:
        with pytest.raises(
            LayoutError, match=r"the archive .* has layout 2, .* knows layouts up to 1; a newer release"
        ):
            use()
    assert client.dbsize() == 0, "no store was begun"


def test_a_newer_store_is_used_by_nobody(client: redis.Redis, shard: Shard, archive: Archive) -> None:
    client.hset(STORE, "layout", "2")
    uses: list[Callable[[], object]] = [lambda: hot.attach(client, 1), lambda: set_up(client, archive, 1)]
    for use in uses:
        with pytest.raises(LayoutError, match=r"the store in Redis has layout 2, .* start that release, or restore a"):
            use()


def test_an_older_store_is_upgraded_by_the_worker_and_its_older_programs_are_stopped(
    client: redis.Redis, shard: Shard, archive: Archive
) -> None:
    ledger = Ledger()
    ledger.append(shard, "a")
    client.hset(STORE, "layout", "0")
    with pytest.raises(NotSetUp, match="the store has layout 0; the worker upgrades it to 1"):
        hot.attach(client, 1)
    [now] = set_up(client, archive, 1)
    assert (client.hget(STORE, "layout"), now.unsaved()) == (b"1", 1)
    with pytest.raises(OtherStoreError):
        ledger.append(shard, "a")
    assert upgrade(client, 0, "again") is None
    assert hot.attach(client, 1)[0].store_id == now.store_id


@pytest.mark.parametrize("lacking", range(1, 9))
def test_records_of_a_tail_without_the_fields_that_came_later_are_read(lacking: int) -> None:
    whole = Record(1_795_500_000_000_000, "tcp", "json", 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, "here", "{}")
    shorter = [1, *msgspec.structs.astuple(whole)][:-lacking]
    data = msgspec.msgpack.encode([shorter, shorter])
    block = read_block("a", (b"1-0", [b"i", b"7", b"r", data]), 1, lambda found: pytest.fail(found.reason))
    assert block is not None
    assert [len(row) for row in block.rows] == [len(Record.__struct_fields__) + 1] * 2
    assert [row[:-lacking] for row in block.rows] == [tuple(shorter)] * 2
    assert {row[-1] for row in block.rows} == {None}


def test_files_of_several_layouts_are_one_table_of_all_columns(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    """The name tells a file's layout; a column that a file lacks is null."""
    old, new = tmp_path / "1-a.parquet", tmp_path / "1-b.v2.parquet"
    assert [layout_of(str(path)) for path in (old, new)] == [1, 2]
    connection.execute(f"COPY (SELECT 'a' AS device_id, 1::BIGINT AS id) TO '{old}'")
    connection.execute(f"COPY (SELECT 2::BIGINT AS id, 'b' AS device_id, 'x' AS location) TO '{new}'")
    for paths in ([old, new], [new, old]):
        found = connection.execute(f"SELECT * FROM {records_sql(list(map(str, paths)))} WHERE id > 0 ORDER BY id")
        assert [column[0] for column in found.description] == COLUMNS.names
        rows = [dict(zip(COLUMNS.names, row, strict=True)) for row in found.fetchall()]
        assert [(row["device_id"], row["id"], row["location"]) for row in rows] == [("a", 1, None), ("b", 2, "x")]
        assert {row["latitude"] for row in rows} == {None}
    assert os.listdir(tmp_path)
