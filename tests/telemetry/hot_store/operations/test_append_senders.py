"""Senders who number their batches, against a real Redis: each number once, forgotten in time, bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from telemetry.archive.table import Archive
from telemetry.hot_store.client import connect
from telemetry.hot_store.entry_codec import pack, read_entry
from telemetry.hot_store.operations.append import (
    APART,
    SEEN,
    SENDER_KEPT_MS,
    SENDERS_FULL,
    STORED,
    Batch,
    Limits,
    append_batches,
)
from telemetry.hot_store.response_errors import DevicesFull
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import BusyError
from telemetry.model.record import Record, Sent
from telemetry.startup.store_setup import set_up
from tests.conftest import RedisServer, settings_of

NOW_US = 1_795_500_000_000_000


def batch(sender: str, number: int, mark: int = 0, device: str = "a") -> Batch:
    record = Record(NOW_US, "tcp", "msgpack", altitude_m=float(mark or number))
    return Batch(pack([Sent(device, record)]), sender, number=number)


def append(shard: Shard, *batches: Batch, limits: Limits | None = None) -> list[int]:
    return append_batches(shard, batches, limits or Limits()).statuses


def marks(shard: Shard, device: str = "a") -> list[int]:
    """What tells the stored records apart, in their order."""
    [entries] = shard.entries([(device, "-", "+")])
    return [int(one.record.altitude_m or 0) for raw in entries for one in read_entry(device, raw, shard.shards)]


def age(shard: Shard, sender: str, ms: int) -> None:
    """Let a sender's last batch have been so long ago."""
    seconds, micros = shard.client.time()
    shard.client.zadd(shard.keys.senders_seen, {sender: seconds * 1_000 + micros // 1_000 - ms}, xx=True)


def known(shard: Shard) -> set[str]:
    names = set(shard.client.hkeys(shard.keys.senders))
    assert names == set(shard.client.zrange(shard.keys.senders_seen, 0, -1))
    return {name.decode() for name in names if isinstance(name, bytes)}


# Numbers ---------------------------------------------------------------------------------------------


def test_all_of_a_call_or_none(shard: Shard) -> None:
    batches = [batch("", 0, 7), batch("s", 1), Batch((), "k", b"hash"), batch("t", 1)]
    assert append_batches(shard, batches[1:2], Limits()).statuses == [STORED]
    found = append_batches(shard, batches, Limits(), is_whole=True)
    assert found.statuses == [APART, SEEN, APART, APART]
    assert (found.unsaved, marks(shard), known(shard)) == (1, [1], {"s"}), "nothing was stored, none is remembered"
    assert (
        append_batches(shard, [batch("", 0, 7), batch("s", 2), *batches[2:]], Limits(), is_whole=True).statuses
        == [0] * 4
    )
    assert (marks(shard), known(shard)) == ([1, 7, 2, 1], {"s", "t"})


def test_each_number_is_stored_once(shard: Shard) -> None:
    assert append(shard, batch("s", 1)) == [STORED]
    assert append(shard, batch("s", 1)) == [SEEN]
    assert append(shard, batch("s", 2), batch("s", 2), batch("s", 5)) == [STORED, SEEN, STORED]
    assert append(shard, batch("s", 3), batch("s", 5), batch("s", 6)) == [SEEN, SEEN, STORED]
    assert marks(shard) == [1, 2, 5, 6]
    assert shard.unsaved() == 4


def test_senders_and_keys_do_not_mix(shard: Shard) -> None:
    keyed = Batch(batch("", 0, 7).entries, "s", b"hash")
    assert append(shard, batch("s", 1), batch("t", 1), keyed, batch("", 0, 8)) == [STORED] * 4
    assert append(shard, batch("s", 1), batch("t", 1), keyed, batch("", 0, 9)) == [SEEN] * 3 + [STORED]
    assert marks(shard) == [1, 1, 7, 8, 9]


def test_the_greatest_number(shard: Shard) -> None:
    greatest = 2**53 - 1
    assert append(shard, batch("s", greatest - 1, 1), batch("s", greatest, 2)) == [STORED] * 2
    assert append(shard, batch("s", greatest - 1), batch("s", greatest)) == [SEEN] * 2
    assert shard.client.hget(shard.keys.senders, "s") == str(greatest).encode()


def test_a_batch_without_records_is_remembered(shard: Shard) -> None:
    assert append(shard, Batch([], "s", number=4)) == [STORED]
    assert append(shard, batch("s", 4), batch("s", 5)) == [SEEN, STORED]


class Model:
    """What must become of senders' batches."""

    def __init__(self) -> None:
        self.last: dict[str, int] = {}
        self.stored: list[int] = []

    def append(self, sender: str, number: int, mark: int) -> int:
        if number <= self.last.get(sender, 0):
            return SEEN
        self.last[sender] = number
        self.stored.append(mark)
        return STORED


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(st.sampled_from("stu"), st.integers(1, 6)), max_size=5), max_size=6))
def test_it_agrees_with_the_model(client: redis.Redis, archive: Archive, calls: list[list[tuple[str, int]]]) -> None:
    """Any numbers in any order, several in a call."""
    client.flushall()
    [shard] = set_up(client, archive, 1)
    model, mark = Model(), 0
    for call in calls:
        batches, expected = [], []
        for sender, number in call:
            mark += 1
            batches.append(batch(sender, number, mark))
            expected.append(model.append(sender, number, mark))
        assert append(shard, *batches) == expected
    assert marks(shard) == model.stored
    assert known(shard) == set(model.last)


