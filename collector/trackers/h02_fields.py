"""Decodes the contents of H02 frames: time, device state and position."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC
from itertools import pairwise
from typing import NamedTuple

from collector.framing.frame_decoder import FrameFault, Options
from collector.trackers.position import NOWHERE, Attributes, Position, cell, moment_us
from collector.trackers.text_fields import (
    DAY_US,
    Clock,
    degrees,
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

_STATUS = re.compile(r"[0-9A-Fa-f]{8}")
_MEASURED = re.compile(r"(\d+),(-?\d+),(\d+\.\d+),(-?\d+),([0-9A-Fa-f]+),([0-9A-Fa-f]+)")
_LOCATIONS = re.compile(r"V1|V[25689]|V19|VI1", re.ASCII)
"""Commands that must contain a position. A V4 may confirm any command."""

_ALARMS = ((0x1, "vibration"), (0x4_0002, "sos"), (0x4, "overspeed"), (0x8_0000, "power_cut"))
"""Mask of the status and its alarm, active if one of the mask's bits is 0. The first active alarm is used."""

NO_HEMISPHERE = "0"
"""Sent by some devices instead of a hemisphere before their first fix, when they have no date."""

_SCHEME = re.compile(r"\d{1,2}", re.ASCII)
"""Coding of the position, sent by some devices in the place of the validity. It means a valid fix."""

_IGNITION = 0x400
_SHORT_CHARACTERS = 3


class Content(NamedTuple):
    """Time, attributes and position of a frame."""

    at_us: int | None
    attributes: Attributes
    position: Position = NOWHERE


def text(command: str, values: list[str], options: Options, arrival: Arrival) -> Content:
    """Decode a text frame. Raises `FrameFault` or `RecordError`."""
    return _READERS.get(command, _located)(command, values, options, arrival)


def binary(digits: str, options: Options, arrival: Arrival) -> Content:
    """Decode a binary frame; `digits` are its nibbles after the id. Raises `FrameFault` or `RecordError`.

    HHMMSS, DDMMYY, DDMMmmmm, battery (2 digits), DDDMMmmmm, flags, speed and course (3 each), status (8).
    """
    numbers = digits[:20] + digits[22:31] + digits[32:38]
    if not numbers.isdigit():
        raise FrameFault("contains nibbles above 9 instead of decimal digits")
    flags = int(digits[31], 16)
    place = position(
        degrees(digits[12:20], "N" if flags & 4 else "S"),
        degrees(digits[22:31], "E" if flags & 8 else "W"),
        bool(flags & 2),
        speed_kmh=kmh(float(digits[32:35]), options),
        heading_deg=float(digits[35:38]),
    )
    attributes = {
        "battery_percent": _percent(int(digits[20:22], 16)),
        **_status(digits[38:46]),
        "extra": digits[46:] or None,
    }
    return Content(_moment_us(digits[:6], digits[6:12], arrival), attributes, place)


# Text ------------------------------------------------------------------------------------------------


def _located(command: str, values: list[str], options: Options, arrival: Arrival) -> Content:
    """`[…,]HHMMSS,valid,lat,N,lon,E,speed,course[,…],DDMMYY[,…],status[,…]`; any part may be blank."""
    at = _latitude_at(values)
    if at is None:
        if _LOCATIONS.fullmatch(command):
            raise FrameFault(f"{command} without coordinates")
        return Content(None, {"type": command, **raw(values)})
    if values[at + 1] == NO_HEMISPHERE:
        return Content(None, _states(values[at + 7 :]))
    before, clock, validity = values[: at - 2], values[at - 2].strip(), values[at - 1].strip()
    latitude, longitude = degrees(values[at], values[at + 1]), degrees(values[at + 2], values[at + 3])
    speed, course = ([*values[at + 4 : at + 6], "", ""])[:2]
    date, rest = _date(values[at + 6 :])
    place = NOWHERE
    if latitude is not None and longitude is not None:
        speed_kmh = kmh(number(speed), options)
        place = position(
            latitude, longitude, validity == "A" or validity.isdigit(), speed_kmh=speed_kmh, heading_deg=number(course)
        )
    states = _states(rest)
    altitude_m = states.pop("altitude_m", None)
    if isinstance(altitude_m, int):
        place = place._replace(altitude_m=altitude_m)
    result: Attributes = {"result": ",".join(before)} if before else {}
    return Content(_moment_us(clock, date, arrival), result | states, place)


