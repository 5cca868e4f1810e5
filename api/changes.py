"""The newest state of each device as JSON, and whose changed when.

Each change has a number, greater than all before, and a log says whose it was; a device's older entries there count no
more. So whoever knows a number is given what changed since, in the order of changes and some at a time, each as it is
when it is given. Places are kept in squares, so that an area finds its own devices without looking at all.

This file knows no clock, socket, file or Redis.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import floor
from typing import NamedTuple

import msgspec

from api.area import Area

AN_EVENT = 250
"""Most states of one event: some 80 kB, and 2 ms."""

SHARED = 64
"""Events for readers of all that are kept for others that are as far."""

LEAST_LOG = 1_000
"""Entries that the log may have, however few devices there are."""

SQUARES_A_DEGREE = 20

Place = tuple[float, float] | None
"""Latitude and longitude in degrees."""


class State(NamedTuple):
    """A device's newest state: the number of its last change, where it was, and its JSON; None once it was deleted."""

    number: int
    place: Place
    json: bytes | None


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
        self._texts: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def add(self, device: str, place: Place, json: bytes) -> None:
        """A device's state, which may be the same as before."""
        known = self._states.get(device)
        if known is not None and known.json == json:
            return
        self._change(device, place, json)

    def _change(self, device: str, place: Place, json: bytes | None) -> None:
        known = self._states.get(device)
        self.number += 1
        self._states[device] = State(self.number, place, json)
        self._places.move(device, known and known.place, place)
        self._numbers.append(self.number)
        self._devices.append(device)
        if len(self._devices) > max(LEAST_LOG, 2 * len(self._states)):
            self._shorten()

    def forget(self, device: str) -> None:
        """There is no such device any more: nobody is shown it, not even by a text that is kept for others."""
        if device in self._states and self._states[device].json is not None:
            self._change(device, None, None)
            self._gone.pop(device, None)
            self._gone[device] = self.number
            self._texts.clear()

    def drop_gone(self, until: int) -> None:
        """Nobody needs to hear any more of devices that were deleted up to a number."""
        for device, number in list(self._gone.items()):
            if number > until:
                return
            del self._gone[device]
            if self._states[device].number == number:
                del self._states[device]
                self._texts.clear()

    def _shorten(self) -> None:
        """Leave out of the log what counts no more."""
        entries = list(self._entries(0, len(self._devices)))
        self._numbers = [state.number for _, state in entries]
        self._devices = [device for device, _ in entries]
        self._texts.clear()

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

    def next_event(self, number: int) -> tuple[bytes, int]:
        """The next of what has changed since a number, and the number that is reached with it; empty if nothing has.

        Readers of all that are as far share it: events end at the same entries of the log, wherever they begin.
        """
        start = bisect_right(self._numbers, number)
        end = min(start - start % AN_EVENT + AN_EVENT, len(self._numbers))
        reached = self.number if end == len(self._numbers) else self._numbers[end - 1]
        if (start, end) not in self._texts:
            self._texts[start, end] = self.event(list(self._entries(start, end)), reached)
            if len(self._texts) > SHARED:
                self._texts.popitem(last=False)
        return self._texts[start, end], reached

    def event(self, states: Sequence[tuple[str, State]], reached: int) -> bytes:
        """States as one event; nothing for none."""
        if not states:
            return b""
        text = b'event: latest\ndata: {"records":[' + b",".join([one.json for _, one in states if one.json]) + b"]"
        if gone := [device for device, one in states if one.json is None]:
            text += b',"gone":' + msgspec.json.encode(gone)
        return text + f"}}\nid: {self.epoch}-{reached}\n\n".encode()

    def _entries(self, start: int, end: int) -> Iterator[tuple[str, State]]:
        """The devices between two places of the log whose last change lies there."""
        numbers, devices = islice(self._numbers, start, end), islice(self._devices, start, end)
        for number, device in zip(numbers, devices, strict=True):
            state = self._states.get(device)
            if state is not None and state.number == number:
                yield device, state


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
