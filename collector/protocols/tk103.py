"""TK103: text in parentheses, `(<id><command>…)` of fixed places or `(<id>,<command>,…)` of values; times are UTC.

A handshake (BP00) and a login (BP05) hear an answer, all else nothing.
"""

from __future__ import annotations

import re
from datetime import UTC

from collector.protocols.contract import Message
from collector.protocols.framed import Cut, Framed, FrameFault, received
from collector.protocols.text import ascii_text, degrees, number, pairs, position, unusable, whole
from collector.protocols.tracker import NOWHERE, Attributes, Position, cell, moment_us, sent
from telemetry.errors import RecordError
from telemetry.fields import Arrival
from telemetry.record import Sent

SOURCE = "tk103"

_COMMAND = re.compile(r"(\d{1,20}|\w{12}),?([A-Z]{2}[0-9A-Z]{2})(.*)", re.ASCII)
_FIX = re.compile(
    r"(?P<date>\d{6})(?P<valid>[AV])"
    r"(?P<latitude>[ \d]{1,2}\d\d\.\d+)(?P<north>[NS])(?P<longitude>[ \d]{1,3}\d\d\.\d+)(?P<east>[EW])"
    r"(?P<speed>[ \d.]{5})(?P<time>\d{6})(?P<course>[ \d.]{6})"
    r"(?:(?P<switches>[0-9A-F]{8})(?:L(?P<odometer>[0-9A-F]{1,8}))?)?(?P<more>.*)",
    re.ASCII,
)
_CELL = re.compile(r",(\d+),(\d+),([0-9A-Fa-f]+),([0-9A-Fa-f]+)(?:,(.*))?", re.ASCII)
_RESULT = re.compile(r",(\d{6}),(\d{6}),\$(.*)\$", re.ASCII)
_WORDS = re.compile("([0-9A-Fa-f]{4})" * 4)
_EXTREMES = re.compile(r"([0-9A-Fa-f]{4})..([0-9A-Fa-f]{4}).{6}")
_WARMTH = re.compile(r"([0-9A-Fa-f]{2})..([0-9A-Fa-f]{2}).{10}")
_COORDINATE = re.compile(r"([\d. ]+)([NSEW])", re.ASCII)

ALARMS = {"1": "accident", "2": "sos", "3": "vibration", "4": "low_speed", "5": "overspeed", "6": "geofence_exit"}
"""What the first character of a BO01 means."""

EVENTS: dict[str, Attributes] = {
    "ZC11": {"alarm": "movement"},
    "ZC12": {"alarm": "low_battery"},
    "ZC13": {"alarm": "power_cut"},
    "ZC15": {"ignition": True},
    "ZC16": {"ignition": False},
    "ZC17": {"alarm": "removing"},
    "ZC25": {"alarm": "sos"},
    "ZC26": {"alarm": "tampering"},
    "ZC27": {"alarm": "low_power"},
}
"""What some commands mean by themselves."""

_STEPS_PERCENT = {0: 0, 1: 0, 2: 10, 3: 20, 4: 60, 5: 80, 6: 100}


