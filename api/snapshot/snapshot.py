"""One snapshot of the archive and the not-yet-saved tail: each acknowledged record in it exactly once.

For each shard `committed` and `intent` are read together, then the tail, and the table is loaded last. If
the table's commit number t is `committed`, no save came between: all of the tail counts. If t is the number
of the intent that was seen, its records are in the archive: the tail's entries within its ranges are left
out. Anything else means that a save ended meanwhile: read again.

All of Redis is read over one connection, or in one transaction: were Redis restored from an older copy between
`committed` and the tail, records that the archive has would be in both.
tests/worker/save_model.py shows that no reader sees a gap or a double, and that it does if the table comes first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from api.snapshot import tail_columns as tail
from api.snapshot.device_tail import OneTail
from api.snapshot.tail_budget import UNLIMITED, TailRoom
from api.snapshot.tail_cache import Part, Read, Remembered
from telemetry.archive.data_files import LiveFile
from telemetry.archive.operations import import_progress
from telemetry.archive.schema import COLUMNS, columns
from telemetry.archive.table import Archive
from telemetry.hot_store import stream_reader
from telemetry.hot_store.entry_codec import Block, EntryId, Intent, RawEntry, decode_intent, entry_id, read_block
from telemetry.hot_store.keys import shard_of
from telemetry.hot_store.shard import Shard, State
from telemetry.model.errors import NotTogether
from telemetry.model.record import Stored

TRIES = 3


class Wanted(NamedTuple):
    """Which records a question is about: of these devices, or of all whose id begins so, with
    start_us <= timestamp < end_us, and for which the SQL `where` holds; that is left to who reads the records."""

    devices: Sequence[str]
    start_us: int
    end_us: int
    where: str = ""
    prefix: str = ""

    def matches(self, stored: Stored) -> bool:
        return self.start_us <= stored.record.timestamp_us < self.end_us

    def among(self, devices: list[str]) -> list[str]:
        """Those of all devices that it may be about, where it names none."""
        return [device for device in devices if device.startswith(self.prefix)] if self.prefix else devices

    def of(self, block: Block) -> Block | None:
        """What of a block it is about."""
        found = block.between(self.start_us, self.end_us)
        return found if found.rows else None


class Snapshot:
    """The files that may answer a question, and the tail's records that do.

    Their columns come from the same records as `blocks`, and for a question about all devices, whose tail is
    remembered, from columns that were made before.
    """

    def __init__(self, files: list[LiveFile], parts: Sequence[Part], shards: int, wanted: Wanted) -> None:
        self.files = files
        self.shards = shards
        self._parts = parts
        self._wanted = wanted

    def within(self, wanted: Wanted) -> Snapshot:
        """The same snapshot for a part of its range, with the same devices."""
        files = [file for file in self.files if file.may_hold(wanted.start_us, wanted.end_us, wanted.devices)]
        return Snapshot(files, self._parts, self.shards, wanted)

    def some(self, names: Sequence[str]) -> pa.Table:
        """The tail's records, and maybe others, as a table of some columns (tail_columns.py)."""
        tables = [part.table(names) for part in self._parts]
        return pa.concat_tables(tables) if tables else tail.table((), self.shards, names)

    @cached_property
    def records(self) -> pa.Table:
        """The tail's records as a table of `COLUMNS`."""
        wanted = self._wanted
        if wanted.devices:
            return columns(self.blocks)
        found = self.some(COLUMNS.names)
        us = found.column("timestamp").cast(pa.int64())
        kept = pc.and_(pc.greater_equal(us, wanted.start_us), pc.less(us, wanted.end_us))
        found = found if pc.all(kept, min_count=0).as_py() else found.filter(kept)
        found = found.cast(COLUMNS)
        return found.filter(pc.starts_with(found.column("device_id"), wanted.prefix)) if wanted.prefix else found

    @cached_property
    def blocks(self) -> list[Block]:
        """The tail's records as they rest."""
        found = (self._wanted.of(block) for block in self._all_blocks() if block is not None)
        return [block for block in found if block is not None]

    def _all_blocks(self) -> Iterator[Block | None]:
        for device, entries in chain.from_iterable(part.entries for part in self._parts):
            if device.startswith(self._wanted.prefix):
                yield from (read_block(device, raw, self.shards) for raw in entries)

    @property
    def tail(self) -> Iterator[Stored]:
        """The tail's records, one by one."""
        return chain.from_iterable(block.stored() for block in self.blocks)


class Listing(NamedTuple):
    """What one version of the table says: its files, and each shard's last commit number."""

    files: list[LiveFile]
    committed: list[str]


