"""TK103: text in parentheses, with fixed columns `(<id><command>…)` or with commas `(<id>,<command>,…)`; times are UTC.

A handshake (BP00) and a login (BP05) have a reply, other messages none.
"""

from __future__ import annotations

import re
from datetime import UTC
from typing import ClassVar

from collector.framing.decoder import Message
from collector.framing.frame_decoder import Cut, Framed, FrameFault, received
from collector.trackers.position import NOWHERE, Attributes, Position, cell, moment_us, sent
from collector.trackers.text_fields import ascii_lines, degrees, hexadecimal, number, pairs, position, unusable, whole
from telemetry.codec.record_parser import Arrival
from telemetry.model.errors import RecordError
from telemetry.model.record import Sent

SOURCE = "tk103"

_START = re.compile(rb"\(\(++")
_FRAME = re.compile(rb"\([^$()]*+(?:\(|\)|(?:\$[^$]*+\$[^$)]*+)++\))")
"""A frame up to its closing parenthesis; a parenthesis in free text between two `$` does not close it. If the end was
lost, up to the next opening parenthesis."""

_COMMAND = re.compile(r"(\d{1,20}|\w{12}),?([A-Z]{2}[0-9A-Z]{2})(.*)", re.ASCII | re.DOTALL)
_FIX = re.compile(
    r"(?P<date>\d{6})(?P<valid>[AV])"
    r"(?P<latitude>[ \d]{1,2}\d\d\.\d+)(?P<north>[NS])(?P<longitude>[ \d]{1,3}\d\d\.\d+)(?P<east>[EW])"
    r"(?P<speed>[ \d.]{5})(?P<time>\d{6})(?P<course>\d\d(?=[0-9A-F]{8}L)|[ \d.]{6})"
    r"(?:,?(?P<switches>[0-9A-F]{8})(?:L(?P<odometer>[0-9A-F]{1,8}))?)?(?P<warmth>[+-]\d{3}\.\d)?(?P<more>.*)",
    re.ASCII,
)
_CELL = re.compile(r",(\d+),(\d+),([0-9A-Fa-f]+),([0-9A-Fa-f]+)(?:,(.*))?", re.ASCII)
_CELLS = re.compile(r"\{(\d{1,3}),(\d{1,3}),(\d{1,8}),(\d{1,10})\}", re.ASCII)
_SWITCHES = re.compile(r"[0-9A-F]{8}")
_LAST_SWITCHES = re.compile(r",([0-9A-F]{8})$")
_AROUND = re.compile(r",(\d+),(\d+),(\d+),(\d+),\d+,((?:[0-9A-Fa-f:]{17}\*[+-]?\d+\*\d+,)*)(\d{6}),(\d{6})", re.ASCII)
_STATION = re.compile(r"([0-9A-Fa-f:]{17})\*([+-]?\d+)\*(\d+)", re.ASCII)
_WARNING = re.compile(r",ALARM,(\d)", re.ASCII)
_RESULT = re.compile(r",(\d{6}),(\d{6}),\$(.*?)\$?", re.ASCII | re.DOTALL)
_WORDS = re.compile("([0-9A-Fa-f]{4})" * 4)
_EXTREMES = re.compile(r"([0-9A-Fa-f]{4})..([0-9A-Fa-f]{4}).{6}")
_WARMTH = re.compile(r"([0-9A-Fa-f]{2})..([0-9A-Fa-f]{2}).{10}")
_COORDINATE = re.compile(r"([\d. ]+)([NSEW])", re.ASCII)

ALARMS = {"1": "accident", "2": "sos", "3": "vibration", "4": "low_speed", "5": "overspeed", "6": "geofence_exit"}
"""First character of a BO01 → alarm."""

WARNINGS = {
    "0": "low_battery",
    "1": "overspeed",
    "2": "idle",
    "3": "hard_acceleration",
    "4": "hard_braking",
    "5": "temperature",
}
"""Number of a BQ81 → alarm."""

_MEANINGS: tuple[tuple[tuple[str, ...], Attributes], ...] = (
    (("ZC11", "DW31", "DW51"), {"alarm": "movement"}),
    (("ZC12", "DW32", "DW52"), {"alarm": "low_battery"}),
    (("ZC13", "DW33", "DW53"), {"alarm": "power_cut"}),
    (("ZC15", "DW35", "DW55", "ZC29", "DW42", "DW62"), {"ignition": True}),
    (("ZC16", "DW36", "DW56"), {"ignition": False}),
    (("ZC17", "DW37", "DW57"), {"alarm": "removing"}),
    (("ZC25", "DW3E", "DW5E"), {"alarm": "sos"}),
    (("ZC26", "DW3F", "DW5F"), {"alarm": "tampering"}),
    (("ZC27", "DW40", "DW60"), {"alarm": "low_power"}),
)
EVENTS = {name: meaning for names, meaning in _MEANINGS for name in names}
"""Command → attributes that follow from the command alone."""

