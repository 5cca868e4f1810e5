"""Records that a tracker sends again, against a real Redis: stored once, within a window of each device's last ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec.structs import replace

from telemetry.archive.table import Archive
from telemetry.hot_store.client import connect
from telemetry.hot_store.entry_codec import (
    MARK_BYTES,
    Intent,
    Range,
    decode_latest,
    last_marks,
    mark,
    pack,
    read_entry,
    size_bytes,
)
from telemetry.hot_store.operations import deletions
from telemetry.hot_store.operations.append import APART, SEEN, STORED, Appended, Batch, Limits, append_batches
from telemetry.hot_store.operations.save import finish_chunk, intend
from telemetry.hot_store.response_errors import DevicesFull
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import BusyError
from telemetry.model.record import Record, Sent, encode
from telemetry.startup.store_setup import set_up
from tests.conftest import RedisServer, settings_of

NOW_US = 1_795_500_000_000_000
STEP_US = 400_000
DAY_STEPS = 86_400_000_000 // STEP_US
WINDOW = 64
LIMITS = Limits()


def sent(number: int, device: str = "a", is_stored_once: bool = True) -> Sent:
    return Sent(device, Record(NOW_US + number * STEP_US, "tcp", "gt06", 1.0, 2.0, float(number)), is_stored_once)


def append(shard: Shard, *records: Sent, limits: Limits = LIMITS) -> Appended:
    return append_batches(shard, [Batch(pack(records))], limits)


def save(shard: Shard, *devices: str, has_read: bool = False) -> None:
    """What a save does to the hot store: an intent of all that waits of devices, and its trim.

    A worker that takes over what another has begun has not read the marks.
    """
    ranges, marks = [], {}
    for device, found in zip(devices, shard.entries([(device, "-", "+") for device in devices]), strict=True):
        if found:
            count = sum(len(read_entry(device, one, 1)) for one in found)
            marks[device] = last_marks(found)
            first, last = found[0][0].decode(), found[-1][0].decode()
            ranges.append(Range(device, first, last, count, size_bytes(found), marks[device] != b""))
    committed = shard.state().committed
    intent = Intent(str(int(committed) + 2**32), ranges)
    assert intend(shard, committed, intent.encode())
    finish_chunk(shard, intent, 0, marks if has_read else {})


def numbers(shard: Shard, device: str = "a") -> list[int]:
    """What tells the stored records apart, in their order."""
    [entries] = shard.entries([(device, "-", "+")])
    return [int(one.record.altitude_m or 0) for raw in entries for one in read_entry(device, raw, shard.shards)]


def test_a_record_that_comes_again_is_acknowledged_and_not_stored(shard: Shard) -> None:
    assert append(shard, sent(1)) == Appended([STORED], append(shard).newest_ms, 1, 0)
    again = append(shard, sent(1))
    assert (again.statuses, again.unsaved, again.resent) == ([STORED], 1, 1)
    assert append(shard, sent(2), sent(1, "b")).resent == 0, "another record, and one of another device"
    assert (numbers(shard), numbers(shard, "b"), shard.unsaved()) == ([1, 2], [1], 3)


def test_records_that_may_be_meant_twice_are_stored_each_time(shard: Shard) -> None:
    for _ in range(2):
        assert append(shard, sent(1, is_stored_once=False), sent(1, is_stored_once=False)).resent == 0
    assert numbers(shard) == [1, 1, 1, 1]
    assert not shard.client.exists(shard.keys.recent)


def test_of_a_message_that_was_stored_in_part_the_rest_is_stored(shard: Shard) -> None:
    append(shard, sent(1), sent(2))
    found = append(shard, sent(2), sent(3), sent(3, is_stored_once=False), sent(1), sent(4), sent(1, "b"))
    assert (found.statuses, found.unsaved, found.resent) == ([STORED], 6, 2)
    assert (numbers(shard), numbers(shard, "b")) == ([1, 2, 3, 3, 4], [1])
    [latest] = shard.latest([b"a"])
    assert latest is not None
    newest = decode_latest(latest).newest
    assert newest is not None
    assert newest.stored("a").record == sent(4).record
    assert append(shard, sent(3, is_stored_once=False)).resent == 0
    assert append(shard, sent(2), sent(3), sent(4)).resent == 3


def test_a_message_of_more_records_than_the_window_is_recognized_whole(shard: Shard) -> None:
    many = [sent(number) for number in range(300)]
    assert append(shard, *many).resent == 0
    assert append(shard, *many).resent == 300
    save(shard, "a")
    assert shard.client.hstrlen(shard.keys.recent, "a") == 300 * MARK_BYTES
    assert append(shard, *many, sent(301)).resent == 300
    save(shard, "a")
    assert shard.client.hstrlen(shard.keys.recent, "a") == WINDOW * MARK_BYTES
    assert append(shard, *many[-WINDOW + 1 :]).resent == WINDOW - 1


def test_a_message_of_many_days(shard: Shard) -> None:
    days_apart = [sent(number * 20 * DAY_STEPS) for number in range(1, 7)]
    assert len(pack(days_apart)) == 6
    assert append(shard, *days_apart).resent == 0
    assert append(shard, *days_apart).resent == 6


def test_after_a_save_and_another(shard: Shard) -> None:
    append(shard, sent(1), sent(2), sent(1, "b", is_stored_once=False))
    save(shard, "a", "b")
    assert shard.client.hkeys(shard.keys.recent) == [b"a"]
    append(shard, sent(3), sent(1, "b", is_stored_once=False))
    assert append(shard, sent(1), sent(2), sent(3)).resent == 3
    save(shard, "a", "b")
    assert [append(shard, sent(number)).resent for number in (1, 2, 3, 4)] == [1, 1, 1, 0]
    assert numbers(shard) == [4]


def test_the_window_ends(shard: Shard) -> None:
    """Behind `WINDOW` others, in entries of their own and saved, a record is stored again: a device's marks are few."""
    for number in range(WINDOW + 40):
        append(shard, sent(number))
    assert append(shard, sent(39)).resent == 0
    assert append(shard, sent(60)).resent == 1
    save(shard, "a")
    assert shard.client.hstrlen(shard.keys.recent, "a") == WINDOW * MARK_BYTES
    assert append(shard, sent(41)).resent == 1
    assert append(shard, sent(40)).resent == 0


