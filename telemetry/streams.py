"""Reading the streams of a shard: long ones a page at a time, short ones some hundreds in one command.

A pipeline takes a command for each stream, of which redis-py, the socket and Redis each have their share: 8 µs of CPU.
XREAD names all of them in one command, and leaves out those that have nothing: 2 µs for each that has one entry. What
is read at once holds Redis up for other callers, so all of it comes in pieces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redis.exceptions import NoPermissionError

from telemetry.entries import RawEntry, behind, entry_id, entry_text
from telemetry.hot import NO_ENTRY, READ_ENTRIES, Shard, translated

READ_STREAMS = 25
"""Streams in one pipeline, `READ_ENTRIES` of each."""

LOOK_STREAMS = 500
LOOK_ENTRIES = 10
"""The same of one look for what is new, for most streams have nothing: it holds Redis up for half a millisecond."""

_MOST_ENTRIES = READ_STREAMS * READ_ENTRIES


def tails(shard: Shard, devices: Sequence[str]) -> dict[str, list[RawEntry]]:
    """All entries of each device's stream, read in pieces between which Redis serves others."""
    found: dict[str, list[RawEntry]] = {}
    _read_on(shard, [(device, "-") for device in devices], found)
    return found


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
    streams = {start + device: last for device, last in lasts.items()}
    try:
        answer = translated(lambda: _xread(shard, streams, most_entries))
    except PermissionError:  # the users of this Redis are those of an older release
        wanted = [(device, f"({last.decode()}", "+") for device, last in lasts.items()]
        pages = zip(lasts, shard.entries(wanted, most_entries), strict=True)
        return {device: page for device, page in pages if page}
    pairs = answer.items() if isinstance(answer, dict) else answer or ()  # by the protocol's version
    return {key.decode()[len(start) :]: page for key, page in pairs}


def _xread(shard: Shard, streams: dict[Any, Any], most_entries: int) -> Any:
    """Raises `PermissionError` where this user may not."""
    try:
        return shard.client.xread(streams, most_entries)
    except NoPermissionError as error:
        raise PermissionError(str(error)) from error


def _read_on(shard: Shard, wanted: Sequence[tuple[str, str]], found: dict[str, list[RawEntry]]) -> None:
    """Add the entries of each (device, first) to what was found."""
    for at in range(0, len(wanted), READ_STREAMS):
        part = [(device, first, "+") for device, first in wanted[at : at + READ_STREAMS]]
        while part:
            pages = shard.entries(part, READ_ENTRIES)
            unfinished = []
            for (device, _, _), page in zip(part, pages, strict=True):
                found.setdefault(device, []).extend(page)
                if len(page) == READ_ENTRIES:
                    unfinished.append((device, next_of(page), "+"))
            part = unfinished