class Tk103(Framed):
    """The decoder of one connection."""

    MAX_FRAME_BYTES = 4096

    def cut(self, buffer: bytearray) -> Cut | None:
        start = buffer.find(b"(")
        if start:
            return Cut(start if start > 0 else len(buffer))
        end = _close(buffer)
        after = buffer.find(b"(", 1)
        if after > 0 and not 0 < end < after and b"$" not in buffer[:after]:
            return Cut(after, bytes(buffer[:after]))  # its end was lost
        return Cut(end + 1, bytes(buffer[: end + 1])) if end > 0 else None

    def read(self, frame: bytes, arrival: Arrival) -> Message | None:
        text = ascii_text(frame)
        command = _COMMAND.fullmatch(text[1:-1]) if text.endswith(")") else None
        if command is None:
            raise FrameFault("is no message of TK103")
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
            return []  # a login, with nothing but the device's name
        if content.startswith(",") and (found := self._listed(name, content[1:].split(","), arrival)):
            return [found]
        attributes = EVENTS.get(name, {}) | _told(name, content)
        result = _RESULT.fullmatch(content)
        return [self._sent(arrival, _moment_us(result[1], result[2]) if result else None, attributes)]

    def _sent(self, arrival: Arrival, at_us: int | None, attributes: Attributes, place: Position = NOWHERE) -> Sent:
        return sent(self.device_id, SOURCE, self.options, arrival, at_us, attributes, place)

    def _fixed(self, name: str, fix: re.Match[str], content: str, arrival: Arrival) -> Sent:
        """`yymmdd A lat N lon E speed HHMMSS course switches L odometer`, without a mark between."""
        year, month, day = pairs(fix["date"])
        at_us = moment_us(year, month, day, *pairs(fix["time"]), UTC)
        place = position(
            degrees(fix["latitude"], fix["north"]),
            degrees(fix["longitude"], fix["east"]),
            fix["valid"] == "A",
            speed_kmh=number(fix["speed"]),
            heading_deg=number(fix["course"]),
        )
        attributes: Attributes = {
            "alarm": ALARMS.get(content[0]) if name == "BO01" else None,
            **EVENTS.get(name, {}),
            **_switches(fix["switches"]),
            "odometer_m": int(fix["odometer"], 16) if fix["odometer"] else None,
            "extra": fix["more"] or None,
        }
        return self._sent(arrival, at_us, attributes, place)

    def _listed(self, name: str, values: list[str], arrival: Arrival) -> Sent | None:
        """A position or a battery in values between commas, which begin with DDMMYY; None of any other."""
        if len(values) >= 7 and values[1] in ("A", "V"):
            return self._listed_position(name, values, arrival)
        if name == "ZC20" and len(values) >= 5:
            return self._sent(arrival, _moment_us(values[0], values[1]), _battery(values[2:]))
        return None

    def _listed_position(self, name: str, values: list[str], arrival: Arrival) -> Sent:
        """`DDMMYY,A,latN,lonE,speed,HHMMSS,course[,altitude,satellites]`."""
        date, valid, latitude, longitude, speed, time, course, *more = values
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
        attributes = {**EVENTS.get(name, {}), "satellites": count, "extra": ",".join(rest).strip(",") or None}
        return self._sent(arrival, _moment_us(date, time), attributes, place)


def _close(buffer: bytearray) -> int:
    """Where a frame's parenthesis closes, which within a free text between two `$` it doesn't; -1 if not yet."""
    end = buffer.find(b")")
    while end > 0 and buffer.count(b"$", 0, end) % 2:
        end = buffer.find(b")", end + 1)
    return end


def _moment_us(date: str, time: str) -> int:
    """µs since the epoch of DDMMYY and HHMMSS."""
    day, month, year = pairs(date)
    return moment_us(year, month, day, *pairs(time), UTC)


def _coordinate(text: str) -> float | None:
    if not text.strip():
        return None
    coordinate = _COORDINATE.fullmatch(text)
    if coordinate is None:
        raise FrameFault(f"{text[:20]!r} is no coordinate")
    return degrees(coordinate[1], coordinate[2])


# Attributes ------------------------------------------------------------------------------------------


def _switches(text: str | None) -> Attributes:
    """Eight characters: the first is 0 while the car's battery feeds the device, the second 1 with the ignition on."""
    if text is None:
        return {}
    return {"charging": text[0] == "0", "ignition": text[1] == "1", "switches": text}


def _battery(values: list[str]) -> Attributes:
    """`level 0 to 6,battery in 10 mV,external power in 100 mV`; the greatest number of a byte or two is unknown."""
    level, battery, power, *_ = (whole(value) for value in values)
    return {
        "battery_percent": None if level is None else _STEPS_PERCENT.get(level),
        "battery_v": None if battery in (None, 65535) else battery / 100,
        "external_v": None if power in (None, 65535) else power / 10,
    }


def _told(name: str, content: str) -> Attributes:
    """What a message without a position says."""
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
    """A traction battery's own report: `<number>:<16 hex digits>,…`, of which 90 to 92 are voltages and warmth."""
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
