"""Reading many streams of a real Redis at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import redis

from telemetry.hot_store import stream_reader
from telemetry.hot_store.entry_codec import NO_ENTRY, pack, size_bytes
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard
from telemetry.hot_store.stream_reader import (
    LOOK_STREAMS,
    heads,
    newer,
    next_of,
    pieces,
    sizes_bytes,
    streams_at_once,
    tails,
)
from telemetry.model.record import Record, Sent

NOW_US = 1_795_500_000_000_000


def append(shard: Shard, *names: str) -> None:
    append_batches(shard, [Batch(pack([Sent(name, Record(NOW_US, "tcp", "json")) for name in names]))], Limits())


@contextmanager
def older_user(shard: Shard) -> Iterator[Shard]:
    """The shard for a user that an older release made."""
    client, refused = shard.client, ["-xread", "-memory|usage"]
    client.acl_setuser(
        "older", enabled=True, nopass=True, keys=["*"], channels=["*"], categories=["+@all"], commands=refused
    )
    options = client.connection_pool.connection_kwargs | {"credential_provider": None}
    pool = redis.ConnectionPool(client.connection_pool.connection_class, **options | {"username": "older"})
    try:
        with redis.Redis(connection_pool=pool) as older:
            older.response_callbacks.pop("XRANGE", None)
            yield Shard(older, shard.shard, shard.store_id, shard.shards)
    finally:
        client.acl_deluser("older")


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
    with older_user(shard) as other:
        assert heads(other, ["b", "c", "a"], 5) == expected


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


# Large entries ---------------------------------------------------------------------------------------

LARGE_BYTES = 50_000


def append_large(shard: Shard, name: str, count: int) -> None:
    for _ in range(count):
        record = Record(NOW_US, "tcp", "json", attributes='{"x":"' + "x" * (LARGE_BYTES) + '"}')
        append_batches(shard, [Batch(pack([Sent(name, record)]))], Limits())


@pytest.fixture
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_reader, "SMALL_BYTES", 10 * LARGE_BYTES)
    monkeypatch.setattr(stream_reader, "PIECE_BYTES", 5 * LARGE_BYTES)


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("is_older", [False, True])
def test_large_streams_are_read_in_pieces_by_their_size(shard: Shard, is_older: bool) -> None:
    names = [f"small {number}" for number in range(5)]
    append(shard, *names)
    append_large(shard, "large", 20)
    expected = tails(shard, [*names, "large"])
    unsaved_bytes = shard.waiting().size_bytes
    assert unsaved_bytes == sum(map(size_bytes, expected.values())) > 20 * LARGE_BYTES
    with older_user(shard) if is_older else nullcontext(shard) as asked:
        sizes = sizes_bytes(asked, [*names, "large"], unsaved_bytes)
        assert sizes is not None
        assert tails(asked, [*names, "large"], sizes) == expected
        found = list(pieces(asked, iter([*names, "large"]), 200, unsaved_bytes))
    if is_older:
        assert found == [([name], stream_reader.LARGE_ENTRIES) for name in [*names, "large"]]
    else:
        assert found == [(names, 200), (["large"], stream_reader.LARGE_ENTRIES)]
        assert 20 * LARGE_BYTES < sizes[-1] < 1.1 * 20 * LARGE_BYTES


@pytest.mark.usefixtures("_small_pieces")
def test_sizes_do_not_matter_where_all_is_small(shard: Shard) -> None:
    append(shard, "a", "b")
    unsaved_bytes = shard.waiting().size_bytes
    assert sizes_bytes(shard, ["a", "b"], unsaved_bytes) is None
    assert list(pieces(shard, iter(["a", "b"]), 200, unsaved_bytes)) == [(["a", "b"], 200)]