def test_entries_without_marks_between_them(shard: Shard) -> None:
    """Heartbeats of a tracker carry no time; they neither are repeats nor hide one."""
    append(shard, sent(1))
    for number in range(2, 40):
        append(shard, sent(number, is_stored_once=False))
    assert append(shard, sent(1)).resent == 1
    save(shard, "a")
    assert append(shard, sent(1)).resent == 1


def test_a_record_from_the_future(shard: Shard) -> None:
    """Latest goes back behind one, and still it is a repeat when it comes again."""
    ahead = Sent("a", Record(int((time.time() + 86_400) * 1e6), "tcp", "gt06", 1.0, 2.0), is_stored_once=True)
    assert append(shard, ahead).resent == 0
    time.sleep(0.002)
    right = Sent("a", Record(int(time.time() * 1e6), "tcp", "gt06", 1.0, 2.0), is_stored_once=True)
    assert append(shard, right).resent == 0
    [latest] = shard.latest([b"a"])
    assert latest is not None
    newest = decode_latest(latest).newest
    assert newest is not None
    assert newest.stored("a").record == right.record
    assert append(shard, ahead).resent == 1
    assert append(shard, ahead, right).resent == 2


def test_a_device_that_also_sends_by_http(shard: Shard) -> None:
    posted = Sent("a", Record(NOW_US + 5 * STEP_US, "http", "json", 1.0, 2.0))
    append(shard, sent(1), posted)
    assert append(shard, sent(1)).resent == 1
    assert append(shard, sent(5)).resent == 0, "another transport's record of the same time"
    assert append(shard, sent(5)).resent == 1


def test_a_device_that_repeats_itself_was_seen(shard: Shard) -> None:
    append(shard, sent(1))
    value = shard.client.hget(shard.keys.latest, "a")
    assert isinstance(value, bytes)
    shard.client.hset(shard.keys.latest, "a", value[:-8] + (1_000).to_bytes(8, "big"))
    append(shard, sent(1))
    found = shard.client.hget(shard.keys.latest, "a")
    assert isinstance(found, bytes)
    assert found[:-8] == value[:-8]
    assert decode_latest(found).last_seen_ms >= decode_latest(value).last_seen_ms


def test_beside_batches_with_names(shard: Shard) -> None:
    """All of a call or none: repeats of records neither hide a batch that came before nor are hidden by one."""
    append(shard, sent(1), sent(2))
    batches = [Batch(pack([sent(2), sent(3)])), Batch(pack([sent(9, "b", is_stored_once=False)]), "s", number=1)]
    found = append_batches(shard, batches, LIMITS, is_whole=True)
    assert (found.statuses, found.resent) == ([STORED, STORED], 1)
    again = append_batches(shard, [Batch(pack([sent(3), sent(4)])), batches[1]], LIMITS, is_whole=True)
    assert (again.statuses, again.resent) == ([APART, SEEN], 0)
    assert append_batches(shard, [Batch(pack([sent(3), sent(4)])), batches[1]], LIMITS).resent == 1
    assert (numbers(shard), numbers(shard, "b")) == ([1, 2, 3, 4], [9])


def test_what_is_refused_is_not_remembered(shard: Shard, client: redis.Redis) -> None:
    append(shard, sent(1))
    with pytest.raises(DevicesFull):
        append(shard, sent(2), sent(1, "b"), limits=LIMITS._replace(max_devices=1))
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(BusyError):
            append(shard, sent(1), sent(2))
    finally:
        client.config_set("maxmemory", 0)
    assert append(shard, sent(2)).resent == 0
    assert numbers(shard) == [1, 2]