def _latitude_at(values: Sequence[str]) -> int | None:
    """Index of the latitude, recognised by the validity before it and the two hemispheres after it."""
    for at in range(2, len(values) - 3):
        is_valid_known = values[at - 1] in ("A", "B", "V", "") or _SCHEME.fullmatch(values[at - 1])
        if is_valid_known and values[at + 1] in ("N", "S") and values[at + 3] in ("E", "W"):
            return at
        if values[at - 1] == "V" and values[at + 1] == values[at + 3] == NO_HEMISPHERE:
            return at
    return None


def _date(values: list[str]) -> tuple[str, list[str]]:
    """The date, which may be blank or follow a short number, and the other values. Raises `RecordError`."""
    for at, value in enumerate(values[:2]):
        if at and len(values[0]) > _SHORT_CHARACTERS:
            break
        if _STATUS.fullmatch(value):
            return "", values
        if not value.strip() or (len(value) == 6 and value.isdigit()):
            return value.strip(), values[:at] + values[at + 1 :]
    if values:
        raise RecordError("timestamp", values[0], "must be a date")
    return "", values


def _states(values: list[str]) -> Attributes:
    """Values after the date: the status, and values that differ by vendor."""
    at = next((at for at, value in enumerate(values) if _STATUS.fullmatch(value)), None)
    if at is None:
        return raw(values)
    before, status, after = values[:at], values[at], values[at + 1 :]
    measured = _MEASURED.fullmatch(",".join(after))
    if measured is None:
        return _status(status) | raw(before + after)
    return {
        **_status(status),
        "odometer_m": int(measured[1]),
        "temperature_c": int(measured[2]),
        "fuel": float(measured[3]),
        "altitude_m": int(measured[4]),
        "cells": [{"lac": int(measured[5], 16), "cid": int(measured[6], 16)}],
        **raw(before),
    }


def _heartbeat(_command: str, values: list[str], _options: Options, _arrival: Arrival) -> Content:
    """Battery charge in percent, if sent."""
    return Content(None, {"battery_percent": whole(values[0]), **raw(values[1:])})


def _neighbours(_command: str, values: list[str], _options: Options, arrival: Arrival) -> Content:
    """`HHMMSS,mcc,mnc,timing advance,count,{lac,cid,level},…,DDMMYY,status[,…]`."""
    mcc, mnc, count = whole(_at(values, 1)), whole(_at(values, 2)), whole(_at(values, 4))
    if mcc is None or mnc is None or count is None or not 0 <= count <= (len(values) - 5) // 3:
        raise FrameFault("counts more cells than it has")
    cells = [_leveled(mcc, mnc, values[at : at + 3]) for at in range(5, 5 + 3 * count, 3)]
    date, rest = _date(values[5 + 3 * count :])
    return Content(_moment_us(values[0], date, arrival), {"cells": cells, **_states(rest)})


def _leveled(mcc: int, mnc: int, values: list[str]) -> dict[str, int]:
    """A cell and its signal level, whose unit vendors do not document."""
    lac, cid, level = (whole(value) for value in values)
    if lac is None or cid is None:
        raise FrameFault("has a cell that is not a number")
    return cell(mcc, mnc, lac, cid) | ({} if level is None else {"level": level})


def _link(_command: str, values: list[str], _options: Options, arrival: Arrival) -> Content:
    """`HHMMSS,gsm,satellites,battery,steps,turnovers,DDMMYY,status`."""
    names = ("gsm_signal", "satellites", "battery_percent", "steps", "turnovers")
    if len(values) < 1 + len(names):
        raise FrameFault("LINK without its values")
    known = {name: whole(value) for name, value in zip(names, values[1:], strict=False)}
    date, rest = _date(values[6:])
    return Content(_moment_us(values[0], date, arrival), {**known, **_states(rest)})


