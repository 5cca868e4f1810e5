"""The hot store against a real Redis: appending, latest, names, and what it refuses."""

from __future__ import annotations

import random
from typing import NamedTuple

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from telemetry.archive.table import Archive
from telemetry.hot_store import shard as hot
from telemetry.hot_store.entry_codec import (
    Intent,
    Latest,
    Range,
    Unreadable,
    behind,
    decode_latest,
    entry_id,
    entry_text,
    pack,
    pack_array,
    read_entry,
)
from telemetry.hot_store.operations.append import (
    KEYS_FULL,
    OTHER_BODY,
    SEEN,
    STORED,
    Appended,
    Batch,
    Limits,
    append_batches,
)
from telemetry.hot_store.operations.save import finish_chunk, intend
from telemetry.hot_store.response_errors import DevicesFull
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import BusyError, ConfigError, OtherStoreError, StoreUnavailable
from telemetry.model.record import MAX_ENTRY_RECORDS, Record, Sent, Stored, encode, replaces
from telemetry.startup.store_setup import set_up

DAY_US = 86_400_000_000
NOW_US = 1_795_500_000_000_000


def record(timestamp_us: int = NOW_US, transport: str = "http", fix: bool = True, **more: object) -> Record:
    place = {"latitude": 1.0, "longitude": 2.0} if fix else {}
    return Record(timestamp_us, transport, "json", **place, **more)  # type: ignore[arg-type]


def append(shard: Shard, *sent: Sent, limits: Limits | None = None) -> Appended:
    return append_batches(shard, [Batch(pack(sent))], limits or Limits())


def latest(shard: Shard, device: str) -> Latest:
    value = shard.client.hget(shard.keys.latest, device)
    assert value is not None
    return decode_latest(value)  # type: ignore[arg-type]


def tail(shard: Shard, device: str) -> list[Stored]:
    [entries] = shard.entries([(device, "-", "+")])
    return [stored for raw in entries for stored in read_entry(device, raw, shard.shards)]


def test_an_entry_holds_all_records_of_a_device_in_a_group(shard: Shard) -> None:
    sent = [Sent("a", record(NOW_US + n)) for n in range(3)] + [Sent("b", record())]
    appended = append(shard, *sent)
    assert appended.statuses == [STORED]
    assert appended.unsaved == 4
    assert shard.client.xlen(shard.keys.stream("a")) == 1
    assert [stored.record for stored in tail(shard, "a")] == [one.record for one in sent[:3]]
    assert [stored.id for stored in tail(shard, "a")] == [1, 2, 3]
    assert [stored.id for stored in tail(shard, "b")] == [4]
    assert shard.dirty(0, 10) == ["a", "b"]


def test_large_and_wide_entries_are_split() -> None:
    many = pack([Sent("a", record(NOW_US + n)) for n in range(MAX_ENTRY_RECORDS + 1)])
    assert [entry.size for entry in many] == [MAX_ENTRY_RECORDS, 1]
    wide = pack([Sent("a", record(NOW_US)), Sent("a", record(NOW_US - 65 * DAY_US)), Sent("a", record(NOW_US))])
    assert [entry.size for entry in wide] == [1, 1, 1]


def test_records_survive_as_they_were_sent(shard: Shard) -> None:
    sent = record(speed_kmh=60.0, location="Ünï\ncode", attributes='{"big":123456789012345678901234567890}')
    append(shard, Sent("d/é", sent))
    assert tail(shard, "d/é")[0].record == sent