def test_after_a_device_was_deleted_its_records_are_new(shard: Shard) -> None:
    append(shard, sent(1), sent(1, "b"))
    save(shard, "a", "b")
    append(shard, sent(2), sent(2, "b"))
    assert deletions.ask(shard, "a")
    assert shard.client.hkeys(shard.keys.recent) == [b"b"]
    assert append(shard, sent(1)).resent == 0
    assert append(shard, sent(1), sent(1, "b")).resent == 2


def test_marks_without_a_latest_hide_nothing(shard: Shard) -> None:
    """Rather twice than not at all, whatever happened to the store."""
    append(shard, sent(1))
    shard.client.hdel(shard.keys.latest, "a")
    assert append(shard, sent(1)).resent == 0
    assert append(shard, sent(1)).resent == 1
    assert numbers(shard) == [1, 1]


def test_after_a_restart_from_the_aof(own_redis: RedisServer, tmp_path: Path) -> None:
    """Records and their marks are in the same call, so that they come back together."""
    settings = settings_of(own_redis.url, tmp_path)
    with connect(settings) as client:
        [shard] = set_up(client, Archive(settings.archive_dir), 1)
        append(shard, sent(1), sent(2))
        for _ in range(2):
            own_redis.kill()
            own_redis.start()
            assert append(shard, sent(1), sent(2)).resent == 2
        client.bgrewriteaof()
        while client.info("persistence")["aof_rewrite_in_progress"]:
            pass
        own_redis.kill()
        own_redis.start()
        assert append(shard, sent(2), sent(3)).resent == 1
        assert numbers(shard) == [1, 2, 3]


def test_a_mark_tells_what_a_record_says_apart() -> None:
    one = sent(1).record
    others = [sent(2).record, sent(1_000_001).record, sent(1).record]
    found = [mark(record, encode(record)) for record in (one, *others)]
    assert [len(value) for value in found] == [MARK_BYTES] * 4
    assert len(set(found)) == 3
    assert found[0] == found[3]


# The window, against a model ---------------------------------------------------------------------------


class Model:
    """What must become of records: of each device its stored ones, marks of entries that wait, and marks of saved ones.

    A mark is the record's number, None of a record that may be stored again.
    """

    def __init__(self) -> None:
        self.stored: dict[str, list[int]] = {"a": [], "b": []}
        self._waiting: dict[str, list[list[int | None]]] = {"a": [], "b": []}
        self._saved: dict[str, list[int | None]] = {"a": [], "b": []}

    def append(self, entries: Sequence[Sequence[Sent]]) -> int:
        """One call of entries; returns how many records were repeats."""
        known = {device: set(self._saved[device] + self._window(device)) - {None} for device in "ab"}
        resent = 0
        for entry in entries:
            device, marks = entry[0].device_id, []
            for one in entry:
                number = int(one.record.altitude_m or 0)
                if one.is_stored_once and number in known[device]:
                    resent += 1
                    continue
                self.stored[device].append(number)
                marks.append(number if one.is_stored_once else None)
                known[device] |= {marks[-1]} - {None}
            if marks:
                self._waiting[device].append(marks if any(mark is not None for mark in marks) else [])
        return resent

    def save(self, device: str) -> None:
        found = self._window(device)
        old = self._saved[device] if len(found) < WINDOW else []
        self._saved[device] = (old + found)[-max(len(found), WINDOW) :]
        self._waiting[device].clear()
        self.stored[device].clear()

    def _window(self, device: str) -> list[int | None]:
        found: list[int | None] = []
        for place, marks in enumerate(reversed(self._waiting[device])):
            if len(found) >= WINDOW or place >= WINDOW:
                break
            found = marks + found
        return found


one_record = st.builds(sent, st.integers(0, 40), st.just("a"), st.sampled_from((True, True, False)))
one_entry = st.tuples(st.sampled_from("ab"), st.lists(one_record, min_size=1, max_size=12))
one_step = st.one_of(
    st.tuples(st.sampled_from("ab"), st.booleans()), st.lists(one_entry, max_size=4), st.lists(one_entry, max_size=4)
)
"""A device that is saved, by a worker that has read its marks or not; or the entries of a call."""


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(one_step, max_size=12))
def test_the_window_agrees_with_the_model(client: redis.Redis, archive: Archive, steps: list[Any]) -> None:
    """Any records in any order of times, several entries of a device in a call, repeats in part, and saves."""
    client.flushall()
    [shard] = set_up(client, archive, 1)
    model = Model()
    for step in steps:
        if isinstance(step, tuple):
            save(shard, step[0], has_read=step[1])
            model.save(step[0])
        else:
            call = [[replace(one, device_id=device) for one in found] for device, found in step]
            resent = model.append(call)
            found = append_batches(shard, [Batch([entry for one in call for entry in pack(one)])], LIMITS)
            assert (found.statuses, found.resent) == ([STORED], resent)
        assert {device: numbers(shard, device) for device in "ab"} == model.stored
