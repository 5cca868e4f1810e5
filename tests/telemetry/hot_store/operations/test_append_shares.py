"""Shares of owners in what a shard remembers, against a real Redis."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from telemetry.hot_store.entry_codec import pack
from telemetry.hot_store.operations import batch_senders, deletions
from telemetry.hot_store.operations.append import (
    SEEN,
    SHARE_FULL,
    STORED,
    Batch,
    Bringer,
    Limits,
    Owner,
    append_batches,
)
from telemetry.hot_store.response_errors import DevicesFull
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import ShareFull
from telemetry.model.record import Record, Sent

NOW_US = 1_795_500_000_000_000
ONE, OTHER, ALL = Owner("one", 2, 2), Owner("@192.0.2.1", 2, 2), Owner()


def batch(name: str, owner: Owner, number: int = 0, device: str = "a") -> Batch:
    sent = Sent(device, Record(NOW_US, "tcp", "msgpack", altitude_m=1.0))
    return Batch(pack([sent]), name, b"hash", number, owner)


def append(shard: Shard, *batches: Batch, limits: Limits | None = None) -> list[int]:
    return append_batches(shard, batches, limits or Limits()).statuses


@pytest.mark.parametrize("number", [0, 1], ids=["Idempotency-Keys", "senders"])
def test_each_owner_has_its_share(shard: Shard, number: int) -> None:
    first = append(shard, *(batch(f"n{place}", ONE, number) for place in range(4)))
    assert first == [STORED, STORED, SHARE_FULL, SHARE_FULL]
    assert append(shard, batch("n0", ONE, number), batch("n9", ONE, number)) == [SEEN, SHARE_FULL]
    assert (
        append(shard, batch("o", OTHER, number), *(batch(f"x{place}", ALL, number) for place in range(9))) == [0] * 10
    )


def test_senders_and_idempotency_keys_are_counted_apart(shard: Shard) -> None:
    assert append(shard, *(batch(f"{place}", ONE, place % 2) for place in range(6))) == [STORED] * 4 + [SHARE_FULL] * 2


def test_a_known_sender_goes_on_also_from_another_owner(shard: Shard) -> None:
    append(shard, batch("a", ONE, 1), batch("b", ONE, 1), batch("c", OTHER, 1))
    assert append(shard, batch("a", ONE, 2), batch("a", OTHER, 3), batch("d", OTHER, 1)) == [STORED] * 3
    assert append(shard, batch("e", OTHER, 1), batch("e", ONE, 1)) == [SHARE_FULL] * 2


def test_a_sender_that_is_forgotten_makes_room(shard: Shard) -> None:
    append(shard, batch("a", ONE, 1), batch("b", ONE, 1))
    long_ago = {"a": 1}
    shard.client.zadd(shard.keys.senders_seen, long_ago)
    shard.client.zadd(shard.keys.senders_of("one"), long_ago)
    assert append(shard, batch("c", ONE, 1), batch("d", ONE, 1)) == [STORED, SHARE_FULL]


def test_an_idempotency_key_that_expires_makes_room(shard: Shard) -> None:
    append(shard, batch("a", ONE), batch("b", ONE))
    shard.client.zadd(shard.keys.sent_of("one"), {"a": 1})
    assert append(shard, batch("c", ONE), batch("d", ONE)) == [STORED, SHARE_FULL]


def test_sets_of_owners_expire_and_those_without_a_share_have_none(shard: Shard) -> None:
    append(shard, batch("a", ONE, 1), batch("b", ONE), batch("c", ALL, 1), limits=Limits(sender_kept_ms=5_000_000))
    assert 4_000_000 < int(shard.client.pttl(shard.keys.senders_of("one"))) <= 5_000_000
    assert 0 < int(shard.client.pttl(shard.keys.sent_of("one"))) <= Limits().names_kept_ms
    assert len(shard.client.keys("*_of:*")) == 2


def test_devices_of_a_prefix(shard: Shard) -> None:
    most = {"p-": 2}
    for number in range(2):
        append_batches(shard, [batch("", ALL, device=f"p-{number}")], Limits(), prefixes=most)
    append_batches(shard, [batch("", ALL, device="q"), batch("", ALL, device="p-0")], Limits(), prefixes=most)
    unsaved = shard.unsaved()
    with pytest.raises(
        ShareFull, match=r"'p-' have used their share of collector.max_devices \(limits.owner_share_percent"
    ):
        append_batches(shard, [batch("", ALL, device="p-2")], Limits(), prefixes=most)
    assert issubclass(ShareFull, Exception)
    with pytest.raises(DevicesFull):
        append_batches(shard, [batch("", ALL, device="p-ÿ"), batch("", ALL, device="r")], Limits(), prefixes=most)
    assert shard.unsaved() == unsaved
    append_batches(shard, [batch("", ALL, device="p-2")], Limits())


def test_senders_are_listed_and_forgotten(shard: Shard) -> None:
    append(shard, batch("a", ONE, 7), batch("b", ONE, 1), batch("c", ALL, 3))
    found = sorted(batch_senders.known(shard), key=lambda one: one.name)
    assert [(one.name, one.owner, one.number) for one in found] == [("a", "one", 7), ("b", "one", 1), ("c", "", 3)]
    assert {abs(one.seen_ms - found[0].seen_ms) < 60_000 for one in found} == {True}
    assert batch_senders.forget(shard, [found[0], found[2]]) == 2
    assert batch_senders.forget(shard, [found[0]]) == 0
    assert [one.name for one in batch_senders.known(shard)] == ["b"]
    assert append(shard, batch("a", ONE, 1), batch("d", ONE, 1)) == [STORED, SHARE_FULL]


ADDRESS = Owner("@192.0.2.1", max_devices=2)


def bring(shard: Shard, *devices: str, owner: Owner = ADDRESS) -> list[Sequence[str]]:
    """Store a record of each device. Returns the devices of each time that the owner was asked for."""
    asked: list[Sequence[str]] = []

    def bringers() -> list[Bringer]:
        asked.append(devices)
        return [Bringer(owner, devices)]

    append_batches(shard, [batch("", ALL, device=device) for device in devices], Limits(), bringers=bringers)
    return asked


def test_an_owner_adds_its_share_of_devices(shard: Shard) -> None:
    assert bring(shard, "a") == [("a",)]
    assert bring(shard, "a") == []  # is not new
    bring(shard, "a", "b")
    with pytest.raises(DevicesFull, match=r"192\.0\.2\.1 .*limits.owner_share_percent") as refused:
        bring(shard, "a", "c")
    assert isinstance(refused.value, ShareFull)
    assert shard.client.zrange(shard.keys.devices, 0, -1) == [b"a", b"b"]
    assert bring(shard, "a", "b") == []
    bring(shard, "c", owner=ADDRESS._replace(name="@192.0.2.2"))
    append_batches(shard, [batch("", ALL, device="d")], Limits())
    assert shard.client.zrange(shard.keys.devices_of(ADDRESS.name), 0, -1) == [b"a", b"b"]
    assert 0 < int(shard.client.pttl(shard.keys.devices_of(ADDRESS.name))) <= Limits().sender_kept_ms


def test_a_deleted_device_makes_room(shard: Shard) -> None:
    bring(shard, "a", "b")
    shard.client.hdel(shard.keys.latest, "a")
    bring(shard, "c")
    with pytest.raises(DevicesFull):
        bring(shard, "d")


def test_a_deletion_leaves_no_name_of_the_device(shard: Shard) -> None:
    bring(shard, "a", "b")
    assert deletions.ask(shard, "a") is not None
    assert shard.client.zrange(shard.keys.devices_of(ADDRESS.name), 0, -1) == [b"b"]
    assert shard.client.hgetall(shard.keys.added_by) == {b"b": ADDRESS.name.encode()}
    bring(shard, "c")
    assert deletions.ask(shard, "a") is not None, "again, without an owner"


def test_a_device_of_two_owners_counts_for_the_first(shard: Shard) -> None:
    other = ADDRESS._replace(name="@192.0.2.2")
    owners = [Bringer(ADDRESS, ["a", "b"]), Bringer(other, ["b", "c"])]
    append_batches(shard, [batch("", ALL, device=device) for device in "abc"], Limits(), bringers=lambda: owners)
    assert [shard.client.zcard(shard.keys.devices_of(one.owner.name)) for one in owners] == [2, 1]