def _serving(_command: str, values: list[str], _options: Options, arrival: Arrival) -> Content:
    """`HHMMSS,mcc and mnc in one,count,{lac,cid,…,level},…,battery,reboots,X,DDMMYY,status`."""
    network, count = _at(values, 1), whole(_at(values, 2))
    mcc, mnc = whole(network[:3]), whole(network[3:])
    if mcc is None or mnc is None or count is None or not 0 <= count <= (len(values) - 3) // 4:
        raise FrameFault("counts more cells than it has")
    cells = [_leveled(mcc, mnc, [*values[at : at + 2], values[at + 3]]) for at in range(3, 3 + 4 * count, 4)]
    rest = values[3 + 4 * count :]
    at = next((at for at, (mark, _) in enumerate(pairwise(rest)) if mark == "X"), None)
    if at is None:
        return Content(_moment_us(values[0], "", arrival), {"cells": cells, **_states(rest)})
    date, states = _date(rest[at + 1 :])
    return Content(_moment_us(values[0], date, arrival), {"cells": cells, **_states(states), **raw(rest[:at])})


def _message(_command: str, values: list[str], _options: Options, _arrival: Arrival) -> Content:
    """Text of an SMS that the device sends over the connection."""
    text = ",".join(values).replace("\r", "").strip()
    return Content(None, {"result": text} if text else {"type": "SMS"})


def _short(_command: str, values: list[str], options: Options, arrival: Arrival) -> Content:
    """`A,lat,N,lon,E,speed,course,DDMMYY`, or without a fix `V,mcc,mnc,lac,cid,level[Ylac,cid,level…]`."""
    if _latitude_at(["", *values]) is not None:
        return _located("VP1", ["", *values], options, arrival)
    mcc, mnc = whole(_at(values, 1)), whole(_at(values, 2))
    if mcc is None or mnc is None:
        raise FrameFault("VP1 without coordinates and cells")
    cells = [_leveled(mcc, mnc, [*part.split(","), "", ""][:3]) for part in ",".join(values[3:]).split("Y") if part]
    return Content(None, {"cells": cells})


_READERS = {
    "HTBT": _heartbeat,
    "V0": _heartbeat,
    "NBR": _neighbours,
    "LINK": _link,
    "V3": _serving,
    "VP1": _short,
    "SMS": _message,
}
"""Command → decoder; other commands are positions."""


# Parts ---------------------------------------------------------------------------------------------


def _at(values: Sequence[str], place: int) -> str:
    return values[place] if place < len(values) else ""


def _status(text: str) -> Attributes:
    bits = int(text, 16)
    alarm = next((name for mask, name in _ALARMS if ~bits & mask), None)
    return {"alarm": alarm, "ignition": bool(bits & _IGNITION), "status": bits}


def _percent(value: int) -> int | None:
    """Battery charge: steps up to 6, percent above; 0 = unknown."""
    if value == 0 or value > 100:
        return None
    if value <= 3:
        return (value - 1) * 10
    return (value - 1) * 20 if value <= 6 else value


def _moment_us(clock: str, date: str, arrival: Arrival) -> int | None:
    """Time of HHMMSS and DDMMYY. Without a date, the day that puts the time nearest to the arrival is used.

    Without a time of day, it is the arrival, or on another day, as for a buffered record, the start of that day.
    """
    clock = clock.strip()
    if not date:
        return nearest_us(Clock(*pairs(clock)), arrival.now_us) if clock else None
    day, month, year = pairs(date)
    at_us = moment_us(year, month, day, *(pairs(clock) if clock else (0, 0, 0)), UTC)
    if not clock and at_us <= arrival.now_us < at_us + DAY_US:
        return None
    return at_us
