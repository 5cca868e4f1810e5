"""GT06 contents without a position, or with one among other values: states, cells, texts, sensors, modules."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo

from collector.trackers.gt06.values import (
    ALARMS,
    MAC_BYTES,
    NAME_BYTES,
    STATE_BYTES,
    Body,
    Content,
    Parser,
    access_points,
    battery_percent,
    located,
    read_cell,
    read_network,
    read_state,
    read_time,
    readable,
    state_bits,
)
from collector.trackers.position import NOWHERE, Attributes, Position, cell

_PLACE_TEXT = re.compile(
    r"Current position!Lat:([NS])([\d.]+),Lon:([EW])([\d.]+),Course:([\d.]+),Speed:([\d.]+),"
    r"DateTime:(\d{4}-\d\d-\d\d) +(\d\d:\d\d:\d\d)",
    re.ASCII,
)
_FUEL_TEXT = re.compile(r"!AIOIL,\d+,[\d.]+,(\d+\.\d+),[^,]+,\d{4},(\d+\.\d+),", re.ASCII)
_ICCID = re.compile(r"<ICCID:(\w+)>?", re.ASCII)
_SECOND_US = 1_000_000
_MIN_INFO_BYTES = 3

LONG_STATE_BYTES, WARM_STATE_BYTES = 14, 16

BLUETOOTH, BATTERY = 0x0A, 0x0C
UNKNOWN = 0x7FFF
"""Marks a tag's value as unknown."""

MODULE_ALARMS = {0x11: "low_battery", 0x12: "low_power", 0x13: "power_cut", 0x14: "removing"}

# States ----------------------------------------------------------------------------------------------


def state(body: Body, _zone: tzinfo) -> Content:
    """A state; longer ones have signal, satellites and battery at other positions, and some a temperature."""
    if body.left == WARM_STATE_BYTES:
        return None, _warm_state(body), NOWHERE
    if body.left == LONG_STATE_BYTES or (body.left >= 9 and body.peek(2).rest()[1] & 0x80):
        return None, _read_long_state(body), NOWHERE
    code = body.peek(4).rest()[3:]
    volts = int.from_bytes(body.peek(5).rest()[3:], "big")
    attributes = read_state(body)
    if code >= b"\xf0" and code < b"\xf4":  # not an alarm: the supply's volts
        attributes["external_v"] = (volts & 0x0FFF) / 10
    return None, attributes, NOWHERE


def _read_long_state(body: Body) -> Attributes:
    attributes = state_bits(body.u8())
    signal = body.u16()
    attributes |= {"satellites": (signal >> 10 & 0x1F) + (signal >> 5 & 0x1F), "gsm_signal": signal & 0x1F}
    attributes |= {"alarm": ALARMS.get(body.u8()) or attributes["alarm"]}
    body.u8()
    percent, mode, battery = body.u8(), body.u8(), body.u16()
    attributes |= {"battery_percent": percent if percent <= 100 else None, "battery_v": battery / 100}
    if mode == 4 and body.left >= 5:
        body.take(3)
        attributes["temperature_c"] = body.number(2, signed=True) / 10
    return attributes


def _warm_state(body: Body) -> Attributes:
    attributes = _read_long_state(body.peek(9)) | {"satellites": None}
    body.take(14)
    warmth = body.u16()
    degrees = (warmth & 0x7FFF) / 10
    return attributes | {"temperature_c": degrees if warmth & 0x8000 else -degrees}


def heartbeat(body: Body, _zone: tzinfo) -> Content:
    attributes = state_bits(body.u8())
    attributes["battery_v"] = body.u16() / 100 if body.left >= 2 else None
    attributes["gsm_signal"] = body.u8() if body.left else None
    return None, attributes, NOWHERE


def cell_state(body: Body, _zone: tzinfo) -> Content | None:
    """A cell and a state; longer contents have several cells, in an unknown order."""
    if body.left > 17:
        return None
    found = read_cell(body)
    return None, found | (read_state(body) if body.left >= 3 else {}), NOWHERE


def wide_cell_state(body: Body, _zone: tzinfo) -> Content:
    return None, read_cell(body, 4, 8) | read_state(body), NOWHERE


def wide_cell(body: Body, _zone: tzinfo) -> Content:
    """A device's request for the address of a cell."""
    return None, read_cell(body, 4, 8), NOWHERE


def state_modules(body: Body, _zone: tzinfo) -> Content:
    return None, read_state_modules(body), NOWHERE


def has_state_modules(body: Body) -> bool:
    """True if the rest is a state and modules only. Modules have kinds below 0x100."""
    rest = Body(body.peek(body.left).rest())
    try:
        rest.take(STATE_BYTES)
        return all(kind < 0x100 for kind, _ in rest.modules(1))
    except IndexError:
        return False


def read_state_modules(body: Body) -> Attributes:
    attributes = read_state(Body(body.take(STATE_BYTES)))
    for kind, value in body.modules(1):
        if kind == 0x18:
            attributes["battery_v"] = value.u16() / 100
        elif kind == 0x6A:
            attributes["battery_percent"] = battery_percent(value.u8())
    return attributes


