"""The newest state of each device as JSON, and a log of changes.

Each change has an increasing number, and a log maps numbers to devices. Only a device's last entry counts. A reader
that knows a number receives the states that have changed since, in the order of changes, several at a time; each state
is the newest at the time of sending. Positions are indexed by grid cells, so that an area need not scan all devices.

Pure: uses no clock, socket, file or Redis.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import floor
from typing import NamedTuple

import msgspec

from api.geo.area import Area

MAX_EVENT_STATES = 250
"""Maximum states of one event."""

EVENT_BYTES = 2**20
"""Size of an event at which no further state is added."""

MAX_SHARED = 64
MAX_SHARED_BYTES = 2**24
"""Maximum number and memory limit of cached events. Readers of all devices that are equally far share them."""

MAX_STATE_BYTES = 2**26
"""Memory limit for the JSON of all states. The JSON of other devices is read from Redis for each event."""

MIN_LOG = 1_000
"""The log is not compacted up to this number of entries."""

CELLS_PER_DEGREE = 20

Place = tuple[float, float] | None
"""Latitude and longitude in degrees."""


Texts = Sequence[bytes]


class State(NamedTuple):
    """A device's newest state: the number of its last change, its position, and its JSON.

    `json` is None if it is not in memory. It is also None for a deleted device, whose `size` is 0. `mark` is a hash
    that distinguishes states of a device.
    """

    number: int
    place: Place
    json: bytes | None
    size: int = 0
    mark: int = 0

    @property
    def is_missing(self) -> bool:
        """True if the JSON must be read from Redis."""
        return self.json is None and self.size > 0


class Span(NamedTuple):
    """Consecutive entries of the log for one event, and the number that a reader has reached after it.

    The positions are valid as long as `edition` is the log's current edition.
    """

    start: int
    end: int
    reached: int
    edition: int


class ChangeLog:
    """All states since the first reader connected. Numbers are comparable only within the same `epoch`."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.number = 0
        self._states: dict[str, State] = {}
        self._places = PlaceIndex()
        self._numbers: list[int] = []
        self._devices: list[str] = []
        self._deleted: dict[str, int] = {}
        self._shared: OrderedDict[Span, Texts] = OrderedDict()
        self._shared_bytes = 0
        self._edition = 0
        self._json_bytes = 0
        self._missing = 0

    def add(self, device: str, place: Place, json: bytes) -> None:
        """Note a device's state; one that equals the known state is no change."""
        has_room = self._json_bytes + len(json) <= MAX_STATE_BYTES
        self._add(device, place, json if has_room else None, len(json), hash(json))

    def add_large(self, device: str, place: Place, size: int, mark: int) -> None:
        """Note a state whose JSON, of about this size, is not kept in memory."""
        self._add(device, place, None, size, mark)

    def _add(self, device: str, place: Place, json: bytes | None, size: int, mark: int) -> None:
        known = self._states.get(device)
        if known is None or known.size == 0 or known.mark != mark:
            self._change(device, place, json, size, mark)

    def _change(self, device: str, place: Place, json: bytes | None, size: int = 0, mark: int = 0) -> None:
        known = self._states.get(device)
        self._count(known, -1)
        self.number += 1
        self._states[device] = state = State(self.number, place, json, size, mark)
        self._count(state, 1)
        self._places.move(device, known and known.place, place)
        self._numbers.append(self.number)
        self._devices.append(device)
        if len(self._devices) > max(MIN_LOG, 2 * len(self._states)):
            self._compact()

    def _count(self, state: State | None, sign: int) -> None:
        if state is not None:
            self._json_bytes += sign * len(state.json or b"")
            self._missing += sign * state.is_missing

    def _drop_shared(self) -> None:
        self._shared.clear()
        self._shared_bytes = 0
        self._edition += 1

    def forget(self, device: str) -> None:
        """Note that a device was deleted. Cached events that contain it are dropped."""
        if device in self._states and self._states[device].size:
            self._change(device, None, None)
            self._deleted.pop(device, None)
            self._deleted[device] = self.number
            self._drop_shared()

    def drop_deleted(self, until: int) -> None:
        """Drop devices that were deleted up to a number: readers are no longer notified of them."""
        for device, number in list(self._deleted.items()):
            if number > until:
                return
            del self._deleted[device]
            if self._states[device].number == number:
                del self._states[device]
                self._drop_shared()

    def _compact(self) -> None:
        """Remove outdated entries from the log."""
        entries = list(self._entries(0, len(self._devices)))
        self._numbers = [state.number for _, state in entries]
        self._devices = [device for device, _ in entries]
        self._drop_shared()

    def since(self, number: int) -> Iterator[tuple[str, State]]:
        """Devices whose state has changed since a number, in the order of changes."""
        return self._entries(bisect_right(self._numbers, number), len(self._devices))

    def among(self, devices: Iterable[str], number: int) -> list[tuple[str, State]]:
        """The given devices whose state has changed since a number, in the order of changes."""
        states = [(device, self._states[device]) for device in devices if device in self._states]
        return sorted((item for item in states if item[1].number > number), key=lambda item: item[1].number)

    def near(self, area: Area) -> Iterator[str]:
        """Candidates for an area: all devices in it, and some near it."""
        return self._places.near(area)

    def next_span(self, number: int) -> Span:
        """The entries of the next event for readers of all devices that have reached a number; empty without changes.

        Events end at the same entries of the log, wherever they begin, so that readers soon share events.
        """
        start = bisect_right(self._numbers, number)
        end = min(start - start % MAX_EVENT_STATES + MAX_EVENT_STATES, len(self._numbers))
        if self._missing:
            end = self._cut(start, end)
        reached = self.number if end == len(self._numbers) else self._numbers[end - 1]
        return Span(start, end, reached, self._edition)

    def _cut(self, start: int, end: int) -> int:
        """The end of an event, before `end` if its size would exceed the limit."""
        size = 0
        for position in range(start, end):
            state = self._states.get(self._devices[position])
            if state is not None and state.number == self._numbers[position]:
                size += state.size
                if size >= EVENT_BYTES:
                    return position + 1
        return end

    def shared(self, span: Span) -> Texts | None:
        """The cached event of a span, if any."""
        return self._shared.get(span)

    def share(self, span: Span, texts: Texts) -> None:
        """Cache the event of a span for other readers, unless the log's edition has changed."""
        if span.edition != self._edition or span in self._shared:
            return
        self._shared[span] = texts
        self._shared_bytes += _size(texts)
        while len(self._shared) > 1 and (len(self._shared) > MAX_SHARED or self._shared_bytes > MAX_SHARED_BYTES):
            self._shared_bytes -= _size(self._shared.popitem(last=False)[1])

    def states_in(self, span: Span) -> list[tuple[str, State]]:
        """The states of a span."""
        return list(self._entries(span.start, span.end))

    def event(self, states: Sequence[tuple[str, State]], reached: int, read: Mapping[str, Texts] = {}) -> Texts:
        """One event with all states; empty without states. `read` has the JSON of states that are not in memory, if the
        devices still exist."""
        if not states:
            return ()
        texts, small = list[bytes](), [b'event: latest\ndata: {"records":[']
        comma = b""
        for device, state in states:
            if state.json is not None:
                small += (comma, state.json)
            elif device in read:
                texts += (b"".join([*small, comma]), *read[device])
                small = []
            else:
                continue
            comma = b","
        end = b"]"
        if deleted := [device for device, state in states if not state.size]:
            end += b',"gone":' + msgspec.json.encode(deleted)
        return *texts, b"".join(small) + end + f"}}\nid: {self.epoch}-{reached}\n\n".encode()

    def _entries(self, start: int, end: int) -> Iterator[tuple[str, State]]:
        """The devices whose last change lies between two positions of the log."""
        numbers, devices = islice(self._numbers, start, end), islice(self._devices, start, end)
        for number, device in zip(numbers, devices, strict=True):
            state = self._states.get(device)
            if state is not None and state.number == number:
                yield device, state


