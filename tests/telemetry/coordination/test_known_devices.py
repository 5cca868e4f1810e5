"""Devices that are known by their records, or since people made them known, in a real Redis of several shards."""

from __future__ import annotations

import pytest
import redis

from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.coordination import known_devices
from telemetry.hot_store.keys import shard_of
from telemetry.hot_store.operations.latest_rebuild import mark_outdated
from telemetry.model.errors import StoreUnavailable
from telemetry.startup.store_setup import set_up
from tests.worker.conftest import Ledger

NAMES = ["a", "b", "c", "d/é", "e"]


@pytest.mark.parametrize("shards", [1, 3])
def test_known_are_those_with_records_and_those_that_were_added(
    client: redis.Redis, archive: Archive, shards: int
) -> None:
    of_shards = set_up(client, archive, shards)
    assert known_devices.are_known(client, shards, NAMES) == [False] * 5
    for name in ("b", "e"):
        Ledger().append(of_shards[shard_of(name, shards)], [name])
    assert known_devices.add(client, ["d/é", "e"]) == 2
    assert known_devices.are_known(client, shards, NAMES) == [False, True, False, True, True]
    assert sorted(known_devices.added(client)) == ["d/é", "e"]
    assert known_devices.add(client, ["d/é"]) == 0
    assert known_devices.remove(client, ["d/é", "e", "x"]) == 2
    assert known_devices.are_known(client, shards, NAMES) == [False, True, False, False, True]
    assert known_devices.are_known(client, shards, []) == []


def test_nobody_is_unknown_while_latest_is_rebuilt(client: redis.Redis, archive: Archive) -> None:
    [shard] = set_up(client, archive, 1)
    Ledger().append(shard, ["b"])
    known_devices.add(client, ["c"])
    mark_outdated(shard)
    assert known_devices.are_known(client, 1, ["b", "c"]) == [True, True]
    with pytest.raises(StoreUnavailable, match="cannot check which devices are known"):
        known_devices.are_known(client, 1, ["a", "b"])


def test_a_redis_that_is_away(settings: Settings) -> None:
    with redis.Redis(unix_socket_path=str(settings.data_dir / "none.sock")) as client:
        for ask in (
            lambda: known_devices.are_known(client, 1, ["a"]),
            lambda: known_devices.add(client, ["a"]),
            lambda: list(known_devices.added(client)),
        ):
            with pytest.raises(StoreUnavailable):
                ask()
