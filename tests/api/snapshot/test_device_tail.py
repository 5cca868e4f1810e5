"""One device's tail, read with its shard's state: what a reader finds that asks for one after the other."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import duckdb
import pytest
import redis

from api.snapshot.device_tail import OneTail
from api.snapshot.snapshot import Snapshots, Wanted
from telemetry.archive.table import Archive
from telemetry.hot_store import shard as hot
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import NotSetUp, StoreUnavailable
from telemetry.model.record import Sent
from telemetry.startup.store_setup import set_up
from tests.api.conftest import record
from tests.api.stores import ALL, MIDNIGHT_US, Stores
from tests.conftest import RedisServer

A = ALL._replace(devices=("a",))


@pytest.fixture
def stores(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> Stores:
    """A store of nine records of three devices, of which none is saved."""
    found = Stores([shard], archive, connection)
    found.append(*(Sent("abc"[n % 3], record(MIDNIGHT_US + n)) for n in range(9)))
    return found


def ids(snapshots: Snapshots, wanted: Wanted = A) -> list[int]:
    return [one.id for one in snapshots.take(wanted).tail]


def plain(stores: Stores) -> Snapshots:
    """Who asks for shape, state and entries over one connection."""
    return Snapshots(lambda: hot.pinned(stores.shards[0].client, len(stores.shards)), stores.archive)


def counted(stores: Stores) -> tuple[Snapshots, Counter[str]]:
    """Who asks in either way, and how often it attached to the shards for that."""
    client, many, calls = stores.shards[0].client, len(stores.shards), Counter[str]()

    def pinned() -> AbstractContextManager[Sequence[Shard]]:
        calls["plain"] += 1
        return hot.pinned(client, many)

    def attach() -> Sequence[Shard]:
        calls["quick"] += 1
        return hot.attach(client, many)

    return Snapshots(pinned, stores.archive, None, OneTail(attach)), calls


def test_shards_are_attached_to_once(stores: Stores) -> None:
    snapshots, calls = counted(stores)
    for _ in range(3):
        assert len(ids(snapshots)) == 3
    assert ids(snapshots, A._replace(devices=("nobody",))) == []
    assert calls == {"quick": 1}
    assert len(ids(snapshots, A._replace(devices=("a", "b")))) == 6
    assert calls == {"quick": 1, "plain": 1}


@pytest.mark.parametrize("count", [3, 4, 5])
def test_a_long_tail_is_read_in_pieces(stores: Stores, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr("telemetry.hot_store.stream_reader.READ_ENTRIES", 4)
    monkeypatch.setattr("api.snapshot.device_tail.MOST_ENTRIES", 4)
    for n in range(count):
        stores.append(Sent("long", record(MIDNIGHT_US + n)))
    wanted = A._replace(devices=("long",))
    assert ids(stores.snapshots, wanted) == ids(plain(stores), wanted)
    assert len(ids(stores.snapshots, wanted)) == count


def test_each_device_is_looked_for_in_its_shard(
    client: redis.Redis, archive: Archive, connection: duckdb.DuckDBPyConnection
) -> None:
    stores = Stores(set_up(client, archive, 3), archive, connection)
    stores.append(*(Sent(f"{n}", record(MIDNIGHT_US + n)) for n in range(20)))
    stores.save_until("finish")
    for n in range(20):
        wanted = A._replace(devices=(f"{n}",))
        assert ids(stores.snapshots, wanted) == ids(plain(stores), wanted) == []
    stores.append(*(Sent(f"{n}", record(MIDNIGHT_US - n)) for n in range(20)))
    for n in range(20):
        wanted = A._replace(devices=(f"{n}",))
        assert ids(stores.snapshots, wanted) == ids(plain(stores), wanted) != []


def test_another_store_is_attached_to_anew(stores: Stores) -> None:
    [shard] = stores.shards
    snapshots, calls = counted(stores)
    assert len(ids(snapshots)) == 3
    shard.client.flushall()
    stores.shards = set_up(shard.client, stores.archive, 1)
    stores.append(Sent("a", record(MIDNIGHT_US)))
    assert len(ids(snapshots)) == 1
    assert calls == {"quick": 1, "plain": 1}
    for _ in range(2):
        assert len(ids(snapshots)) == 1
    assert calls == {"quick": 2, "plain": 1}
    shard.client.flushall()
    with pytest.raises(NotSetUp):
        ids(snapshots)


def test_an_older_copy_of_redis_is_read_as_it_is(
    own_redis: RedisServer, tmp_path: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    stores = Stores.on(own_redis, tmp_path, connection)
    stores.append(Sent("a", record(MIDNIGHT_US)))
    own_redis.kill()
    shutil.copytree(own_redis.folder / "appendonlydir", tmp_path / "old")
    own_redis.start()
    stores.append(Sent("a", record(MIDNIGHT_US + 1)))
    assert len(ids(stores.snapshots)) == 2
    own_redis.kill()
    with pytest.raises(StoreUnavailable):
        ids(stores.snapshots)
    shutil.rmtree(own_redis.folder / "appendonlydir")
    shutil.copytree(tmp_path / "old", own_redis.folder / "appendonlydir")
    own_redis.start()
    assert len(ids(stores.snapshots)) == 1
    stores.shards[0].client.close()
