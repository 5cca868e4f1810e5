"""Reading many streams of a real Redis at once."""

from __future__ import annotations

import redis

from telemetry.entries import pack
from telemetry.hot import NO_ENTRY, Batch, Limits, Shard
from telemetry.record import Record, Sent
from telemetry.streams import LOOK_STREAMS, heads, newer, next_of, streams_at_once, tails

NOW_US = 1_795_500_000_000_000


def append(shard: Shard, *names: str) -> None:
    shard.append([Batch(pack([Sent(name, Record(NOW_US, "tcp", "json")) for name in names]))], Limits())


def test_the_first_entries_of_each_stream_come_in_the_order_that_was_asked_for(shard: Shard) -> None:
    for _ in range(3):
        append(shard, "a", "ä")
    append(shard, "b")
    found = heads(shard, ["ä", "nobody", "b", "a"], 2)
    assert [(name, len(entries)) for name, entries in found.items()] == [("ä", 2), ("b", 1), ("a", 2)]
    assert found["a"] == shard.entries([("a", "-", "+")])[0][:2]


def test_a_user_who_may_not_read_many_at_once_reads_each_by_itself(shard: Shard) -> None:
    append(shard, "a", "b")
    append(shard, "a")
    expected = heads(shard, ["b", "c", "a"], 5)
    client = shard.client
    client.acl_setuser(
        "older", enabled=True, nopass=True, keys=["*"], channels=["*"], categories=["+@all"], commands=["-xread"]
    )
    options = client.connection_pool.connection_kwargs | {"credential_provider": None}
    pool = redis.ConnectionPool(client.connection_pool.connection_class, **options | {"username": "older"})
    try:
        with redis.Redis(connection_pool=pool) as older:
            older.response_callbacks.pop("XRANGE", None)
            other = Shard(older, shard.shard, shard.store_id, shard.shards)
            assert heads(other, ["b", "c", "a"], 5) == expected
    finally:
        client.acl_deluser("older")


def test_what_is_new_is_found_behind_what_is_known(shard: Shard) -> None:
    for _ in range(12):
        append(shard, "a")
    append(shard, "b")
    known = tails(shard, ["a", "b"])
    for _ in range(12):
        append(shard, "a")
    lasts = {name: entries[-1][0] for name, entries in known.items()}
    found = newer(shard, {**lasts, "c": NO_ENTRY.encode()})
    assert found.keys() == {"a"}
    assert known["a"] + found["a"] == tails(shard, ["a"])["a"]
    assert next_of(known["b"]) > known["b"][-1][0].decode()


def test_the_more_entries_the_fewer_streams_are_read_at_once() -> None:
    assert streams_at_once(1) == LOOK_STREAMS
    assert streams_at_once(200) == 25