def traction_battery(body: Body, _zone: tzinfo) -> Content:
    body.take(NAME_BYTES)
    at_us, percent = body.u32() * _SECOND_US, body.u8()
    body.take(10)
    return at_us, {"bms_percent": percent, "bms_v": body.u16() / 1_000}, NOWHERE


# Cells -----------------------------------------------------------------------------------------------


def cells(area_bytes: int, cell_bytes: int, count: int = 7, *, wifi: bool = False) -> Parser:
    """Time, network, cells with their signal level, and in some frames Wi-Fi access points."""

    def parse(body: Body, zone: tzinfo) -> Content:
        at_us = read_time(body, zone)
        found = _cells_of(body, read_network(body), count, area_bytes, cell_bytes)
        attributes: Attributes = {"cells": found or None}
        if wifi and body.left >= 2:
            body.u8()
            attributes["wifi"] = access_points(body, body.u8()) or None
        return at_us, attributes, NOWHERE

    return parse


def counted_cells(body: Body, zone: tzinfo) -> Content:
    """As `cells`, with the number of cells, and the timing advance before them."""
    at_us = read_time(body, zone)
    body.u8()
    network = read_network(body)
    return at_us, {"cells": _cells_of(body, network, body.u8(), 2, 3) or None}, NOWHERE


