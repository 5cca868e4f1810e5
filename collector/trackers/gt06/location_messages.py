"""GT06 contents with a position: alone, with a cell, with a state, and with values of single models.

The model is recognised by the length of the content.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo

from collector.trackers.gt06.status_messages import has_state_modules, read_state_modules, state_modules
from collector.trackers.gt06.values import (
    ALARMS,
    CELL_BYTES,
    NAME_BYTES,
    PLACE_BYTES,
    STATE_BYTES,
    Body,
    Content,
    Parser,
    cell_of_size,
    ignition,
    located,
    read_cell,
    read_fix,
    read_place,
    read_state,
    read_time,
    readable,
    state_bits,
)
from collector.trackers.position import NOWHERE, Attributes, Position, cell
from telemetry.model.errors import RecordError

CARD_MIN_BYTES = 90
"""Minimum bytes after a position, in contents that end with a driver's card."""

HEAD_BYTES = 15
"""Head before some models' position: reason of the report (u8), the device's id, and the time of sending."""

LONG_CELL_BYTES = 9
KEY_BYTES = 8
VALUES_KEY_BYTES = 21
"""Bytes after the cell of a VL103: 13 bytes of unknown meaning, and the driver's key."""


def place(body: Body, zone: tzinfo) -> Content:
    return read_place(body, zone)


def place_cell(body: Body, zone: tzinfo) -> Content:
    """A position, a cell, and values of a model."""
    if not _has_date(body.peek(6), zone) and _has_date(Body(body.peek(NAME_BYTES + 6).rest()[NAME_BYTES:]), zone):
        body.take(NAME_BYTES)  # some models begin with the device's id
    at_us, attributes, position = read_place(body, zone)
    more = _card if body.left >= CARD_MIN_BYTES else AFTER_PLACE.get(body.left)
    if body.left > 6:
        attributes |= read_cell(body)
    if more:
        attributes |= more(body)
    attributes |= _tail(body)
    return at_us, attributes, position


def place_long_cell(body: Body, zone: tzinfo) -> Content:
    """A position, and a cell, which is two bytes longer if enough bytes remain."""
    at_us, attributes, position = read_place(body, zone)
    return at_us, attributes | (cell_of_size(body.take(10)) if body.left >= 10 else read_cell(body)), position


def place_cell_event(body: Body, zone: tzinfo) -> Content:
    """A position, a cell, ignition, event, buffered flag and odometer; in some models modules or an altitude."""
    if body.left == 19 + PLACE_BYTES:
        return _place_altitude(body, zone)
    at_us, attributes, position = read_place(body, zone)
    is_long = body.left == 24
    attributes |= cell_of_size(body.take(9)) if is_long else read_cell(body)
    attributes |= _event(body)
    if body.left == 4:
        attributes["odometer_m"] = body.u32() or None
    elif is_long and body.left == 12:
        attributes |= _climate(body)
    elif body.left > 4:
        modules, accuracy_m = _modules(body)
        return at_us, attributes | modules, position._replace(accuracy_m=accuracy_m)
    return at_us, attributes, position


def place_cell_event_22(body: Body, zone: tzinfo) -> Content:
    """As `place_cell_event`, or with a head of the device's id and the time of sending."""
    return _named_place(body, zone) if _has_head(body, zone) else place_cell_event(body, zone)


def place_state_driver(body: Body, zone: tzinfo) -> Content:
    """XT40: a head, a position, a cell with its length, a state with volts, distance, minutes, and the driver.

    A content without that head is a position and a cell. Values of another form are kept as sent.
    """
    is_headed = _has_head(body, zone)
    body.take(HEAD_BYTES if is_headed else 0)
    at_us, attributes, position = read_place(body, zone)
    rest = body.rest()
    try:
        attributes |= _state_driver(Body(rest)) if is_headed else _long_cell_data(Body(rest))
    except IndexError:
        attributes["data"] = rest.hex()
    return at_us, attributes, position


def place_key_or_state(body: Body, zone: tzinfo) -> Content:
    """VL103: a position, a long cell and the driver's key. Other models: a state and modules."""
    if not _has_date(body.peek(6), zone) or has_state_modules(body):
        return state_modules(body, zone)
    at_us, attributes, position = read_place(body, zone)
    return at_us, attributes | _long_cell_data(body), position


def place_cell_state_modules(body: Body, zone: tzinfo) -> Content:
    """An alarm: a position, a cell by the kind of network, a state, and modules."""
    at_us, attributes, position = read_place(body, zone)
    attributes |= _cell_of_kind(body)
    return at_us, attributes | read_state_modules(body), position


