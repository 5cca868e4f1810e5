"""GPS103, the protocol of Coban's trackers: text messages that end with a semicolon.

    ##,imei:<id>,A;                                       a login; reply: LOAD
    <id>;                                                 a keep-alive; reply: ON
    imei:<id>,<event>,<local time>,<phone or card>,F,<UTC time of day>,A,<lat>,N,<lon>,E,<speed>,<course>,<altitude>,
        <ignition>,<door>,<fuel 1>,<fuel 2>,<temperature>;
    imei:<id>,<event>,<local time>,<phone or card>,L,,,<lac>,,<cid>,…;      no fix
    imei:<id>,OBD,<local time>,<engine values>;

The date is in local time only. A fix also has its UTC time of day, so the device's time zone can be computed. This zone
applies to messages without a fix on the same connection; before the first fix, the port's `timezone` applies.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import ClassVar, NamedTuple

from collector.framing.decoder import Message
from collector.framing.frame_decoder import Cut, Framed, FrameFault, Options, received
from collector.trackers.position import NOWHERE, Attributes, Position, moment_us, sent
from collector.trackers.text_fields import (
    Clock,
    ascii_text,
    degrees,
    hexadecimal,
    kmh,
    nearest_us,
    number,
    pairs,
    position,
    raw,
    whole,
)
from telemetry.codec.record_parser import Arrival
from telemetry.model.errors import RecordError

SOURCE = "gps103"

_END = re.compile(rb"\r\n|[\n;*]")
_NAMED = re.compile(r"imei:([0-9A-Za-z]{1,20}),([^,]*)(?:,(.*))?", re.DOTALL)
_LOGIN = re.compile(r"(?:##,)?imei:([0-9A-Za-z]{1,20}),[A-Z],?")
_LATER = re.compile(r"\d{8,20}(?=imei:)", re.ASCII)
_PHOTO = "vr"
_CODE = re.compile(r"[PBCU][0-9A-F]{4}")
_KEEP_ALIVE = re.compile(r"\d{8,20}", re.ASCII)
_LOCAL = re.compile(r"(\d\d)/?(\d\d)/?(\d\d) ?(\d\d):?(\d\d)(?::?(\d\d))?", re.ASCII)
_HMS = re.compile(r"\d{6}", re.ASCII)
_UTC = re.compile(r"(\d\d)(\d\d)(\d\d)(?:\.\d*)?", re.ASCII)
_DECIMAL = re.compile(r"-?\d{1,3}\.\d{3,}", re.ASCII)
_OIL = re.compile(r"oil ?(\d+(?:\.\d+)?)%?", re.ASCII)
_TEMPERATURE = re.compile(r"T: ?([+-]?\d+(?:\.\d+)?)", re.ASCII)

ZONE_STEP_US = 900_000_000
"""Time zones differ by multiples of 15 minutes."""

ALARMS = {
    "help me": "sos",
    "low battery": "low_battery",
    "stockade": "geofence",
    "move": "movement",
    "speed": "overspeed",
    "door alarm": "door",
    "ac alarm": "power_cut",
    "accident alarm": "accident",
    "sensor alarm": "vibration",
    "bonnet alarm": "bonnet",
    "footbrake alarm": "foot_brake",
    "DTC": "fault",
    "T": "temperature",
    "oil": "fuel_leak",
}
"""Event → alarm."""

IGNITIONS = {"acc on": True, "acc off": False}
_REPORT = "tracker"
FULL_PERCENT = 100
"""A greater number in the place of the second fuel level is the odometer, as in OBD messages."""

_OBD_NAMES = (
    "odometer_m",
    "fuel_l_per_h",
    "fuel_l_per_100km",
    "engine_hours",
    "obd_speed_kmh",
    "engine_load_percent",
    "coolant_c",
    "throttle_percent",
    "rpm",
    "external_v",
)


class _Content(NamedTuple):
    """Time, attributes and position of a message."""

    at_us: int | None
    attributes: Attributes
    position: Position = NOWHERE


class Gps103(Framed):
    """The decoder of one connection."""

    PROTOCOL: ClassVar[str] = "gps103"

    MAX_FRAME_BYTES = 2**14  # a part of a photo, as hexadecimal

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._ahead_us: int | None = None  # local time minus UTC; None before the first fix

    def cut(self, buffer: bytearray) -> Cut | None:
        end = _END.search(buffer, self._looked_bytes)
        if end is None:
            self._looked_bytes = len(buffer)
            return None
        return Cut(end.end(), bytes(buffer[: end.start()]).strip())

    def end(self, buffer: bytearray) -> Cut | None:
        """Over UDP, and from some devices, the semicolon is missing."""
        return Cut(len(buffer), bytes(buffer).strip())

    def read(self, frame: bytes, arrival: Arrival) -> Message | None:
        text = ascii_text(frame)
        if login := _LOGIN.fullmatch(text):
            self.device_id = login[1]
            return received([], frame, b"LOAD")
        if _KEEP_ALIVE.fullmatch(text):
            self.device_id = text
            return received([], frame, b"ON")
        later = _LATER.match(text)  # a keep-alive without its end
        named = _NAMED.fullmatch(text, later.end() if later else 0)
        if named is None:
            raise FrameFault("is not a GPS103 message")
        self.device_id, event = named[1], named[2].strip()
        ack = b"ON" if later else f"**,imei:{self.device_id},E;".encode() if event == "help me" else b""
        if event == _PHOTO:
            return received([], frame, ack)
        content = self._content(event, (named[3] or "").split(","), arrival)
        record = sent(
            self.device_id, SOURCE, self.options, arrival, content.at_us, content.attributes, content.position
        )
        return received([record], frame, ack)

    def _content(self, event: str, values: list[str], arrival: Arrival) -> _Content:
        if event == "OBD":
            return _Content(self._zoned_us(values[0]), _engine(values[1:]))
        if len(values) >= 17 and _HMS.fullmatch(values[3]) and _HMS.fullmatch(values[4]):
            return _alternative(values)
        if _at(values, 2).strip() == "F":
            return self._fixed(event, values, arrival)
        if _at(values, 2).strip() == "L":
            lac, cid = hexadecimal(_at(values, 5)), hexadecimal(_at(values, 7))
            cells = None if lac is None or cid is None else [{"lac": lac, "cid": cid}]
            attributes = {**_event(event), **_guest(event, values), "cells": cells}
            is_dated = not values[0].strip().startswith("0000")  # before its first fix a device has no date
            return _Content(self._zoned_us(values[0]) if is_dated else None, attributes)
        return _Content(self._zoned_us(values[0]), {**_event(event), **raw(values[1:])})

    # Positions ---------------------------------------------------------------------------------------

    def _fixed(self, event: str, values: list[str], arrival: Arrival) -> _Content:
        """`<local>,<phone or card>,F,<UTC>,A,`, then the position and the state of the car."""
        latitude, longitude, rest = _place(values[5:])
        speed, course, altitude, *state = [*rest, "", "", ""]
        place = position(
            latitude,
            longitude,
            _at(values, 4).strip() == "A",
            altitude_m=number(altitude),
            speed_kmh=kmh(number(speed), self.options),
            heading_deg=number(course),
        )
        at_us = self._fix_us(values[0].strip(), values[3].strip(), arrival)
        return _Content(at_us, {**_event(event), **_guest(event, values), **_car(state)}, place)

    def _fix_us(self, local: str, clock: str, arrival: Arrival) -> int | None:
        """UTC time of a fix: its UTC time of day, on the day that puts it nearest to the local time."""
        utc = _UTC.fullmatch(clock)
        if utc is None:
            return self._zoned_us(local)
        of_day = Clock(int(utc[1]), int(utc[2]), int(utc[3]))
        zoned_us, local_us = self._zoned_us(local), _local_us(local)
        if zoned_us is None or local_us is None:
            return nearest_us(of_day, arrival.now_us)
        at_us = nearest_us(of_day, zoned_us)
        self._ahead_us = (local_us - at_us + ZONE_STEP_US // 2) // ZONE_STEP_US * ZONE_STEP_US
        return at_us

    def _zoned_us(self, local: str) -> int | None:
        """UTC of a local time, by the zone of the device's fixes, otherwise by the port's `timezone`."""
        local_us = _local_us(local)
        if local_us is None:
            return None
        if self._ahead_us is not None:
            return local_us - self._ahead_us
        at = datetime.fromtimestamp(local_us // 1_000_000, UTC).replace(tzinfo=self.options.timezone)
        return round(at.timestamp()) * 1_000_000


def _alternative(values: list[str]) -> _Content:
    """`<event>,<sensor>,<its volts>,HHMMSS,DDMMYY,<signal>,<fix>,<lat>,<lon>,<km/h>,<course>,<altitude>,<hdop>,
    <satellites>,<ignition>,<charging>,<error>`, after the device's id; dashes stand for missing values."""
    event, sensor, volts, clock, date, signal, fix, latitude, longitude, *more = values
    speed, course, altitude, hdop, satellites, ignition, charging, error, *_ = [*more, ""]
    day, month, year = pairs(date)
    attributes: Attributes = {
        "event": _text(event),
        "io1": _text(sensor),
        "io2": _text(volts),
        "gsm_signal": whole(signal),
        "hdop": number(hdop),
        "satellites": whole(satellites),
        "ignition": _flag(ignition),
        "charging": _flag(charging),
        "info": _text(error),
    }
    place = position(
        number(latitude),
        number(longitude),
        fix.strip("0") != "",
        altitude_m=number(altitude),
        speed_kmh=number(speed),
        heading_deg=number(course),
    )
    return _Content(moment_us(year, month, day, *pairs(clock), UTC), attributes, place)


