"""The newest state of each device as JSON, and whose changed when.

Each change has a number, greater than all before, and a log says whose it was; a device's older entries there count no
more. So whoever knows a number is given what changed since, in the order of changes and some at a time, each as it is
when it is given. Places are kept in squares, so that an area finds its own devices without looking at all.

This file knows no clock, socket, file or Redis.
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

AN_EVENT = 250
"""Most states of one event: some 80 kB, and 2 ms."""

EVENT_BYTES = 2**20
"""Size of an event at which no further state is put into it."""

SHARED = 64
SHARED_BYTES = 2**24
"""Number and size of the events for readers of all that are kept for others that are as far."""

STATE_BYTES = 2**26
"""Memory limit for the JSON of all states. That of any further device is read from Redis for each event."""

LEAST_LOG = 1_000
"""Entries that the log may have, however few devices there are."""

SQUARES_A_DEGREE = 20

Place = tuple[float, float] | None
"""Latitude and longitude in degrees."""


Texts = Sequence[bytes]


class State(NamedTuple):
    """A device's newest state: the number of its last change, where it was, and its JSON.

    `json` is None if it is not kept in memory, or once the device was deleted: then `size` is 0. `mark` tells states
    of a device apart.
    """

    number: int
    place: Place
    json: bytes | None
    size: int = 0
    mark: int = 0

    @property
    def is_missing(self) -> bool:
        """Whether the JSON has to be read."""
        return self.json is None and self.size > 0


class Span(NamedTuple):
    """Consecutive entries of the log that make an event, and the number that is reached with it.

    Their positions mean something as long as `edition` is that of the log.
    """

    start: int
    end: int
    reached: int
    edition: int


class Changes:
    """All states, from when somebody began to follow them. `epoch` names that time: numbers of another say nothing."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.number = 0
        self._states: dict[str, State] = {}
        self._places = Places()
        self._numbers: list[int] = []
        self._devices: list[str] = []
        self._gone: dict[str, int] = {}
        self._shared: OrderedDict[Span, Texts] = OrderedDict()
        self._shared_bytes = 0
        self._edition = 0
        self._json_bytes = 0
        self._missing = 0

    def add(self, device: str, place: Place, json: bytes) -> None:
        """A device's state, which may be the same as before."""
        is_kept = self._json_bytes + len(json) <= STATE_BYTES
        self._add(device, place, json if is_kept else None, len(json), hash(json))

    def add_large(self, device: str, place: Place, size: int, mark: int) -> None:
        """The same of one whose JSON, of about this size, is not kept in memory."""
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
        if len(self._devices) > max(LEAST_LOG, 2 * len(self._states)):
            self._shorten()

    def _count(self, state: State | None, sign: int) -> None:
        if state is not None:
            self._json_bytes += sign * len(state.json or b"")
            self._missing += sign * state.is_missing

    def _drop_shared(self) -> None:
        self._shared.clear()
        self._shared_bytes = 0
        self._edition += 1

    def forget(self, device: str) -> None:
        """There is no such device any more: nobody is shown it, not even by a text that is kept for others."""
        if device in self._states and self._states[device].size:
            self._change(device, None, None)
            self._gone.pop(device, None)
            self._gone[device] = self.number
            self._drop_shared()

    def drop_gone(self, until: int) -> None:
        """Nobody needs to hear any more of devices that were deleted up to a number."""
        for device, number in list(self._gone.items()):
            if number > until:
                return
            del self._gone[device]
            if self._states[device].number == number:
                del self._states[device]
                self._drop_shared()

    def _shorten(self) -> None:
        """Leave out of the log what counts no more."""
        entries = list(self._entries(0, len(self._devices)))
        self._numbers = [state.number for _, state in entries]
        self._devices = [device for device, _ in entries]
        self._drop_shared()

    def since(self, number: int) -> Iterator[tuple[str, State]]:
        """What has changed since a number, in the order of changes."""
        return self._entries(bisect_right(self._numbers, number), len(self._devices))

    def among(self, devices: Iterable[str], number: int) -> list[tuple[str, State]]:
        """Those of some devices that have changed since a number, in the order of changes."""
        found = [(device, self._states[device]) for device in devices if device in self._states]
        return sorted((one for one in found if one[1].number > number), key=lambda one: one[1].number)

    def near(self, area: Area) -> Iterator[str]:
        """The devices that may be in an area: all that are, and some around it."""
        return self._places.near(area)

    def next_span(self, number: int) -> Span:
        """What the next event for readers of all that have reached a number is made of; empty if nothing has changed.

        Readers that are as far share it: events end at the same entries of the log, wherever they begin.
        """
        start = bisect_right(self._numbers, number)
        end = min(start - start % AN_EVENT + AN_EVENT, len(self._numbers))
        if self._missing:
            end = self._cut(start, end)
        reached = self.number if end == len(self._numbers) else self._numbers[end - 1]
        return Span(start, end, reached, self._edition)

    def _cut(self, start: int, end: int) -> int:
        """Where an event ends that would be too large with all of these entries."""
        size = 0
        for position in range(start, end):
            state = self._states.get(self._devices[position])
            if state is not None and state.number == self._numbers[position]:
                size += state.size
                if size >= EVENT_BYTES:
                    return position + 1
        return end

    def shared(self, span: Span) -> Texts | None:
        """The event of a span, if it was made for another reader."""
        return self._shared.get(span)

    def share(self, span: Span, texts: Texts) -> None:
        """Keep the event of a span for other readers, unless the log is another one meanwhile."""
        if span.edition != self._edition or span in self._shared:
            return
        self._shared[span] = texts
        self._shared_bytes += _size(texts)
        while len(self._shared) > 1 and (len(self._shared) > SHARED or self._shared_bytes > SHARED_BYTES):
            self._shared_bytes -= _size(self._shared.popitem(last=False)[1])

    def states_in(self, span: Span) -> list[tuple[str, State]]:
        """The states of a span."""
        return list(self._entries(span.start, span.end))

    def event(self, states: Sequence[tuple[str, State]], reached: int, read: Mapping[str, Texts] = {}) -> Texts:
        """States as one event; nothing for none. `read` has the JSON of those that are missing, as far as they still
        exist."""
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
        if gone := [device for device, state in states if not state.size]:
            end += b',"gone":' + msgspec.json.encode(gone)
        return *texts, b"".join(small) + end + f"}}\nid: {self.epoch}-{reached}\n\n".encode()

    def _entries(self, start: int, end: int) -> Iterator[tuple[str, State]]:
        """The devices between two places of the log whose last change lies there."""
        numbers, devices = islice(self._numbers, start, end), islice(self._devices, start, end)
        for number, device in zip(numbers, devices, strict=True):
            state = self._states.get(device)
            if state is not None and state.number == number:
                yield device, state


