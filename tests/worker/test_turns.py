"""Saves are fair: whatever some devices send, each device with waiting records is served within a few saves."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from telemetry.archive.table import commit_number
from telemetry.hot_store.entry_codec import Intent, Range, pack
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.operations.save import finish_chunk, intend
from telemetry.hot_store.shard import Shard
from telemetry.model.record import Record, Sent
from telemetry.model.utc import DAY_US
from tests.worker.conftest import NOW_US
from worker.saving.save_budget import OPEN_DAYS, Bounds
from worker.saving.save_plan import Plan, Turns, choose

TODAY = NOW_US // DAY_US


def send(shard: Shard, device: str, *days_ago: int) -> None:
    """One request with a record of each of these days."""
    records = [Record(NOW_US - ago * DAY_US, "tcp", "json", altitude_m=1.0) for ago in days_ago]
    append_batches(shard, [Batch(pack(Sent(device, record) for record in records), "")], Limits())


def saves(shard: Shard, bounds: Bounds, most: int = 1_000) -> Iterator[Plan]:
    """Plans until nothing waits, each carried out but for the archive."""
    turns = Turns()
    for _ in range(most):
        plan = choose(shard, bounds, TODAY, turns)
        if not plan.ranges:
            return
        committed = shard.state().committed
        intent = Intent(commit_number(committed), plan.ranges)
        assert intend(shard, committed, intent.encode())
        for number in range(intent.chunk_count):
            finish_chunk(shard, intent, number)
        yield plan
    raise AssertionError("saving does not end")


def old_days(plan: Plan) -> set[int]:
    days = {us // DAY_US for us in plan.tail.records.column("timestamp").cast("int64").to_pylist()}
    return {day for day in days if abs(day - TODAY) > OPEN_DAYS}


def of(plan: Plan) -> dict[str, Range]:
    assert len({one.device_id for one in plan.ranges}) == len(plan.ranges), "one range of a device"
    return {one.device_id: one for one in plan.ranges}


def test_one_device_with_many_days_keeps_nobody_out(shard: Shard) -> None:
    send(shard, "evil", *range(1_000, 0, -1))
    for number in range(30):
        send(shard, f"other-{number}", 0)
    others = {f"other-{number}" for number in range(30)}
    plans = list(saves(shard, Bounds()))
    assert others <= of(plans[0]).keys()
    assert max(len(old_days(plan)) for plan in plans) <= 64
    assert sum(plan.tail.records.num_rows for plan in plans) == 1_030
    assert len(plans) < 25, "no save takes less than it could"


def test_old_days_of_many_devices_are_saved_in_turn(shard: Shard) -> None:
    """40 devices with 40 days each, then one with a single old day: it waits for one turn of the others."""
    for number in range(40):
        send(shard, f"evil-{number:02}", *range(40 * number + 10, 40 * number + 50))
    send(shard, "late", 5_000)
    send(shard, "now", 0)
    plans = list(saves(shard, Bounds()))
    assert "now" in of(plans[0])
    served = next(number for number, plan in enumerate(plans) if "late" in of(plan))
    assert served <= 12, "four others are served in a save"
    assert max(len(old_days(plan)) for plan in plans) <= 64


def test_days_that_many_devices_share_are_one_save(shard: Shard) -> None:
    for number in range(200):
        send(shard, f"fleet-{number}", *range(20, 0, -1))
    [plan] = saves(shard, Bounds())
    assert plan.is_all
    assert len(old_days(plan)) == 19


def test_an_entry_with_more_days_than_a_save_may_have_is_saved(shard: Shard) -> None:
    send(shard, "a", *range(20, 4, -1))
    send(shard, "b", 0)
    plans = list(saves(shard, Bounds(max_days=3)))
    assert sum(plan.tail.records.num_rows for plan in plans) == 17
    assert of(plans[0]).keys() == {"a", "b"}


def test_one_device_with_many_records_takes_what_others_leave(shard: Shard) -> None:
    for _ in range(100):
        send(shard, "busy", *[0] * 10)
    for number in range(9):
        send(shard, f"other-{number}", 0)
    plans = list(saves(shard, Bounds(max_records=200)))
    assert len(of(plans[0])) == 10
    assert plans[0].tail.records.num_rows > 190, "no save takes less than it could"
    assert sum(plan.tail.records.num_rows for plan in plans) == 1_009


def test_records_with_long_attributes_keep_nobody_out(shard: Shard) -> None:
    long = Record(NOW_US, "tcp", "json", altitude_m=1.0, attributes='{"note": "' + "x" * 100_000 + '"}')
    for _ in range(40):
        append_batches(shard, [Batch(pack([Sent("long", long)]), "")], Limits())
    send(shard, "zoe", 0)
    plans = list(saves(shard, Bounds(max_bytes=500_000)))
    assert "zoe" in of(plans[0]) or "zoe" in of(plans[1])
    assert sum(plan.tail.records.num_rows for plan in plans) == 41


def test_more_devices_than_a_save_takes_are_served_in_turn(shard: Shard) -> None:
    for _ in range(3):
        for number in range(25):
            send(shard, f"d{number:02}", 0, 100 + number)
    plans = list(saves(shard, Bounds(max_devices=10)))
    assert all(len(plan.ranges) <= 10 for plan in plans)
    first = [set(of(plan)) for plan in plans[:3]]
    assert len(set.union(*first)) == 25


def _random_days(random_: random.Random) -> list[int]:
    kind = random_.random()
    if kind < 0.4:
        return [random_.choice([-1, 0, 0, 0, 1])] * random_.randint(1, 4)
    if kind < 0.8:
        return [random_.randint(2, 5_000)]
    begin = random_.randint(2, 5_000)
    return list(range(begin, begin + random_.randint(1, 16)))


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_sent_each_device_is_served_soon(shard: Shard, seed: int) -> None:
    """Some devices send again after each save, so that they always wait. Whoever comes waits for the round under way,
    its turn in the next, and, where a save has room for one entry with old days, for all others that have such."""
    random_ = random.Random(seed)
    names = [f"d{number}" for number in range(random_.randint(1, 12))]
    bounds = Bounds(
        random_.choice([1, 5, 40, 10_000]),
        random_.choice([1, 500, 10_000, 10**7]),
        random_.choice([1, 3, 100]),
        random_.choice([1, 5, 64]),
    )
    greedy = random_.sample(names, random_.randint(0, len(names)))
    for _ in range(40):
        send(shard, random_.choice(names), *_random_days(random_))
    waiting = dict.fromkeys(shard.all_dirty(), 0)
    for number, plan in enumerate(saves(shard, bounds)):
        records, devices = plan.tail.records.num_rows, of(plan)
        assert records > 0, "a save takes something"
        assert records <= max(bounds.max_records, 16), "an entry has 16 records at most"
        assert len(devices) <= bounds.max_devices
        assert len(old_days(plan)) <= max(bounds.max_days, 16)
        for device in devices:
            waiting.pop(device, None)
        assert all(number - since <= 6 * len(names) for since in waiting.values()), (number, waiting)
        if number < 40:
            for device in greedy:
                send(shard, device, *_random_days(random_))
        for device in shard.all_dirty():
            waiting.setdefault(device, number)