def test_next_ids_rise_over_groups_and_shards(client: redis.Redis, archive: Archive) -> None:
    shards = set_up(client, archive, 3)
    seen = []
    for _ in range(3):
        for shard in shards:
            append(shard, Sent("a", record()), Sent("a", record()))
            seen += [stored.id for stored in tail(shard, "a")[-2:]]
    assert len(set(seen)) == len(seen)
    assert all(identity % 3 == number // 2 % 3 for number, identity in enumerate(seen))


# Latest ----------------------------------------------------------------------------------------------


def test_latest_is_kept_by_transport_with_the_position(shard: Shard) -> None:
    append(shard, Sent("a", record(NOW_US, "http")))
    append(shard, Sent("a", record(NOW_US + 1, "tcp", fix=False)))
    found = latest(shard, "a")
    assert found.newest is not None
    assert found.newest.id == 2
    assert found.http is not None
    assert found.http.id == 1
    assert found.position is not None
    assert found.position.id == 1
    append(shard, Sent("a", record(NOW_US + 2, "http", fix=False)))
    found = latest(shard, "a")
    assert (found.newest.id, found.position.id) == (3, 1)  # type: ignore[union-attr]


def test_each_device_is_told_once_with_when_it_was_last_seen(shard: Shard) -> None:
    append(shard, *(Sent(f"tcp {n}", record(transport="tcp", fix=False)) for n in range(1_300)))
    append(shard, *(Sent(f"http {n}", record()) for n in range(1_300)), Sent("tcp 7", record()))
    pieces = list(shard.seen())
    told = {device.decode(): ms for piece in pieces for device, ms in piece}
    assert sum(map(len, pieces)) == len(told) == shard.devices() == 2_600
    assert max(map(len, pieces)) <= 2 * hot.READ_LATEST
    assert told == {device: latest(shard, device).last_seen_ms for device in told}


def test_large_latests_are_read_a_few_at_a_time(shard: Shard) -> None:
    append(shard, *(Sent(f"{n}", record(location="x" * 100_000)) for n in range(300)))
    pieces = list(shard.seen())
    assert sum(map(len, pieces)) == 300
    assert max(map(len, pieces)) < 60


def test_the_oldest_unsaved_record(shard: Shard) -> None:
    assert shard.oldest_unsaved_ms() is None
    first = append(shard, Sent("b", record()))
    append(shard, Sent("a", record()), Sent("b", record()))
    assert shard.oldest_unsaved_ms() == first.newest_ms


def test_a_late_record_never_wins(shard: Shard) -> None:
    append(shard, Sent("a", record(NOW_US)))
    append(shard, Sent("a", record(NOW_US - DAY_US)))
    assert latest(shard, "a").newest.id == 1  # type: ignore[union-attr]


def test_a_clock_that_ran_ahead_does_not_freeze_latest(shard: Shard) -> None:
    seconds, microseconds = shard.client.time()
    now_us = seconds * 1_000_000 + microseconds
    append(shard, Sent("a", record(now_us + DAY_US)))
    append(shard, Sent("a", record(now_us + DAY_US - 1)))
    assert latest(shard, "a").newest.id == 1, "a clock that runs ahead keeps its own order"  # type: ignore[union-attr]
    seen_ms = latest(shard, "a").last_seen_ms
    while now_us < (seen_ms + 2) * 1_000:
        seconds, microseconds = shard.client.time()
        now_us = seconds * 1_000_000 + microseconds
    append(shard, Sent("a", record(now_us - 10)))
    assert latest(shard, "a").newest.id == 3, "once corrected it wins"  # type: ignore[union-attr]


class Newest(NamedTuple):
    """What the model of latest remembers of a record."""

    id: int
    timestamp_us: int
    received_ms: int


class Model:
    """Latest as record.py states it: each record in its order of arrival, one after another."""

    def __init__(self) -> None:
        self.newest: dict[str, Newest] = {}

    def offer(self, stored: Stored) -> None:
        record, new = stored.record, Newest(stored.id, stored.record.timestamp_us, stored.received_ms)
        kinds = ["http" if record.transport == "http" else "other"] + (["fix"] if record.has_fix else [])
        for kind in kinds:
            old = self.newest.get(kind)
            if old is None or replaces(new.timestamp_us, new.received_ms, old.timestamp_us, old.received_ms):
                self.newest[kind] = new


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(-5, 5),
            st.sampled_from(["http", "tcp", "udp"]),
            st.booleans(),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_latest_agrees_with_the_model_for_single_records(shard: Shard, history: list[tuple[int, str, bool]]) -> None:
    device = f"device-{random.random()}"
    model = Model()
    for offset_s, transport, fix in history:
        seconds, _ = shard.client.time()
        append(shard, Sent(device, record((seconds + offset_s) * 1_000_000, transport, fix)))
    for stored in tail(shard, device):
        model.offer(stored)
    found = latest(shard, device)
    ids = {
        kind: slot.id
        for kind, slot in (("http", found.http), ("other", found.other), ("fix", found.position))
        if slot is not None
    }
    assert ids == {kind: newest.id for kind, newest in model.newest.items()}


def test_of_one_entry_the_greatest_timestamp_wins_then_the_last(shard: Shard) -> None:
    append(
        shard,
        Sent("a", record(NOW_US + 5, fix=False)),
        Sent("a", record(NOW_US + 9, "tcp")),
        Sent("a", record(NOW_US + 5)),
        Sent("a", record(NOW_US + 1)),
        Sent("a", record(NOW_US + 9, "tcp", fix=False)),
    )
    found = latest(shard, "a")
    assert (found.http.id, found.other.id, found.position.id) == (3, 5, 2)  # type: ignore[union-attr]


# Refusals --------------------------------------------------------------------------------------------


def test_a_named_batch_is_stored_once(shard: Shard) -> None:
    batch = Batch(pack([Sent("a", record())]), "key", b"hash")
    assert append_batches(shard, [batch], Limits()).statuses == [STORED]
    assert append_batches(shard, [batch, batch], Limits()).statuses == [SEEN, SEEN]
    assert append_batches(shard, [batch._replace(body_hash=b"other")], Limits()).statuses == [OTHER_BODY]
    twice = Batch(pack([Sent("b", record())]), "other key", b"hash")
    assert append_batches(shard, [twice, twice], Limits()).statuses == [STORED, SEEN]
    assert len(tail(shard, "a")) == len(tail(shard, "b")) == 1
    assert shard.unsaved() == 2


def test_names_are_bounded_and_expire(shard: Shard) -> None:
    limits = Limits(max_names=1, names_kept_ms=50)
    first, second = (Batch(pack([Sent("a", record())]), name, b"hash") for name in ("one", "two"))
    assert append_batches(shard, [first, second], limits).statuses == [STORED, KEYS_FULL]
    stop = shard.client.time()[0] + 5
    while (status := append_batches(shard, [second], limits).statuses[0]) == KEYS_FULL:
        assert shard.client.time()[0] < stop
    assert status == STORED


def test_a_new_device_beyond_the_limit_is_refused_and_nothing_of_its_call_is_stored(shard: Shard) -> None:
    append(shard, Sent("a", record()), limits=Limits(max_devices=1))
    with pytest.raises(DevicesFull):
        append(shard, Sent("a", record()), Sent("b", record()), limits=Limits(max_devices=1))
    assert shard.unsaved() == 1
    append(shard, Sent("a", record()), limits=Limits(max_devices=1))


def test_another_store_takes_nothing(shard: Shard, client: redis.Redis, archive: Archive) -> None:
    client.flushall()
    with pytest.raises(OtherStoreError):
        append(shard, Sent("a", record()))
    with pytest.raises(OtherStoreError):
        shard.state()
    with pytest.raises(StoreUnavailable, match="not set up"):
        hot.attach(client, 1)
    [new] = set_up(client, archive, 1)
    assert new.store_id != shard.store_id
    with pytest.raises(OtherStoreError):
        append(shard, Sent("a", record()))


def test_the_number_of_shards_is_fixed(shard: Shard, client: redis.Redis, archive: Archive) -> None:
    with pytest.raises(ConfigError, match="made with 1"):
        set_up(client, archive, 2)


def test_at_the_memory_limit_only_append_is_refused(shard: Shard, client: redis.Redis) -> None:
    append(shard, Sent("a", record()))
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(BusyError):
            append(shard, Sent("a", record()))
        assert intend(shard, "0", Intent("4294967296", [Range("a", "0-0", "9-9", 1)]).encode())
        finish_chunk(shard, Intent("4294967296", [Range("a", "0-0", "9999999999999-0", 1)]), 0)
    finally:
        client.config_set("maxmemory", 0)
    assert shard.state().committed == "4294967296"
    assert shard.unsaved() == 0


def test_a_forgotten_function_library_is_loaded_again(shard: Shard, client: redis.Redis) -> None:
    client.function_flush("SYNC")
    append(shard, Sent("a", record()))
    assert shard.unsaved() == 1


# Reading ---------------------------------------------------------------------------------------------


def test_what_can_not_be_read_is_told_and_the_rest_is_kept(shard: Shard) -> None:
    good = encode(record())
    key = shard.keys.stream("a")
    shard.client.xadd(key, {"i": "7", "r": pack_array([good, b"\xc0", good])})
    shard.client.xadd(key, {"i": "10", "r": b"\xff\xff"})
    shard.client.xadd(key, {"x": "11"})
    [entries] = shard.entries([("a", "-", "+")])
    bad: list[Unreadable] = []
    found = [stored.id for raw in entries for stored in read_entry("a", raw, 1, bad.append)]
    assert found == [7, 9]
    assert [(one.first_id, one.number) for one in bad] == [(7, 1), (10, 0), (0, 0)]
    assert [one.raw for one in bad] == [b"\xc0", b"\xff\xff", msgspec.msgpack.encode([b"x", b"11"])]


def test_entry_ids_are_compared_as_numbers() -> None:
    assert entry_id("9-10") < entry_id("10-9") < entry_id("10-10")
    assert entry_text(behind(entry_id(b"5-18446744073709551614"))) == "5-18446744073709551615"
