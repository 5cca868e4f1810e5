"""What the store knows of the box's clock, which may be set at any time: on a real Redis, whose own stays right."""

from __future__ import annotations

import pytest

from telemetry.hot_store.entry_codec import pack
from telemetry.hot_store.operations.append import SEEN, STORED, Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard, attach
from telemetry.model.record import Record, Sent
from telemetry.system import clock

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NOISE_MS = 30_000


def append(shard: Shard, sender: str = "", number: int = 0, key: str = "") -> list[int]:
    entries = pack([Sent("a", Record(1_795_500_000_000_000, "tcp", "msgpack"))])
    return append_batches(shard, [Batch(entries, sender or key, b"hash" if key else b"", number)], Limits()).statuses


def note(shard: Shard, **fields: int) -> None:
    """As if the clock had shown that."""
    for field, ms in fields.items():
        shard.client.hset(shard.keys.store, field, ms)


def noted(shard: Shard, field: str) -> int:
    return int(shard.client.hget(shard.keys.store, field) or 0)


def steady_ms(shard: Shard) -> int:
    return (noted(shard, "clock_ms") or noted(shard, "newest_ms")) - noted(shard, "jumped_ms")


def test_the_newest_is_what_the_clock_shows(shard: Shard) -> None:
    assert shard.newest_ms() == 0
    append(shard)
    assert abs(shard.newest_ms() - clock.now_ms()) < NOISE_MS
    assert noted(shard, "behind_since_ms") == 0
    assert steady_ms(shard) == shard.newest_ms()


@pytest.mark.parametrize("ahead_ms", [HOUR_MS, 400 * DAY_MS])
def test_a_clock_that_is_behind_does_not_become_the_newest(shard: Shard, ahead_ms: int) -> None:
    """Or a collector that starts then would believe it, and refuse good records as from the future."""
    before_ms = clock.now_ms() + ahead_ms
    note(shard, newest_ms=before_ms)
    for _ in range(3):
        append(shard)
        assert attach(shard.client, 1)[0].newest_ms() == before_ms
        assert noted(shard, "behind_since_ms") == before_ms
        assert 0 <= steady_ms(shard) - before_ms < NOISE_MS, "it goes on from where it was"


def test_a_day_behind_it_is_believed_again(shard: Shard) -> None:
    """Or one look at a clock of 2038 would have it doubted till then."""
    newest_ms = clock.now_ms() + 400 * DAY_MS
    note(shard, newest_ms=newest_ms, clock_ms=clock.now_ms(), behind_since_ms=clock.now_ms() - DAY_MS + NOISE_MS)
    append(shard)
    assert shard.newest_ms() == newest_ms
    note(shard, behind_since_ms=clock.now_ms() - DAY_MS)
    append(shard)
    assert abs(shard.newest_ms() - clock.now_ms()) < NOISE_MS
    assert not shard.client.hexists(shard.keys.store, "behind_since_ms")


def test_one_that_caught_up_is_not_behind(shard: Shard) -> None:
    note(shard, newest_ms=clock.now_ms() - 1, clock_ms=clock.now_ms(), behind_since_ms=clock.now_ms() - HOUR_MS)
    append(shard)
    assert not shard.client.hexists(shard.keys.store, "behind_since_ms")
    assert not shard.client.hexists(shard.keys.store, "clock_ms")


@pytest.mark.parametrize("at_ms", [HOUR_MS, 2_147_483_648_000])
def test_senders_and_keys_do_not_grow_old_by_a_clock_that_is_set(shard: Shard, at_ms: int) -> None:
    """Forward from 1970, or back from 2038."""
    note(shard, newest_ms=at_ms)
    k = shard.keys
    shard.client.hset(k.senders, "s", 5)
    shard.client.zadd(k.senders_seen, {"s": at_ms - 60_000})
    assert append(shard, "s", 5) == [SEEN]
    assert append(shard, "s", 6) == [STORED]
    for number in (7, 8):
        assert at_ms <= steady_ms(shard) <= at_ms + HOUR_MS + NOISE_MS
        assert shard.client.zscore(k.senders_seen, "s") == steady_ms(shard)
        assert append(shard, "s", number) == [STORED]


def test_they_do_by_one_that_runs(shard: Shard) -> None:
    append(shard, "s", 5)
    for _ in range(2):
        before_ms = steady_ms(shard)
        half_ms = HOUR_MS // 2
        note(shard, newest_ms=shard.newest_ms() - half_ms, jumped_ms=noted(shard, "jumped_ms") - half_ms)
        append(shard, "t", before_ms)
        assert abs(steady_ms(shard) - before_ms - half_ms) < NOISE_MS


def test_a_key_gives_its_room_free_in_time(shard: Shard) -> None:
    note(shard, newest_ms=clock.now_ms(), jumped_ms=clock.now_ms() - HOUR_MS)
    shard.client.zadd(shard.keys.sent_until, {"old": HOUR_MS - 1, "new": HOUR_MS + 60_000})
    assert append(shard, key="mine") == [STORED]
    assert set(shard.client.zrange(shard.keys.sent_until, 0, -1)) == {b"new", b"mine"}
