"""A remembered tail is what a reader finds that has just begun, whatever happened between two questions."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

import duckdb
import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from api.snapshot.record_sql import records_in
from api.snapshot.snapshot import Snapshots, Wanted
from api.snapshot.tail_cache import Part, Remembered
from telemetry.archive.table import Archive
from telemetry.coordination.redis_acl import rules
from telemetry.hot_store import shard as hot
from telemetry.hot_store import stream_reader
from telemetry.hot_store.entry_codec import RawEntry, pack, size_bytes
from telemetry.hot_store.operations import deletions
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard
from telemetry.model.record import EARLIEST_US, LATEST_US, Sent, encode
from telemetry.model.utc import DAY_US
from telemetry.startup.store_setup import set_up
from telemetry.system import clock
from tests.api.conftest import NOW_MS, record
from tests.api.stores import ALL, MIDNIGHT_US, Killed, Stores
from tests.conftest import RedisServer
from worker.device_erasure import Eraser
from worker.recovery import recover

NAMES = ("device_id", "timestamp", "id")
MIB = 2**20


@pytest.fixture
def stores(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> Stores:
    """A store of nine records of three devices, of which none is saved."""
    found = Stores([shard], archive, connection)
    found.append(*(Sent("abc"[n % 3], record(MIDNIGHT_US - n)) for n in range(9)))
    return found


def rows(snapshots: Snapshots) -> list[tuple[str, int, int]]:
    """Device, id and time of each record in the tail."""
    return sorted((one.device_id, one.id, one.record.timestamp_us) for one in snapshots.take(ALL).tail)


def ids(snapshots: Snapshots, wanted: Wanted = ALL) -> list[int]:
    """The ids in the tail, which a table of some of its columns must agree with."""
    found = sorted(stored.id for stored in snapshots.take(wanted).tail)
    raw = snapshots.take(wanted).some(NAMES).to_pylist()
    assert sorted(row["id"] for row in raw if row["device_id"].startswith(wanted.prefix)) == found
    return found


def assert_fresh(stores: Stores) -> None:
    """Check that who remembers finds what a reader finds that has just begun."""
    assert rows(stores.snapshots) == rows(stores.new_snapshots())
    assert ids(stores.snapshots) == ids(stores.new_snapshots())
    assert stores.ids() == stores.ids(stores.new_snapshots())
    for shard in stores.shards:
        entries = chain.from_iterable(stream_reader.tails(shard, shard.all_dirty()).values())
        assert shard.waiting().size_bytes == size_bytes(entries)


def assert_one_fresh(stores: Stores) -> None:
    """Check the same of one device alone, whose tail is read with its shard's state (api/snapshot/device_tail.py)."""
    wanted = ALL._replace(devices=(DEVICES[len(stores.stored) % len(DEVICES)],))
    plain = Snapshots(lambda: hot.pinned(stores.shards[0].client, 1), stores.archive)
    assert one_of(stores.snapshots, wanted) == one_of(plain, wanted)


def one_of(snapshots: Snapshots, wanted: Wanted) -> tuple[list[int], list[str]]:
    """The ids of a device in the tail, and the files that may have others."""
    snapshot = snapshots.take(wanted)
    return [one.id for one in snapshot.tail], [file.path for file in snapshot.files]


def calls(client: redis.Redis) -> dict[str, int]:
    """How often streams were read, by command."""
    found = client.info("commandstats")
    return {name: found.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("xread", "xrange")}


@contextmanager
def reads(client: redis.Redis, **more: int) -> Iterator[None]:
    """Check how often streams are read meanwhile."""
    before = calls(client)
    yield
    assert {name: count - before[name] for name, count in calls(client).items()} == {"xread": 0, "xrange": 0, **more}


# What is read ----------------------------------------------------------------------------------------


def test_nothing_is_read_again(stores: Stores) -> None:
    client = stores.shards[0].client
    assert len(ids(stores.snapshots)) == 9
    with reads(client):
        assert len(ids(stores.snapshots)) == 9
        assert len(ids(stores.snapshots, ALL._replace(prefix="a"))) == 3
    stores.append(Sent("a", record(MIDNIGHT_US)), Sent("d", record(MIDNIGHT_US)))
    with reads(client, xread=1):
        assert len(ids(stores.snapshots)) == 11
    stores.save()
    assert ids(stores.snapshots) == []


def test_long_streams_and_many_devices_are_read_in_pieces(stores: Stores) -> None:
    [shard] = stores.shards
    assert_fresh(stores)
    for n in range(401):
        stores.append(Sent("a", record(MIDNIGHT_US + n)))
        if n in (0, 9, 10, 200):
            assert_fresh(stores)
    append_batches(shard, [Batch(pack([Sent(f"many {n}", record(MIDNIGHT_US + n)) for n in range(1_200)]))], Limits())
    assert len(ids(stores.snapshots)) == 401 + 9 + 1_200
    assert_fresh(stores)