def _text(text: str) -> str | None:
    return text.strip("- ") or None


def _local_us(text: str) -> int | None:
    """yymmddHHMM[SS], read as UTC; None if it is missing or all zeros. Raises `RecordError`."""
    text = text.strip()
    if not text.strip("0"):
        return None
    local = _LOCAL.fullmatch(text)
    if local is None:
        raise RecordError("timestamp", text, "must be yymmddHHMM or yymmddHHMMSS")
    year, month, day, hour, minute, second = (int(part or 0) for part in local.groups())
    return moment_us(year, month, day, hour, minute, second, UTC)


def _place(values: list[str]) -> tuple[float | None, float | None, list[str]]:
    """Latitude, longitude and the values after them. Degrees and minutes, or decimal degrees without hemispheres.

    Some devices leave N or E blank.
    """
    if len(values) >= 2 and _DECIMAL.fullmatch(values[0]) and _DECIMAL.fullmatch(values[1]):
        return number(values[0]), number(values[1]), values[2:]
    if len(values) < 4:
        raise FrameFault("has a fix without coordinates")
    if values[0] in ("N", "S") and values[2] in ("E", "W"):  # before the degrees
        return degrees(values[1], values[0]), degrees(values[3], values[2]), values[4:]
    return degrees(values[0], values[1] or "N"), degrees(values[2], values[3] or "E"), values[4:]


