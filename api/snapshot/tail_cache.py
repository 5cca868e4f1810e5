"""The tail remembered between questions: only what is new is read of Redis, and only that is decoded.

A summary of an hour over a tail of 19,000 records took 18 to 50 ms to read it from Redis and decode it, by how many
records an entry has; of a tail that is remembered it takes 2. `telemetry/hot_store/shard.py` says by what streams are
known again (`Standing`). If they are others, or a save has ended, or a device was asked to be deleted, all is forgotten
and read anew. docs/decisions/0028-remembered-tail.md says why that is exact, and tests/worker/save_model.py shows it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import pyarrow as pa

from api.snapshot import tail_columns
from api.snapshot.tail_budget import Held
from telemetry.hot_store import stream_reader
from telemetry.hot_store.entry_codec import NO_ENTRY, RawEntry
from telemetry.hot_store.shard import Shard, Standing, State

LEAST_RECORD_BYTES = 100
"""What a record takes here at least: so a tail of too many is known before it is read."""

ENTRY_BYTES = 300
"""What an entry takes beside the bytes in it, as Python has it."""


class Part:
    """Some entries of a shard's tail, of one device after the other, and the columns that were asked for so far."""

    def __init__(
        self, entries: Iterable[tuple[str, Sequence[RawEntry]]], shards: int, held: Held | None = None
    ) -> None:
        """`held` is the room that was taken for the entries."""
        self.entries = list(entries)
        self.held = held
        self._shards = shards
        self._made: pa.Table | None = None
        self._lock = threading.Lock()

    def table(self, names: Sequence[str]) -> pa.Table:
        """The records as a table of some columns, made once.

        All of them are made anew for one more, for an entry of which a field can't be read has fewer rows then.
        """
        with self._lock:
            made = self._made
            if made is None or not set(names) <= set(made.column_names):
                wanted = sorted({"timestamp", *names, *(made.column_names if made else ())})
                made = self._made = tail_columns.table(self.entries, self._shards, wanted)
        return made.select(list(names))

    @property
    def made(self) -> Sequence[str]:
        """The columns that it has."""
        return () if self._made is None else self._made.column_names

    @property
    def bytes(self) -> int:
        """About what it takes in memory."""
        return self.entries_bytes + (0 if self._made is None else self._made.nbytes)

    @cached_property
    def entries_bytes(self) -> int:
        """About what its entries take in memory."""
        found = chain.from_iterable(entries for _, entries in self.entries)
        return sum(ENTRY_BYTES + sum(map(len, fields)) for _, fields in found)

    @classmethod
    def joined(cls, first: Part, second: Part) -> Part:
        """Both as one."""
        found = cls(chain(first.entries, second.entries), first._shards)
        found.entries_bytes = first.entries_bytes + second.entries_bytes
        if names := sorted({*first.made, *second.made}):
            found._made = pa.concat_tables([first.table(names), second.table(names)]).combine_chunks()
        return found


class Read(NamedTuple):
    """A shard's state and the tail that belongs to it."""

    state: State
    parts: Sequence[Part]


class _Tail(NamedTuple):
    """What is remembered of a shard: parts of it, the last entry of each device, and how it stood before they were
    read. Of one that is too large, that it is: it only grows until the next save."""

    standing: Standing
    parts: tuple[Part, ...] = ()
    lasts: Mapping[str, bytes] = {}
    is_too_large: bool = False


class Remembered:
    """The tails of all shards, for any number of threads.

    A shard's is not remembered where it would take more than `most_bytes`.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._tails: dict[int, _Tail] = {}
        self._lock = threading.Lock()

    def read(self, shard: Shard) -> Read | None:
        """The whole tail of a shard, None if it is too large to remember. Raises as `Shard.standing` does.

        One at a time: who comes meanwhile would read the same.
        """
        with self._lock:
            standing = shard.standing()
            known = self._tails.pop(shard.shard, None)
            if known is None or not known.standing.goes_on_as(standing):
                known = _Tail(standing._replace(next_id=-1))
            if known.is_too_large or _least_bytes(standing.state) > self._most_bytes:
                self._tails[shard.shard] = _Tail(known.standing, is_too_large=True)
                return None
            if known.standing.next_id != standing.next_id:
                known = _with_newer(known, standing, shard)
            is_too_large = sum(part.bytes for part in known.parts) > self._most_bytes
            self._tails[shard.shard] = _Tail(known.standing, is_too_large=True) if is_too_large else known
            return Read(standing.state, known.parts)


def _least_bytes(state: State) -> int:
    """What a tail takes in memory at least."""
    return max(state.unsaved * LEAST_RECORD_BYTES, state.unsaved_bytes)


def _with_newer(known: _Tail, standing: Standing, shard: Shard) -> _Tail:
    """What is known and what came since."""
    none = NO_ENTRY.encode()
    newer = stream_reader.newer(shard, {device: known.lasts.get(device, none) for device in shard.all_dirty()})
    lasts = {**known.lasts, **{device: entries[-1][0] for device, entries in newer.items()}}
    part = Part(newer.items(), shard.shards)
    return _Tail(standing, _with(known.parts, part), lasts)


def _with(parts: tuple[Part, ...], part: Part) -> tuple[Part, ...]:
    """One more part, joined to those before that are not much larger: there are few of them, and each entry is
    joined few times."""
    while parts and len(parts[-1].entries) <= 2 * len(part.entries):
        parts, part = parts[:-1], Part.joined(parts[-1], part)
    return (*parts, part) if part.entries else parts
