"""The tail's columns are those of its records read one by one, whatever an entry looks like."""

from __future__ import annotations

import msgspec
import pytest

from api.snapshot import tail_columns
from telemetry.archive.schema import columns
from telemetry.hot_store.entry_codec import RawEntry, read_block
from telemetry.model.record import Record, encode
from tests.api.conftest import NOW_MS, record
from tests.api.stores import MIDNIGHT_US

FULL = Record(MIDNIGHT_US, "tcp", "older", -1.5, 2.5, 30.0, 60.0, 359.9, 4.0, "Antalya", '{"fuel":55}')
ARRAY = msgspec.msgpack.encode([FULL, record(MIDNIGHT_US + 1), record(MIDNIGHT_US - 1, fix=False)])
BROKEN = b"\x92" + encode(FULL) + msgspec.msgpack.encode([1, "yesterday", *msgspec.structs.astuple(FULL)[1:]])
ENTRY = b"%d-0" % NOW_MS

ENTRIES: dict[str, RawEntry] = {
    "as append makes it": (ENTRY, [b"i", b"7", b"r", ARRAY]),
    "at the first moment": (b"0-1", [b"i", b"1", b"r", ARRAY]),
    "moved, with its arrival": (ENTRY, [b"i", b"7", b"r", ARRAY, b"a", b"%d" % (NOW_MS - 5)]),
    "fields the other way round": (ENTRY, [b"r", ARRAY, b"i", b"7"]),
    "of no records": (ENTRY, [b"i", b"7", b"r", b"\x90"]),
    "without an id": (ENTRY, [b"r", ARRAY]),
    "without records": (ENTRY, [b"i", b"7"]),
    "with other fields": (ENTRY, [b"i", b"7", b"s", ARRAY]),
    "the greatest id": (ENTRY, [b"i", b"%d" % (2**53 - 1), b"r", ARRAY]),
    "an id beyond": (ENTRY, [b"i", b"%d" % 2**53, b"r", ARRAY]),
    "an id that is none": (ENTRY, [b"i", b"+7", b"r", ARRAY]),
    "arrived after the last day": (b"7258118400000-0", [b"i", b"7", b"r", ARRAY]),
    "arrived just before": (b"7258118399998-0", [b"i", b"7", b"r", ARRAY]),
    "arrived long after": (b"10000000000000-0", [b"i", b"7", b"r", ARRAY]),
    "of another layout": (ENTRY, [b"i", b"7", b"r", ARRAY.replace(b"\x9c\x01", b"\x9c\x02")]),
    "one record broken": (ENTRY, [b"i", b"7", b"r", BROKEN]),
    "cut short": (ENTRY, [b"i", b"7", b"r", ARRAY[:-3]]),
    "nonsense": (ENTRY, [b"i", b"7", b"r", b"\xc1"]),
}
NAMES = ("device_id", "id", "received_at", *tail_columns.FIELDS)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("kind", ENTRIES)
def test_an_entry_is_read_as_anywhere_else(kind: str, shards: int) -> None:
    usual = ENTRIES["as append makes it"]
    entries = {"a": [usual, ENTRIES[kind], usual], "ü/😀": [ENTRIES[kind]], "b": [], "c": [usual]}
    blocks = [read_block(device, raw, shards) for device, found in entries.items() for raw in found]
    expected = columns(block for block in blocks if block is not None)
    for names in (NAMES, ("device_id", "timestamp"), ("timestamp", "id", "speed_kmh"), ("attributes", "latitude")):
        found = tail_columns.table(entries.items(), shards, names)
        assert found.column_names == list(names)
        assert found.to_pydict() == expected.select(names).to_pydict()


def test_an_empty_tail_has_its_columns() -> None:
    found = tail_columns.table((), 1, NAMES)
    assert found.num_rows == 0
    assert [found.schema.field(name).type for name in NAMES[1:]] == [
        columns([]).schema.field(n).type for n in NAMES[1:]
    ]
