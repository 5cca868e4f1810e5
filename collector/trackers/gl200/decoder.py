"""Queclink's text protocol of the GL, GV and GMT families: `+RESP:GT<type>,<version>,<IMEI>,<name>,…,<sent>,<count>$`.

The values in between differ by device and firmware. So a fix is recognised by its form, at any position: accuracy,
speed, course, altitude, longitude, latitude, UTC time, and optionally a cell and the odometer. A message may contain
several fixes. Other values are decoded in device_state.py.

A +BUFF is a +RESP that the device buffered. Heartbeats, which are a +ACK, have a reply. Reports have a reply only with
the setting `answers_all`, which devices with SACK mode need. Fixes are in UTC; the time of sending is in the port's
`timezone`.
"""

from __future__ import annotations

import re
from datetime import UTC, tzinfo
from itertools import pairwise
from typing import ClassVar

from collector.framing.decoder import Message
from collector.framing.frame_decoder import Cut, Framed, FrameFault, received
from collector.trackers.gl200 import device_state
from collector.trackers.gl200.device_state import Fix, Report
from collector.trackers.position import Attributes, moment_us, sent
from collector.trackers.text_fields import ascii_text, number, position, unusable
from telemetry.codec.record_parser import Arrival
from telemetry.model.errors import RecordError
from telemetry.model.record import Sent

SOURCE = "gl200"

_END = re.compile(rb"[$\x00]")
_END_OR_HEAD = re.compile(rb"[$\x00]|\+(?:RESP|BUFF|ACK):")
_HEAD_BYTES = 6
_MESSAGE = re.compile(r"\+(RESP|BUFF|ACK):GT([A-Z0-9]{3}),(.*)")
_TAIL = re.compile(rb"(,-?\d{1,3}\.\d+,-?\d{1,3}\.\d+)?,\d{14},[0-9A-Fa-f]{4}(?:,[0-9A-F]{10})?\s*\Z")
_TAIL_BYTES = 60
_OLD_ID = re.compile(r"\d{15}", re.ASCII)
_ID = re.compile(r"[0-9A-Za-z]{1,20}")
_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)", re.ASCII)
_COUNT = re.compile(r"[0-9A-Fa-f]{4}")
_DEGREES = re.compile(r"-?\d{1,3}\.\d+", re.ASCII)

_BEFORE = 4
"""Number of a fix's values before its longitude."""