def as_many_cells(body: Body, zone: tzinfo) -> Content:
    """As `cells`, with wide numbers, up to the end of the content."""
    at_us = read_time(body, zone)
    body.u8()
    network = read_network(body, 2)
    return at_us, {"cells": _cells_of(body, network, body.left // 7, 2, 4) or None}, NOWHERE


def _cells_of(
    body: Body, network: tuple[int, int], count: int, area_bytes: int, cell_bytes: int
) -> list[dict[str, int]]:
    found = []
    for _ in range(count):
        lac, cid, strength = body.number(area_bytes), body.number(cell_bytes), body.u8()
        station = {**cell(*network, lac, cid), "level": -strength}
        if lac and cid and station not in found:
            found.append(station)
    return found


def points(body: Body, zone: tzinfo) -> Content:
    """A time, and access points without their signal level."""
    at_us, found = read_time(body, zone), []
    for _ in range(body.u8()):
        body.take(2)
        found.append({"mac": body.take(MAC_BYTES).hex(":")})
    return at_us, {"wifi": found or None}, NOWHERE


# Texts -----------------------------------------------------------------------------------------------


def text(body: Body, _zone: tzinfo) -> Content | None:
    """A response to a command: its length, a number, the text, and optionally a language."""
    size_bytes = body.u8()
    body.take(4)
    response = readable(body.take(min(max(size_bytes - 4, 0), body.left)))
    if match := _ICCID.match(response):
        return None, {"iccid": match[1]}, NOWHERE
    return (None, {"result": response}, NOWHERE) if response else None


def coded_text(body: Body, _zone: tzinfo) -> Content | None:
    """A response to a command in ASCII or UTF-16; one response is a position."""
    body.take(4)
    is_ascii = body.u8() == 1
    data = body.rest()
    response = readable(data) if is_ascii else data.decode("utf-16-be", "replace").strip("\0\r\n ")
    if match := _PLACE_TEXT.match(response):
        return _place_of(match)
    return (None, {"result": response}, NOWHERE) if response else None


def _place_of(match: re.Match[str]) -> Content | None:
    north, latitude, east, longitude, heading, speed, day, clock = match.groups()
    try:
        position = Position(
            float(latitude) * (1 if north == "N" else -1),
            float(longitude) * (1 if east == "E" else -1),
            speed_kmh=float(speed),
            heading_deg=float(heading),
        )
        at = datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=UTC)
    except ValueError:
        return None
    return round(at.timestamp()) * _SECOND_US, {}, position


def line(body: Body, _zone: tzinfo) -> Content | None:
    """Data from the device's serial line, after the kind of line: text, or hexadecimal if it is not text."""
    body.u8()
    data = body.rest()
    return None, {"result": readable(data) or data.hex() or None}, NOWHERE


# Values of single models -----------------------------------------------------------------------------


def supply(body: Body, zone: tzinfo) -> Content | None:
    """The supply's volts in a short content; longer contents are as in `informed`."""
    return (None, {"external_v": body.u16() / 100}, NOWHERE) if body.left == 2 else informed(body, zone)


def informed(body: Body, zone: tzinfo) -> Content | None:
    """Information about the device, by its kind."""
    kind = body.u8()
    if kind in (0x00, 0x0B) and body.left == 2:
        return None, {"external_v": body.u16() / 100}, NOWHERE
    if kind == 0x05:
        at_us = read_time(body, zone) if body.left >= 7 else None
        return at_us, {"door": bool(body.u8() & 1)}, NOWHERE
    if kind == 0x0A:
        body.take(2 * NAME_BYTES)
        return None, {"iccid": body.take(10).hex().rstrip("f")}, NOWHERE
    if kind == 0x1B and body.peek(1).rest() == b"\x02" and body.left >= 8:
        body.take(2)
        return None, {"driver_id": body.take(4).hex()}, NOWHERE
    if kind == 0x1E:
        warmth, humidity = body.number(4, signed=True), body.number(4, signed=True)
        return None, {"temperature_c": warmth / 10, "humidity_percent": humidity / 10}, NOWHERE
    return _informed_by_text(body, zone)


def _informed_by_text(body: Body, zone: tzinfo) -> Content | None:
    data, at_us = body.rest(), None
    if data[6:7] == b"!":
        at_us, data = read_time(Body(data), zone), data[6:]
    info = readable(data)
    if match := _FUEL_TEXT.match(info):
        return at_us, {"temperature_c": float(match[1]), "fuel": float(match[2])}, NOWHERE
    return (at_us, {"info": info}, NOWHERE) if len(info) >= _MIN_INFO_BYTES else None


def vehicle(body: Body, zone: tzinfo) -> Content:
    """Vehicle data: a time, ignition, hexadecimal hundredths by their number, and a position, which is ignored."""
    at_us = read_time(body, zone)
    attributes: Attributes = {"ignition": body.u8() != 0}
    for pair in body.rest(12).decode("ascii", "replace").split(","):
        name, _, value = pair.partition("=")
        if name[:2].upper() == "4A":
            attributes["vin"] = value or None
        elif (known := OF_VEHICLE.get(name[:2].upper())) and re.fullmatch(r"[0-9A-Fa-f]{1,8}", value):
            attributes[known] = int(value, 16) / 100
    return at_us, attributes, NOWHERE


OF_VEHICLE = {"2B": "fuel", "2D": "coolant_c", "35": "obd_speed_kmh", "36": "rpm"}


def modules(body: Body, _zone: tzinfo) -> Content:
    """Values after their kind and length; one kind is a position with its time."""
    at_us: int | None = None
    attributes: Attributes = {}
    position = NOWHERE
    for kind, value in body.modules(2):
        if kind == 0x33:
            if seconds := value.u32():
                at_us, position = seconds * _SECOND_US, _module_place(value, attributes)
        else:
            _read_module(kind, value, attributes)
    return at_us, attributes, position


def _module_place(value: Body, attributes: Attributes) -> Position:
    attributes["satellites"], altitude_m = value.u8(), value.number(2, signed=True)
    latitude, longitude, speed_kmh = value.u32(), value.u32(), value.u8()
    return located(latitude, longitude, speed_kmh, value.u16())._replace(altitude_m=altitude_m)


def _read_module(kind: int, value: Body, attributes: Attributes) -> None:
    if kind == 0x03:
        attributes["iccid"] = value.take(10).hex()
    elif kind == 0x09:
        attributes["satellites"] = value.u8()
    elif kind == 0x11:
        mcc, mnc, lac, cid = value.u16(), value.u16(), value.u16(), value.number(3)
        attributes["cells"] = [cell(mcc, mnc, lac, cid)] if cid else None
    elif kind == 0x18:
        attributes["battery_v"] = value.u16() / 100
    elif kind == 0x28:
        attributes["hdop"] = value.u8() / 10
    elif kind == 0x2A:
        attributes["door"] = bool(value.u8() & 0x0F)
    elif kind == 0x2B:
        attributes["event"] = event = value.u8()
        attributes["alarm"] = MODULE_ALARMS.get(event)
    elif kind == 0x2E:
        attributes["odometer_m"] = value.u32()
    elif kind == 0x7F:
        attributes["tags"] = [_tag(value)]


def _tag(value: Body) -> dict[str, object]:
    """Id, mV, battery %, temperature and humidity in tenths, state; `UNKNOWN` marks unknown values."""
    name, millivolts, percent, degrees, humidity = value.take(6), value.u16(), value.u8(), value.u16(), value.u16()
    tag: dict[str, object] = {"id": name.hex(), "battery_percent": percent if percent <= 100 else None}
    tag["battery_v"] = millivolts / 1_000 if millivolts < UNKNOWN else None
    tag["temperature_c"] = (degrees - 0x1_0000 if degrees > UNKNOWN else degrees) / 10 if degrees != UNKNOWN else None
    tag["humidity_percent"] = humidity / 10 if humidity < UNKNOWN else None
    return {name: value for name, value in tag.items() if value is not None}


def peripheral(body: Body, _zone: tzinfo) -> Content:
    """A time, and values of peripherals with their length: 10 Bluetooth, 12 battery."""
    at_us = body.u32() * _SECOND_US
    found: Attributes = {}
    while body.left:
        kind = body.u16()
        if kind == BLUETOOTH:
            value = Body(body.take(body.u16()))
            value.u8()
            mac, event, _, _ = value.take(MAC_BYTES), value.u8(), value.u8(), value.u8()
            found |= {"event": event or None, "tags": [{"mac": mac.hex(":"), "data": value.rest().hex()}]}
        elif kind == BATTERY:
            body.u8()
            found["bms_percent"] = body.u8()
            body.take(9)
        else:
            body.take(body.u8() or body.u8())
    return at_us, found, NOWHERE
