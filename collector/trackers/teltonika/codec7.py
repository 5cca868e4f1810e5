"""Teltonika's codec 7 (GH3000). A mask shows which parts a record has.

record: priority (2 bits) and s since 2007 (30 bits), a mask: 1 position; 2, 4, 8 values of one, two, four bytes
position: a mask: 1 latitude and longitude f32, 2 altitude u16 m, 4 heading u8 of 256, 8 speed u8 km/h,
        10 satellites u8, 20 area and cell u16, 40 signal u8, 80 network u32
values: count u8, then number u8 and value of each
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from collector.trackers.position import NOWHERE, Attributes, Position, cell
from collector.trackers.teltonika.io_elements import is_named

SINCE_S = 1_167_609_600
"""2007-01-01, the epoch of its times."""

_NAMES: dict[int, tuple[str, int, int]] = {
    1: ("battery_percent", 1, 1),
    20: ("hdop", 2, 10),
    22: ("pdop", 2, 10),
    67: ("battery_v", 2, 1_000),
    222: ("alarm", 1, 1),
    240: ("motion", 1, 1),
}
"""Number → attribute, maximum size in bytes, and divisor."""

_SIZES = ((0x02, "B", 1), (0x04, "H", 2), (0x08, "I", 4))
"""Bit of the mask, layout and size in bytes of a value."""


class DecodedRecord(NamedTuple):
    """A record; `end` is the position after it."""

    at_us: int
    attributes: Attributes
    position: Position
    end: int


class _Values:
    """Reads values in sequence; values that the mask omits are None. Raises `struct.error`."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self.at = at
        self.mask = 0xFF

    def take(self, layout: str) -> int:
        (value,) = struct.unpack_from(f">{layout}", self._data, self.at)
        self.at += struct.calcsize(f">{layout}")
        return int(value) if layout != "f" else value

    def if_set(self, bit: int, layout: str) -> int | None:
        return self.take(layout) if self.mask & bit else None


def read(data: bytes, at: int) -> DecodedRecord:
    """Decode the record that begins at `at`. Raises `struct.error` if it is longer than the data."""
    values = _Values(data, at)
    head, parts = values.take("I"), values.take("B")
    attributes: Attributes = {"priority": head >> 30}
    position = _place(values, attributes) if parts & 1 else NOWHERE
    for bit, layout, size_bytes in _SIZES:
        for _ in range(values.take("B") if parts & bit else 0):
            attributes |= _named(values.take("B"), values.take(layout), size_bytes)
    return DecodedRecord(((head & 0x3FFF_FFFF) + SINCE_S) * 1_000_000, attributes, position, values.at)


def _place(values: _Values, attributes: Attributes) -> Position:
    values.mask = values.take("B")
    latitude, longitude = values.if_set(0x01, "f"), values.if_set(0x01, "f")
    altitude_m, turn, speed_kmh = values.if_set(0x02, "H"), values.if_set(0x04, "B"), values.if_set(0x08, "B")
    attributes["satellites"] = values.if_set(0x10, "B")
    lac, cid = values.if_set(0x20, "H"), values.if_set(0x20, "H")
    attributes["gsm_signal"], attributes["operator"] = values.if_set(0x40, "B"), values.if_set(0x80, "I")
    operator = attributes["operator"]
    if lac and cid and isinstance(operator, int):
        attributes["cells"] = [cell(*divmod(operator, 100), lac, cid)]
    heading_deg = None if turn is None else turn * 360 / 256
    is_fix = attributes["satellites"] != 0 and (latitude, longitude) != (0, 0)
    if latitude is None:
        return NOWHERE
    return Position(latitude, longitude, altitude_m, speed_kmh, heading_deg, is_fix=is_fix)


def _named(number: int, value: int, size_bytes: int) -> Attributes:
    known = _NAMES.get(number)
    if known is None or not is_named(known[0], known[1], value, size_bytes):
        return {f"io{number}": value}
    name, _, divisor = known
    if name == "alarm":
        return {"alarm": "sos"} if value else {}
    if name == "motion":
        return {"motion": value != 0}
    return {name: value if divisor == 1 else value / divisor}
