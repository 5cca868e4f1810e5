"""Plans a save: selects stream entries within its bounds, and decodes their records to columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, takewhile
from typing import NamedTuple

import pyarrow as pa

from telemetry.archive.schema import Columns
from telemetry.hot_store.entry_codec import (
    Range,
    RawEntry,
    Unreadable,
    behind,
    entry_id,
    entry_text,
    last_marks,
    read_block,
    size_bytes,
    with_later,
)
from telemetry.hot_store.shard import READ_ENTRIES, Shard, Standing
from telemetry.hot_store.stream_reader import LOOK_ENTRIES, READ_STREAMS, heads, next_of, page_entries, pieces
from worker.saving.batch_decoder import Page, read_page
from worker.saving.save_budget import Bounds, Budget, Fit, Share

LOOK_RANGES = 8 * READ_STREAMS
"""Number of ranges read in one pipeline to check their entries."""

PIECE_BYTES = 100_000
"""Size of entries decoded at a time, bytes: about as many records as become columns at a time (schema.py)."""

READ_NAMES = 2_000
"""Number of device names read at a time."""


class Tail(NamedTuple):
    """Records of some ranges in their order, and values that cannot be decoded."""

    records: pa.Table
    unreadable: list[Unreadable]


class Plan(NamedTuple):
    """The ranges of a save, their records at planning time, whether these were all unsaved records, and the shard's
    state before they were read. `marks` has the last marks of devices that have some.
    """

    ranges: list[Range]
    tail: Tail
    is_all: bool
    standing: Standing
    marks: Mapping[str, bytes]


class Turns:
    """The order in which devices are served if one save cannot take all records: each once before any is served again.

    `waiting` were not served since the names were last read. `blocked` were, but their next entry exceeded the limit on
    days: they are served only while there is room for days. The two lists come first in alternate saves, so that
    neither uses up the budget of the other.
    """

    def __init__(self) -> None:
        self.is_behind = False
        """True if the last save left out entries only because of its bounds."""

        self.waiting: list[str] = []
        self.blocked: list[str] = []
        self._blocked_first = False

    def next_order(self, budget: Budget) -> Iterator[str]:
        """The devices to serve in the next save; blocked ones only while `budget` has days."""
        self._blocked_first = not self._blocked_first
        blocked = takewhile(lambda _: not budget.has_no_days, self.blocked)
        return chain(blocked, self.waiting) if self._blocked_first else chain(self.waiting, blocked)

    def read_names(self, dirty: Iterable[str]) -> None:
        """Begin a new round with the device that has waited longest, if the last round is over."""
        if not self.waiting:
            blocked = set(self.blocked)
            self.waiting = [device for device in dirty if device not in blocked]

    def are_over(self, looked_at: set[str]) -> bool:
        """True if the round ends with a save that served these devices."""
        return looked_at.issuperset(self.waiting)

    def read_more(self, dirty: Iterable[str], looked_at: set[str]) -> Iterator[str]:
        """Begin the next round within a save, with the devices that it has not served."""
        known = looked_at | set(self.blocked)
        more = [device for device in dirty if device not in known]
        self.waiting += more
        return iter(more)

    def note(self, taking: _Taking, looked_at: set[str]) -> None:
        """Remove the devices that were served; those for which a save had no room stay in front."""
        served, blocked = taking.ranges.keys(), taking.blocked
        done = served | taking.empty
        stay = [device for device in self.blocked if device not in looked_at or device not in done]
        self.blocked = stay + [device for device in taking.short if device in blocked - set(stay)]
        done |= blocked
        self.waiting = [device for device in self.waiting if device not in looked_at or device not in done]


_Page = tuple[str, list[RawEntry], int]
"""A device, some of its entries, and their size in bytes."""


class _Taking:
    """Takes pages of streams as they are read, and decodes them in pieces that become columns."""

    def __init__(self, shards: int, budget: Budget, unsaved_bytes: int) -> None:
        """`unsaved_bytes` is the size of all unsaved entries."""
        self.budget = budget
        self.unsaved_bytes = unsaved_bytes
        self.ranges: dict[str, Range] = {}
        self.marks: dict[str, bytes] = {}
        self.short: dict[str, Fit] = {}
        """Devices with an entry that did not fit: their later entries must wait, too."""

        self.empty: set[str] = set()
        self._shards = shards
        self._columns = Columns()
        self._unreadable: list[Unreadable] = []
        self._pages: list[_Page] = []
        self._bytes = 0

    @property
    def blocked(self) -> set[str]:
        """Devices whose next entry exceeded the limit on days."""
        return {device for device, fit in self.short.items() if fit is Fit.DAYS}

    def add(self, device_id: str, page: list[RawEntry]) -> bool:
        """Take a page, if it fits, after the previous device's. False if no more of this device can be taken."""
        page_bytes = size_bytes(page)
        self._pages.append((device_id, page, page_bytes))
        self._bytes += page_bytes
        if self._bytes >= PIECE_BYTES:
            self.take_pages()
        return device_id not in self.short

    def tail(self) -> Tail:
        """The records taken."""
        self.take_pages()
        return Tail(self._columns.table(), self._unreadable)

    def take_pages(self) -> None:
        """Take the added pages."""
        pages = self._pages
        self._pages, self._bytes = [], 0
        page = read_page(list(chain.from_iterable(entries for _, entries, _ in pages)), self._shards)
        if page is None or any(device in self.short for device, _, _ in pages) or not self._take_all(pages, page):
            for device_id, entries, _ in pages:
                if device_id not in self.short:
                    self._take_one_by_one(device_id, entries)

    def _take_all(self, pages: Sequence[_Page], page: Page) -> bool:
        sizes = iter(page.sizes)
        counts = [sum(islice(sizes, len(entries))) for _, entries, _ in pages]
        devices = [device_id for device_id, _, _ in pages]
        if not self.budget.take_all(devices, [page_bytes for _, _, page_bytes in pages], counts, page.rows):
            return False
        self._columns.add_piece(devices, counts, page.arrivals_us, page.ids, page.rows)
        for (device_id, entries, page_bytes), count in zip(pages, counts, strict=True):
            self._note(device_id, entries, count, page_bytes)
        return True

    def _take_one_by_one(self, device_id: str, entries: list[RawEntry]) -> None:
        """Take entries as far as they fit."""
        count = fit = 0
        for entry in entries:
            unreadable: list[Unreadable] = []
            block = read_block(device_id, entry, self._shards, unreadable.append)
            result = self.budget.take(device_id, size_bytes([entry]), block.rows if block else ())
            if result is not Fit.TAKEN:
                self.short[device_id] = result
                break
            fit += 1
            count += len(unreadable)
            self._unreadable.extend(unreadable)
            if block is not None:
                count += len(block.rows)
                self._columns.add(block)
        if fit:
            self._note(device_id, entries[:fit], count, size_bytes(entries[:fit]))

    def _note(self, device_id: str, entries: list[RawEntry], count: int, taken_bytes: int) -> None:
        """Extend a range over the entries taken."""
        last = entries[-1][0].decode()
        before = self.ranges.get(device_id)
        marks = last_marks(entries)
        is_marked = marks != b""
        if is_marked:
            self.marks[device_id] = with_later(self.marks.get(device_id, b""), marks)
        if before is not None:
            total = before.records + count, before.size_bytes + taken_bytes, before.is_marked or is_marked
            self.ranges[device_id] = Range(device_id, before.first, last, *total)
        else:
            first = entries[0][0].decode() if len(entries) > 1 else last
            self.ranges[device_id] = Range(device_id, first, last, count, taken_bytes, is_marked)


