"""Cache for timestamps in the most common forms, 2026-11-24T10:25:00Z and the same with milliseconds.

A minute is parsed once; seconds and milliseconds are looked up. Callers parse other forms with `iso_us`, which returns
equal results for these forms.
"""

from __future__ import annotations

from collections.abc import Iterable

from telemetry.codec.record_parser import iso_us

MAX_MINUTES = 4_096
"""Number of cached minutes, 130 bytes each."""

_MINUTE = len("2026-11-24T10:25:")
_SECOND = _MINUTE + 2


class _Minutes(dict[str, int]):
    """The start of a timestamp, up to the minutes → µs since the epoch."""

    def __missing__(self, text: str) -> int:
        if len(text) != _MINUTE:
            raise KeyError(text)
        if len(self) >= MAX_MINUTES:
            self.clear()
        minute_us = self[text] = iso_us(f"{text}00Z")
        return minute_us


_minutes = _Minutes()
_seconds = {f"{second:02}": 1_000_000 * second for second in range(60)}
_rests = {"Z": 0} | {f".{ms:03}Z": 1_000 * ms for ms in range(1_000)}


def usual_time_us(at: str) -> int:
    """µs since the epoch. Raises `KeyError`, `TypeError` or `ValueError` for other forms."""
    return _minutes[at[:_MINUTE]] + _seconds[at[_MINUTE:_SECOND]] + _rests[at[_SECOND:]]


def usual_us(texts: Iterable[str]) -> list[int]:
    """`usual_time_us` for many texts, without a Python call for each."""
    return [_minutes[at[:_MINUTE]] + _seconds[at[_MINUTE:_SECOND]] + _rests[at[_SECOND:]] for at in texts]