_STEPS_PERCENT = {0: 0, 1: 0, 2: 10, 3: 20, 4: 60, 5: 80, 6: 100}


class Tk103(Framed):
    """The decoder of one connection."""

    PROTOCOL: ClassVar[str] = "tk103"

    MAX_FRAME_BYTES = 4096

    def cut(self, buffer: bytearray) -> Cut | None:
        start = buffer.find(b"(")
        if start:
            return Cut(start if start > 0 else len(buffer))
        if starts := _START.match(buffer):
            return Cut(starts.end() - 1)  # a frame is more than a parenthesis
        match = _FRAME.match(buffer)
        if match is None:
            return None
        end = match.end() - 1 if match[0].endswith(b"(") else match.end()  # "(": the end was lost
        return Cut(end, bytes(buffer[:end]))

    def read(self, frame: bytes, arrival: Arrival) -> Message | None:
        text = ascii_lines(frame)
        command = _COMMAND.fullmatch(text[1:-1]) if text.endswith(")") else None
        if command is None:
            raise FrameFault("is not a TK103 message")
        self.device_id, name, content = command.groups()
        if name == "BP00":
            return received([], frame, f"({self.device_id}AP01HSO)".encode())
        ack = f"({self.device_id}AP05)".encode() if name == "BP05" else b""
        try:
            return received(self._records(name, content, arrival), frame, ack)
        except RecordError as error:
            return unusable(self.device_id, error, frame, ack)

    def _records(self, name: str, content: str, arrival: Arrival) -> list[Sent]:
        if fix := _FIX.search(content):
            return [self._fixed(name, fix, content, arrival)]
        if name == "BP05" and not content.strip("0123456789"):
            return []  # a login, with only the device's id
        if content.startswith(",") and (found := self._listed(name, content[1:].split(","), arrival)):
            return [found]
        attributes = EVENTS.get(name, {}) | _unlocated(name, content)
        timed = _RESULT.fullmatch(content)
        moment = (timed[1], timed[2]) if timed else None
        if around := _AROUND.fullmatch(content):
            moment, attributes = (around[6], around[7]), EVENTS.get(name, {}) | _around(around)
        return [self._sent(arrival, _moment_us(*moment) if moment else None, attributes)]

    def _sent(self, arrival: Arrival, at_us: int | None, attributes: Attributes, place: Position = NOWHERE) -> Sent:
        return sent(self.device_id, SOURCE, self.options, arrival, at_us, attributes, place)

    def _fixed(self, name: str, fix: re.Match[str], content: str, arrival: Arrival) -> Sent:
        """`yymmdd A lat N lon E speed HHMMSS course switches L odometer`, without separators."""
        year, month, day = pairs(fix["date"])
        if fix["valid"] == "V" and not (month and day):
            return self._sent(arrival, None, _switches(fix["switches"]))  # before its first fix, a device has no date
        at_us = moment_us(year, month, day, *pairs(fix["time"]), UTC)
        place = position(
            degrees(fix["latitude"], fix["north"]),
            degrees(fix["longitude"], fix["east"]),
            fix["valid"] == "A",
            speed_kmh=number(fix["speed"]),
            heading_deg=number(fix["course"]),
        )
        attributes: Attributes = {
            "alarm": _alarm(name, content),
            **EVENTS.get(name, {}),
            **_switches(fix["switches"]),
            "odometer_m": int(fix["odometer"], 16) if fix["odometer"] else None,
            "temperature_c": number(fix["warmth"]) if fix["warmth"] else None,
            "extra": fix["more"] or None,
        }
        return self._sent(arrival, at_us, attributes, place)

    def _listed(self, name: str, values: list[str], arrival: Arrival) -> Sent | None:
        """A position or battery state with commas, beginning with DDMMYY; None for other contents."""
        if len(values) >= 7 and values[1] in ("A", "V"):
            return self._listed_position(name, values, arrival)
        if name == "ZC20" and len(values) >= 5:
            return self._sent(arrival, _moment_us(values[0], values[1]), _battery(values[2:]))
        return None

    def _listed_position(self, name: str, values: list[str], arrival: Arrival) -> Sent:
        """`DDMMYY,A,latN,lonE,speed,HHMMSS,course[,altitude,satellites]`."""
        date, valid, latitude, longitude, speed, time, course, *more = values
        switches: Attributes = {}
        if more and _SWITCHES.fullmatch(more[0]):
            switches = _switches(more[0])
            odometer = hexadecimal(more[1][1:]) if len(more) > 1 and more[1].startswith("L") else None
            switches["odometer_m"], more = odometer, more[1 if odometer is None else 2 :]
        altitude, satellites, *rest = [*more, "", ""]
        count = whole(satellites)
        place = position(
            _coordinate(latitude),
            _coordinate(longitude),
            valid == "A",
            altitude_m=number(altitude),
            speed_kmh=number(speed),
            heading_deg=number(course),
            satellites=count,
        )
        attributes = {
            **EVENTS.get(name, {}),
            **switches,
            "satellites": count,
            "extra": ",".join(rest).strip(",") or None,
        }
        return self._sent(arrival, _moment_us(date, time), attributes, place)


