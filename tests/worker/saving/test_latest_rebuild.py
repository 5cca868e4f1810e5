"""Latest rebuilt from the archive: the same as before Redis lost it."""

from __future__ import annotations

import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from telemetry.archive.schema import open_duckdb
from telemetry.archive.table import Archive
from telemetry.hot_store.entry_codec import Latest, decode_latest, pack
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.operations.latest_rebuild import must_rebuild
from telemetry.hot_store.shard import Shard
from telemetry.model.record import Record, Sent
from telemetry.startup.store_setup import set_up
from telemetry.system import clock
from worker.saving.latest_rebuild import rebuild
from worker.saving.saver import Saver


def append(shard: Shard, device: str, timestamp_us: int, transport: str = "http", fix: bool = True) -> None:
    place = {"latitude": 1.0, "longitude": 2.0} if fix else {}
    record = Record(timestamp_us, transport, "json", attributes='{"fuel":1}', **place)  # type: ignore[arg-type]
    append_batches(shard, [Batch(pack([Sent(device, record)]))], Limits())


def all_latest(shard: Shard) -> dict[bytes, Latest]:
    return {device: decode_latest(value) for device, value in shard.client.hgetall(shard.keys.latest).items()}  # type: ignore[arg-type, misc]


def lose_redis(shard: Shard, archive: Archive) -> Shard:
    Saver(archive, open_duckdb(), clock.now_ms).save(shard)
    shard.client.flushall()
    [new] = set_up(shard.client, archive, 1)
    return new


HISTORY = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(-100, 0), st.sampled_from(["http", "tcp"]), st.booleans()),
    min_size=1,
    max_size=12,
)


@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=HISTORY)
def test_it_is_what_it_was(
    history: list[tuple[str, int, str, bool]], client: redis.Redis, archive: Archive, shard: Shard
) -> None:
    client.flushall()
    [shard] = set_up(client, archive, 1)
    now_us = clock.now_us()
    for device, offset_s, transport, fix in history:
        append(shard, f"{device}-{now_us}", now_us + offset_s * 1_000_000, transport, fix)
    before = all_latest(shard)
    new = lose_redis(shard, archive)
    assert must_rebuild(new)
    rebuild(new, archive, open_duckdb())
    assert not must_rebuild(new)
    after = all_latest(new)
    assert {device: after[device] for device in before} == before
    assert new.client.zcard(new.keys.devices) == len(after)


def test_what_came_since_is_not_pushed_back(shard: Shard, archive: Archive) -> None:
    now_us = clock.now_us()
    append(shard, "a", now_us - 1_000_000)
    append(shard, "b", now_us)
    new = lose_redis(shard, archive)
    append(new, "a", now_us, fix=False)
    append(new, "b", now_us - 5_000_000)
    rebuild(new, archive, open_duckdb())
    found = all_latest(new)
    assert found[b"a"].newest.id == 3  # type: ignore[union-attr]
    assert found[b"a"].position.id == 1  # type: ignore[union-attr]
    assert found[b"b"].newest.id == 2, "the archive's is newer than the late record that came since"  # type: ignore[union-attr]


def test_a_clock_that_ran_ahead_long_ago_does_not_win(shard: Shard, archive: Archive) -> None:
    day_us = 86_400_000_000
    append(shard, "a", clock.now_us() + day_us)
    seen_ms = all_latest(shard)[b"a"].last_seen_ms
    while clock.now_ms() < seen_ms + 2:
        pass
    append(shard, "a", clock.now_us())
    assert all_latest(shard)[b"a"].newest.id == 2  # type: ignore[union-attr]
    new = lose_redis(shard, archive)
    rebuild(new, archive, open_duckdb())
    assert all_latest(new)[b"a"].newest.id == 2  # type: ignore[union-attr]


def test_a_new_store_beside_an_empty_archive_needs_none(shard: Shard) -> None:
    assert not must_rebuild(shard)
