"""Common values in the contents of GT06 frames, and the meaning of their codes.

place: date and time (6 bytes, the device's clock), satellites in the low half of a byte, latitude and longitude u32
       (1/1,800,000 degrees), speed u8 (km/h), and 16 bits: 0-9 heading, 10 north, 11 west, 12 has a fix,
       14 and 15 ignition known and on
cell:  country u16 (highest bit set: the network has two bytes), network u8, area u16, cell u24; in newer frames
       area u32, cell u64
state: bits (1 ignition, 2 charging, 3-5 alarm, 7 cut off), battery 0-6, signal 0-4, alarm, language
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo

from collector.trackers.position import Attributes, Position, cell, moment_us

Content = tuple[int | None, Attributes, Position]
"""Time (µs since the epoch, None = not sent), attributes and position."""

PLACE_BYTES = 18
STATE_BYTES = 5
DEGREE = 1_800_000
FULL_BATTERY = 6
MAC_BYTES = 6
NAME_BYTES = 8
CELL_BYTES = {8: (1, 2, 3), 9: (1, 2, 4), 10: (2, 2, 4), 15: (1, 4, 8), 16: (2, 4, 8)}
"""Size of a cell → sizes of its network, area and number, all in bytes."""

ALARMS = {
    0x01: "sos",
    0x02: "power_cut",
    0x03: "vibration",
    0x04: "geofence_enter",
    0x05: "geofence_exit",
    0x06: "overspeed",
    0x09: "vibration",
    0x0C: "tampering",
    0x0E: "low_battery",
    0x0F: "low_battery",
    0x11: "power_off",
    0x12: "tow",
    0x13: "tampering",
    0x14: "door",
    0x18: "removing",
    0x19: "low_battery",
    0x1A: "hard_braking",
    0x1B: "hard_cornering",
    0x23: "fall_down",
    0x25: "tampering",
    0x26: "hard_acceleration",
    0x27: "hard_braking",
    0x28: "hard_braking",
    0x29: "hard_acceleration",
    0x2A: "hard_cornering",
    0x2B: "hard_cornering",
    0x2C: "accident",
    0x2E: "hard_cornering",
    0x30: "hard_braking",
}
STATE_ALARMS = {1: "vibration", 2: "power_cut", 3: "low_battery", 4: "sos", 6: "geofence", 7: "removing"}
"""Bits 3-5 of a state → alarm."""


class Body:
    """Reads a content in sequence. Raises `IndexError` if it is too short."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size_bytes: int) -> bytes:
        if size_bytes > self.left:
            raise IndexError(size_bytes)
        self._at += size_bytes
        return self._data[self._at - size_bytes : self._at]

    def peek(self, size_bytes: int) -> Body:
        """The next bytes, fewer at the end, without consuming them."""
        return Body(self._data[self._at : self._at + size_bytes])

    def rest(self, but_bytes: int = 0) -> bytes:
        """All remaining bytes, except the last `but_bytes`."""
        return self.take(max(self.left - but_bytes, 0))

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return self.number(2)

    def u32(self) -> int:
        return self.number(4)

    def number(self, size_bytes: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size_bytes), "big", signed=signed)

    def modules(self, length_bytes: int) -> list[tuple[int, Body]]:
        """All remaining modules: each has its kind (u16), its length, and its bytes."""
        found = []
        while self.left:
            kind = self.u16()
            found.append((kind, Body(self.take(self.number(length_bytes)))))
        return found


Parser = Callable[[Body, tzinfo], Content | None]
"""Parser of a type of content; None if it has nothing for a record. Raises `IndexError` or `RecordError`."""


def read_time(body: Body, zone: tzinfo) -> int:
    """µs since the epoch."""
    year, month, day, hour, minute, second = body.take(6)
    return moment_us(year, month, day, hour, minute, second, zone)


def read_place(body: Body, zone: tzinfo) -> Content:
    return read_time(body, zone), *read_fix(body)


def read_fix(body: Body) -> tuple[Attributes, Position]:
    """A position without its time."""
    satellites = body.u8() & 0x0F
    latitude, longitude, speed_kmh, bits = body.u32(), body.u32(), body.u8(), body.u16()
    attributes: Attributes = {"satellites": satellites, **ignition(bits)}
    return attributes, located(latitude, longitude, speed_kmh, bits)


def ignition(bits: int) -> Attributes:
    """Ignition in the 16 bits of a position."""
    return {"ignition": bool(bits & 0x8000)} if bits & 0x4000 else {}


def located(latitude: int, longitude: int, speed_kmh: int | None, bits: int) -> Position:
    return Position(
        latitude / DEGREE * (1 if bits & 0x0400 else -1) + 0.0,
        longitude / DEGREE * (-1 if bits & 0x0800 else 1) + 0.0,
        speed_kmh=speed_kmh,
        heading_deg=bits & 0x03FF,
        is_fix=bool(bits & 0x1000) and (latitude, longitude) != (0, 0),
    )


def read_network(body: Body, mnc_bytes: int = 1) -> tuple[int, int]:
    """Country and network."""
    mcc = body.u16()
    return mcc & 0x7FFF, body.number(2 if mcc & 0x8000 else mnc_bytes)


def read_cell(body: Body, area_bytes: int = 2, cell_bytes: int = 3, mnc_bytes: int = 1) -> Attributes:
    """A cell; empty if it is all zeros, or if the content is too short."""
    if body.left < 3:
        body.rest()
        return {}
    mcc, mnc = read_network(body, mnc_bytes)
    if body.left < area_bytes + cell_bytes:
        body.rest()
        return {}
    lac, cid = body.number(area_bytes), body.number(cell_bytes)
    return {"cells": [cell(mcc, mnc, lac, cid)]} if mcc or lac or cid else {}


def cell_of_size(data: bytes) -> Attributes:
    """A cell; the sizes of its parts follow from its size."""
    if len(data) not in CELL_BYTES:
        return {}
    mnc_bytes, area_bytes, cell_bytes = CELL_BYTES[len(data)]
    is_wide = bool(data[0] & 0x80) and mnc_bytes == 1  # the network takes a byte of the cell
    return read_cell(Body(data), area_bytes, cell_bytes - is_wide, mnc_bytes)


def state_bits(bits: int) -> Attributes:
    return {
        "status": bits,
        "ignition": bool(bits & 2),
        "charging": bool(bits & 4),
        "blocked": bool(bits & 0x80),
        "alarm": STATE_ALARMS.get(bits >> 3 & 7),
    }


def read_state(body: Body) -> Attributes:
    """A state; language, alarm and signal may be missing. The alarm is taken from the code, otherwise from the bits."""
    attributes = state_bits(body.u8())
    attributes["battery_percent"] = battery_percent(body.u8())
    attributes["gsm_signal"] = body.u8() if body.left else None
    code = body.u8() if body.left else 0
    if body.left:
        body.u8()  # the language
    return attributes | ({"alarm": ALARMS[code]} if code in ALARMS else {})


def battery_percent(level: int) -> int | None:
    """Battery charge: steps up to 6, percent above."""
    if level <= FULL_BATTERY:
        return level * 100 // FULL_BATTERY
    return level if level <= 100 else None


def access_points(body: Body, count: int) -> list[dict[str, object]]:
    whole = min(count, body.left // (MAC_BYTES + 1))
    return [{"mac": body.take(MAC_BYTES).hex(":"), "level": -body.u8()} for _ in range(whole)]


def readable(data: bytes) -> str:
    """Decode printable ASCII text; empty if the data is not text."""
    text = data.decode("ascii", "replace").strip("\0\r\n ")
    return text if text.isprintable() and "\ufffd" not in text else ""
