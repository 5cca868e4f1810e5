"""Encoding of the hot store's values around records (record.py): stream entries, latest, intents.

An entry's `r` is a msgpack array of the records of one device, and its optional `m` their marks. A device's latest is
the array [http, other, fix, last seen ms]. An intent is [commit number, [[device, first and last entry id, records,
bytes, whether some have marks]…]]. keys.py describes the keys.

This file uses no clock, socket, file or Redis.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple
from zlib import crc32

import msgspec

from telemetry.model.record import (
    DECODE_ERRORS,
    LATEST_US,
    MAX_ENTRY_BYTES,
    MAX_ENTRY_RECORDS,
    MAX_ENTRY_SPAN_US,
    Record,
    Row,
    Sent,
    Stored,
    decode,
    decode_records,
    decode_rows,
    encode,
    replaces,
    row_of,
)

CHUNK_DEVICES = 500
"""Number of devices per trim; a large call would block Redis."""

# Appending -------------------------------------------------------------------------------------------

NO_ENTRY = "0-0"
"""Entry id of quarantined data that never was a record."""


class Entry(NamedTuple):
    """A stream entry to append: `records` is a msgpack array of `size` records of one device.

    `marks` has `MARK_BYTES` per record, `NO_MARK` for a record that may be stored again; empty if all may be.
    """

    device_id: str
    size: int
    records: bytes
    candidates: bytes
    marks: bytes = b""


class Moved(NamedTuple):
    """An entry that replaces another and keeps its time of arrival."""

    arrival_ms: int
    size: int
    records: bytes
    candidates: bytes


_HTTP, NEWEST, NEWEST_FIX, _HAS_FIX = 1, 2, 4, 8
_USUAL = NEWEST | NEWEST_FIX | _HAS_FIX
_USUAL_HTTP = _USUAL | _HTTP
_pack_candidate = struct.Struct(">BHIIQ").pack
_pack_array16 = struct.Struct(">BH").pack

_pack_mark = struct.Struct(">II").pack
MARK_BYTES = 8
NO_MARK = bytes(MARK_BYTES)
RECENT = 64
"""Number of a device's records that are recognised as duplicates after they were saved, unless its last entry has more
(lua/resends.lua: RECENT).
"""


def mark(record: Record, encoded: bytes) -> bytes:
    """Mark by which a record is recognised when it is sent again: a checksum of its bytes, and its second.

    The checksum comes first, because it distinguishes a device's marks sooner. A mark is never `NO_MARK`.
    """
    return _pack_mark(crc32(encoded), record.timestamp_us // 1_000_000 & 0xFFFFFFFF)


def size_bytes(entries: Iterable[RawEntry]) -> int:
    """Size of entries: the names of their fields and their values, bytes."""
    return sum(sum(map(len, fields)) for _, fields in entries)


def pack(records: Iterable[Sent]) -> list[Entry]:
    """Group records by device into as few entries as possible, in each device's order."""
    return pack_devices(by_device(records))


def by_device(records: Iterable[Sent]) -> dict[str, list[Sent]]:
    """Device → its records, in order."""
    devices: dict[str, list[Sent]] = {}
    for sent in records:
        known = devices.get(sent.device_id)
        if known is None:
            devices[sent.device_id] = [sent]
        else:
            known.append(sent)
    return devices


def pack_devices(devices: Mapping[str, list[Sent]]) -> list[Entry]:
    """The entries of records by device."""
    entries: list[Entry] = []
    for device, sents in devices.items():
        if len(sents) == 1 and sents[0].record.has_fix:
            entries.append(_alone(device, sents[0]))
            continue
        contents = [sent.record for sent in sents]
        usual = _packed_fast(contents)
        if usual is not None:
            entries.append(Entry(device, *usual, _marks(sents, usual[1])))
            continue
        at = 0
        for entry in chain.from_iterable(_entries_of(device, part) for part in _parts(contents)):
            entries.append(entry._replace(marks=_marks(sents[at : at + entry.size], entry.records)))
            at += entry.size
    return entries


