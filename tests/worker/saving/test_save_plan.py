"""What one save takes, and in which order."""

from __future__ import annotations

import time
from pathlib import Path

import duckdb
import pytest

from telemetry.archive.schema import is_sorted
from telemetry.archive.table import Archive
from telemetry.hot_store.client import connect
from telemetry.hot_store.operations.deletions import ask
from telemetry.hot_store.shard import Shard
from telemetry.model.utc import DAY_US
from telemetry.startup.store_setup import set_up
from telemetry.system import clock
from tests.conftest import RedisServer, settings_of
from tests.worker.conftest import NOW_US, Ledger, archived
from worker.saving.save_budget import Bounds
from worker.saving.save_plan import Plan, Turns, choose, still_holds
from worker.saving.saver import Saver

TODAY = NOW_US // DAY_US


def plan_of(shard: Shard, bounds: Bounds, turns: Turns | None = None) -> Plan:
    return choose(shard, bounds, TODAY, turns)


def behind() -> Turns:
    """As after a save that left something."""
    found = Turns()
    found.is_behind = True
    return found


def devices(plan: Plan) -> list[str]:
    return [one.device_id for one in plan.ranges]


def append_in_turn(shard: Shard, ledger: Ledger, *names: str) -> None:
    """Two records of each, so that the store can tell who came first: it counts in ms."""
    for name in names:
        ledger.append(shard, [name] * 2)
        time.sleep(0.005)


def test_all_that_waits_is_taken_in_the_order_of_files(shard: Shard, ledger: Ledger) -> None:
    for names in (["c", "ä", "a"], ["b", "a"], ["c"]):
        ledger.append(shard, names)
    plan = plan_of(shard, Bounds())
    assert plan.is_all
    assert devices(plan) == ["a", "b", "c", "ä"]
    assert is_sorted(plan.tail.records)
    assert plan.tail.records.num_rows == 6


def test_what_is_too_much_is_taken_as_long_as_it_waited(shard: Shard, ledger: Ledger) -> None:
    append_in_turn(shard, ledger, "c", "a", "b")
    plan = plan_of(shard, Bounds(max_records=4))
    assert not plan.is_all
    assert devices(plan) == ["c", "a"]


def test_a_bound_that_shows_only_by_reading_ends_a_plan_in_the_order_of_files(shard: Shard, ledger: Ledger) -> None:
    append_in_turn(shard, ledger, "c", "a", "b")
    bounds = Bounds(max_bytes=1)
    assert devices(plan_of(shard, bounds)) == ["a"]
    assert devices(plan_of(shard, bounds, behind())) == ["c"]
    assert not plan_of(shard, bounds).is_all


def test_no_device_waits_for_ever_behind_one_with_an_earlier_name(
    shard: Shard, ledger: Ledger, archive: Archive, connection: duckdb.DuckDBPyConnection
) -> None:
    """`a` sends more than a save may take, again and again."""
    saver = Saver(archive, connection, clock.now_ms, Bounds(max_bytes=1))
    ledger.append(shard, ["b"])
    time.sleep(0.005)
    for _ in range(3):
        ledger.append(shard, ["a"])
        saver.save(shard)
    assert archived(connection, archive)["b", 0] == 1


@pytest.mark.parametrize("bounds", [Bounds(), Bounds(max_records=1_000)])
def test_devices_with_few_entries_and_with_many_are_taken_whole(shard: Shard, ledger: Ledger, bounds: Bounds) -> None:
    """More devices than are read at once, and of some more entries than of the others."""
    names = [f"d{number:03}" for number in range(600)]
    ledger.append(shard, names)
    long = names[100:103]
    for _ in range(30):
        ledger.append(shard, long)
    plan = plan_of(shard, bounds)
    assert sorted(devices(plan)) == names
    assert plan.is_all
    assert plan.tail.records.num_rows == 690
    assert {one.device_id: one.records for one in plan.ranges if one.records > 1} == dict.fromkeys(long, 31)
    assert is_sorted(plan.tail.records)


def test_a_device_is_taken_once_though_others_push_it_on(
    shard: Shard, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While names are read, one comes before all others: the clock was set back."""
    append_in_turn(shard, ledger, "a", "b", "c", "d")
    monkeypatch.setattr("worker.saving.save_plan.READ_NAMES", 2)
    dirty = Shard.dirty

    def read(self: Shard, start: int, count: int) -> list[str]:
        found = dirty(self, start, count)
        if start == 0:
            shard.client.zadd(shard.keys.dirty, {"e": 1})
            shard.client.xadd(shard.keys.stream("e"), {"i": "9", "r": b"\x90"})
        return found

    monkeypatch.setattr(Shard, "dirty", read)
    assert devices(plan_of(shard, Bounds(), behind())) == ["a", "b", "c", "d", "e"]


def test_an_entry_that_finds_no_room_ends_what_is_read(shard: Shard, ledger: Ledger) -> None:
    """Else each of those behind it, which may be many, would be read in vain."""
    for _ in range(3):
        ledger.append(shard, ["a"] * 2 + ["b"])
        ledger.append(shard, ["a"])
        time.sleep(0.005)
    plan = plan_of(shard, Bounds(max_records=7))
    assert [(one.device_id, one.records) for one in plan.ranges] == [("a", 3), ("b", 3)]
    assert not plan.is_all


def planned(shard: Shard, ledger: Ledger) -> Plan:
    for _ in range(3):
        ledger.append(shard, ["a", "b"])
    plan = plan_of(shard, Bounds())
    assert still_holds(shard, plan)
    return plan


def test_what_comes_meanwhile_changes_nothing_of_a_plan(shard: Shard, ledger: Ledger) -> None:
    plan = planned(shard, ledger)
    ledger.append(shard, ["a", "b", "c"])
    assert still_holds(shard, plan)


def test_after_a_deletion_ranges_are_read_again(shard: Shard, ledger: Ledger) -> None:
    plan = planned(shard, ledger)
    ask(shard, "b")
    assert not still_holds(shard, plan)
    again = plan_of(shard, Bounds())
    assert devices(again) == ["a"]
    assert still_holds(shard, again), "one that was under way before"
    ask(shard, "b")
    assert not still_holds(shard, again), "but asked for again"


def test_after_another_save_ranges_are_read_again(
    shard: Shard, ledger: Ledger, archive: Archive, connection: duckdb.DuckDBPyConnection
) -> None:
    plan = planned(shard, ledger)
    Saver(archive, connection, clock.now_ms).save(shard)
    assert not still_holds(shard, plan)


def test_after_redis_started_again_ranges_are_read_again(
    own_redis: RedisServer, tmp_path: Path, ledger: Ledger
) -> None:
    """It may be an older copy."""
    settings = settings_of(own_redis.url, tmp_path)
    with connect(settings) as client:
        [shard] = set_up(client, Archive(settings.archive_dir), 1)
        plan = planned(shard, ledger)
        own_redis.kill()
        own_redis.start()
        client.connection_pool.disconnect()
        assert not still_holds(shard, plan)