def place_wide_cell(body: Body, zone: tzinfo) -> Content:
    at_us, attributes, position = read_place(body, zone)
    attributes |= read_cell(body, 4, 8)
    return at_us, attributes | _tail(body), position


def place_cell_driver(body: Body, zone: tzinfo) -> Content:
    """A position, a cell, and the driver's card."""
    at_us, attributes, position = read_place(body, zone)
    return at_us, attributes | read_cell(body) | {"driver_id": body.take(8).hex()}, position


def name_place_cell_driver(body: Body, zone: tzinfo) -> Content:
    body.take(NAME_BYTES)
    at_us, attributes, position = read_place(body, zone)
    return at_us, attributes | read_cell(body, 2, 4) | {"driver_id": str(body.number(6))}, position


def place_cell_state(last_bytes: tuple[int, ...]) -> Parser:
    """An alarm: a position, a cell after its length, which includes itself in some models, and a state.

    `last_bytes` are the possible lengths of the state and the values after it.
    """

    def parse(body: Body, zone: tzinfo) -> Content:
        at_us, attributes, position = read_place(body, zone)
        if body.left == 13 and body.peek(1).u8() not in (8, 9):
            return at_us, attributes | read_cell(body) | _plain_state(body), position
        if body.left <= STATE_BYTES:
            return at_us, attributes, position
        attributes |= cell_of_size(body.take(_cell_bytes(body.u8(), body.left, last_bytes)))
        code = body.peek(4).rest()[3:]
        attributes |= read_state(body)
        if body.left == NAME_BYTES:
            event = None if code[0] in ALARMS else code[0]
            attributes |= {"event": event or None, "driver_id": body.rest().hex()}
        elif body.left == 2:
            position = position._replace(altitude_m=body.number(2, signed=True))
        return at_us, attributes, position

    return parse


def wide_cell_state(body: Body, zone: tzinfo) -> Content:
    """A geofence alarm: a position, the geofence, a wide cell and a state; one model sends only a state."""
    if body.left == 7:
        return None, state_bits(body.u8()), NOWHERE
    at_us, attributes, position = read_place(body, zone)
    body.u8()
    return at_us, attributes | read_cell(body, 4, 8) | read_state(body), position


def place_wide_cell_state(body: Body, zone: tzinfo) -> Content:
    """LW4G: as before, with volts; after the state distance, running time, an id and the inputs."""
    at_us, attributes, position = read_place(body, zone)
    attributes |= read_cell(body, 4, 8)
    body.u8()
    bits, external, rest = body.u8(), body.u16(), body.take(4)
    attributes |= read_state(Body(bytes((bits,)) + rest)) | {"external_v": external / 100}
    attributes |= {"odometer_m": body.u32(), "engine_hours": body.u32() / 3_600}
    body.take(NAME_BYTES)
    return at_us, attributes | {"inputs": body.u16()}, position


def place_kept_cell(body: Body, zone: tzinfo) -> Content:
    """Long frames: a position, event, buffered flag, a cell by the kind of network, and modules."""
    at_us, attributes, position = read_place(body, zone)
    event, is_late = body.u8(), body.u8() != 0
    attributes |= {"event": event or None, "buffered": is_late or None, **_cell_of_kind(body)}
    modules, accuracy_m = _modules(body)
    return at_us, attributes | modules, position._replace(accuracy_m=accuracy_m)


def x1_place(body: Body, zone: tzinfo) -> Content:
    """X1: after four bytes a position, the odometer, a cell, the driver's key and voltages."""
    body.take(4)
    at_us, attributes, position = read_place(body, zone)
    body.take(2)
    attributes["odometer_m"] = body.u32()
    attributes["cells"] = [cell(body.u16(), body.u8(), body.u16(), body.u32())]
    driver, external, battery = body.u32(), body.u16(), body.u16()
    attributes |= {"driver_id": str(driver) if driver else None, "external_v": external / 100}
    return at_us, attributes | {"battery_v": battery / 100}, position


def place_volts(body: Body, zone: tzinfo) -> Content:
    """SR411: a position, a cell, ignition and two voltages."""
    at_us, attributes, position = read_place(body, zone)
    attributes |= read_cell(body) | {"ignition": body.u8() != 0}
    return at_us, attributes | {"external_v": body.u16() / 100, "battery_v": body.u16() / 100}, position


def guarded_place(body: Body, zone: tzinfo) -> Content:
    """AZ735: a position and a cell with their lengths, 0 = missing; cells, access points, a state."""
    at_us = read_time(body, zone)
    attributes: Attributes = {}
    position = NOWHERE
    if body.u8():
        attributes, position = read_fix(body)
    if size_bytes := body.u8():
        attributes |= cell_of_size(body.take(size_bytes - 1)) | {"gsm_signal": body.u8()}
    body.take(body.u8())
    body.take(body.u8())
    state = body.u8()
    return at_us, attributes | {"status": state, "alarm": GUARD_ALARMS.get(state)}, position