def _alone(device: str, sent: Sent) -> Entry:
    """The entry of a single record with a fix."""
    record = sent.record
    encoded = encode(record)
    flags = _USUAL_HTTP if record.transport == "http" else _USUAL
    newest = _pack_candidate(flags, 0, 1, len(encoded), record.timestamp_us)
    return Entry(device, 1, b"\x91" + encoded, newest, mark(record, encoded) if sent.is_stored_once else b"")


def _marks(sents: Sequence[Sent], array: bytes) -> bytes:
    """The marks of an entry with these records, `array` as msgpack."""
    if len(sents) == 1:
        return mark(sents[0].record, array[1:]) if sents[0].is_stored_once else b""
    if True not in [sent.is_stored_once for sent in sents]:
        return b""
    return b"".join([mark(sent.record, encode(sent.record)) if sent.is_stored_once else NO_MARK for sent in sents])


def without(entry: Entry, numbers: Collection[int]) -> list[Entry]:
    """An entry without the records with these indexes; empty if no record remains."""
    remaining = [at for at in range(entry.size) if at not in numbers]
    if not remaining or not numbers:
        return [entry] if remaining else []
    records, marks = decode_records(entry.records), entry.marks
    own = b"".join([marks[MARK_BYTES * at : MARK_BYTES * (at + 1)] for at in remaining])
    return [Entry(entry.device_id, *packed([records[at] for at in remaining]), own if own.strip(b"\0") else b"")]


def _packed_fast(records: list[Record]) -> tuple[int, bytes, bytes] | None:
    """Fast path of `packed` if the last record is the newest in every respect; None if it may not be."""
    last, size = records[-1], len(records)
    newest_us, transport = last.timestamp_us, last.transport
    if not last.has_fix or size > MAX_ENTRY_RECORDS:
        return None
    flags = _USUAL_HTTP if transport == "http" else _USUAL
    encoded = encode(last)
    times = [record.timestamp_us for record in records]
    if max(times) > newest_us or newest_us - min(times) > MAX_ENTRY_SPAN_US:
        return None
    if [record.transport for record in records].count(transport) < size:
        return None
    array = encode(records)
    if len(array) > MAX_ENTRY_BYTES:
        return None
    return size, array, _pack_candidate(flags, size - 1, len(array) - len(encoded), len(encoded), newest_us)


def _entries_of(device: str, records: list[Record]) -> list[Entry]:
    """One entry of some records, or several within the size limit."""
    entry = Entry(device, *packed(records))
    if len(records) == 1 or len(entry.records) <= MAX_ENTRY_BYTES:
        return [entry]
    half = len(records) // 2
    return _entries_of(device, records[:half]) + _entries_of(device, records[half:])


def _parts(records: list[Record]) -> Iterable[list[Record]]:
    if len(records) == 1:
        return (records,)
    times = [record.timestamp_us for record in records]
    if len(records) <= MAX_ENTRY_RECORDS and max(times) - min(times) <= MAX_ENTRY_SPAN_US:
        return [records]
    parts, part, oldest, newest = [], [records[0]], times[0], times[0]
    for record in records[1:]:
        oldest, newest = min(oldest, record.timestamp_us), max(newest, record.timestamp_us)
        if len(part) == MAX_ENTRY_RECORDS or newest - oldest > MAX_ENTRY_SPAN_US:
            parts.append(part)
            part, oldest, newest = [], record.timestamp_us, record.timestamp_us
        part.append(record)
    return [*parts, part]


def packed(records: list[Record], unreadable: Sequence[bytes] = ()) -> tuple[int, bytes, bytes]:
    """Size, array and candidates of the entry of some records, followed by undecodable records."""
    roles = _roles(records)
    encoded = [encode(record) for record in records]
    parts = [*encoded, *unreadable]
    array = pack_array(parts)
    return len(parts), array, candidates(records, roles, encoded, len(array) - sum(map(len, parts)))


