"""NMEA 0183 sentences, one per line, as GPS receivers and simple trackers send them. RMC, GGA and GLL contain a
position; so do PUBX,00 (u-blox), TRCCR and QZE, sentences of single vendors.

All sentences of one second form one record. It is complete with the first sentence of another second, after `MORE_S` of
silence, or at the end of the connection. For a sentence without a date, the day that puts it nearest to the
connection's last record is used, or to its arrival.

Sentences do not contain the device id. It comes in a separate line or before the `$` of a sentence, in one of several
usual forms. Without an id, the sender's address is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC
from typing import ClassVar, NamedTuple

from collector.framing.decoder import Message
from collector.framing.frame_decoder import Cut, Framed, FrameFault, Options, received
from collector.trackers.checksums import xor
from collector.trackers.position import KMH_OF_KNOT, Attributes, Position, moment_us, sent
from collector.trackers.text_fields import Clock, ascii_text, degrees, nearest_us, number, pairs, position, whole
from telemetry.codec.record_parser import Arrival
from telemetry.model import problems
from telemetry.model.errors import RecordError

SOURCE = "nmea"
ANSWER = b"OK1\r\n"

_SENTENCE = re.compile(r"\$([A-Za-z][^*$]*)(?:\*([0-9A-Fa-f]{2})(?:[,;].*)?)?")
_NAME = re.compile(r"\$(?:PGID,|GPFID,?|DEVID,?|PCPTI,|IMEI[ ,:=]?)([^,*]+)")
_IMEI = re.compile(r"IMEI[ ,:=]+(\w+)", re.ASCII)
_BARE_ID = re.compile(r"[0-9A-F]{4,32}")
_CLOCK = re.compile(r"(\d\d)(\d\d)(\d\d)(?:\.(\d{0,9}))?", re.ASCII)
_POSITION = re.compile(r"[A-Z]{2}(RMC|GGA|GLL)|(PUBX|TRCCR)")
_TRAILING_ID = re.compile(r"\*[0-9A-Fa-f]{2},\d*,(\d{15}),", re.ASCII)
_LONG_TIME = re.compile(r"(\d\d)(\d\d)(\d\d)(\d\d)(\d{6}(?:\.\d{0,9})?)", re.ASCII)
_LONG_DAY = re.compile(r"\d{8}", re.ASCII)
_QZE_VALUES = 10


class _Fix(NamedTuple):
    """Values of the sentences of one second. `clock` is the time of day as sent; None and blank mean unknown."""

    clock: str
    date: str = ""
    latitude: float | None = None
    longitude: float | None = None
    is_valid: bool | None = None
    altitude_m: float | None = None
    speed_knots: float | None = None
    heading_deg: float | None = None
    satellites: int | None = None
    hdop: float | None = None
    battery_percent: int | None = None
    ignition: bool | None = None

    def joined(self, other: _Fix) -> _Fix:
        """Merge both; `other` takes precedence. The fix is valid only if neither is marked as invalid."""
        known = {name: value for name, value in other._asdict().items() if value is not None and value != ""}
        both = self._replace(**known)
        return both._replace(is_valid=self.is_valid is not False and other.is_valid is not False)


class Nmea(Framed):
    """The decoder of one connection."""

    PROTOCOL: ClassVar[str] = "nmea"

    MAX_FRAME_BYTES = 1024

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._fix = _Fix("")
        self._is_pending = False  # True if the fix has values that are in no record yet
        self._lines = b""  # its sentences
        self._last_us: int | None = None  # time of the last record

    @property
    def waits_for_quiet(self) -> bool:
        return self._is_pending and not self._buffer

    @property
    def waits_for_more(self) -> bool:
        return self._is_pending

    @property
    def held_bytes(self) -> int:
        return len(self._buffer) + len(self._lines)

    def feed(self, data: bytes | bytearray, arrival: Arrival) -> list[Message]:
        """Process received bytes. A pending record comes before a message that ends the connection."""
        messages = super().feed(data, arrival)
        if messages and messages[-1].last:
            messages[-1:] = [*self._flushed(arrival), messages[-1]]
        return messages

    def quiet(self, arrival: Arrival) -> list[Message]:
        """Silence ends the second."""
        return self._flushed(arrival)

    def eof(self, arrival: Arrival) -> list[Message]:
        return [*super().eof(arrival), *self._flushed(arrival)]

    def cut(self, buffer: bytearray) -> Cut | None:
        end = buffer.find(b"\n")
        return None if end < 0 else Cut(end + 1, bytes(buffer[:end]).strip(b"\r\0 \t"))

    def end(self, buffer: bytearray) -> Cut | None:
        return Cut(len(buffer), bytes(buffer).strip(b"\r\0 \t"))

    def read(self, frame: bytes, arrival: Arrival) -> Message | None:
        device_id, fix = _line(ascii_text(frame))
        before = self._named(device_id, arrival) if device_id else None
        return (self._take(fix, frame, arrival) if fix else None) or before

    def _named(self, device_id: str, arrival: Arrival) -> Message | None:
        """Switch to a device id; returns the pending record of the previous device, if any."""
        message = None
        if self.device_id and device_id != self.device_id:
            message = self._record(arrival) if self._is_pending else None
            self._fix, self._last_us = _Fix(""), None
        self.device_id = device_id
        return message

    def _take(self, fix: _Fix, frame: bytes, arrival: Arrival) -> Message | None:
        """Add a sentence; returns the previous record if the sentence has another time or the lines are too long."""
        is_same = fix.clock == self._fix.clock and (fix.clock or self._is_pending)
        if is_same and len(self._lines) + len(frame) < self._max_bytes:
            both = self._fix.joined(fix)
            self._is_pending = self._is_pending or both != self._fix
            self._fix, self._lines = both, self._lines + frame + b"\n"
            return None
        message = self._record(arrival) if self._is_pending else None
        self._fix, self._is_pending, self._lines = fix, True, frame + b"\n"
        return message

    def _flushed(self, arrival: Arrival) -> list[Message]:
        return [self._record(arrival)] if self._is_pending else []

    def _record(self, arrival: Arrival) -> Message:
        lines, self._lines, self._is_pending = self._lines, b"", False
        try:
            at_us = self._moment_us(arrival)
            device_id = self.device_id or self.options.address
            record = sent(device_id, SOURCE, self.options, arrival, at_us, _attributes(self._fix), _place(self._fix))
        except RecordError as error:
            return self.rejected(problems.INVALID_RECORD, str(error), lines)
        if at_us is not None:
            self._last_us = at_us
        return received([record], lines, ANSWER if self.options.answers_all else b"")

    def _moment_us(self, arrival: Arrival) -> int | None:
        if not self._fix.clock:
            return None
        match = _CLOCK.fullmatch(self._fix.clock)
        if match is None:
            raise RecordError("timestamp", self._fix.clock, "is not a time of day")
        fraction_us = int(f"{match[4] or ''}000000"[:6])
        clock = Clock(int(match[1]), int(match[2]), int(match[3]), fraction_us)
        if not self._fix.date:
            return nearest_us(clock, arrival.now_us if self._last_us is None else self._last_us)
        day, month, year = pairs(self._fix.date)
        return moment_us(year, month, day, clock.hour, clock.minute, clock.second, UTC) + fraction_us


# Lines -----------------------------------------------------------------------------------------------


def _line(text: str) -> tuple[str, _Fix | None]:
    """The device id in a line, or blank, and its position values. Raises `FrameFault`."""
    prefix, mark, sentence = text.partition("$")
    if text.startswith("QZE,"):
        return _qze(text.split(",")[1:])
    if not mark:
        return _bare_id(text), None
    body = _checked(mark + sentence)
    device_id = _prefix_id(prefix) if prefix else ""
    if name := _NAME.match(mark + sentence):
        return name[1].strip(), None
    kind, *values = body.split(",")
    match = _POSITION.fullmatch(kind)
    if trailing := _TRAILING_ID.search(sentence):
        device_id = trailing[1]
    return device_id, _READERS[match[1] or match[2]](values) if match else None


def _checked(text: str) -> str:
    """A sentence without `$` and checksum. Raises `FrameFault` if the checksum, if any, is wrong."""
    sentence = _SENTENCE.fullmatch(text)
    if sentence is None:
        raise FrameFault("is not an NMEA sentence")
    if sentence[2] and xor(sentence[1].encode()) != int(sentence[2], 16):
        raise FrameFault(f"checksum {xor(sentence[1].encode()):02X}, but {sentence[2].upper()} was sent")
    return sentence[1]


def _bare_id(text: str) -> str:
    """The id in a line that contains only an id."""
    if name := _IMEI.fullmatch(text):
        return name[1]
    if _BARE_ID.fullmatch(text):
        return text
    raise FrameFault("is not an NMEA sentence")


def _prefix_id(prefix: str) -> str:
    """The id of `<id>$`, `<id>,$`, `<id>/$`, and of `<kind>/<id>/$`."""
    device_id = prefix.strip().rstrip(",/ ").rpartition("/")[2]
    if name := _IMEI.fullmatch(device_id):
        return name[1]
    if not device_id:
        raise FrameFault("has a blank id before its sentence")
    return device_id


# Sentences -------------------------------------------------------------------------------------------


def _rmc(values: list[str]) -> _Fix:
    """Time, A or V, latitude, N, longitude, E, knots, course, DDMMYY, variation, its side, mode."""
    clock, status, latitude, north, longitude, east, speed, course, date, *more = _padded(values, 9)
    mode = more[2].strip() if len(more) > 2 else ""
    return _Fix(
        clock,
        date,
        degrees(latitude, north),
        degrees(longitude, east),
        status == "A" and mode != "N",
        speed_knots=number(speed),
        heading_deg=number(course),
    )


def _gga(values: list[str]) -> _Fix:
    """Time, latitude, N, longitude, E, quality, satellites, HDOP, altitude, M, …"""
    clock, latitude, north, longitude, east, quality, satellites, hdop, altitude, *_ = _padded(values, 9)
    return _Fix(
        clock,
        "",
        degrees(latitude, north),
        degrees(longitude, east),
        quality not in ("", "0"),
        altitude_m=number(altitude),
        satellites=whole(satellites),
        hdop=number(hdop),
    )


def _gll(values: list[str]) -> _Fix:
    """Latitude, N, longitude, E, time, A or V, …"""
    latitude, north, longitude, east, clock, status, *_ = _padded(values, 6)
    return _Fix(clock, "", degrees(latitude, north), degrees(longitude, east), status == "A")


def _pubx(values: list[str]) -> _Fix | None:
    """00, time, latitude, N, longitude, E, altitude, NF or kind of fix, two accuracies, km/h, course, …, HDOP, …"""
    if len(values) < 18 or values[0] != "00":
        return None
    clock, latitude, north, longitude, east, altitude, status, _, _, speed_kmh, course, *more = _padded(values, 18)[1:]
    speed = number(speed_kmh)
    return _Fix(
        clock,
        "",
        degrees(latitude, north),
        degrees(longitude, east),
        status not in ("", "NF"),
        altitude_m=number(altitude),
        speed_knots=None if speed is None else speed / KMH_OF_KNOT,
        heading_deg=number(course),
        satellites=whole(more[5]),
        hdop=number(more[2]),
    )


def _trccr(values: list[str]) -> _Fix:
    """YYYYMMDDHHMMSS.sss, A or V, latitude and longitude in degrees, knots, course, altitude, battery."""
    time, status, latitude, longitude, speed, course, altitude, battery, *_ = _padded(values, 8)
    match = _LONG_TIME.fullmatch(time)
    if match is None:
        raise FrameFault("TRCCR without its time")
    return _Fix(
        match[5],
        match[4] + match[3] + match[2],
        number(latitude),
        number(longitude),
        status == "A",
        altitude_m=number(altitude),
        speed_knots=number(speed),
        heading_deg=number(course),
        battery_percent=whole(battery.partition(".")[0]),
    )


def _qze(values: list[str]) -> tuple[str, _Fix]:
    """The device, event, DDMMYYYY, HHMMSS, latitude and longitude in degrees, km/h, course, A or V, ignition."""
    if len(values) < _QZE_VALUES or not _LONG_DAY.fullmatch(values[2]):
        raise FrameFault("QZE without its values")
    device_id, _, date, clock, latitude, longitude, speed_kmh, course, status, ignition, *_ = _padded(values, 10)
    speed = number(speed_kmh)
    fix = _Fix(
        clock,
        date[:4] + date[6:],
        number(latitude),
        number(longitude),
        status == "A",
        speed_knots=None if speed is None else speed / KMH_OF_KNOT,
        heading_deg=number(course),
        ignition={"0": False, "1": True}.get(ignition),
    )
    return device_id, fix


_READERS: dict[str, Callable[[list[str]], _Fix | None]] = {
    "RMC": _rmc,
    "GGA": _gga,
    "GLL": _gll,
    "PUBX": _pubx,
    "TRCCR": _trccr,
}


def _padded(values: list[str], count: int) -> list[str]:
    """The values, stripped; blanks for values at the end that old receivers omit."""
    return [value.strip() for value in values] + [""] * (count - len(values))


def _place(fix: _Fix) -> Position:
    return position(
        fix.latitude,
        fix.longitude,
        bool(fix.is_valid),
        altitude_m=fix.altitude_m,
        speed_kmh=None if fix.speed_knots is None else fix.speed_knots * KMH_OF_KNOT,
        heading_deg=fix.heading_deg,
        satellites=fix.satellites,
    )


def _attributes(fix: _Fix) -> Attributes:
    return {
        "satellites": fix.satellites,
        "hdop": fix.hdop,
        "battery_percent": fix.battery_percent,
        "ignition": fix.ignition,
    }