# Attributes ------------------------------------------------------------------------------------------


def _event(event: str) -> Attributes:
    """Attributes of an event; none for a regular report."""
    if oil := _OIL.fullmatch(event):
        return {"alarm": ALARMS["oil"], "fuel_percent": float(oil[1])}
    if temperature := _TEMPERATURE.fullmatch(event):
        return {"alarm": ALARMS["T"], "temperature_c": float(temperature[1])}
    if event in IGNITIONS:
        return {"ignition": IGNITIONS[event]}
    if event in ALARMS:
        return {"alarm": ALARMS[event]}
    return {} if event == _REPORT or not event else {"event": event}


def _guest(event: str, values: Sequence[str]) -> Attributes:
    """The phone number that the device calls, or the card that it read; 0 = none."""
    guest = _at(values, 1).strip()
    if guest.endswith("%"):
        return {"battery_percent": whole(guest[:-1])}
    return {"driver_id" if event == "rfid" else "phone": guest} if guest.strip("0") else {}


def _car(values: list[str]) -> Attributes:
    """`<ignition>,<door>,<fuel 1>,<fuel 2>,<temperature>`; any of them may be missing."""
    ignition, door, fuel1, fuel2, temperature, *rest = [*values, "", "", "", "", ""]
    codes = [value for value in (fuel2, temperature, *rest) if _CODE.fullmatch(value)]
    if _CODE.fullmatch(fuel2):
        fuel2, temperature, rest = "", "", []
    distance = "" if fuel2.endswith("%") or (number(fuel2) or 0) <= FULL_PERCENT else fuel2
    found: Attributes = {
        "ignition": _flag(ignition),
        "door": _flag(door),
        "fuel_percent": number(fuel1.rstrip("%")),
        "fuel2_percent": None if distance else number(fuel2.rstrip("%")),
        "temperature_c": number(temperature),
        "fault_codes": codes or None,
        "odometer_m": number(distance),
    }
    return {name: value for name, value in found.items() if value is not None} | raw(rest)


def _flag(text: str) -> bool | None:
    return {"1": True, "0": False}.get(text.strip())


def _engine(values: list[str]) -> Attributes:
    """Odometer, fuel, hours, speed, load, coolant, throttle, engine speed, battery, and fault codes."""
    found: Attributes = {
        name: number(value.strip().rstrip("%") if value.strip() not in ("+", "-") else "")
        for name, value in zip(_OBD_NAMES, values, strict=False)
    }
    codes = [value.strip() for value in values[len(_OBD_NAMES) :] if value.strip()]
    return {"type": "OBD", **found, "fault_codes": codes or None}


def _at(values: Sequence[str], place: int) -> str:
    return values[place] if place < len(values) else ""
