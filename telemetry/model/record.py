"""The record, and its encoding in the hot store.

A record is one msgpack array in the field order of `Record`, the layout's version (1) first:

    [1, timestamp_us, transport, source, latitude, longitude, altitude_m, speed_kmh, heading_deg,
     accuracy_m, location, attributes]

A new field is appended and has a default. Arrays written before the field existed are shorter and can still be read.

The device, the record's `id` and `received_at` are in the stream's key and entry, not in the array.
`attributes` is the text of a JSON object as sent, or nil. The archive and the API pass it on unparsed,
so integers of any size are preserved.

This file uses no clock, socket, file or Redis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import msgspec

Transport = Literal["http", "tcp", "udp", "mqtt", "import"]

MAX_ENTRY_RECORDS = 1_000
"""Maximum number of records in a stream entry. It limits the cost of one XADD, one read and one trim."""

MAX_ENTRY_BYTES = 2**20
"""Maximum size of an entry with several records, bytes: many entries are read in one call."""

MAX_ENTRY_SPAN_US = 15 * 86_400_000_000
"""Maximum time between the oldest and the newest record of an entry, so that it touches at most 16 days. A save takes
whole entries, and several devices with old days have to fit into one save (worker/saving/save_budget.py)."""

EARLIEST_US = 946_684_800_000_000
"""2000-01-01 UTC. An earlier timestamp comes from a device whose clock is not set."""

LATEST_US = 7_258_118_400_000_000
"""2200-01-01 UTC, below 2^53. All timestamps are earlier, even while the box's own clock is wrong."""


NO_FIX = '{"fix":false'
"""Start of the attributes of a record whose coordinates are not a GNSS fix."""


class Record(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """One measurement of a device. Units are in the names; None = unknown.

    `timestamp_us` is µs since the epoch, UTC: the device's time, or the time of arrival if the device sent none.
    """

    timestamp_us: Annotated[int, msgspec.Meta(ge=EARLIEST_US, lt=LATEST_US)]
    transport: str
    source: str
    latitude: float | None = None
    longitude: float | None = None
    altitude_m: float | None = None
    speed_kmh: float | None = None
    heading_deg: float | None = None
    accuracy_m: float | None = None
    location: str | None = None
    attributes: str | None = None

    @property
    def has_fix(self) -> bool:
        """True if the coordinates are measured. A tracker without satellites repeats its last known position."""
        return (
            self.latitude is not None
            and self.longitude is not None
            and not (self.attributes is not None and self.attributes.startswith(NO_FIX))
        )


class Sent(msgspec.Struct, frozen=True, gc=False):
    """A record and its device, as a decoder returns them.

    `is_stored_once` is true if an equal record of the device is a duplicate of this one: the device sent its time, and
    its protocol has no other means to detect duplicates (docs/decisions/0041-resent-records.md).
    """

    device_id: str
    record: Record
    is_stored_once: bool = False


class Stored(NamedTuple):
    """A stored record. `id` is permanent and increases with arrival; `received_ms` is ms since epoch."""

    device_id: str
    id: int
    received_ms: int
    record: Record


encode = msgspec.msgpack.Encoder().encode
"""`encode(record) -> bytes`: the array described above."""

decode = msgspec.msgpack.Decoder(Record).decode
"""`decode(bytes) -> Record`. Raises one of `DECODE_ERRORS`."""

decode_records = msgspec.msgpack.Decoder(list[Record]).decode
"""`decode_records(bytes) -> list[Record]`, for the array in a stream entry; raises the same errors."""

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors of `decode` and `decode_rows`; invalid UTF-8 and too deep nesting have their own types."""

Row = tuple[Any, ...]
"""The stored array of a record: the layout's version, then the fields of `Record` in order."""


def row_of(record: Record) -> Row:
    """The stored array of a record."""
    return (1, *msgspec.structs.astuple(record))


_types = tuple(get_type_hints(Record, include_extras=True).values())
_rows_type: Any = list[tuple[Literal[1], *_types]]  # type: ignore[valid-type]
decode_rows: Callable[[bytes], list[Row]] = msgspec.msgpack.Decoder(_rows_type).decode
"""`decode_rows(bytes) -> list[Row]`, for the array in a stream entry, as tuples to build columns from."""

decode_entries: Callable[[bytes], list[list[Row]]] = msgspec.msgpack.Decoder(list[_rows_type]).decode
"""`decode_rows` for an array of such arrays."""


def replaces(new_us: int, arrival_ms: int, old_us: int, old_arrival_ms: int) -> bool:
    """True if a record becomes its device's latest (`telemetry/hot_store/lua/latest.lua` implements it, too).

    It does if its timestamp is not below the latest's. It also does if its timestamp is not ahead of its own arrival
    and it arrived after the latest, because then the latest came from a clock that ran ahead. Arrivals have a
    resolution of 1 ms, so "after" means at least 1 ms later.
    """
    if new_us >= old_us:
        return True
    return (old_arrival_ms + 1) * 1000 <= new_us < (arrival_ms + 1) * 1000
