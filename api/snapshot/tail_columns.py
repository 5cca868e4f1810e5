"""The tail's records as columns, only those asked for: two of a full tail take 7 ms of CPU where all take 27.

A record rests as an array in the order of `Record` (telemetry/model/record.py). msgspec decodes what comes up to the
last field that is wanted and passes over the rest. An entry that does not look like most is read as everywhere else
(`read_block`). One thing may differ: a record whose only fault lies in what was passed over is here, though saving it
will put it into the quarantine.

This file knows no clock, socket, file or Redis.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from operator import attrgetter, itemgetter
from typing import Any, get_type_hints

import msgspec
import pyarrow as pa

from telemetry.archive.schema import COLUMNS, PIECE_ROWS
from telemetry.hot_store.entry_codec import RawEntry, has_usual_fields, read_block
from telemetry.model.record import DECODE_ERRORS, Record

FIELDS = {"timestamp" if name == "timestamp_us" else name: name for name in Record.__struct_fields__}
"""The columns that may be asked for beside `device_id`, `id` and `received_at`, and the fields of a record that they
are."""

SURE_MS, SURE_ID_DIGITS = b"7", 15
"""Arrivals, of 13 digits at most, and ids below these are surely such as the archive can hold."""

_PLACES = {name: place for place, name in enumerate(Record.__struct_fields__, 1)}
_TYPES = get_type_hints(Record, include_extras=True)
_Decode = Callable[[bytes], list[Any]]


def table(tail: Iterable[tuple[str, Sequence[RawEntry]]], shards: int, names: Sequence[str]) -> pa.Table:
    """The records of each device's entries as a table of `names`, which may be any of `COLUMNS`."""
    columns, devices, counts = _Columns(names, shards), [], []
    for device, entries in tail:
        devices.append(device)
        counts.append(columns.add(device, entries))
    made = columns.made()
    arrays = [_repeated(devices, counts) if name == "device_id" else made[name] for name in names]
    return pa.table(arrays, names=list(names))


def _repeated(texts: Sequence[str], counts: Sequence[int]) -> pa.Array:
    """Each text as often as its count says."""
    places = b"".join(place.to_bytes(4, sys.byteorder) * count for place, count in enumerate(counts))
    indices = pa.Array.from_buffers(pa.int32(), sum(counts), [None, pa.py_buffer(places)])
    return pa.DictionaryArray.from_arrays(indices, pa.array(texts, pa.string()))


class _Columns:
    """Takes entries as they come, and keeps the wanted fields alone."""

    def __init__(self, names: Sequence[str], shards: int) -> None:
        self._values: dict[str, list[Any]] = {name: [] for name in names if name in FIELDS}
        self._ids: list[int] | None = [] if "id" in names else None
        self._arrivals_us: list[int] | None = [] if "received_at" in names else None
        self._decode = _decoder(max(_PLACES[FIELDS[name]] for name in self._values))
        self._records: list[Any] = []
        self._shards = shards

    def made(self) -> dict[str, pa.Array]:
        """The columns, but for that of devices."""
        self._take()
        others = {"id": self._ids, "received_at": self._arrivals_us}
        found = self._values | {name: values for name, values in others.items() if values is not None}
        return {name: pa.array(values, COLUMNS.field(name).type) for name, values in found.items()}

    def add(self, device: str, entries: Sequence[RawEntry]) -> int:
        """Add a device's entries; returns how many records they have."""
        return sum(self._add(device, raw) for raw in entries)

    def _add(self, device: str, raw: RawEntry) -> int:
        if not _is_usual(raw):
            return self._add_any(device, raw)
        try:
            records = self._decode(raw[1][3])
        except DECODE_ERRORS:
            return self._add_any(device, raw)
        self._records += records
        if self._ids is not None:
            first = int(raw[1][1])
            self._ids.extend(range(first, first + len(records) * self._shards, self._shards))
        if self._arrivals_us is not None:
            self._arrivals_us += [1_000 * int(raw[0].partition(b"-")[0])] * len(records)
        if len(self._records) >= PIECE_ROWS:
            self._take()
        return len(records)

    def _add_any(self, device: str, raw: RawEntry) -> int:
        self._take()
        block = read_block(device, raw, self._shards)
        if block is None:
            return 0
        if self._ids is not None:
            self._ids.extend(block.ids)
        if self._arrivals_us is not None:
            self._arrivals_us += [1_000 * block.received_ms] * len(block.rows)
        for name, values in self._values.items():
            values.extend(map(itemgetter(_PLACES[FIELDS[name]]), block.rows))
        return len(block.rows)

    def _take(self) -> None:
        """Take what is wanted out of decoded records."""
        for name, values in self._values.items():
            values.extend(map(attrgetter(FIELDS[name]), self._records))
        self._records.clear()


def _is_usual(raw: RawEntry) -> bool:
    """Whether an entry is as `append` makes them, with an id and an arrival that are surely good."""
    entry, fields = raw
    if not has_usual_fields(fields):
        return False
    first_id = fields[1]
    return len(first_id) <= SURE_ID_DIGITS and first_id.isdigit() and entry < SURE_MS and b"-" in entry[:14]


@cache
def _decoder(fields: int) -> _Decode:
    """What decodes the first fields of each record of an entry's array."""
    first = [(name, _TYPES[name]) for name in Record.__struct_fields__[:fields]]
    part = msgspec.defstruct("Part", first, array_like=True, tag=1, frozen=True, gc=False)
    return msgspec.msgpack.Decoder(list[part]).decode  # type: ignore[valid-type]
