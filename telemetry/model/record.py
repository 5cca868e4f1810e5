"""What a record is, and the bytes it rests as in the hot store.

A record is one msgpack array in the field order of `Record`, the layout's version (1) first:

    [1, timestamp_us, transport, source, latitude, longitude, altitude_m, speed_kmh, heading_deg,
     accuracy_m, location, attributes]

A field that is added stands at the end and has a default: an array that was written before it is shorter, and is read
all the same.

What the stream's key or its entry says is not in it: the device, the record's `id`, `received_at`.
`attributes` is the text of a JSON object, as sent, or nil: the archive and the API pass it on unread,
and integers of any size survive.

This file knows no clock, socket, file or Redis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import msgspec

Transport = Literal["http", "tcp", "udp", "mqtt", "import"]

MAX_ENTRY_RECORDS = 1_000
"""Most records in one stream entry: it bounds what one XADD, one read and one trim can cost."""

MAX_ENTRY_BYTES = 2**20
"""Most bytes of the records of an entry that has several: many entries are read at once."""

MAX_ENTRY_SPAN_US = 15 * 86_400_000_000
"""Most time between the oldest and the newest record of an entry, so that it touches at most 16 days: a save takes an
entry whole, and several devices with old days have to fit into one (worker/saving/save_budget.py)."""

EARLIEST_US = 946_684_800_000_000
"""2000-01-01 UTC. Before it a timestamp is a device's unset clock."""

LATEST_US = 7_258_118_400_000_000
"""2200-01-01 UTC, below 2^53. No timestamp reaches it, even while the box's own clock can't be trusted."""


NO_FIX = '{"fix":false'
"""How the attributes begin of a record whose coordinates are no fix."""


class Record(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """What a device measured at one moment. Units are in the names; None is unknown.

    `timestamp_us` is µs since the epoch, UTC: the device's time, or that of arrival if it gave none.
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
        """True if the record says where the device was; a tracker without satellites sends what it knew last."""
        return (
            self.latitude is not None
            and self.longitude is not None
            and not (self.attributes is not None and self.attributes.startswith(NO_FIX))
        )


class Sent(msgspec.Struct, frozen=True, gc=False):
    """A record and the device that it came from, as a decoder returns them.

    `is_stored_once` is true if an equal record of the device is a repeat of this one: the device gave its time, and its
    protocol has no other means to tell a repeat (docs/decisions/0041-resent-records.md).
    """

    device_id: str
    record: Record
    is_stored_once: bool = False


class Stored(NamedTuple):
    """A record at rest. `id` names it for ever and rises with arrival; `received_ms` is ms since epoch."""

    device_id: str
    id: int
    received_ms: int
    record: Record


encode = msgspec.msgpack.Encoder().encode
"""`encode(record) -> bytes`: the array above."""

decode = msgspec.msgpack.Decoder(Record).decode
"""`decode(bytes) -> Record`. Raises one of `DECODE_ERRORS`."""

decode_records = msgspec.msgpack.Decoder(list[Record]).decode
"""`decode_records(bytes) -> list[Record]`, for the array that a stream entry holds; raises the same."""

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What `decode` and `decode_rows` raise: text that is no UTF-8, and nesting without end, are errors of their own."""

Row = tuple[Any, ...]
"""What rests of a record: the layout's version, then the fields of `Record` in order."""


def row_of(record: Record) -> Row:
    """A record as it rests."""
    return (1, *msgspec.structs.astuple(record))


_types = tuple(get_type_hints(Record, include_extras=True).values())
_rows_type: Any = list[tuple[Literal[1], *_types]]  # type: ignore[valid-type]
decode_rows: Callable[[bytes], list[Row]] = msgspec.msgpack.Decoder(_rows_type).decode
"""`decode_rows(bytes) -> list[Row]`, for the array that a stream entry holds: tuples are what columns are made of."""

decode_entries: Callable[[bytes], list[list[Row]]] = msgspec.msgpack.Decoder(list[_rows_type]).decode
"""The same for an array of such arrays."""


def replaces(new_us: int, arrival_ms: int, old_us: int, old_arrival_ms: int) -> bool:
    """Whether a record becomes its device's latest (the same rule stands in `telemetry/hot_store/lua/latest.lua`).

    True if its timestamp is not below the latest's; or if it is not ahead of its own arrival and
    later than the latest's arrival, for then the latest came from a clock that ran ahead. Arrivals
    are known to the millisecond, so "later" means: not within that millisecond.
    """
    if new_us >= old_us:
        return True
    return (old_arrival_ms + 1) * 1000 <= new_us < (arrival_ms + 1) * 1000
