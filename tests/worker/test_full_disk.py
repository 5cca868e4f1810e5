"""Saving on a disk without room: it fails whole, waits, and is done once there is room."""

from __future__ import annotations

import os

import duckdb
import pytest
import redis

from telemetry.archive.table import Archive
from telemetry.hot_store.entry_codec import pack
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Flush
from telemetry.model.record import Record, Sent
from telemetry.system import clock
from tests.small_disk import SmallDisk
from worker.jobs import Work
from worker.saving.saver import Saver

DAY_US = 86_400_000_000
AT_US = 20_600 * DAY_US
DAYS = 5
RECORDS_PER_DAY = 500
NOTE_BYTES = 1_000


def sent(day: int, number: int) -> Sent:
    """A record that no compression makes small: a day of these is half a megabyte."""
    note = f'{{"note":"{os.urandom(NOTE_BYTES).hex()}"}}'
    return Sent("d", Record(AT_US + day * DAY_US + number, "http", "json", attributes=note))


@pytest.fixture
def archive(disk: SmallDisk) -> Archive:
    return Archive(disk.path / "archive")


@pytest.fixture
def work(client: redis.Redis, archive: Archive, connection: duckdb.DuckDBPyConnection) -> Work:
    """A worker whose shard holds some days that are not saved."""
    found = Work(client, archive, connection, Saver(archive, connection, clock.now_ms), 1, Flush(1, 2**20))
    found.begin()
    for day in range(DAYS):
        records = [sent(day, number) for number in range(RECORDS_PER_DAY)]
        append_batches(found.stores[0], [Batch(pack(records))], Limits())
    return found


@pytest.mark.parametrize("free_bytes", [0, 1_300_000], ids=["for nothing", "for some days"])
def test_a_save_without_room_changes_nothing_and_is_done_when_there_is_room(
    free_bytes: int, disk: SmallDisk, work: Work, archive: Archive
) -> None:
    shard = work.stores[0]
    disk.leave(free_bytes)
    for _ in range(3):
        assert work.save_shard(0) == 0
        assert shard.unsaved() == DAYS * RECORDS_PER_DAY
        assert not archive.unlisted(archive.open()), "a failed attempt keeps no room"
        assert "No space left on device" in shard.trouble()
    intent = shard.state().intent
    assert intent is not None
    work.begin()  # a worker that starts now waits as well
    assert shard.state().intent == intent
    disk.release()
    assert work.save_shard(0) == DAYS * RECORDS_PER_DAY
    assert (shard.unsaved(), shard.state().intent, shard.trouble()) == (0, None, "")
    table = archive.open()
    assert sum(day.records for day in archive.days(table)) == DAYS * RECORDS_PER_DAY
    assert not archive.unlisted(table)