def pack_array(encoded: Sequence[bytes]) -> bytes:
    """A msgpack array of encoded values, at most 65,535."""
    size = len(encoded)
    header = bytes((0x90 | size,)) if size < 16 else _pack_array16(0xDC, size)
    return header + b"".join(encoded)


def candidates(records: list[Record], roles: dict[int, int], encoded: list[bytes], start: int) -> bytes:
    """Candidates for the device's latest: the newest by HTTP, by another transport, and with a fix.

    Newest: the greatest timestamp, and the last of equal ones. Each is packed as flags (1 by HTTP, 2 the newest
    of its transport, 4 the newest with a fix, 8 has a fix), its index in the entry, the offset and length
    of its bytes there, and its timestamp, so that Lua need not decode a record.
    """
    packed = []
    for index, role in sorted(roles.items()):
        record = records[index]
        offset = start + sum(map(len, encoded[:index]))
        packed.append(_pack_candidate(flags_of(record, role), index, offset, len(encoded[index]), record.timestamp_us))
    return b"".join(packed)


def _roles(records: list[Record]) -> dict[int, int]:
    """Indexes and roles of the candidates."""
    if len(records) == 1:
        return {0: NEWEST | (NEWEST_FIX if records[0].has_fix else 0)}
    if len({record.transport for record in records}) == 1:
        times = [record.timestamp_us for record in records]
        newest = len(times) - 1 - times[::-1].index(max(times))
        if records[newest].has_fix:  # the usual case: it is the newest in every respect
            return {newest: NEWEST | NEWEST_FIX}
    roles: dict[int, int] = {}
    for role, chosen in (
        (NEWEST, (i for i, r in enumerate(records) if r.transport == "http")),
        (NEWEST, (i for i, r in enumerate(records) if r.transport != "http")),
        (NEWEST_FIX, (i for i, r in enumerate(records) if r.has_fix)),
    ):
        best = max(chosen, key=lambda i: (records[i].timestamp_us, i), default=None)
        if best is not None:
            roles[best] = roles.get(best, 0) | role
    return roles


def flags_of(record: Record, role: int) -> int:
    """Flags of a candidate: its role (`NEWEST`, `NEWEST_FIX` or both), its transport, whether it has a fix."""
    return role | (_HTTP if record.transport == "http" else 0) | (_HAS_FIX if record.has_fix else 0)


# Reading ---------------------------------------------------------------------------------------------

EntryId = tuple[int, int]
RawEntry = tuple[bytes, list[bytes]]

LATEST_MS = LATEST_US // 1_000 - 1
"""The latest arrival that a file of the archive can represent, ms since epoch."""

MAX_FIRST_ID = 2**53 - 1
_MAX_DIGITS = 20


def entry_id(text: bytes | str) -> EntryId:
    """Parse "ms-sequence" to (ms, sequence)."""
    ms, _, sequence = (text.decode() if isinstance(text, bytes) else text).partition("-")
    return int(ms), int(sequence)


def entry_text(entry: EntryId) -> str:
    return f"{entry[0]}-{entry[1]}"


def behind(entry: EntryId) -> EntryId:
    """The next entry id after `entry`."""
    return entry[0], entry[1] + 1


class Unreadable(NamedTuple):
    """A record, or a whole entry, that cannot be decoded; `number` is its index in the entry."""

    device_id: str
    entry: bytes
    first_id: int
    number: int
    reason: str
    raw: bytes


class Aside(NamedTuple):
    """Data of a device that could not be converted to a record, and the reason. The device is empty if unknown."""

    device_id: str
    reason: str
    raw: bytes


