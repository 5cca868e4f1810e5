"""The hot store on a Redis Cluster: each shard is on one node, and all its commands go to that node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext

import duckdb
import pytest
from redis.cluster import RedisCluster

from api.snapshot.snapshot import Snapshots, Wanted
from telemetry.archive.table import Archive
from telemetry.hot_store.keys import shard_of
from telemetry.hot_store.shard import Shard
from telemetry.model.record import EARLIEST_US, LATEST_US
from tests.redis_cluster import NODES, running_cluster, shards_of
from tests.worker.conftest import Ledger, archived
from tests.worker.saving.test_saver import drain

SHARDS = 6
DEVICES = [f"device-{number:03}" for number in range(200)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """Three masters."""
    with running_cluster() as found:
        yield found


@pytest.fixture
def shards(cluster: RedisCluster, archive: Archive) -> list[Shard]:
    """The shards of a new store."""
    cluster.flushall()
    return shards_of(cluster, archive, SHARDS)


@pytest.fixture
def ledger() -> Ledger:
    """The acknowledged records."""
    return Ledger()


def append(shards: list[Shard], ledger: Ledger) -> None:
    """A record of each device, each in its shard."""
    for shard in shards:
        ledger.append(shard, [device for device in DEVICES if shard_of(device, SHARDS) == shard.shard], days=2)


def test_shards_are_spread_over_all_nodes(shards: list[Shard]) -> None:
    assert len({shard.client for shard in shards}) == NODES


def test_all_is_saved_once_and_a_snapshot_has_each_record_wherever_it_is(
    shards: list[Shard], archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    append(shards, ledger)
    half, other = shards[: SHARDS // 2], shards[SHARDS // 2 :]
    for shard in half:
        drain(shard, archive)
    snapshots = Snapshots(lambda: nullcontext(shards), archive)
    tail = snapshots.take(Wanted((), EARLIEST_US, LATEST_US)).tail
    saved = sum(archived(connection, archive).values())
    assert 0 < saved < len(DEVICES)
    assert Counter(found.device_id for found in tail).total() == len(DEVICES) - saved
    for shard in other:
        drain(shard, archive)
    assert archived(connection, archive) == ledger.acknowledged
    assert sum(shard.unsaved() for shard in shards) == 0


def test_ids_of_all_shards_differ(
    shards: list[Shard], archive: Archive, ledger: Ledger, connection: duckdb.DuckDBPyConnection
) -> None:
    append(shards, ledger)
    append(shards, ledger)
    for shard in shards:
        drain(shard, archive)
    [(records, ids)] = connection.sql(
        f"SELECT count(*), count(DISTINCT id) FROM read_parquet({archive.files(archive.open())})"
    ).fetchall()
    assert records == ids == 2 * len(DEVICES)
