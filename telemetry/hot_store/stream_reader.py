"""Reading the streams of a shard: long ones a page at a time, short ones some hundreds in one command.

A pipeline takes a command for each stream, of which redis-py, the socket and Redis each have their share: 8 µs of CPU.
XREAD names all of them in one command, and leaves out those that have nothing: 2 µs for each that has one entry. What
is read at once holds Redis up for other callers, so all of it comes in pieces.

An entry has up to 1 MiB and one record more, and Redis makes a whole answer before it sends it. So where the unsaved
entries of a shard are large together, Redis is asked for the size of each stream first: a piece has some `PIECE_BYTES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from telemetry.hot_store.entry_codec import NO_ENTRY, RawEntry, behind, entry_id, entry_text
from telemetry.hot_store.response_errors import permitted, translated
from telemetry.hot_store.shard import READ_ENTRIES, Shard

READ_STREAMS = 25
"""Streams in one pipeline, `READ_ENTRIES` of each."""

LOOK_STREAMS = 500
LOOK_ENTRIES = 10
"""The same of one look for what is new, for most streams have nothing: it holds Redis up for half a millisecond."""

SMALL_BYTES = 16 * 2**20
"""Unsaved entries of a shard that have no more bytes together may be read in any pieces."""

PIECE_BYTES = 8 * 2**20
"""About the most bytes of a piece otherwise, unless single entries are larger."""

LARGE_ENTRIES = 16
"""Entries that are read at once of a stream that has more bytes than a piece."""

SIZED_STREAMS = 100
"""Streams whose sizes are asked for at once."""

_MOST_ENTRIES = READ_STREAMS * READ_ENTRIES


class Piece(NamedTuple):
    """Devices whose streams are read together, and how many entries of each at once."""

    devices: list[str]
    entries: int


def tails(shard: Shard, devices: Sequence[str], sizes: Sequence[int] | None = None) -> dict[str, list[RawEntry]]:
    """All entries of each device's stream, read in pieces between which Redis serves others.

    `sizes`: bytes of each stream (`sizes_bytes`), where these are large together.
    """
    found: dict[str, list[RawEntry]] = {}
    if sizes is None:
        _read_on(shard, [(device, "-") for device in devices], found)
    else:
        for piece in _by_size(devices, sizes, READ_ENTRIES):
            _read_on(shard, [(device, "-") for device in piece.devices], found, piece.entries)
    return found


def sizes_bytes(shard: Shard, devices: Sequence[str], unsaved_bytes: int) -> list[int] | None:
    """About how many bytes each device's stream takes; None if all `unsaved_bytes` of the shard are `SMALL_BYTES` at
    most, so that it does not matter."""
    if unsaved_bytes <= SMALL_BYTES:
        return None
    found: list[int] = []
    try:
        for at in range(0, len(devices), SIZED_STREAMS):
            found += shard.sizes_bytes(devices[at : at + SIZED_STREAMS])
    except PermissionError:  # the users of this Redis are those of an older release
        return [unsaved_bytes] * len(devices)
    return found


def page_entries(shard: Shard, device: str, unsaved_bytes: int) -> int:
    """How many entries of a device's stream may be read at once."""
    sizes = sizes_bytes(shard, [device], unsaved_bytes)
    return READ_ENTRIES if sizes is None else _entries_of(sizes[0], READ_ENTRIES)


def pieces(shard: Shard, devices: Iterator[str], most_entries: int, unsaved_bytes: int) -> Iterator[Piece]:
    """Devices in pieces for `heads`, of whose streams `most_entries` may be read at once, or fewer."""
    at_once = streams_at_once(most_entries) if unsaved_bytes <= SMALL_BYTES else SIZED_STREAMS
    while part := list(islice(devices, at_once)):
        sizes = sizes_bytes(shard, part, unsaved_bytes)
        if sizes is None:
            yield Piece(part, most_entries)
        else:
            yield from _by_size(part, sizes, most_entries)


def _by_size(devices: Iterable[str], sizes: Iterable[int], most_entries: int) -> Iterator[Piece]:
    """Devices in the same order, as many together as have `PIECE_BYTES`."""
    part: list[str] = []
    part_bytes = 0
    for device, size_bytes in zip(devices, sizes, strict=True):
        if part and part_bytes + size_bytes > PIECE_BYTES:
            yield Piece(part, _entries_of(part_bytes, most_entries))
            part, part_bytes = [], 0
        part.append(device)
        part_bytes += size_bytes
    if part:
        yield Piece(part, _entries_of(part_bytes, most_entries))


def _entries_of(size_bytes: int, most_entries: int) -> int:
    return most_entries if size_bytes <= PIECE_BYTES else min(most_entries, LARGE_ENTRIES)


def newer(shard: Shard, lasts: Mapping[str, bytes]) -> dict[str, list[RawEntry]]:
    """The entries of each device's stream behind one that is known (`NO_ENTRY`: all), read in such pieces, too.

    Devices that have none are left out.
    """
    found: dict[str, list[RawEntry]] = {}
    devices = list(lasts)
    for at in range(0, len(devices), LOOK_STREAMS):
        part = {device: lasts[device] for device in devices[at : at + LOOK_STREAMS]}
        found.update(_look(shard, part, LOOK_ENTRIES))
    longer = [device for device, entries in found.items() if len(entries) == LOOK_ENTRIES]
    _read_on(shard, [(device, next_of(found[device])) for device in longer], found)
    return found


def streams_at_once(most_entries: int) -> int:
    """Of how many streams one call of `heads` may read so many entries each."""
    return min(LOOK_STREAMS, _MOST_ENTRIES // most_entries)


def heads(shard: Shard, devices: Sequence[str], most_entries: int) -> dict[str, list[RawEntry]]:
    """The first entries of each device's stream, in the order of `devices`; those that have none are left out."""
    return _look(shard, dict.fromkeys(devices, NO_ENTRY.encode()), most_entries)


def next_of(entries: Sequence[RawEntry]) -> str:
    """Where the entries behind some begin."""
    return entry_text(behind(entry_id(entries[-1][0])))


def _look(shard: Shard, lasts: Mapping[str, bytes], most_entries: int) -> dict[str, list[RawEntry]]:
    """The first entries behind the known ones of a few hundred streams."""
    start = shard.keys.stream("")
    streams: dict[Any, Any] = {start + device: last for device, last in lasts.items()}
    try:
        answer = translated(lambda: permitted(lambda: shard.client.xread(streams, most_entries)))
    except PermissionError:  # the users of this Redis are those of an older release
        wanted = [(device, f"({last.decode()}", "+") for device, last in lasts.items()]
        pages = zip(lasts, shard.entries(wanted, most_entries), strict=True)
        return {device: page for device, page in pages if page}
    pairs = answer.items() if isinstance(answer, dict) else answer or ()  # by the protocol's version
    return {key.decode()[len(start) :]: page for key, page in pairs}


def _read_on(
    shard: Shard, wanted: Sequence[tuple[str, str]], found: dict[str, list[RawEntry]], count: int = READ_ENTRIES
) -> None:
    """Add the entries of each (device, first) to what was found, `count` of each at once."""
    for at in range(0, len(wanted), READ_STREAMS):
        part = [(device, first, "+") for device, first in wanted[at : at + READ_STREAMS]]
        while part:
            pages = shard.entries(part, count)
            unfinished = []
            for (device, _, _), page in zip(part, pages, strict=True):
                found.setdefault(device, []).extend(page)
                if len(page) == count:
                    unfinished.append((device, next_of(page), "+"))
            part = unfinished
