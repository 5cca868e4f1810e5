"""Reads the streams of a shard: long ones page by page, short ones several hundred per command.

A pipeline has a command per stream, each with overhead in redis-py, the socket and Redis. XREAD names all streams in
one command and omits those without new entries, which is faster (docs/performance.md). Reads block other callers, so
all of them are split into pieces.

An entry has up to 1 MiB plus one record, and Redis builds a whole response before it sends it. If the unsaved entries
of a shard are large in total, the size of each stream is read first: a piece has about `PIECE_BYTES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from telemetry.hot_store.entry_codec import NO_ENTRY, RawEntry, behind, entry_id, entry_text
from telemetry.hot_store.response_errors import permitted, translated
from telemetry.hot_store.shard import READ_ENTRIES, Shard

READ_STREAMS = 25
"""Streams per pipeline, with `READ_ENTRIES` of each."""

LOOK_STREAMS = 500
LOOK_ENTRIES = 10
"""Entries of each stream in one check for new entries; most streams have none. A check blocks Redis for about 0.5
ms."""

SMALL_BYTES = 16 * 2**20
"""Total size of a shard's unsaved entries up to which pieces need no size limit, bytes."""

PIECE_BYTES = 8 * 2**20
"""Approximate maximum size of a piece otherwise, bytes, unless a single entry is larger."""

LARGE_ENTRIES = 16
"""Entries per read of a stream that is larger than a piece."""

SIZED_STREAMS = 100
"""Streams whose sizes are read in one call."""

_MOST_ENTRIES = READ_STREAMS * READ_ENTRIES


class Piece(NamedTuple):
    """Devices whose streams are read together, and the number of entries of each per read."""

    devices: list[str]
    entries: int


def tails(shard: Shard, devices: Sequence[str], sizes: Sequence[int] | None = None) -> dict[str, list[RawEntry]]:
    """All entries of each device's stream, in pieces between which Redis serves other clients.

    `sizes` are the sizes of the streams (`sizes_bytes`), if these are large in total.
    """
    streams: dict[str, list[RawEntry]] = {}
    if sizes is None:
        _read_on(shard, [(device, "-") for device in devices], streams)
    else:
        for piece in _by_size(devices, sizes, READ_ENTRIES):
            _read_on(shard, [(device, "-") for device in piece.devices], streams, piece.entries)
    return streams


def sizes_bytes(shard: Shard, devices: Sequence[str], unsaved_bytes: int) -> list[int] | None:
    """Approximate size of each device's stream; None if `unsaved_bytes` of the shard are at most `SMALL_BYTES`, so that
    sizes do not matter."""
    if unsaved_bytes <= SMALL_BYTES:
        return None
    sizes: list[int] = []
    try:
        for at in range(0, len(devices), SIZED_STREAMS):
            sizes += shard.sizes_bytes(devices[at : at + SIZED_STREAMS])
    except PermissionError:  # this Redis has the users of an older release
        return [unsaved_bytes] * len(devices)
    return sizes


def page_entries(shard: Shard, device: str, unsaved_bytes: int) -> int:
    """Number of entries of a device's stream per read."""
    sizes = sizes_bytes(shard, [device], unsaved_bytes)
    return READ_ENTRIES if sizes is None else _entries_of(sizes[0], READ_ENTRIES)


def pieces(shard: Shard, devices: Iterator[str], most_entries: int, unsaved_bytes: int) -> Iterator[Piece]:
    """Devices in pieces for `heads`, with at most `most_entries` of each stream per read."""
    at_once = streams_at_once(most_entries) if unsaved_bytes <= SMALL_BYTES else SIZED_STREAMS
    while piece := list(islice(devices, at_once)):
        sizes = sizes_bytes(shard, piece, unsaved_bytes)
        if sizes is None:
            yield Piece(piece, most_entries)
        else:
            yield from _by_size(piece, sizes, most_entries)


def _by_size(devices: Iterable[str], sizes: Iterable[int], most_entries: int) -> Iterator[Piece]:
    """Devices in the same order, in pieces of about `PIECE_BYTES`."""
    piece: list[str] = []
    part_bytes = 0
    for device, size_bytes in zip(devices, sizes, strict=True):
        if piece and part_bytes + size_bytes > PIECE_BYTES:
            yield Piece(piece, _entries_of(part_bytes, most_entries))
            piece, part_bytes = [], 0
        piece.append(device)
        part_bytes += size_bytes
    if piece:
        yield Piece(piece, _entries_of(part_bytes, most_entries))


def _entries_of(size_bytes: int, most_entries: int) -> int:
    return most_entries if size_bytes <= PIECE_BYTES else min(most_entries, LARGE_ENTRIES)


def newer(shard: Shard, lasts: Mapping[str, bytes]) -> dict[str, list[RawEntry]]:
    """The entries of each device's stream after a known one (`NO_ENTRY`: all), read in pieces, too.

    Devices without new entries are omitted.
    """
    streams: dict[str, list[RawEntry]] = {}
    devices = list(lasts)
    for at in range(0, len(devices), LOOK_STREAMS):
        known = {device: lasts[device] for device in devices[at : at + LOOK_STREAMS]}
        streams.update(_look(shard, known, LOOK_ENTRIES))
    longer = [device for device, entries in streams.items() if len(entries) == LOOK_ENTRIES]
    _read_on(shard, [(device, next_of(streams[device])) for device in longer], streams)
    return streams


def streams_at_once(most_entries: int) -> int:
    """Number of streams in one call of `heads` that reads up to `most_entries` of each."""
    return min(LOOK_STREAMS, _MOST_ENTRIES // most_entries)


def heads(shard: Shard, devices: Sequence[str], most_entries: int) -> dict[str, list[RawEntry]]:
    """The first entries of each device's stream, in the order of `devices`; devices without entries are omitted."""
    return _look(shard, dict.fromkeys(devices, NO_ENTRY.encode()), most_entries)


def next_of(entries: Sequence[RawEntry]) -> str:
    """Start of the range after these entries."""
    return entry_text(behind(entry_id(entries[-1][0])))


def _look(shard: Shard, lasts: Mapping[str, bytes], most_entries: int) -> dict[str, list[RawEntry]]:
    """The first entries after the known ones, for a few hundred streams."""
    start = shard.keys.stream("")
    streams: dict[Any, Any] = {start + device: last for device, last in lasts.items()}
    try:
        answer = translated(lambda: permitted(lambda: shard.client.xread(streams, most_entries)))
    except PermissionError:  # this Redis has the users of an older release
        wanted = [(device, f"({last.decode()}", "+") for device, last in lasts.items()]
        pages = zip(lasts, shard.entries(wanted, most_entries), strict=True)
        return {device: page for device, page in pages if page}
    pairs = answer.items() if isinstance(answer, dict) else answer or ()  # depends on the protocol's version
    return {key.decode()[len(start) :]: page for key, page in pairs}


def _read_on(
    shard: Shard, wanted: Sequence[tuple[str, str]], streams: dict[str, list[RawEntry]], count: int = READ_ENTRIES
) -> None:
    """Append the entries of each (device, first) to `found`, `count` of each per read."""
    for at in range(0, len(wanted), READ_STREAMS):
        ranges = [(device, first, "+") for device, first in wanted[at : at + READ_STREAMS]]
        while ranges:
            pages = shard.entries(ranges, count)
            unfinished = []
            for (device, _, _), page in zip(ranges, pages, strict=True):
                streams.setdefault(device, []).extend(page)
                if len(page) == count:
                    unfinished.append((device, next_of(page), "+"))
            ranges = unfinished