def camera_alarm(body: Body, zone: tzinfo) -> Content:
    """Cameras: a time, in longer contents a position, an event with its data, and the names of its videos."""
    attributes: Attributes = {}
    position: Position = NOWHERE
    is_marked = body.peek(2).rest() == b"\xff\xff"
    body.take(3 if is_marked else 0)
    has_place = body.left > 9
    at_us = read_time(body, zone)
    if has_place:
        attributes = {"satellites": body.u8() & 0x0F} if is_marked else {}
        latitude, longitude, bits = body.u32(), body.u32(), body.u16()
        attributes |= ignition(bits)
        position = located(latitude, longitude, body.u16() if is_marked else None, bits)
    if is_marked:
        attributes["external_v"] = body.u16() / 10
    event = body.u8()
    body.take(min(body.left, 2))
    attributes |= {"event": event, "alarm": CAMERA_ALARMS.get(event), "data": readable(body.rest()) or None}
    return at_us, attributes, position


GUARD_ALARMS = {0xA2: "low_battery", 0xA3: "low_battery", 0xA4: "general", 0xA5: "door"}
CAMERA_ALARMS = {
    0x01: "sos",
    0x0E: "low_power",
    0x76: "temperature",
    0x80: "vibration",
    0x87: "overspeed",
    0x88: "power_cut",
    0x90: "hard_acceleration",
    0x91: "hard_braking",
    0x92: "hard_cornering",
    0x93: "accident",
}


# Values after a position -----------------------------------------------------------------------------


def _has_date(start: Body, zone: tzinfo) -> bool:
    try:
        read_time(start, zone)
    except (IndexError, RecordError):
        return False
    return True


def _has_head(body: Body, zone: tzinfo) -> bool:
    """True if a head precedes the position: it has the time of sending, and the content does not begin with a time."""
    start = body.peek(HEAD_BYTES + 6).rest()
    at, place_at = start[HEAD_BYTES - 6 : HEAD_BYTES], start[HEAD_BYTES:]
    if body.left <= HEAD_BYTES + PLACE_BYTES:
        return False
    return at == place_at or (
        not _has_date(Body(start[:6]), zone) and _has_date(Body(at), zone) and _has_date(Body(place_at), zone)
    )


def _cell_of_kind(body: Body) -> Attributes:
    """The kind of network (3 and above: wide numbers), a cell, and its signal level."""
    is_wide = body.u8() >= 3
    found = read_cell(body, 4, 8) if is_wide else read_cell(body)
    body.take(2 if is_wide else 1)
    return found


def _long_cell_data(body: Body) -> Attributes:
    """A cell of nine bytes, if enough bytes remain, and the driver's key at the end; other values are kept as sent."""
    found = cell_of_size(body.take(LONG_CELL_BYTES)) if body.left >= LONG_CELL_BYTES else {}
    if body.left == VALUES_KEY_BYTES:
        found["data"] = body.take(VALUES_KEY_BYTES - KEY_BYTES).hex()
        key = body.take(KEY_BYTES)
        return found | {"driver_id": key.hex() if any(key) else None}
    return found | {"data": body.rest().hex() or None}


def _cell_bytes(length: int, left: int, last_bytes: tuple[int, ...]) -> int:
    """Size of a cell, whose length field may include itself. Bytes that are not a cell are skipped."""
    for last in last_bytes:
        size_bytes = left - last
        if size_bytes in CELL_BYTES and length in (size_bytes, size_bytes + 1):
            return size_bytes
    return max(left - last_bytes[0], 0)


def _tail(body: Body) -> Attributes:
    """Ignition, event and buffered flag, and the odometer; or only one of the two groups."""
    attributes: Attributes = {}
    if body.left in (3, 7):
        attributes = {**_event(body), "event": None}
    if body.left == 4:
        attributes["odometer_m"] = body.u32() or None
    return attributes


def _event(body: Body) -> Attributes:
    if body.left < 3:
        return {}
    return {"ignition": body.u8() != 0, "event": body.u8() or None, "buffered": body.u8() != 0 or None}


def _climate(body: Body) -> Attributes:
    odometer_m, _ = body.u32(), body.u32()
    warmth, humidity = body.u16(), body.u16()
    degrees = warmth & 0x7FFF
    return {
        "odometer_m": odometer_m,
        "temperature_c": (-degrees if warmth & 0x8000 else degrees) / 100,
        "humidity_percent": humidity / 100,
    }