class Block(NamedTuple):
    """Records of one device with the same arrival."""

    device_id: str
    received_ms: int
    ids: Sequence[int]
    rows: Sequence[Row]

    @classmethod
    def of(cls, stored: Stored) -> Block:
        """A block of one record."""
        return cls(stored.device_id, stored.received_ms, (stored.id,), (row_of(stored.record),))

    def stored(self) -> Iterator[Stored]:
        """The records."""
        for record_id, row in zip(self.ids, self.rows, strict=True):
            yield Stored(self.device_id, record_id, self.received_ms, Record(*row[1:]))

    def between(self, start_us: int, end_us: int) -> Block:
        """The records with start_us <= timestamp < end_us."""
        times = [row[1] for row in self.rows]
        if start_us <= min(times) and max(times) < end_us:
            return self
        inside = [at for at, timestamp_us in enumerate(times) if start_us <= timestamp_us < end_us]
        return self._replace(ids=[self.ids[at] for at in inside], rows=[self.rows[at] for at in inside])


def has_usual_fields(fields: Sequence[bytes]) -> bool:
    """True if an entry has the fields written by `append`: its first id, its records, optionally their marks."""
    size = len(fields)
    return (size == 4 or (size == 6 and fields[4] == b"m")) and fields[0] == b"i" and fields[2] == b"r"


def last_marks(entries: Sequence[RawEntry]) -> bytes:
    """Marks of the last entries, newest last: of `RECENT` records or a few more, because entries count as a whole."""
    arrays: list[bytes] = []
    missing_bytes = RECENT * MARK_BYTES
    for _, fields in reversed(entries[-RECENT:]):
        if len(fields) == 6 and fields[4] == b"m":
            arrays.append(fields[5])
            missing_bytes -= len(fields[5])
            if missing_bytes <= 0:
                break
    return b"".join(reversed(arrays))


def with_later(marks: bytes, later: bytes) -> bytes:
    """The last of older and newer marks, as many as are stored."""
    return (marks + later)[-max(len(later), RECENT * MARK_BYTES) :]


def read_entry(
    device_id: str, raw: RawEntry, shards: int, unreadable: Callable[[Unreadable], None] | None = None
) -> list[Stored]:
    """The records of one stream entry; see `read_block`."""
    block = read_block(device_id, raw, shards, unreadable)
    return [] if block is None else list(block.stored())


def read_block(
    device_id: str, raw: RawEntry, shards: int, unreadable: Callable[[Unreadable], None] | None = None
) -> Block | None:
    """The records of one stream entry, None without records. A record that cannot be decoded is passed to `unreadable`,
    or dropped. So is an entry whose fields could not be saved, with the records' bytes or, without them, all its fields
    as msgpack.
    """
    entry, fields = raw
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    data = values[b"r"] if b"r" in values else msgspec.msgpack.encode(fields)
    try:
        if b"r" not in values:
            raise ValueError("the entry has no field r")
        first_id = _number("i", values.get(b"i"), MAX_FIRST_ID)
        received_ms = _number("a", values.get(b"a", entry.partition(b"-")[0]), LATEST_MS)
    except ValueError as error:
        _report(unreadable, Unreadable(device_id, entry, 0, 0, str(error), data))
        return None
    try:
        rows = decode_rows(data)
        ids: Sequence[int] = range(first_id, first_id + len(rows) * shards, shards)
    except DECODE_ERRORS as error:
        parts = _split(data)
        if not parts:
            _report(unreadable, Unreadable(device_id, entry, first_id, 0, str(error), data))
            return None
        ids, rows = [], []
        for number, part in enumerate(parts):
            try:
                rows.append(row_of(decode(part)))
                ids.append(first_id + number * shards)
            except DECODE_ERRORS as error:
                _report(
                    unreadable,
                    Unreadable(device_id, entry, first_id, number, str(error), part if len(parts) > 1 else data),
                )
    return Block(device_id, received_ms, ids, rows) if rows else None


