"""Finds the end of a JSON value in a stream, and checks the beginning of a value that has not ended yet."""

from __future__ import annotations

import re
import sys

from telemetry.codec.json_decoder import Truncated
from telemetry.codec.json_decoder import read as read_json
from telemetry.model.errors import SyntaxFault

CHECKED_BYTES = 2**12
"""Size of an unfinished value up to which it is checked for errors at each silence. A longer one must have grown by an
eighth since the last check: otherwise a slow sender of single bytes would cause a parse of the value each time."""

_SCALAR_END = re.compile(rb"[\s,\[\]{}\"]")
_STRUCTURE = re.compile(rb'["\[\]{}]')
_NO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', re.DOTALL)
"""Whole strings and the bytes between them, in one step: most of a batch consists of these."""

_STRING_END = re.compile(rb'["\\]')


class Scanner:
    """Finds the end of a JSON value. It reads each byte once, in whichever pieces the bytes arrive.

    It counts brackets and recognises strings; the parser decides whether the bytes between them are JSON.
    """

    def __init__(self) -> None:
        self.at = 0
        self._end: int | None = None
        self._depth = 0
        self._in_string = False

    def end(self, data: bytearray, stop: int) -> int | None:
        """The position after the value that starts `data`; None if the value continues at `stop`."""
        if self._end is None:
            self._end = self._bracketed(data, stop) if is_bracketed(data) else self._scalar(data, stop)
        return self._end

    def _scalar(self, data: bytearray, stop: int) -> int | None:
        found = _SCALAR_END.search(data, max(self.at, 1), stop)
        self.at = stop
        return found.start() if found else None

    def _bracketed(self, data: bytearray, stop: int) -> int | None:
        while self.at < stop:
            if self._depth and not self._in_string:
                self.at = match_end(_NO_BRACKET, data, self.at, stop)
            found = (_STRING_END if self._in_string else _STRUCTURE).search(data, self.at, stop)
            if found is None:
                self.at = stop
                return None
            self.at = found.end()
            if self._closes(found[0]):
                return self.at
            if found[0] == b"\\":
                self.at += 1
        return None

    def _closes(self, mark: bytes) -> bool:
        if mark == b'"':
            self._in_string = not self._in_string
            return self._depth == 0 and not self._in_string
        if mark == b"\\":
            return False
        self._depth += 1 if mark in b"{[" else -1
        return self._depth <= 0


class FirstValue:
    """The value at the beginning of a buffer, which its owner appends to and shortens."""

    def __init__(self, buffer: bytearray, max_bytes: int) -> None:
        self._buffer = buffer
        self._max_bytes = max_bytes
        self._scanner = Scanner()
        self.checked_bytes = 0
        """Size of the part of an unfinished value that was checked."""

    def begin(self) -> None:
        """Forget the value: another one begins the buffer now."""
        if self._scanner.at:
            self._scanner = Scanner()
        self.checked_bytes = 0

    @property
    def scanned_bytes(self) -> int:
        """Size of the part in which the end was searched; 0 for a value that was not scanned yet."""
        return self._scanner.at

    def end(self, stop: int) -> int | None:
        """The position after the value; None if it continues at `stop`."""
        return self._scanner.end(self._buffer, stop)

    def check(self, stop: int) -> SyntaxFault | None:
        """The fault of the value up to `stop`, if any."""
        self.checked_bytes = stop
        try:
            read_json(self._buffer[:stop], self._max_bytes)
        except SyntaxFault as fault:
            return fault
        return None

    def unfinished_fault(self, is_quiet: bool) -> SyntaxFault | None:
        """The fault of a value that has not ended; None if it has ended, or if it cannot be known yet.

        `is_quiet` is true at a silence: then a check may be postponed.
        """
        if not is_bracketed(self._buffer) or self.end(len(self._buffer)) is not None:
            return None
        if is_quiet and not self._is_check_due:
            return Truncated("cut short")
        return self.check(len(self._buffer))

    @property
    def _is_check_due(self) -> bool:
        size = len(self._buffer)
        return size <= CHECKED_BYTES or size >= self.checked_bytes * 9 // 8


def match_end(pattern: re.Pattern[bytes], data: bytearray, start: int, stop: int = sys.maxsize) -> int:
    """The end of a pattern's match at `start`; `start` without a match."""
    found = pattern.match(data, start, stop)
    return found.end() if found else start


def is_bracketed(data: bytearray) -> bool:
    """True if the value that starts `data` has an end of its own: an object, an array or a string."""
    return data.startswith((b"{", b"[", b'"'))