def choose(shard: Shard, bounds: Bounds, today: int, turns: Turns | None = None) -> Plan:
    """Read unsaved records until they end or a bound is reached. `today` is a day since the epoch, by the box's clock.

    If all may be taken, they are taken in the order of files, so that no sorting is needed. Otherwise, or if the
    previous save left out entries (`turns`), devices take turns: each gets its share, and then the rest of the bounds
    is used. A device therefore waits for at most as many saves as there are other devices.
    """
    standing = shard.standing()
    records, unsaved_bytes, count = shard.waiting()
    most_entries = max(LOOK_ENTRIES, min(2 * records // max(count, 1), READ_ENTRIES))
    turns = turns or Turns()
    if not turns.is_behind and count < bounds.max_devices and records <= bounds.max_records:
        taking = _Taking(shard.shards, Budget(bounds, today, None), unsaved_bytes)
        _look(taking, shard, iter(sorted(_dirty(shard))), most_entries)
        left = taking.budget.is_spent
    else:
        taking = _Taking(shard.shards, Budget(bounds, today, Share.of(bounds, count)), unsaved_bytes)
        left = _take_in_turn(taking, shard, turns, bounds.max_devices, most_entries)
    turns.is_behind = bool(left or taking.short)
    return Plan(list(taking.ranges.values()), taking.tail(), not turns.is_behind, standing, taking.marks)


def _take_in_turn(taking: _Taking, shard: Shard, turns: Turns, most_devices: int, most_entries: int) -> bool:
    """Serve devices in turn. True if some were left out."""
    turns.read_names(_dirty(shard))
    looked_at = _look(taking, shard, islice(turns.next_order(taking.budget), most_devices), most_entries)
    if not taking.budget.is_spent and turns.are_over(looked_at):
        more = turns.read_more(_dirty(shard), looked_at)
        looked_at |= _look(taking, shard, islice(more, most_devices - len(looked_at)), most_entries)
    taking.budget.share = None
    for device_id in list(taking.short):
        _take_rest(taking, shard, device_id)
    turns.note(taking, looked_at)
    return bool(turns.waiting or turns.blocked or taking.budget.is_spent)


def _take_rest(taking: _Taking, shard: Shard, device_id: str) -> None:
    """Take the rest of a device's stream, as far as it fits."""
    taken, budget = taking.ranges.get(device_id), taking.budget
    if taken is None or budget.is_spent or (budget.has_no_days and taking.short[device_id] is Fit.DAYS):
        return
    del taking.short[device_id]
    start, count = entry_text(behind(entry_id(taken.last))), page_entries(shard, device_id, taking.unsaved_bytes)
    while page := shard.entries([(device_id, start, "+")], count)[0]:
        if not taking.add(device_id, page) or len(page) < count:
            break
        start = next_of(page)
    taking.take_pages()


def _look(taking: _Taking, shard: Shard, devices: Iterator[str], most_entries: int) -> set[str]:
    """Take devices' streams until a bound is reached. Returns the devices that were read."""
    looked_at: set[str] = set()
    for part, count in pieces(shard, devices, most_entries, taking.unsaved_bytes):
        entries = heads(shard, part, count)
        for device_id, page in entries.items():
            _take_stream(taking, shard, device_id, page, count)
        looked_at.update(part)
        taking.empty.update(part - entries.keys())
        if taking.budget.is_spent:
            break
    taking.take_pages()
    return looked_at


def _dirty(shard: Shard) -> Iterator[str]:
    """Devices with unsaved records, longest waiting first, each once: devices added meanwhile may shift others if the
    clock was set back.
    """
    known: set[str] = set()
    start = 0
    while names := shard.dirty(start, READ_NAMES):
        yield from (device for device in names if device not in known)
        known.update(names)
        start += len(names)


def _take_stream(taking: _Taking, shard: Shard, device_id: str, first: list[RawEntry], count: int) -> None:
    """Take a stream's first page and, if it has `count` entries, the following ones."""
    page = first
    while page and taking.add(device_id, page) and len(page) == count:
        if taking.budget.has_had_share(device_id):
            taking.short[device_id] = Fit.SHARE
            break
        if page is first:
            count = page_entries(shard, device_id, taking.unsaved_bytes)
        [page] = shard.entries([(device_id, next_of(page), "+")], count)


def still_holds(shard: Shard, plan: Plan) -> bool:
    """True if the ranges still have the entries that were read. Entries never change, new ones are appended, and all
    other changes of streams change the shard's state (shard.py: `Standing`).

    It needs one call, whatever the number of devices; reading the ends of each range would be slow.
    """
    return shard.standing().streams == plan.standing.streams


def read(shard: Shard, ranges: list[Range]) -> list[list[RawEntry]]:
    """The raw entries of each range."""
    results = []
    for at in range(0, len(ranges), READ_STREAMS):
        part = ranges[at : at + READ_STREAMS]
        results += shard.entries([(r.device_id, r.first, r.last) for r in part])
    return results


def decode(shard: Shard, ranges: Iterable[Range], raw: list[list[RawEntry]]) -> Tail:
    """The records of raw entries."""
    unreadable: list[Unreadable] = []
    columns = Columns()
    for found, entries in zip(ranges, raw, strict=True):
        for entry in entries:
            block = read_block(found.device_id, entry, shard.shards, unreadable.append)
            if block is not None:
                columns.add(block)
    return Tail(columns.table(), unreadable)