def _number(field: str, text: bytes | None, most: int) -> int:
    """Parse the number in a field of an entry. Raises `ValueError` if it could not be saved."""
    if text is None:
        raise ValueError(f"the entry has no field {field}")
    if not (text.isdigit() and len(text) <= _MAX_DIGITS and int(text) <= most):
        raise ValueError(f"the entry's field {field} is {text[:40]!r}, not a number up to {most}")
    return int(text)


def _split(data: bytes) -> list[bytes]:
    """The bytes of each element of a msgpack array, or [] if it cannot be split."""
    try:
        return [bytes(part) for part in msgspec.msgpack.decode(data, type=list[msgspec.Raw])]
    except DECODE_ERRORS:
        return []


def _report(unreadable: Callable[[Unreadable], None] | None, value: Unreadable) -> None:
    if unreadable is not None:
        unreadable(value)


class Slot(msgspec.Struct, array_like=True, frozen=True):
    """A record in a device's latest."""

    id: int
    received_ms: int
    timestamp_us: int
    has_fix: bool
    record: bytes

    def stored(self, device_id: str) -> Stored:
        return Stored(device_id, self.id, self.received_ms, decode(self.record))


class Archived(NamedTuple):
    """A record of the archive that may be its device's latest, with a candidate's flags and the time the device was
    last seen, ms since epoch.
    """

    stored: Stored
    flags: int
    last_seen_ms: int


class Latest(msgspec.Struct, array_like=True, frozen=True):
    """A device's latest. `fix` is 0 or 1 if it equals `http` or `other`."""

    http: Slot | None
    other: Slot | None
    fix: Slot | int | None
    last_seen_ms: int

    @property
    def newest(self) -> Slot | None:
        """The newest record by any transport."""
        if self.http is None or self.other is None:
            return self.http or self.other
        first, second = sorted((self.http, self.other), key=lambda slot: slot.id)
        wins = replaces(second.timestamp_us, second.received_ms, first.timestamp_us, first.received_ms)
        return second if wins else first

    @property
    def position(self) -> Slot | None:
        """The newest record with a fix."""
        if isinstance(self.fix, int):
            return (self.http, self.other)[self.fix]
        return self.fix


decode_latest = msgspec.msgpack.Decoder(Latest).decode


def last_seen_ms(latest: bytes) -> int:
    """Time the device was last seen: the last 8 bytes of its encoded latest, read without decoding the rest."""
    return int.from_bytes(latest[-8:])


# Saving ----------------------------------------------------------------------------------------------


class Range(msgspec.Struct, array_like=True, frozen=True):
    """The entries of one device from `first` to `last` ("ms-sequence"), the number of their records, and their size
    (`size_bytes`; 0 in an intent of an older release). `is_marked` is true if some have marks.
    """

    device_id: str
    first: str
    last: str
    records: int
    size_bytes: int = 0
    is_marked: bool = False


class Intent(msgspec.Struct, array_like=True, frozen=True):
    """The entries that one save takes from a shard. `commit` is its commit number, as text."""

    commit: str
    ranges: list[Range]

    def encode(self) -> bytes:
        return _encode_intent(self)

    @property
    def head(self) -> bytes:
        """The first bytes of its encoding, which are unique."""
        return _encode_intent(Intent(self.commit, []))[:-1]

    @property
    def is_import(self) -> bool:
        """True if it takes nothing from the shard: its records are imported (worker/bulk_import.py)."""
        return not self.ranges

    @property
    def chunk_count(self) -> int:
        """Number of trims that finish it; at least one, also for an import, which has nothing to trim."""
        return max(1, -(-len(self.ranges) // CHUNK_DEVICES))

    def chunk(self, number: int) -> list[Range]:
        """The entries of one trim."""
        return self.ranges[number * CHUNK_DEVICES : (number + 1) * CHUNK_DEVICES]


def count_of(commit: str) -> int:
    """The count in a commit number."""
    return int(commit) >> 32


_encode_intent = msgspec.msgpack.Encoder().encode
decode_intent = msgspec.msgpack.Decoder(Intent).decode
