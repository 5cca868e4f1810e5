"""`whimbrel quarantine` on a real Redis: what is in it, and a second try that loses and doubles nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable

import duckdb
import pytest
import redis

from cli.admin.quarantine import COMMAND, records_of, values_of
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.hot_store.entry_codec import Intent, Range, Unreadable, decode_latest, pack, pack_array, read_entry
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.operations.quarantine import (
    Quarantined,
    quarantine_counts,
    quarantine_unreadable,
    read_quarantine,
    replay,
)
from telemetry.hot_store.operations.save import finish_chunk, intend
from telemetry.hot_store.shard import Shard
from telemetry.hot_store.stream_reader import tails
from telemetry.model.errors import OtherStoreError, WhimbrelError
from telemetry.model.record import Record, Sent, Stored, encode
from telemetry.system import clock
from tests.cli.conftest import Run
from worker.saving.saver import Saver

NOW_US = 1_795_500_000_000_000
ARRIVAL_MS = 1_795_500_001_000
BROKEN = b"\x91\xc1"
ROOM = 2**20


def record(number: int) -> Record:
    return Record(NOW_US + number, "tcp", "json", 1.0, 2.0, altitude_m=float(number))


def append(shard: Shard, device: str, number: int) -> None:
    append_batches(shard, [Batch(pack([Sent(device, record(number))]))], Limits())


def put_away(shard: Shard, raws: Iterable[tuple[str, bytes]], commit: int, room: int = ROOM) -> None:
    """Have these bytes in quarantine, as a save of an entry that came at `ARRIVAL_MS` would."""
    found = [Unreadable(device, b"%d-0" % ARRIVAL_MS, 900, 0, "no\x1b[2J record", raw) for device, raw in raws]
    intent = Intent(str(commit << 32), [Range("a", "1-0", "1-1", 0)])
    assert intend(shard, shard.state().committed, intent.encode())
    quarantine_unreadable(shard, intent, found, room)
    finish_chunk(shard, intent, 0)


def tail(shard: Shard, device: str) -> list[Stored]:
    return [one for raw in tails(shard, [device])[device] for one in read_entry(device, raw, shard.shards)]


def names(shard: Shard) -> list[str]:
    return [f"0:{one.name}" for one in read_quarantine(shard)]


def test_list_says_what_the_worker_could_not_save(
    shard: Shard, settings: Settings, archive: Archive, connection: duckdb.DuckDBPyConnection, call: Run
) -> None:
    append(shard, "van\n1", 1)
    shard.client.xadd(shard.keys.stream("van\n1"), {"i": "77", "r": BROKEN})
    Saver(archive, connection, clock.now_ms).save(shard)
    listed = call(COMMAND, settings, "list", "--json").json
    [one] = listed["quarantined"]
    assert one["device_id"] == "van\n1"
    assert one["bytes"] == len(BROKEN)
    assert one["reason"]
    assert listed["shards"] == [{"shard": 0, "kept": 1, "dropped": 0, "replayed": 0}]
    text = call(COMMAND, settings, "list")
    assert one["id"] in text.out
    assert text.lines[-1] == "1 in quarantine, 2 bytes"
    assert len(text.lines) == 4


def test_nothing_in_quarantine_is_nothing_wrong(shard: Shard, settings: Settings, call: Run) -> None:
    assert call(COMMAND, settings, "list").lines[-1] == "0 in quarantine, 0 bytes"
    assert call(COMMAND, settings, "export").out == ""
    assert call(COMMAND, settings, "replay", "--all", "--json").json == {"replayed": [], "unreadable": [], "gone": []}


def test_names_of_senders_can_not_command_the_terminal(shard: Shard, settings: Settings, call: Run) -> None:
    put_away(shard, [("a\x1b[2J", BROKEN)], 1)
    assert "\x1b" not in call(COMMAND, settings, "list").out


def test_export_has_the_bytes_and_what_can_be_read_of_them(shard: Shard, settings: Settings, call: Run) -> None:
    raws = [encode(record(1)), pack_array([encode(record(2)), encode(record(3))]), BROKEN]
    put_away(shard, [("a", raw) for raw in raws], 1)
    found = [json.loads(line) for line in call(COMMAND, settings, "export").lines]
    assert [base64.b64decode(one["raw"]) for one in found] == raws
    assert [[each["altitude_m"] for each in one["records"]] for one in found] == [[1.0], [2.0, 3.0], []]
    assert found[0]["values"][:3] == [1, NOW_US + 1, "tcp"]
    assert found[2]["values"] is None
    assert found[0]["received_at"] == "2026-11-24T06:00:01.000000Z"
    assert found[0]["record_id"] == 900


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x90", b"\x91\xc1", b"\xd4\x01\x00", b"\x82\x01", b"\xa1\xff"])
def test_no_bytes_are_too_odd_to_look_at(raw: bytes) -> None:
    assert records_of(Quarantined("1-0", "d", "1-0", 1, "unreadable", raw)) == []
    json.dumps(values_of(raw))


def test_what_can_be_read_now_is_appended_with_its_own_times(shard: Shard, settings: Settings, call: Run) -> None:
    append(shard, "a", 1)
    put_away(shard, [("a", encode(record(5))), ("b", pack_array([encode(record(6)), encode(record(7))]))], 1)
    done = call(COMMAND, settings, "replay", "--all", "--json")
    assert done.status == 0
    assert len(done.json["replayed"]) == 2
    assert [one.record for one in tail(shard, "a")] == [record(1), record(5)]
    assert [one.record for one in tail(shard, "b")] == [record(6), record(7)]
    stored = [*tail(shard, "a"), *tail(shard, "b")]
    assert [one.id for one in stored] == [1, 2, 3, 4]
    assert all(one.received_ms == ARRIVAL_MS for one in stored[1:])
    assert shard.unsaved() == 4
    assert sorted(shard.all_dirty()) == ["a", "b"]
    newest = decode_latest(shard.latest([b"b"])[0] or b"").newest
    assert newest is not None
    assert newest.stored("b") == stored[-1]
    assert quarantine_counts(shard) == (2, 0, 2)
    assert names(shard) == []
    assert shard.client.xlen(shard.keys.quarantine) == 0
    assert shard.client.hget(shard.keys.quarantine_state, "bytes") == b"0"
    assert shard.client.scard(shard.keys.replayed) == 0


def test_what_was_replayed_is_saved_once(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> None:
    append(shard, "a", 1)
    saver = Saver(archive, connection, clock.now_ms)
    shard.client.xadd(shard.keys.stream("a"), {"i": "77", "r": BROKEN + encode(record(2))})
    shard.client.incr(shard.keys.unsaved)
    saver.save(shard)
    [one] = read_quarantine(shard)
    entry = pack([Sent("a", record(2))])[0]
    assert replay(shard, one, entry)
    assert not replay(shard, one, entry), "the second of two commands at once finds it gone"
    assert shard.unsaved() == 1
    assert saver.save(shard) == 1
    found = connection.execute("SELECT altitude_m FROM read_parquet($1)", [archive.files(archive.open())]).fetchall()
    assert sorted(found) == [(1.0,), (2.0,)]


def test_what_can_not_be_read_stays_and_is_said(shard: Shard, settings: Settings, call: Run) -> None:
    put_away(shard, [("a", encode(record(1))), ("a", BROKEN), ("a", encode(record(3)))], 1)
    first, broken, last = names(shard)
    assert call(COMMAND, settings, "replay", last).status == 0
    assert names(shard) == [first, broken]
    assert shard.client.xlen(shard.keys.quarantine) == 3, "it goes when it is the oldest"
    assert call(COMMAND, settings, "replay", last).status == 1
    done = call(COMMAND, settings, "replay", "--all")
    assert done.status == 1
    assert done.out == "1 were replayed, 1 can still not be read\n"
    assert names(shard) == [broken]
    assert shard.client.xlen(shard.keys.quarantine) == 2
    assert [one.record for one in tail(shard, "a")] == [record(3), record(1)]


def test_a_dry_run_changes_nothing(shard: Shard, settings: Settings, call: Run) -> None:
    put_away(shard, [("a", encode(record(1))), ("a", BROKEN)], 1)
    before = {key: shard.client.dump(key) for key in shard.client.scan_iter()}
    done = call(COMMAND, settings, "replay", "--all", "--dry-run")
    assert (done.status, done.out) == (1, "1 could be replayed, 1 can still not be read\n")
    assert {key: shard.client.dump(key) for key in shard.client.scan_iter()} == before


def test_one_must_say_which(shard: Shard, settings: Settings, call: Run) -> None:
    for arguments in ((), ("--all", "0:1-0")):
        with pytest.raises(WhimbrelError, match="give IDs"):
            call(COMMAND, settings, "replay", *arguments)


def test_what_was_replayed_is_not_counted_as_dropped(shard: Shard) -> None:
    put_away(shard, [("a", BROKEN), ("a", encode(record(1))), ("a", encode(record(2)))], 1)
    for one in list(read_quarantine(shard))[1:]:
        assert replay(shard, one, pack([Sent("a", record(1))])[0])
    put_away(shard, [("a", BROKEN * 10)], 2, room=30)
    assert quarantine_counts(shard) == (4, 1, 2)
    assert [one.raw for one in read_quarantine(shard)] == [BROKEN * 10]
    assert shard.client.scard(shard.keys.replayed) == 0
    assert shard.client.hget(shard.keys.quarantine_state, "bytes") == b"20"


def test_another_store_replays_nothing(shard: Shard, client: redis.Redis) -> None:
    put_away(shard, [("a", encode(record(1)))], 1)
    [one] = read_quarantine(shard)
    client.hset(shard.keys.store, "id", "another")
    with pytest.raises(OtherStoreError):
        replay(shard, one, pack([Sent("a", record(1))])[0])
    assert client.xlen(shard.keys.stream("a")) == 0


def test_many_are_read_in_pages(shard: Shard) -> None:
    put_away(shard, [("a", b"%d" % number) for number in range(450)], 1)
    assert [one.raw for one in read_quarantine(shard)] == [b"%d" % number for number in range(450)]


def test_what_is_in_quarantine_tells_its_times() -> None:
    one = Quarantined("1795500002000-3", "a", "1795500001000-0", 900, "why", b"")
    assert (one.at_ms, one.arrival_ms) == (ARRIVAL_MS + 1_000, ARRIVAL_MS)