class Snapshots:
    """Takes snapshots, from any number of threads; of all devices and of one by quicker ways, where those are given.

    What they hold of the tail beside what is remembered has `room`, or no limit.
    """

    def __init__(
        self,
        attach: Callable[[], AbstractContextManager[Sequence[Shard]]],
        archive: Archive,
        remembered: Remembered | None = None,
        one_tail: OneTail | None = None,
        room: TailRoom = UNLIMITED,
    ) -> None:
        self._attach = attach
        self._room = room
        self._remembered = remembered
        self._one_tail = one_tail
        self._archive = archive
        self._table: DeltaTable | None = None
        self._listing = Listing([], [])
        self._stamp: object = None
        self._imported: dict[int, list[range]] = {}
        self._table_lock = threading.Lock()

    def take(self, wanted: Wanted) -> Snapshot:
        """Raises `NotTogether` if Redis and archive don't belong together, `StoreUnavailable` if Redis is away,
        `TailTooLarge` if there is no room for the tail."""
        for attempt in range(TRIES):
            tails = self._tails(wanted)
            shards = tails[0][0].shards
            listing = self._load(shards)
            kept = [_kept(*read, shard, listing.committed[shard.shard]) for shard, read in tails]
            if all(parts is not None for parts in kept):
                files = [f for f in listing.files if f.may_hold(wanted.start_us, wanted.end_us, wanted.devices)]
                return Snapshot(files, [part for parts in kept if parts for part in parts], shards, wanted)
            time.sleep(0.01 * attempt)
        raise NotTogether("Redis and archive don't belong together: `whimbrel recover` says what can be done")

    def imported_otherwise(self, shards: int) -> list[range]:
        """As `Archive.imported_otherwise`, of all shards and of all files of snapshots that were taken before."""
        with self._table_lock:
            table = self._table or self._archive.open_existing()
            for shard in range(shards):
                known = self._imported.get(shard, ())
                self._imported[shard] = import_progress.imported_otherwise(table, shard, shards, known)
            return list(chain.from_iterable(self._imported.values()))

    def _tails(self, wanted: Wanted) -> list[tuple[Shard, Read]]:
        if self._one_tail is not None and len(wanted.devices) == 1:
            found = self._one_tail.read(wanted.devices[0])
            if found is not None:
                shard, read = found
                return [(shard, Read(read.state, [self._held(part) for part in read.parts]))]
        with self._attach() as shards:
            return self._tails_of(shards, wanted)

    def _tails_of(self, shards: Sequence[Shard], wanted: Wanted) -> list[tuple[Shard, Read]]:
        devices: dict[int, list[str]] = {shard.shard: [] for shard in shards}
        for device in wanted.devices:
            devices[shard_of(device, len(shards))].append(device)
        tails = []
        for shard in shards:
            if wanted.devices and not devices[shard.shard]:
                continue
            tails.append((shard, self._tail_of(shard, wanted, devices[shard.shard])))
        return tails

    def _tail_of(self, shard: Shard, wanted: Wanted, devices: Sequence[str]) -> Read:
        """A shard's tail of some devices, or of all that the question may be about and perhaps others."""
        if self._remembered is not None and not devices:
            read = self._remembered.read(shard)
            if read is not None:
                return read
        state = shard.state()
        devices = devices or wanted.among(shard.all_dirty())
        sizes = stream_reader.sizes_bytes(shard, devices, state.unsaved_bytes)
        if sizes is None:
            return Read(state, [self._held(Part(stream_reader.tails(shard, devices).items(), shard.shards))])
        held = self._room.take(min(sum(sizes), state.unsaved_bytes))
        return Read(state, [Part(stream_reader.tails(shard, devices, sizes).items(), shard.shards, held)])

    def _held(self, part: Part) -> Part:
        """A part that was read without a look at its size first, with room for it."""
        part.held = self._room.take(part.entries_bytes)
        return part

    def _load(self, shards: int) -> Listing:
        with self._table_lock:
            try:
                self._listing = self._current(shards)
            except Exception:
                self._table = None
                raise
            return self._listing

    def _current(self, shards: int) -> Listing:
        """The newest version's; from a new handle if the log that the old one came from was replaced or removed."""
        table = self._table
        if table is None or self._archive.log_stamp(table) != self._stamp:
            table, self._imported = self._archive.open_existing(), {}
            if table is None:
                return Listing([], [self._archive.committed(None, shard) for shard in range(shards)])
        elif self._archive.is_newest(table):
            return self._listing
        else:
            table.update_incremental()
        self._table, self._stamp = table, self._archive.log_stamp(table)
        committed = [self._archive.committed(table, shard) for shard in range(shards)]
        return Listing(self._archive.live(table), committed)


def _kept(state: State, parts: Sequence[Part], shard: Shard, committed: str) -> Sequence[Part] | None:
    """The tail's entries that the archive does not have, or None if they can't be told apart."""
    if committed == state.committed:
        return parts
    intent = decode_intent(state.intent) if state.intent else Intent("", [])
    if committed != intent.commit:
        return None
    saved = {found.device_id: entry_id(found.last) for found in intent.ranges}
    return [Part(_unsaved(part, saved), shard.shards, part.held) for part in parts]


def _unsaved(part: Part, saved: Mapping[str, EntryId]) -> Iterator[tuple[str, Sequence[RawEntry]]]:
    for device, found in part.entries:
        yield device, [raw for raw in found if entry_id(raw[0]) > saved[device]] if device in saved else found