def _size(texts: Texts) -> int:
    return sum(map(len, texts))


class Places:
    """Which devices are where, by squares of the earth."""

    def __init__(self) -> None:
        self._squares: defaultdict[tuple[int, int], set[str]] = defaultdict(set)

    def move(self, device: str, before: Place, after: Place) -> None:
        """A device has a new place, or none."""
        old, new = _square(before), _square(after)
        if old == new:
            return
        if old is not None:
            self._squares[old].discard(device)
            if not self._squares[old]:
                del self._squares[old]
        if new is not None:
            self._squares[new].add(device)

    def near(self, area: Area) -> Iterator[str]:
        """The devices in all squares that an area touches."""
        rows, columns = _squares(area.south, area.north), _columns(area)
        if len(rows) * sum(map(len, columns)) < len(self._squares):
            touched = ((row, column) for some in columns for column in some for row in rows)
            found = (self._squares[square] for square in touched if square in self._squares)
        else:
            found = (
                devices
                for (row, column), devices in self._squares.items()
                if row in rows and any(column in some for some in columns)
            )
        for devices in found:
            yield from devices


def _square(place: Place) -> tuple[int, int] | None:
    return place and (floor(place[0] * SQUARES_A_DEGREE), floor(place[1] * SQUARES_A_DEGREE))


def _squares(first: float, last: float) -> range:
    return range(floor(first * SQUARES_A_DEGREE), floor(last * SQUARES_A_DEGREE) + 1)


def _columns(area: Area) -> list[range]:
    if area.west <= area.east:
        return [_squares(area.west, area.east)]
    return [_squares(area.west, 180), _squares(-180, area.east)]
