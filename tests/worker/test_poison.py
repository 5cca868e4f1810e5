"""What can't be saved never stops its shard: it goes to quarantine, with its bytes and the reason."""

from __future__ import annotations

import base64
import json
from typing import NamedTuple

import duckdb
import msgspec
import pytest

from cli.admin.quarantine import COMMAND
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.hot_store.entry_codec import LATEST_MS, pack_array
from telemetry.hot_store.shard import Shard
from telemetry.model.record import EARLIEST_US, LATEST_US, Record, encode
from tests.cli.conftest import Run, call
from tests.worker.conftest import NOW_US, Ledger, archived
from tests.worker.saving.test_saver import drain

__all__ = ["call"]

RECORDS = pack_array([encode(Record(NOW_US + number, "tcp", "json", altitude_m=1e6 + number)) for number in (1, 2)])
NOTHING = msgspec.msgpack.encode([NOW_US, "tcp", "json", *[None] * 8])[1:]
DEEP = b"\x91" * 100_000 + b"\x90"
EARLY = [1, EARLIEST_US - 1, "tcp", "json"]
LATE = [1, LATEST_US, "tcp", "json"]
HUGE = [1, 2**63, "tcp", "json"]


class Poison(NamedTuple):
    """The fields of a stream entry, a part of the reason that is told, and what is kept of it, `r` if it has one."""

    fields: dict[str, bytes]
    reason: str
    kept: bytes | None = None
    entry: str = "*"


POISON = {
    "no number": Poison({"r": RECORDS}, "no field i"),
    "a number that is none": Poison({"i": b"ten", "r": RECORDS}, "field i is b'ten'"),
    "a negative number": Poison({"i": b"-1", "r": RECORDS}, "field i"),
    "a number beyond 2^53": Poison({"i": b"9007199254740992", "r": RECORDS}, "field i"),
    "a number beyond any column": Poison({"i": b"9" * 400, "r": RECORDS}, "field i"),
    "an arrival that is none": Poison({"i": b"7", "r": RECORDS, "a": b"soon"}, "field a"),
    "an arrival beyond all years": Poison({"i": b"7", "r": RECORDS, "a": b"%d" % (LATEST_MS + 1)}, "field a"),
    "an entry id beyond all years": Poison({"i": b"7", "r": RECORDS}, "field a", entry=f"{LATEST_MS + 1}-0"),
    "no records": Poison({"i": b"7"}, "no field r", msgspec.msgpack.encode([b"i", b"7"])),
    "no field that is known": Poison({"x": b"1"}, "no field r", msgspec.msgpack.encode([b"x", b"1"])),
    "no bytes": Poison({"i": b"7", "r": b""}, "truncated"),
    "no msgpack": Poison({"i": b"7", "r": b"\xc1" * 3}, "invalid opcode"),
    "a map": Poison({"i": b"7", "r": msgspec.msgpack.encode({"a": 1})}, "Expected `array`"),
    "of another layout": Poison(
        {"i": b"7", "r": msgspec.msgpack.encode([[2, NOW_US, "tcp", "json"]])}, "Invalid value"
    ),
    "of 1999": Poison({"i": b"7", "r": msgspec.msgpack.encode([EARLY])}, "Expected `int` >="),
    "of 2200": Poison({"i": b"7", "r": msgspec.msgpack.encode([LATE])}, "Expected `int` <"),
    "beyond any time": Poison({"i": b"7", "r": msgspec.msgpack.encode([HUGE])}, "Expected `int`"),
    "nested without end": Poison({"i": b"7", "r": b"\x91\x9d\x01" + NOTHING + DEEP}, "Expected `array`"),
    "text that is no text": Poison(
        {"i": b"7", "r": b"\x91\x94\x01\xcf" + NOW_US.to_bytes(8) + b"\xa1\xff\xa1x"}, "utf-8"
    ),
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_it_is_put_away_with_its_bytes_and_its_shard_goes_on(
    poison: Poison,
    shard: Shard,
    archive: Archive,
    ledger: Ledger,
    settings: Settings,
    connection: duckdb.DuckDBPyConnection,
    call: Run,
) -> None:
    ledger.append(shard, ["a", "b"])
    shard.client.xadd(shard.keys.stream("b"), poison.fields, poison.entry)  # type: ignore[arg-type]
    shard.client.incr(shard.keys.unsaved)
    drain(shard, archive)
    ledger.append(shard, ["a"])
    drain(shard, archive)
    assert archived(connection, archive) == ledger.acknowledged
    assert (shard.unsaved(), shard.client.xlen(shard.keys.stream("b"))) == (0, 0)
    [one] = call(COMMAND, settings, "list", "--json").json["quarantined"]
    assert one["device_id"] == "b"
    assert poison.reason in one["reason"]
    [exported] = map(json.loads, call(COMMAND, settings, "export").lines)
    assert base64.b64decode(exported["raw"]).endswith(
        poison.fields.get("r", b"") if poison.kept is None else poison.kept
    )
    assert exported["received_at"] < "2200"


def test_records_whose_entry_had_no_number_get_one_when_they_are_replayed(
    shard: Shard,
    archive: Archive,
    ledger: Ledger,
    settings: Settings,
    connection: duckdb.DuckDBPyConnection,
    call: Run,
) -> None:
    ledger.append(shard, ["a"])
    shard.client.xadd(shard.keys.stream("a"), {"r": RECORDS})
    drain(shard, archive)
    assert call(COMMAND, settings, "replay", "--all").status == 0
    drain(shard, archive)
    ledger.acknowledged.update([("a", 1_000_001), ("a", 1_000_002)])
    assert archived(connection, archive) == ledger.acknowledged
    files = archive.files(archive.open())
    rows = connection.execute("SELECT id FROM read_parquet($1) ORDER BY id", [files]).fetchall()
    assert rows == [(1,), (2,), (3,)]