class Gl200(Framed):
    """The decoder of one connection."""

    PROTOCOL: ClassVar[str] = "gl200"

    @property
    def waits_for_quiet(self) -> bool:
        return _has_tail(self._buffer)

    def quiet(self, arrival: Arrival) -> list[Message]:
        """Silence ends a message that lacks only its end mark, as some devices send."""
        return self._ended(arrival) if self.waits_for_quiet else []

    def cut(self, buffer: bytearray) -> Cut | None:
        start = buffer.find(b"+")
        if start:
            return Cut(start if start > 0 else len(buffer))
        match = _END_OR_HEAD.search(buffer, max(1, self._looked_bytes))
        if match is None:
            self._looked_bytes = len(buffer) - _HEAD_BYTES + 1
            return None
        end = match.start() if match[0].startswith(b"+") else match.end()  # "+": the end was lost
        return Cut(end, bytes(buffer[:end]))

    def end(self, buffer: bytearray) -> Cut | None:
        return Cut(len(buffer), bytes(buffer))

    def read(self, frame: bytes, arrival: Arrival) -> Message | None:
        report, version, count = self._report(frame)
        ack = self._ack(report, version, count)
        try:
            return received(self._records(report, arrival), frame, ack)
        except RecordError as error:
            return unusable(self.device_id, error, frame, ack)

    def _report(self, frame: bytes) -> tuple[Report, str, str]:
        """A message, the version of its protocol and its count."""
        text = ascii_text(frame[:-1] if _END.match(frame, len(frame) - 1) else _whole(frame))
        message = _MESSAGE.fullmatch(text)
        if message is None:
            raise FrameFault("is not a message of Queclink's text protocol")
        version, device_id, values = _named(message[3].split(","))
        if not _ID.fullmatch(device_id):
            raise FrameFault("has no device id")
        self.device_id = device_id
        count = values.pop() if values and _COUNT.fullmatch(values[-1]) else ""
        sent_at = values.pop() if values and (not values[-1] or _TIME.fullmatch(values[-1])) else ""
        return Report(message[1], message[2], values, _fixes(values), sent_at), version, count

    def _ack(self, report: Report, version: str, count: str) -> bytes:
        if report.kind == "ACK":
            return f"+SACK:GTHBD,{version},{count}$".encode() if report.name == "HBD" else b""
        return f"+SACK:{count}$".encode() if self.options.answers_all else b""

    def _records(self, report: Report, arrival: Arrival) -> list[Sent]:
        """One record for each fix. Attributes of the whole message go to the last record."""
        state = device_state.state(report)
        if not report.fixes:
            at_us = _moment_us(report.sent_at, self.options.timezone) if report.sent_at else None
            return [sent(self.device_id, SOURCE, self.options, arrival, at_us, state)]
        of_each: Attributes = {name: state[name] for name in ("type", "buffered") if name in state}
        *others, last = report.fixes
        records = [self._fixed(report, fix, of_each, arrival) for fix in others]
        return [*records, self._fixed(report, last, state, arrival)]

    def _fixed(self, report: Report, fix: Fix, state: Attributes, arrival: Arrival) -> Sent:
        accuracy, speed, course, altitude, longitude, latitude, time = report.values[fix.begin : fix.begin + 7]
        place = position(
            number(latitude),
            number(longitude),
            True,
            altitude_m=number(altitude),
            speed_kmh=number(speed),
            heading_deg=number(course),
        )
        where, _ = device_state.where(device_state.without_networks(report.values[fix.begin + 7 : fix.end])[0])
        attributes = {**state, "hdop": number(accuracy), **where}
        return sent(self.device_id, SOURCE, self.options, arrival, _moment_us(time, UTC), attributes, place)


def _whole(frame: bytes) -> bytes:
    """A message that lacks only its end mark, without trailing blanks. Raises `FrameFault` if more is missing."""
    if not _has_tail(frame):
        raise FrameFault("ends before its time and count")
    return frame.rstrip()


def _has_tail(data: bytes | bytearray) -> bool:
    """True if `data` ends with time and count, not with a fix's time and a network code, which have the same form."""
    tail = _TAIL.search(data[-_TAIL_BYTES:])
    return tail is not None and tail[1] is None


def _named(values: list[str]) -> tuple[str, str, list[str]]:
    """The version, the device's id and the other values. The oldest devices send the id first and the version last."""
    if _OLD_ID.fullmatch(values[0]) and len(values) > 1:
        return values[-1], values[0], values[1:-1]
    return (values[0], values[1], values[2:]) if len(values) > 1 else ("", "", [])


def _fixes(values: list[str]) -> list[Fix]:
    """All fixes, recognised by longitude, latitude and a time in sequence."""
    places = [
        at
        for at in range(_BEFORE, len(values) - 2)
        if _DEGREES.fullmatch(values[at]) and _DEGREES.fullmatch(values[at + 1]) and _TIME.fullmatch(values[at + 2])
    ]
    begins = [at - _BEFORE for at in places]
    return [Fix(begin, end) for begin, end in pairwise([*begins, len(values)])]


def _moment_us(text: str, zone: tzinfo) -> int:
    """µs since the epoch of YYYYMMDDHHMMSS."""
    time = _TIME.fullmatch(text)
    if time is None or text.startswith("00"):
        raise RecordError("timestamp", text, "is not a date and time")
    year, month, day, hour, minute, second = map(int, time.groups())
    return moment_us(year, month, day, hour, minute, second, zone)