def _size(texts: Texts) -> int:
    return sum(map(len, texts))


class PlaceIndex:
    """Grid index of device positions."""

    def __init__(self) -> None:
        self._cells: defaultdict[tuple[int, int], set[str]] = defaultdict(set)

    def move(self, device: str, before: Place, after: Place) -> None:
        """Move a device to its new position; None if it has none."""
        old, new = _cell(before), _cell(after)
        if old == new:
            return
        if old is not None:
            self._cells[old].discard(device)
            if not self._cells[old]:
                del self._cells[old]
        if new is not None:
            self._cells[new].add(device)

    def near(self, area: Area) -> Iterator[str]:
        """The devices in all cells that an area touches."""
        rows, columns = _cells(area.south, area.north), _columns(area)
        if len(rows) * sum(map(len, columns)) < len(self._cells):
            touched = ((row, column) for some in columns for column in some for row in rows)
            groups = (self._cells[cell] for cell in touched if cell in self._cells)
        else:
            groups = (
                devices
                for (row, column), devices in self._cells.items()
                if row in rows and any(column in some for some in columns)
            )
        for devices in groups:
            yield from devices


def _cell(place: Place) -> tuple[int, int] | None:
    return place and (floor(place[0] * CELLS_PER_DEGREE), floor(place[1] * CELLS_PER_DEGREE))


def _cells(first: float, last: float) -> range:
    return range(floor(first * CELLS_PER_DEGREE), floor(last * CELLS_PER_DEGREE) + 1)


def _columns(area: Area) -> list[range]:
    if area.west <= area.east:
        return [_cells(area.west, area.east)]
    return [_cells(area.west, 180), _cells(-180, area.east)]