def _modules(body: Body) -> tuple[Attributes, float | None]:
    """Attributes of modules, and the accuracy, m, if sent."""
    attributes: Attributes = {}
    accuracy_m = None
    for kind, value in body.modules(1):
        if kind == 0x27:
            attributes["external_v"] = value.u16() / 100
        elif kind == 0x2E:
            attributes["odometer_m"] = value.u32()
        elif kind == 0x3B:
            accuracy_m = value.u16() / 100 or None
    return attributes, accuracy_m


def _place_altitude(body: Body, zone: tzinfo) -> Content:
    """SL4X: a longer cell, and the altitude at the end."""
    at_us, attributes, position = read_place(body, zone)
    attributes |= cell_of_size(body.take(10)) | _event(body) | {"odometer_m": body.u32() or None}
    return at_us, attributes, position._replace(altitude_m=body.number(2, signed=True))


def _named_place(body: Body, zone: tzinfo) -> Content:
    """A position, a cell with its length, a state with the volts of supply and battery, distance and minutes."""
    body.take(HEAD_BYTES)
    at_us, attributes, position = read_place(body, zone)
    attributes |= cell_of_size(body.take(9)[1:])
    if body.left >= 7:
        attributes |= _state_volts(body)
    if body.left >= 6:
        attributes |= _distance_minutes(body)
    return at_us, attributes, position


def _state_driver(body: Body) -> Attributes:
    """The cell's length may include itself. The driver's key follows its length and its kind."""
    size_bytes = body.u8()
    found = cell_of_size(body.take(LONG_CELL_BYTES if size_bytes == LONG_CELL_BYTES + 1 else size_bytes))
    found |= _state_volts(body) | _distance_minutes(body)
    if key := Body(body.take(body.u8())).rest()[1:]:
        found["driver_id"] = key.hex()
    return found | _tail(body) | {"data": body.rest().hex() or None}


def _state_volts(body: Body) -> Attributes:
    found = state_bits(body.u8()) | {"external_v": body.u16() / 100, "battery_v": body.u8() / 10}
    found |= {"gsm_signal": body.u8()}
    found |= {"alarm": ALARMS.get(body.u8()) or found["alarm"]}
    body.u8()
    return found


def _distance_minutes(body: Body) -> Attributes:
    return {"odometer_m": body.number(3) or None, "engine_hours": body.number(3) / 60}


def _plain_state(body: Body) -> Attributes:
    """A state whose code is not an alarm, and whose alarm bits have another meaning."""
    bits, battery, signal = body.take(3)
    body.rest()
    attributes = read_state(Body(bytes((bits, battery, signal))))
    return attributes | ({"alarm": "overspeed"} if bits >> 3 & 7 == 7 else {})


def _volts(body: Body) -> Attributes:
    attributes = state_bits(body.u8())
    attributes |= {"alarm": "overspeed"} if attributes["alarm"] == "removing" else {}
    attributes |= {"external_v": body.u16() / 100, "gsm_signal": body.u8()}
    body.rest()
    return attributes


def _volts_oil(body: Body) -> Attributes:
    attributes = state_bits(body.u8()) | {"external_v": body.u16() / 100, "gsm_signal": body.u8()}
    attributes |= {"alarm": ALARMS.get(body.u8()) or attributes["alarm"], "fuel": body.u16()}
    warmth = body.u8()
    attributes["temperature_c"] = -(warmth & 0x7F) if warmth & 0x80 else warmth
    return attributes | {"odometer_m": body.u32() * 10}


def _inputs(body: Body) -> Attributes:
    """Bits: 15 ignition, 14 an input, 12 the rest is a temperature; otherwise volts, in tenths unless bit 13 is set."""
    bits = body.u16()
    attributes: Attributes = {"ignition": bool(bits & 0x8000), "input2": bool(bits & 0x4000)}
    value = bits & 0x03FF
    if bits & 0x1000:
        degrees = bits & 0x01FF
        return attributes | {"temperature_c": -degrees if bits & 0x0200 else degrees}
    return attributes | {"adc1_v": value if bits & 0x2000 else value / 10}


def _card(body: Body) -> Attributes:
    odometer_m, driver = body.u32(), readable(body.take(body.u8()))
    body.take(2)
    return {"odometer_m": odometer_m, "driver_id": driver or None}


def _driving(body: Body) -> Attributes:
    found = _card(body)
    body.rest()
    return found


AFTER_PLACE: dict[int, Callable[[Body], Attributes]] = {10: _inputs, 13: _volts, 18: _driving, 20: _volts_oil}
"""Number of bytes after the position of a frame of type 12 → parser of the values after the cell."""
