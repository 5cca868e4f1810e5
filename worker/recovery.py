"""Recovery of a hot store and an archive that do not belong together, after one of them was restored, emptied or
swapped.

A shard does not match if the table's commit number is neither `committed` nor the number of its intent. Then:

1. Fence: a commit without files, with a new commit number above both. Commits with an older handle fail, so no earlier
   save can appear in the archive any more.
2. Take over: the store gets a new id, which stops collectors and workers that use the old one; its intent is
   dropped; its next id is raised above the archive's greatest.
3. From each stream, records that the archive has already (same id, same content) are removed; the others get new
   ids, also in latest, and keep their time of arrival. One function call per device: a crash leaves each stream intact.
4. Reopen: `committed` becomes the fence's number. Latest is then rebuilt from the archive (latest_rebuild.py).

After a crash between any two steps the shard still does not match, and `recover` starts again; records that were
renumbered are renumbered again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import NamedTuple

import duckdb

from telemetry.archive.operations import commits
from telemetry.archive.schema import COLUMNS, columns, records_sql
from telemetry.archive.table import Archive, commit_number
from telemetry.hot_store.entry_codec import (
    Block,
    Moved,
    RawEntry,
    Unreadable,
    count_of,
    entry_id,
    packed,
    read_block,
    read_entry,
    size_bytes,
)
from telemetry.hot_store.operations.recovery import reopen, replace_entries, take_over
from telemetry.hot_store.shard import Shard
from telemetry.hot_store.stream_reader import sizes_bytes, tails
from telemetry.model.errors import IntentChanged
from worker.saving.latest_rebuild import rebuild

DEVICES_AT_ONCE = 200


class Recovered(NamedTuple):
    """Result for a shard's unsaved records."""

    shard: int
    dropped: int
    kept: int


def recover(
    shard: Shard,
    archive: Archive,
    connection: duckdb.DuckDBPyConnection,
    now_ms: int,
    reached: Callable[[str], None] = lambda step: None,
) -> Recovered:
    """Do the four steps. `reached` is called with the name of each before it."""
    reached("fence")
    fence = _fence(shard, archive, now_ms)
    table = archive.open()
    reached("take over")
    take_over(shard, secrets.token_hex(16), archive.greatest_id(table) // shard.shards + 1)
    files = archive.files(table)
    dropped = kept = 0
    devices = shard.all_dirty()
    for at in range(0, len(devices), DEVICES_AT_ONCE):
        part = devices[at : at + DEVICES_AT_ONCE]
        streams = tails(shard, part, sizes_bytes(shard, part, shard.waiting().size_bytes))
        archived = _archived(connection, files, _blocks(shard, streams))
        for device, entries in streams.items():
            reached(f"replace {device}")
            result = _replace(shard, device, entries, archived)
            dropped, kept = dropped + result[0], kept + result[1]
    reached("reopen")
    reopen(shard, fence)
    rebuild(shard, archive, connection)
    return Recovered(shard.shard, dropped, kept)


def _fence(shard: Shard, archive: Archive, now_ms: int) -> str:
    while True:
        table = archive.open()
        numbers = (archive.committed(table, shard.shard), shard.state().committed)
        fence = commit_number(max(numbers, key=count_of))
        try:
            commits.commit(archive, table, [], shard.shard, fence, now_ms)
            return fence
        except IntentChanged:
            continue


def _blocks(shard: Shard, streams: dict[str, list[RawEntry]]) -> list[Block]:
    return [
        block
        for device, entries in streams.items()
        for raw in entries
        if (block := read_block(device, raw, shard.shards)) is not None
    ]


def _archived(connection: duckdb.DuckDBPyConnection, files: Sequence[str], blocks: list[Block]) -> set[int]:
    """Ids of the records that the archive has with the same content."""
    if not files or not blocks:
        return set()
    is_same = " AND ".join(
        f"old.{name} IS NOT DISTINCT FROM tail.{name}" for name in COLUMNS.names if name not in ("id", "received_at")
    )
    connection.register("tail", columns(blocks))
    rows = connection.execute(
        f"SELECT tail.id FROM tail JOIN {records_sql(files)} old "
        f"ON old.id = tail.id AND {is_same} "
        f"WHERE old.id BETWEEN {min(block.ids[0] for block in blocks)} AND {max(block.ids[-1] for block in blocks)}"
    ).fetchall()
    connection.unregister("tail")
    return {row[0] for row in rows}


def _replace(shard: Shard, device: str, entries: list[RawEntry], archived: set[int]) -> tuple[int, int]:
    """Rewrite one stream. Returns the numbers of removed and of remaining records."""
    removed = kept = 0
    moved = []
    for raw in entries:
        unreadable: list[Unreadable] = []
        records = read_entry(device, raw, shard.shards, unreadable.append)
        stay = [stored for stored in records if stored.id not in archived]
        removed += len(records) + len(unreadable)
        kept += len(stay) + len(unreadable)
        if stay or unreadable:
            arrival_ms = records[0].received_ms if records else entry_id(raw[0])[0]
            parts = packed([stored.record for stored in stay], [one.raw for one in unreadable])
            moved.append(Moved(arrival_ms, *parts))
    if entries:
        replace_entries(shard, device, entries[-1][0].decode(), removed, size_bytes(entries), moved)
    return removed - kept, kept