# Atomic ----------------------------------------------------------------------------------------------


def test_what_is_refused_is_not_remembered(shard: Shard, client: redis.Redis) -> None:
    assert append(shard, batch("s", 1)) == [STORED]
    with pytest.raises(DevicesFull):
        append(shard, batch("s", 2), batch("s", 3, device="b"), limits=Limits(max_devices=1))
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(BusyError):
            append(shard, batch("s", 2))
    finally:
        client.config_set("maxmemory", 0)
    assert append(shard, batch("s", 2), batch("s", 3, device="b")) == [STORED] * 2


def test_after_a_restart_from_the_aof(own_redis: RedisServer, tmp_path: Path) -> None:
    """Batches and their numbers are in the same call, so that they come back together."""
    settings = settings_of(own_redis.url, tmp_path)
    with connect(settings) as client:
        [shard] = set_up(client, Archive(settings.archive_dir), 1)
        assert append(shard, batch("s", 1), batch("s", 2)) == [STORED] * 2
        for _ in range(3):
            own_redis.kill()
            own_redis.start()
            assert append(shard, batch("s", 1), batch("s", 2)) == [SEEN] * 2
        assert append(shard, batch("s", 3)) == [STORED]
        client.bgrewriteaof()
        while client.info("persistence")["aof_rewrite_in_progress"]:
            pass
        own_redis.kill()
        own_redis.start()
        assert append(shard, batch("s", 3), batch("s", 4)) == [SEEN, STORED]
        assert marks(shard) == [1, 2, 3, 4]


# Forgetting ------------------------------------------------------------------------------------------


def test_a_sender_is_forgotten_after_30_days_of_silence(shard: Shard) -> None:
    append(shard, batch("s", 5), batch("t", 5))
    age(shard, "s", SENDER_KEPT_MS - 60_000)
    age(shard, "t", SENDER_KEPT_MS + 1)
    assert append(shard, batch("s", 5), batch("t", 5)) == [SEEN, STORED]


def test_a_batch_is_a_new_beginning_of_the_30_days(shard: Shard) -> None:
    append(shard, batch("s", 5))
    age(shard, "s", SENDER_KEPT_MS - 60_000)
    append(shard, batch("s", 6))
    assert shard.client.time()[0] * 1_000 - (shard.client.zscore(shard.keys.senders_seen, "s") or 0) < 60_000


def test_the_silent_ones_go_bit_by_bit(shard: Shard) -> None:
    append(shard, *(batch(f"s{n}", 1) for n in range(100)))
    for n in range(100):
        age(shard, f"s{n}", SENDER_KEPT_MS + 1_000 - n)
    left = 100
    while left:
        append(shard, batch("t", left, 1) if left == 100 else batch("t", 1_000 - left, 1))
        now = len(known(shard) - {"t"})
        assert left - 12 <= now < left or now == 0, "a few at each call, never all"
        left = now
    assert known(shard) == {"t"}
    append(shard, batch("u", 1))


def test_one_that_is_forgotten_but_still_there_begins_anew(shard: Shard) -> None:
    """The oldest go first, and one of the others comes back."""
    append(shard, *(batch(f"s{n}", 9) for n in range(50)))
    for n in range(50):
        age(shard, f"s{n}", SENDER_KEPT_MS + 1_000 - n)
    assert append(shard, batch("s49", 1), limits=Limits(max_senders=50)) == [STORED]
    assert append(shard, batch("s49", 1)) == [SEEN]
    assert "s49" in known(shard)


def test_senders_are_bounded(shard: Shard) -> None:
    limits = Limits(max_senders=2)
    assert append(shard, batch("s", 1), batch("t", 1), batch("u", 1), limits=limits) == [
        STORED,
        STORED,
        SENDERS_FULL,
    ]
    calls = [batch("u", 2), batch("s", 1), batch("s", 2), batch("", 0, 7), batch("u", 3), batch("t", 2)]
    full = SENDERS_FULL
    assert append(shard, *calls, limits=limits) == [full, SEEN, STORED, STORED, full, STORED]
    age(shard, "s", SENDER_KEPT_MS + 1)
    assert append(shard, batch("u", 3), batch("v", 1), limits=limits) == [STORED, full]
    assert known(shard) == {"t", "u"}


def test_as_many_as_come_at_once_may_take_the_places_of_the_silent(shard: Shard) -> None:
    append(shard, *(batch(f"old {n}", 1) for n in range(60)))
    for n in range(60):
        age(shard, f"old {n}", SENDER_KEPT_MS + 1)
    found = append(shard, *(batch(f"new {n}", 1) for n in range(61)), limits=Limits(max_senders=60))
    assert found == [STORED] * 60 + [SENDERS_FULL]


# Shards ----------------------------------------------------------------------------------------------


def test_each_shard_remembers_on_its_own(client: redis.Redis, archive: Archive) -> None:
    first, second = set_up(client, archive, 2)
    assert append(first, batch("s", 5)) == [STORED]
    assert append(second, batch("s", 4)) == [STORED]
    assert append(first, batch("s", 5)) == [SEEN]
    assert append(second, batch("s", 5)) == [STORED]
