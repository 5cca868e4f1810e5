"""Field parsers shared by trackers' text protocols: numbers, degrees and minutes, incomplete dates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from collector.framing.decoder import Received
from collector.framing.frame_decoder import FrameFault, Options, received
from collector.trackers.position import Position
from telemetry.codec.record_parser import KMH
from telemetry.hot_store.entry_codec import Aside
from telemetry.model.errors import RecordError

DAY_US = 86_400_000_000

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_HEX = re.compile(r"[0-9A-Fa-f]{1,16}")
_ANGLES = (
    re.compile(r"(\d{0,3}?)(\d{1,2}\.\d*)", re.ASCII),  # DDMM.mmmm, where 0 degrees may be left out
    re.compile(r"-?(\d{1,3})-(\d{1,2}(?:\.\d*)?)", re.ASCII),  # -DD-MM.mm
)
_BREAKS = str.maketrans("\r\n\t", "   ")
_DENSE_ANGLE = re.compile(r"(\d{2,3})(\d\d)(\d{4})", re.ASCII)  # DDMMmmmm


class Clock(NamedTuple):
    """A time of day."""

    hour: int
    minute: int
    second: int
    fraction_us: int = 0


def ascii_text(frame: bytes) -> str:
    """The text of a frame. Raises `FrameFault` if it is not printable ASCII."""
    if not frame.isascii():
        raise FrameFault("contains bytes that are not text")
    text = frame.decode("ascii")
    if not text.isprintable():
        raise FrameFault("contains control characters")
    return text


def ascii_lines(frame: bytes) -> str:
    """The text of a frame that may have several lines. Raises `FrameFault` if it is not ASCII text."""
    text = frame.decode("ascii", "replace")
    if not text.translate(_BREAKS).isprintable() or not frame.isascii():
        raise FrameFault("contains bytes that are not text")
    return text


def number(text: str) -> float | None:
    """A decimal number; None if blank. Raises `FrameFault`."""
    text = text.strip()
    if not text:
        return None
    if not _NUMBER.fullmatch(text):
        raise FrameFault(f"{text[:20]!r} is not a number")
    return float(text)


def whole(text: str) -> int | None:
    """An integer; None if the text isn't one."""
    text = text.strip()
    return int(text) if _WHOLE.fullmatch(text) else None


def hexadecimal(text: str) -> int | None:
    """A hexadecimal integer; None if the text isn't one."""
    text = text.strip()
    return int(text, 16) if _HEX.fullmatch(text) else None


def degrees(text: str, hemisphere: str) -> float | None:
    """Decimal degrees from DDMM.mmmm, DDMMmmmm or -DD-MM.mm; None if blank. Raises `FrameFault`.

    The sign is the hemisphere's: N, S, E or W.
    """
    text, hemisphere = text.strip(), hemisphere.strip()
    if not text:
        return None
    if hemisphere not in ("N", "S", "E", "W"):
        raise FrameFault(f"{hemisphere[:20]!r} is not a hemisphere")
    whole_degrees, minutes = _angle(text)
    if minutes >= 60:
        raise FrameFault(f"{text[:20]!r} has 60 minutes or more")
    value = whole_degrees + minutes / 60
    return -value if hemisphere in ("S", "W") else value


def _angle(text: str) -> tuple[int, float]:
    for pattern in _ANGLES:
        if match := pattern.fullmatch(text):
            return int(match[1] or 0), float(match[2])
    if match := _DENSE_ANGLE.fullmatch(text):
        return int(match[1]), float(f"{match[2]}.{match[3]}")
    raise FrameFault(f"{text[:20]!r} is not degrees and minutes")


def position(
    latitude: float | None,
    longitude: float | None,
    is_valid: bool,
    *,
    altitude_m: float | None = None,
    speed_kmh: float | None = None,
    heading_deg: float | None = None,
    satellites: int | None = None,
) -> Position:
    """A device's position. 0,0 without satellites is not a fix, even if the device marks it as valid."""
    is_nowhere = latitude == 0 and longitude == 0 and not satellites
    return Position(latitude, longitude, altitude_m, speed_kmh, heading_deg, is_fix=is_valid and not is_nowhere)


def kmh(speed: float | None, options: Options) -> float | None:
    """Convert a speed to km/h from the port's `speed_unit`, default knots."""
    return None if speed is None else speed * KMH[options.speed_unit or "knots"]


def pairs(text: str) -> tuple[int, int, int]:
    """Three numbers from six digits, such as HHMMSS or DDMMYY. Raises `RecordError`."""
    if len(text) != 6 or not (text.isascii() and text.isdigit()):
        raise RecordError("timestamp", text, "must be six digits")
    return int(text[:2]), int(text[2:4]), int(text[4:])


def nearest_us(clock: Clock, near_us: int) -> int:
    """µs since the epoch of a UTC time of day, on the day that puts it nearest to `near_us`.

    So a time shortly before midnight that arrives after midnight belongs to the previous day. Raises `RecordError`.
    """
    hour, minute, second, fraction_us = clock
    if hour > 23 or minute > 59 or second > 59:
        raise RecordError("timestamp", f"{hour:02}:{minute:02}:{second:02}", "is not a time of day")
    of_day_us = (hour * 3_600 + minute * 60 + second) * 1_000_000 + fraction_us
    return (near_us - of_day_us + DAY_US // 2) // DAY_US * DAY_US + of_day_us


def unusable(device_id: str, error: RecordError, frame: bytes, ack: bytes) -> Received:
    """The message of a complete frame with an invalid record. It is acknowledged, because its device would repeat it.

    The frame goes to quarantine. Raises `error` if the protocol has no `ack` for the frame.
    """
    if not ack:
        raise error
    return received([], frame, ack, (Aside(device_id, str(error), frame),))


def raw(values: Sequence[str], first: int = 1) -> dict[str, object]:
    """Values of unknown meaning, named by their position; blank values are omitted."""
    return {f"io{at}": value.strip() for at, value in enumerate(values, first) if value.strip()}
