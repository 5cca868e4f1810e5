"""What the contents of GT06's frames mean, by their type.

place: date and time (6 bytes, the device's clock), satellites in the low half of a byte, latitude and longitude u32
       (1/1,800,000 degrees), speed u8 (km/h), and 16 bits: 0-9 heading, 10 north, 11 west, 12 has a fix,
       14 and 15 ignition known and on
cell:  country u16 (its highest bit: the network has two bytes), network u8, area u16, cell u24; in newer frames
       area u32, cell u64
state: bits (1 ignition, 2 charging, 3-5 alarm, 7 cut off), battery 0-6, signal 0-4, alarm, language
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import tzinfo

from collector.protocols.framed import FrameFault
from collector.protocols.tracker import NOWHERE, Attributes, Position, cell, moment_us

Content = tuple[int | None, Attributes, Position]
"""When (µs since the epoch; None: the frame doesn't say), what else, and where."""

PLACE_BYTES = 18
NAMED_BYTES = 15
"""Of a version, a device's number and a time before a place."""

STATE_BYTES = 5
DEGREE = 1_800_000
FULL_BATTERY = 6
MAC_BYTES = 6

ALARMS = {
    0x01: "sos",
    0x02: "power_cut",
    0x03: "vibration",
    0x04: "geofence_enter",
    0x05: "geofence_exit",
    0x06: "overspeed",
    0x09: "vibration",
    0x0E: "low_battery",
    0x0F: "low_battery",
    0x11: "power_off",
    0x12: "tow",
    0x13: "tampering",
    0x14: "door",
    0x19: "low_battery",
    0x23: "fall_down",
    0x29: "hard_acceleration",
    0x2C: "accident",
    0x30: "hard_braking",
}
STATE_ALARMS = {1: "vibration", 2: "power_cut", 3: "low_battery", 4: "sos", 7: "removing"}
"""Bits 3-5 of a state."""

_place = struct.Struct(">6sBIIBH")


def read(kind: int, body: bytes, zone: tzinfo) -> Content | None:
    """What a content says; None if nothing that a record could hold. Raises `FrameFault` or `RecordError`."""
    means = KINDS.get(kind)
    try:
        found = means(body, zone) if means else None
    except (struct.error, IndexError):
        raise FrameFault(f"the content of type {kind:02x} is too short") from None
    if found is None and body:
        return None, {"type": f"{kind:02x}", "raw": body.hex()}, NOWHERE
    return found


# Parts -----------------------------------------------------------------------------------------------


def _at_us(body: bytes, zone: tzinfo) -> int:
    year, month, day, hour, minute, second = struct.unpack_from("6B", body)
    return moment_us(year, month, day, hour, minute, second, zone)


def _read_place(body: bytes, zone: tzinfo, at: int = 0) -> Content:
    clock, satellites, latitude, longitude, speed_kmh, bits = _place.unpack_from(body, at)
    attributes: Attributes = {"satellites": satellites & 0x0F}
    if bits & 0x4000:
        attributes["ignition"] = bool(bits & 0x8000)
    position = Position(
        latitude / DEGREE * (1 if bits & 0x0400 else -1) + 0.0,
        longitude / DEGREE * (-1 if bits & 0x0800 else 1) + 0.0,
        speed_kmh=speed_kmh,
        heading_deg=bits & 0x03FF,
        is_fix=bool(bits & 0x1000) and (latitude, longitude) != (0, 0),
    )
    return _at_us(clock, zone), attributes, position


def _network(body: bytes, at: int) -> tuple[int, int, int]:
    """Country, network, and where what follows them begins."""
    (mcc,) = struct.unpack_from(">H", body, at)
    if mcc & 0x8000:
        return mcc & 0x7FFF, int.from_bytes(body[at + 2 : at + 4], "big"), at + 4
    return mcc, body[at + 2], at + 3


def _read_cell(body: bytes, at: int, area_bytes: int = 2, cell_bytes: int = 3) -> tuple[Attributes, int]:
    """A cell, if it is one, and where it ends."""
    mcc, mnc, at = _network(body, at)
    end = at + area_bytes + cell_bytes
    if end > len(body):
        return {}, len(body)
    lac, cid = int.from_bytes(body[at : at + area_bytes], "big"), int.from_bytes(body[at + area_bytes : end], "big")
    return ({"cells": [cell(mcc, mnc, lac, cid)]} if mcc or lac or cid else {}), end


def _read_state(state: bytes) -> Attributes:
    bits, battery, signal, *rest = state
    attributes: Attributes = {
        "status": bits,
        "ignition": bool(bits & 2),
        "charging": bool(bits & 4),
        "blocked": bool(bits & 0x80),
        "battery_percent": _battery_percent(battery),
        "gsm_signal": signal,
    }
    return {**attributes, "alarm": (ALARMS.get(rest[0]) if rest else None) or STATE_ALARMS.get(bits >> 3 & 7)}


def _battery_percent(level: int) -> int | None:
    """Six steps, but where it is clearly in percent."""
    if level <= FULL_BATTERY:
        return level * 100 // FULL_BATTERY
    return level if level <= 100 else None


# Types -----------------------------------------------------------------------------------------------


def _place_only(body: bytes, zone: tzinfo) -> Content:
    return _read_place(body, zone)


def _place_cell(body: bytes, zone: tzinfo) -> Content:
    at_us, attributes, position = _read_place(body, zone)
    return at_us, attributes | _read_cell(body, PLACE_BYTES)[0] if len(body) > PLACE_BYTES else attributes, position


def _place_cell_ignition(body: bytes, zone: tzinfo) -> Content:
    """And ignition, why it was sent, whether late, and the distance so far.

    Some models begin with the device's number and the time of sending; what follows differs, too.
    """
    if body[9:15] == body[15:21] and len(body) > NAMED_BYTES + PLACE_BYTES:
        return _named_place(body, zone)
    return _with_tail(body, zone, *_read_cell(body, PLACE_BYTES))


def _named_place(body: bytes, zone: tzinfo) -> Content:
    """A place, a cell with its length, and a state whose voltages are V of the supply and of the battery."""
    at_us, attributes, position = _read_place(body, zone, NAMED_BYTES)
    tail = body[NAMED_BYTES + PLACE_BYTES + 9 :]
    if len(tail) >= STATE_BYTES:
        attributes |= {**_read_state(bytes((tail[0], 0, tail[4]))), "battery_percent": None}
        attributes |= {"external_v": int.from_bytes(tail[1:3], "big") / 100, "battery_v": tail[3] / 10}
    return at_us, attributes, position


def _place_wide_cell_ignition(body: bytes, zone: tzinfo) -> Content:
    return _with_tail(body, zone, *_read_cell(body, PLACE_BYTES, 4, 8))


def _with_tail(body: bytes, zone: tzinfo, found: Attributes, at: int) -> Content:
    at_us, attributes, position = _read_place(body, zone)
    attributes |= found
    tail = body[at:]
    if len(tail) >= 3:
        attributes |= {"ignition": tail[0] != 0, "event": tail[1] or None, "buffered": tail[2] != 0 or None}
    if len(tail) >= 7:
        attributes["odometer_m"] = int.from_bytes(tail[3:7], "big") or None
    return at_us, attributes, position


def _place_cell_state(body: bytes, zone: tzinfo) -> Content:
    """An alarm: a cell with its length before it, which some models count in and some don't; then the state."""
    at_us, attributes, position = _read_place(body, zone)
    rest = body[PLACE_BYTES + 1 :]
    if len(rest) < STATE_BYTES:
        return at_us, attributes, position
    said_bytes, is_last = body[PLACE_BYTES], len(rest) - STATE_BYTES in (0, 8, 9)
    cell_bytes = len(rest) - STATE_BYTES if is_last or said_bytes not in (8, 9) else 8
    if cell_bytes in (8, 9):
        attributes |= _read_cell(rest[:cell_bytes], 0, 2, cell_bytes - 5)[0]
    return at_us, attributes | _read_state(rest[cell_bytes : cell_bytes + STATE_BYTES]), position


def _x1_place(body: bytes, zone: tzinfo) -> Content:
    """Of the X1: after four bytes a place, the odometer, a cell, the driver's key and voltages."""
    at_us, attributes, position = _read_place(body, zone, 4)
    at = 4 + PLACE_BYTES
    (odometer_m,) = struct.unpack_from(">I", body, at + 2)
    mcc, mnc, lac, cid, driver, external, battery = struct.unpack_from(">HBHIIHH", body, at + 6)
    attributes |= {
        "odometer_m": odometer_m,
        "cells": [cell(mcc, mnc, lac, cid)],
        "driver_id": str(driver) if driver else None,
        "external_v": external / 100,
        "battery_v": battery / 100,
    }
    return at_us, attributes, position


def _state(body: bytes, _zone: tzinfo) -> Content:
    """The state; or a longer one, with signal and battery in other places."""
    if len(body) >= 9 and body[1] & 0x80:
        attributes = _read_state(bytes((body[0], 0, body[2])))
        attributes |= {"battery_percent": body[5] if body[5] <= 100 else None}
        return None, attributes | {"battery_v": int.from_bytes(body[7:9], "big") / 100}, NOWHERE
    return None, _read_state(body[:STATE_BYTES]), NOWHERE


def _heartbeat(body: bytes, _zone: tzinfo) -> Content:
    bits, voltage, signal = struct.unpack_from(">BHB", body)
    attributes = _read_state(bytes((bits, 0, signal)))
    return None, {**attributes, "battery_percent": None, "battery_v": voltage / 100}, NOWHERE


def _cell_state(body: bytes, _zone: tzinfo) -> Content:
    found, at = _read_cell(body, 0)
    return None, found | (_read_state(body[at : at + STATE_BYTES]) if len(body) >= at + STATE_BYTES else {}), NOWHERE


def _cells(area_bytes: int, cell_bytes: int, wifi: bool) -> Callable[[bytes, tzinfo], Content]:
    """Time, network, seven cells with their strength, and in some frames access points of wireless networks."""

    def means(body: bytes, zone: tzinfo) -> Content:
        mcc, mnc, at = _network(body, MAC_BYTES)
        size_bytes, found = area_bytes + cell_bytes + 1, []
        for _ in range(7):
            lac = int.from_bytes(body[at : at + area_bytes], "big")
            cid = int.from_bytes(body[at + area_bytes : at + size_bytes - 1], "big")
            strength = body[at + size_bytes - 1]
            one = {**cell(mcc, mnc, lac, cid), "level": -strength}
            if lac and cid and one not in found:
                found.append(one)
            at += size_bytes
        attributes: Attributes = {"cells": found or None}
        if wifi and at + 1 < len(body):
            attributes["wifi"] = _access_points(body[at + 2 :], body[at + 1]) or None
        return _at_us(body, zone), attributes, NOWHERE

    return means


def _access_points(body: bytes, count: int) -> list[dict[str, object]]:
    whole = min(count, len(body) // (MAC_BYTES + 1)) * (MAC_BYTES + 1)
    return [
        {"mac": body[at : at + MAC_BYTES].hex(":"), "level": -body[at + MAC_BYTES]}
        for at in range(0, whole, MAC_BYTES + 1)
    ]


def _text(start: int, end: int = 0) -> Callable[[bytes, tzinfo], Content | None]:
    """An answer to a command, after some bytes, and before some."""

    def means(body: bytes, _zone: tzinfo) -> Content | None:
        text = body[start : len(body) - end].decode("ascii", "replace").strip("\0\r\n ")
        return (None, {"result": text}, NOWHERE) if text and text.isprintable() else None

    return means


def _told(body: bytes, _zone: tzinfo) -> Content | None:
    """What a model tells of itself, by its kind: of those the voltage of the supply, and texts."""
    if body[0] == 0:
        return None, {"external_v": int.from_bytes(body[1:3], "big") / 100}, NOWHERE
    text = body[1:].decode("ascii", "replace").strip("\0\r\n ")
    return (None, {"info": text}, NOWHERE) if len(text) > 2 and text.isprintable() else None


def _event(body: bytes, zone: tzinfo) -> Content:
    return _at_us(body, zone), {"event": body[6], "alarm": ALARMS.get(body[6])}, NOWHERE


KINDS: dict[int, Callable[[bytes, tzinfo], Content | None]] = {
    0x10: _place_only,
    0x11: _place_cell,
    0x12: _place_cell,
    0x13: _state,
    0x15: _text(5, 2),
    0x16: _place_cell_state,
    0x19: _cell_state,
    0x1A: _place_only,
    0x1E: _place_only,
    0x21: _text(5),
    0x22: _place_cell_ignition,
    0x23: _heartbeat,
    0x24: _cells(2, 3, wifi=False),
    0x26: _place_cell_state,
    0x27: _place_cell_state,
    0x28: _cells(2, 3, wifi=False),
    0x2A: _place_only,
    0x2C: _cells(2, 3, wifi=True),
    0x2D: _place_cell_ignition,
    0x2E: _cells(2, 3, wifi=False),
    0x31: _place_only,
    0x32: _place_only,
    0x34: _x1_place,
    0x37: _place_cell_ignition,
    0x94: _told,
    0x95: _event,
    0x9B: _text(1),
    0xA0: _place_wide_cell_ignition,
    0xA1: _cells(4, 8, wifi=False),
    0xA2: _cells(4, 8, wifi=True),
}
"""Type → what its content means."""