def test_a_tail_that_is_too_large_is_read_each_time(stores: Stores) -> None:
    snapshots = stores.new_snapshots(Remembered(1_000))
    client = stores.shards[0].client
    assert len(ids(snapshots)) == 9  # of a hundred bytes each at least, so they are tried
    with reads(client, xrange=6):
        assert len(ids(snapshots)) == 9
    stores.save()
    stores.append(Sent("a", record(MIDNIGHT_US)))
    assert len(ids(snapshots)) == 1
    with reads(client):
        assert len(ids(snapshots)) == 1


def test_who_may_not_look_into_many_streams_at_once_asks_each(
    own_redis: RedisServer, tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    """Its user was made by a release that did not need to."""
    stores = Stores.on(own_redis, tmp_path, connection)
    admin = stores.shards[0].client
    wanted = ("ACL", "SETUSER", "old", "on", ">word", *rules("query").replace(" +xread", "").split())
    admin.execute_command(*wanted)  # type: ignore[no-untyped-call]
    user = redis.Redis.from_url(own_redis.url, username="old", password="word")
    stores.append(*(Sent("ab"[n % 2], record(MIDNIGHT_US + n)) for n in range(60)))
    snapshots = Snapshots(lambda: hot.pinned(user, 1), stores.archive, Remembered(MIB))
    assert len(ids(snapshots)) == 60
    stores.append(Sent("a", record(MIDNIGHT_US)))
    assert len(ids(snapshots)) == 61
    user.close()
    admin.close()


# What ends it ----------------------------------------------------------------------------------------


def test_a_redis_that_was_restarted_is_read_anew(
    own_redis: RedisServer, tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    """It is an older copy, and as many records came since as before."""
    stores = Stores.on(own_redis, tmp_path, connection)
    own_redis.kill()
    shutil.copytree(own_redis.folder / "appendonlydir", tmp_path / "old")
    own_redis.start()
    stores.append(Sent("a", record(MIDNIGHT_US)), Sent("b", record(MIDNIGHT_US)))
    assert len(ids(stores.snapshots)) == 2
    own_redis.kill()
    shutil.rmtree(own_redis.folder / "appendonlydir")
    shutil.copytree(tmp_path / "old", own_redis.folder / "appendonlydir")
    own_redis.start()
    stores.append(Sent("a", record(MIDNIGHT_US + 1)), Sent("c", record(MIDNIGHT_US + 1)))
    assert_fresh(stores)
    assert len(ids(stores.snapshots)) == 2
    stores.shards[0].client.close()


def test_a_redis_that_was_emptied_is_read_anew(stores: Stores) -> None:
    [shard] = stores.shards
    assert_fresh(stores)
    shard.client.flushall()
    stores.shards = set_up(shard.client, stores.archive, 1)
    stores.append(*(Sent("abc"[n % 3], record(MIDNIGHT_US + n)) for n in range(9)))
    assert_fresh(stores)


def test_a_deletion_that_is_done_by_the_next_question_is_seen(stores: Stores) -> None:
    assert_fresh(stores)
    happen(stores, "delete a")
    happen(stores, "erase")
    assert not deletions.pending(stores.shards[0])
    assert_fresh(stores)
    assert len(ids(stores.snapshots)) == 6


def test_a_store_that_was_recovered_is_read_anew(stores: Stores) -> None:
    assert_fresh(stores)
    recover(stores.shards[0], stores.archive, stores.connection, clock.now_ms())
    assert_fresh(stores)
    assert len(ids(stores.snapshots)) == 9


# Anything that may happen between two questions ----------------------------------------------------------

DEVICES = ("a", "b", "ü/😀")
GROUP = st.lists(st.tuples(st.sampled_from(DEVICES), st.integers(-1, 1)), min_size=1, max_size=6)
SAVE = st.sampled_from(["intend", "read", "commit", "finish", "finish 0", "finish 1", "it has ended"])
DELETION = st.sampled_from([f"delete {device}" for device in DEVICES] + ["erase"])
EVENTS = st.lists(st.one_of(GROUP, GROUP, SAVE, DELETION), min_size=2, max_size=12)


def happen(stores: Stores, event: list[tuple[str, int]] | str) -> None:
    [shard] = stores.shards
    if not isinstance(event, str):
        stores.append(*(Sent(device, record(MIDNIGHT_US + day * DAY_US)) for device, day in event))
    elif event == "erase":
        saver = stores.saver()
        Eraser(stores.archive, lambda: stores.connection, saver, lambda: NOW_MS, monotonic=lambda: 0.0).erase(shard)
    elif event.startswith("delete "):
        deletions.ask(shard, event.removeprefix("delete "))
    else:
        stores.save_until(event)


@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EVENTS, st.sampled_from([1_000, MIB]))
def test_who_remembers_sees_what_is_there(
    client: redis.Redis,
    tmp_path_factory: pytest.TempPathFactory,
    connection: duckdb.DuckDBPyConnection,
    events: list[list[tuple[str, int]] | str],
    most_bytes: int,
) -> None:
    client.flushall()
    archive = Archive(tmp_path_factory.mktemp("remembered") / "archive")
    stores = Stores(set_up(client, archive, 1), archive, connection)
    stores.snapshots = stores.new_snapshots(Remembered(most_bytes))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("telemetry.hot_store.entry_codec.CHUNK_DEVICES", 1)
        for event in events:
            happen(stores, event)
            assert_fresh(stores)
            assert_one_fresh(stores)


SECONDS = 4.0
LEAST_PAGES = 20


class Busy:
    """A sender, saves, deletions of one device and two readers at once, who share what they remember."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.acknowledged = [one.id for one in stores.stored]
        self.pages = [0, 0]
        self.wrong: list[list[int]] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._send, self._save)]
        self._threads += [threading.Thread(target=self._read, args=(reader,)) for reader in range(2)]

    def run(self, seconds: float) -> None:
        for thread in self._threads:
            thread.start()
        time.sleep(seconds)
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        [shard] = self.stores.shards
        for n in count():
            if self._over.wait(0.001):
                return
            append_batches(shard, [Batch(pack([Sent(f"{n % 40}", record(MIDNIGHT_US + n))]))], Limits())
            self.acknowledged.append(int(shard.client.get(shard.keys.next_id) or 0) - 1)  # nobody else sends
            if n % 50 == 0:
                append_batches(shard, [Batch(pack([Sent("gone", record(MIDNIGHT_US + n))]))], Limits())
                deletions.ask(shard, "gone")

    def _save(self) -> None:
        while not self._over.wait(0.1):
            self.stores.save()

    def _read(self, reader: int) -> None:
        while not self._over.is_set():
            promised = set(self.acknowledged)
            found = self._ids()
            if len(found) != len(set(found)) or not promised <= set(found):
                self.wrong.append(sorted(found))
            self.pages[reader] += 1

    def _ids(self) -> list[int]:
        snapshot = self.stores.snapshots.take(ALL)
        with self.stores.connection.cursor() as cursor:
            cursor.register("tail", snapshot.some(NAMES))
            records = records_in(snapshot.files, ALL, ("id", "timestamp"))
            return [row[0] for row in cursor.execute(f"SELECT id FROM ({records})").fetchall()]


@pytest.mark.slow
def test_readers_that_share_what_they_remember_see_each_record_once(stores: Stores) -> None:
    busy = Busy(stores)
    busy.run(SECONDS)
    assert not busy.wrong
    assert min(busy.pages) >= LEAST_PAGES
    assert_fresh(stores)


# Columns ---------------------------------------------------------------------------------------------

ENTRY = b"%d-0" % NOW_MS
GOOD = msgspec.msgpack.encode([record(MIDNIGHT_US), record(MIDNIGHT_US + 1)])
BROKEN = b"\x92" + encode(record(MIDNIGHT_US)) + msgspec.msgpack.encode([1, MIDNIGHT_US, "tcp", "json", "north"])


def entries(data: bytes, count: int = 1) -> list[RawEntry]:
    return [(ENTRY, [b"i", b"%d" % (2 * n + 1), b"r", data]) for n in range(count)]


def test_columns_that_are_asked_for_one_after_the_other_go_together() -> None:
    """A record whose latitude can't be read is there until that is asked for."""
    part = Part([("a", entries(GOOD)), ("b", entries(BROKEN)), ("c", entries(GOOD))], 1)
    assert part.table(("timestamp", "device_id")).num_rows == 6
    assert part.table(("latitude",)).num_rows == 5
    assert part.table(("device_id", "timestamp", "latitude")).column(0).to_pylist() == ["a", "a", "b", "c", "c"]


@pytest.mark.parametrize("asked", [((), ()), (("id",), ()), ((), ("speed_kmh",)), (("id",), ("speed_kmh", "id"))])
def test_joined_parts_have_what_both_had(asked: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    first, second = Part([("a", entries(GOOD)), ("b", entries(GOOD, 2))], 1), Part([("b", entries(GOOD)), ("c", [])], 1)
    for part, names in zip((first, second), asked, strict=True):
        if names:
            part.table(names)
    whole = Part([*first.entries, *second.entries], 1)
    names = ("device_id", "id")
    assert Part.joined(first, second).table(names).to_pydict() == whole.table(names).to_pydict()


def test_a_day_is_asked_of_many_parts(stores: Stores) -> None:
    """DuckDB reads a table whose pieces name devices each in its own way."""
    for n in range(40):
        stores.append(*(Sent(f"{m}", record(MIDNIGHT_US + n)) for m in range(40 - n)))
        stores.snapshots.take(ALL).some(NAMES)
    found = stores.snapshots.take(Wanted((), EARLIEST_US, LATEST_US))
    assert len(found._parts) > 1
    stores.connection.register("tail", found.some(NAMES))
    counts = dict(stores.connection.execute("SELECT device_id, count(*) FROM tail GROUP BY ALL").fetchall())
    assert counts == {"a": 3, "b": 3, "c": 3} | {f"{m}": 40 - m for m in range(40)}


def test_a_worker_that_is_killed_leaves_what_is_remembered_right(stores: Stores) -> None:
    assert_fresh(stores)
    with pytest.raises(Killed):
        stores.saver(lambda step: (_ for _ in ()).throw(Killed) if step == "finish" else None).save(stores.shards[0])
    assert_fresh(stores)
    assert ids(stores.snapshots) == []