def _moment_us(date: str, time: str) -> int:
    """µs since the epoch of DDMMYY and HHMMSS."""
    day, month, year = pairs(date)
    return moment_us(year, month, day, *pairs(time), UTC)


def _coordinate(text: str) -> float | None:
    if not text.strip():
        return None
    coordinate = _COORDINATE.fullmatch(text)
    if coordinate is None:
        raise FrameFault(f"{text[:20]!r} is not a coordinate")
    return degrees(coordinate[1], coordinate[2])


# Attributes ------------------------------------------------------------------------------------------


def _switches(text: str | None) -> Attributes:
    """Eight characters: the first is 0 on the car's battery, the second 1 with the ignition on."""
    if text is None:
        return {}
    return {"charging": text[0] == "0", "ignition": text[1] == "1", "switches": text}


def _battery(values: list[str]) -> Attributes:
    """`level 0 to 6,battery in 10 mV,external power in 100 mV`; 65535 = unknown."""
    level, battery, power, *_ = (whole(value) for value in values)
    return {
        "battery_percent": None if level is None else _STEPS_PERCENT.get(level),
        "battery_v": None if battery in (None, 65535) else battery / 100,
        "external_v": None if power in (None, 65535) else power / 10,
    }


def _alarm(name: str, content: str) -> str | None:
    if name == "BO01":
        return ALARMS.get(content[0])
    warning = _WARNING.match(content) if name == "BQ81" else None
    return WARNINGS.get(warning[1]) if warning else None


def _around(around: re.Match[str]) -> Attributes:
    """`mcc,mnc,lac,cid,count,{address*level*channel,}DDMMYY,HHMMSS`."""
    mcc, mnc, lac, cid = (int(value) for value in around.groups()[:4])
    found = [{"mac": mac.lower(), "level": int(level)} for mac, level, _ in _STATION.findall(around[5])]
    return {"cells": [cell(mcc, mnc, lac, cid)] if lac or cid else None, "wifi": found or None}


def _unlocated(name: str, content: str) -> Attributes:
    """Attributes of a message without a position."""
    if stations := _CELLS.findall(content):
        switches = _LAST_SWITCHES.search(content)
        return {"cells": [cell(*map(int, station)) for station in stations]} | _switches(switches and switches[1])
    if name == "BZ00" and (station := _CELL.match(content)):
        mcc, mnc, lac, cid, _ = station.groups()
        return {"cells": [cell(int(mcc), int(mnc), int(lac, 16), int(cid, 16))]}
    if name == "BV00":
        return {"vin": content}
    if name in ("BS50", "BS51"):
        return _cells_of_battery(content)
    if result := _RESULT.fullmatch(content):
        return {"result": result[3]}
    return {"type": name, "data": content.strip(",") or None}


def _cells_of_battery(content: str) -> Attributes:
    """Report of a traction battery: `<number>:<16 hex digits>,…`. Numbers 90 to 92 are voltages and temperatures."""
    blocks = dict(part.split(":", 1) for part in content.split(",") if ":" in part)
    blocks = {number[-2:]: block for number, block in blocks.items()}
    found: Attributes = {"type": "BMS", "data": content}
    if volts := _WORDS.fullmatch(blocks.get("90", "")):
        voltage, _, current, charge = (int(word, 16) for word in volts.groups())
        found |= {"bms_v": voltage / 10, "bms_a": (current - 30_000) / 10, "bms_percent": charge / 10}
    if cells := _EXTREMES.fullmatch(blocks.get("91", "")):
        found |= {"bms_cell_max_v": int(cells[1], 16) / 1_000, "bms_cell_min_v": int(cells[2], 16) / 1_000}
    if warmth := _WARMTH.fullmatch(blocks.get("92", "")):
        found |= {"bms_temperature_max_c": int(warmth[1], 16) - 40, "bms_temperature_min_c": int(warmth[2], 16) - 40}
    return found
