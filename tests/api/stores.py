"""Redis and archive filled by hand, the worker's save called in this process: what tests of readers need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import duckdb

from api.records.range_query import Question, page
from api.snapshot.device_tail import OneTail
from api.snapshot.snapshot import Snapshots, Wanted
from api.snapshot.tail_cache import Remembered
from telemetry.archive.table import Archive
from telemetry.hot_store import shard as hot
from telemetry.hot_store.client import raw_entries
from telemetry.hot_store.entry_codec import pack, read_entry
from telemetry.hot_store.keys import shard_of
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard
from telemetry.model.record import EARLIEST_US, LATEST_US, Sent, Stored
from telemetry.startup.store_setup import set_up
from tests.api.conftest import NOW_MS
from tests.conftest import RedisServer
from worker.saving.save_budget import Bounds
from worker.saving.saver import Saver

MIDNIGHT_US = 1_768_003_200_000_000
ALL = Wanted((), EARLIEST_US, LATEST_US)


class Killed(Exception):
    """The worker is gone."""


def killed_at(step: str) -> Callable[[str], None]:
    def reached(name: str) -> None:
        if name == step:
            raise Killed(step)

    return reached


class Stores:
    """Both stores, and what was put in."""

    def __init__(self, shards: list[Shard], archive: Archive, connection: duckdb.DuckDBPyConnection) -> None:
        self.shards = shards
        self.archive = archive
        self.connection = connection
        self.stored: list[Stored] = []
        self.snapshots = self.new_snapshots(Remembered(2**20))

    @classmethod
    def on(cls, server: RedisServer, folder: Path, connection: duckdb.DuckDBPyConnection) -> Stores:
        """New ones: a server's Redis, which the test may kill, and an archive in a folder."""
        client, archive = server.client(), Archive(folder / "archive")
        raw_entries(client)
        return cls(set_up(client, archive, 1), archive, connection)

    def new_snapshots(self, remembered: Remembered | None = None) -> Snapshots:
        client, many = self.shards[0].client, len(self.shards)
        one_tail = OneTail(lambda: hot.attach(client, many))
        return Snapshots(lambda: hot.pinned(client, many), self.archive, remembered, one_tail)

    def append(self, *sent: Sent) -> None:
        for shard in self.shards:
            mine = [one for one in sent if shard_of(one.device_id, shard.shards) == shard.shard]
            if mine:
                append_batches(shard, [Batch(pack(mine))], Limits())
        known = {one.id for one in self.stored}
        self.stored += [one for one in self._tail(sent) if one.id not in known]

    def _tail(self, sent: Sequence[Sent]) -> Iterator[Stored]:
        for device in sorted({one.device_id for one in sent}):
            shard = self.shards[shard_of(device, len(self.shards))]
            for raw in shard.entries([(device, "-", "+")])[0]:
                yield from read_entry(device, raw, shard.shards)

    def saver(self, reached: Callable[[str], None] = lambda _: None, bounds: Bounds | None = None) -> Saver:
        return Saver(self.archive, self.connection, lambda: NOW_MS, bounds, reached=reached)

    def save(self, bounds: Bounds | None = None) -> None:
        for shard in self.shards:
            self.saver(bounds=bounds).save(shard)

    def save_until(self, step: str) -> bool:
        """Kill a save at a step. False if it never came there."""
        killed = False
        for shard in self.shards:
            try:
                self.saver(killed_at(step)).save(shard)
            except Killed:
                killed = True
        return killed

    def ids(self, snapshots: Snapshots | None = None) -> list[int]:
        """The ids that a query of all finds, in its order."""
        asked = Question(ALL, limit=10_000)
        with self.connection.cursor() as cursor:
            found: list[int] = page(cursor, snapshots or self.snapshots, asked).column("id").to_pylist()
            return found

    def assert_whole(self) -> None:
        """Check that a reader with an old handle of the table, which remembers the tail, and a new one find each record
        once."""
        expected = [one.id for one in in_order(self.stored)]
        assert self.ids() == expected
        assert self.ids(self.new_snapshots()) == expected


def in_order(stored: Sequence[Stored]) -> list[Stored]:
    return sorted(stored, key=lambda one: (one.record.timestamp_us, one.id))
