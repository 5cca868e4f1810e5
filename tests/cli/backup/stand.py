"""A store and an archive that are backed up, and what a box that starts on the copy holds."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import duckdb
import redis

from cli.backup import catalog, manifest
from cli.backup.create import Box, Made, take
from cli.backup.manifest import ARCHIVE
from cli.backup.restore import HALVES, Target, restore
from compactor.compaction import Compactor, Sweep
from compactor.plan import Limits
from telemetry.archive.schema import open_duckdb
from telemetry.archive.table import Archive
from telemetry.hot_store import shard as hot
from telemetry.hot_store.client import raw_entries
from telemetry.hot_store.entry_codec import decode_intent
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import IntentChanged, PlanOutdated
from telemetry.startup.store_setup import apart, set_up
from telemetry.system import clock
from telemetry.system.disk_space import Room
from tests.conftest import RedisServer
from tests.worker.conftest import Content, Ledger, archived
from worker.saving.save_budget import Bounds
from worker.saving.saver import Saver


class Quiet:
    """Hears what is done, and keeps it."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, int | None]] = []
        self.bytes = 0

    def part(self, name: str, total_bytes: int | None) -> None:
        self.parts.append((name, total_bytes))

    def add(self, size_bytes: int) -> None:
        self.bytes += size_bytes


def box_of(client: redis.Redis, shards: list[Shard], archive: Archive) -> Box:
    return Box(client, shards, archive, Room(), clock.now_ms, time.monotonic)


def backup(box: Box, into: Path) -> Made:
    with catalog.locked(into):
        return take(box, into, Quiet())


@contextlib.contextmanager
def restored(made: Made) -> Iterator[tuple[list[Shard], Archive]]:
    """A server and an archive made of a backup alone."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as name:
        folder = Path(name)
        target = Target(folder, folder / ARCHIVE, folder, is_own_redis=True)
        restore(made.folder, manifest.read(made.folder), target, HALVES, lambda _: None)
        server = RedisServer(folder)
        server.start()
        try:
            with server.client() as client:
                raw_entries(client)
                archive = Archive(folder / ARCHIVE)
                yield set_up(client, archive, len(made.manifest.store.shards)), archive
        finally:
            server.kill()


def held(made: Made, connection: duckdb.DuckDBPyConnection) -> Counter[Content]:
    """All that a box made of a backup has saved in the end, its `latest` included; it must go on by itself."""
    with restored(made) as (shards, archive):
        assert [why for shard in shards if (why := apart(shard, archive))] == []
        new = Ledger()
        for shard in shards:
            new.append(shard, ["new"])
            while Saver(archive, connection, clock.now_ms).save(shard):
                pass
            assert shard.unsaved() == 0
        found = archived(connection, archive)
        files = archive.files(archive.open())
        ids = connection.execute("SELECT count(*), count(DISTINCT id) FROM read_parquet($1)", [files]).fetchall()
    assert found.total() == ids[0][0] == ids[0][1]
    assert new.acknowledged <= found
    return found - new.acknowledged


class Busy:
    """Appends, saves, merges and sweeps without a pause, until it is left."""

    def __init__(self, shards: Sequence[Shard], archive: Archive, url: str) -> None:
        self.ledger = Ledger()
        self.saves = self.merges = self.swept = 0
        self.errors: list[BaseException] = []
        self._shards = shards
        self._archive = archive
        self._url = url
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(work,)) for work in (self._append, self._save, self._merge)
        ]

    def __enter__(self) -> Busy:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        assert self.errors == []

    def _run(self, work: Callable[[list[Shard]], None]) -> None:
        try:
            with redis.Redis.from_url(self._url) as client:
                raw_entries(client)
                shards = hot.attach(client, len(self._shards))
                while not self._stopped.is_set():
                    work(shards)
        except BaseException as error:
            self.errors.append(error)

    def _append(self, shards: list[Shard]) -> None:
        for shard in shards:
            self.ledger.append(shard, [f"{shard.shard} {name}" for name in "aab"], days=2)
        time.sleep(0.002)

    def _save(self, shards: list[Shard]) -> None:
        with open_duckdb() as connection:
            for shard in shards * 5:
                with contextlib.suppress(IntentChanged):
                    self.saves += bool(
                        Saver(self._archive, connection, clock.now_ms, Bounds(max_records=50)).save(shard)
                    )

    def _merge(self, shards: list[Shard]) -> None:
        with open_duckdb() as connection, contextlib.suppress(PlanOutdated):
            compactor = Compactor(
                self._archive, lambda: connection, clock.now_us, Limits(max_open_files=4), is_all=True
            )
            self.merges += compactor.compact() is not None
        sweep = Sweep(self._archive, lambda: under_way(shards), time.monotonic, 0)
        with contextlib.suppress(PlanOutdated):
            self.swept += len(sweep.sweep())
        time.sleep(0.05)


def under_way(shards: list[Shard]) -> list[str]:
    """The numbers of saves that are."""
    found = [shard.state().intent for shard in shards]
    return [decode_intent(intent).commit for intent in found if intent is not None]
