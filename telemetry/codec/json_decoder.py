"""Decodes JSON bytes with limits on their cost; errors contain the position of the fault."""

from __future__ import annotations

import math
import re

import msgspec

from telemetry.model.errors import SyntaxFault

MAX_DEPTH = 500
"""Nesting that the parser always supports. If it stops at a deeper value, the fault is reported at this depth."""

MAX_DIGITS = 4_300
"""The parser's limit for an integer, its sign included, in characters."""

TRUNCATED = "Input data was truncated"

_BYTE = re.compile(r" ?\(byte (\d+)\)")
_MESSAGE = "JSON is malformed: "
_NAMES_NEXT_BYTE = ("trailing characters", "invalid escape character in string", "invalid character in unicode escape")
_LITERALS = (b"false", b"true", b"null")
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_STRING_OR_BRACKET = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL)
_STRING_OR_NUMBER = re.compile(_STRING + rb"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", re.DOTALL)

_decode = msgspec.json.Decoder().decode


def read(data: bytes | bytearray, max_containers: int) -> object:
    """Decode one JSON value. Raises `SyntaxFault`.

    Each object or array costs some 60 bytes of memory however short its text is. Input with more than
    `max_containers` opening brackets is rejected before it is decoded.
    """
    if data.count(b"{") + data.count(b"[") > max_containers:
        raise SyntaxFault(f"more than {max_containers} objects and arrays")
    try:
        return _decode(data)
    except UnicodeDecodeError as error:
        raise NotUtf8(f"not UTF-8: {error.reason}", _not_utf8_at(data)) from None
    except RecursionError:
        raise _fault_with_position("nested too deeply", _too_deep_at(data)) from None
    except msgspec.MsgspecError as error:
        raise _fault(str(error), data) from None


def _fault(text: str, data: bytes | bytearray) -> SyntaxFault:
    if text == TRUNCATED:
        return Truncated("cut short")
    match = _BYTE.search(text)
    if match is None:  # the syntax is valid, but a number is too large
        reason, at = text.partition(" - at ")[0], _too_large_at(data)
        return SyntaxFault(reason) if at is None else _fault_with_position(reason, at)
    reason, at = _BYTE.sub("", text).removeprefix(_MESSAGE), int(match[1])
    if reason == "invalid number" and at == len(data):  # after a sign, a point or an e, digits may follow
        return Truncated("cut short")
    return _fault_with_position(reason, _fault_at(reason, at, data))


def _fault_with_position(reason: str, at: int) -> SyntaxFault:
    return SyntaxFault(f"{reason} at byte {at}", at)


def _fault_at(reason: str, at: int, data: bytes | bytearray) -> int:
    """Position of the fault. For some faults msgspec reports the next byte, or the end of a misspelt literal."""
    if reason in _NAMES_NEXT_BYTE:
        return at - 1
    if reason == "invalid character":
        for literal in _LITERALS:
            start = at - len(literal)
            if start >= 0 and data[start] == literal[0] and data[start:at] != literal and _may_begin(data, start):
                return start
    return at


def _may_begin(data: bytes | bytearray, start: int) -> bool:
    """True if a value may begin here, judging by the byte before."""
    return start == 0 or data[start - 1] in b"[,: \t\r\n"


def _not_utf8_at(data: bytes | bytearray) -> int | None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None


def _too_deep_at(data: bytes | bytearray) -> int:
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(data):
        if match[0] in (b"[", b"{"):
            depth += 1
        elif match[0] in (b"]", b"}"):
            depth -= 1
        if depth > MAX_DEPTH:
            return match.start()
    return 0


def _too_large_at(data: bytes | bytearray) -> int | None:
    for match in _STRING_OR_NUMBER.finditer(data):
        number = match[0]
        is_integer = number.lstrip(b"-").isdigit()
        if number[0] != ord('"') and (len(number) > MAX_DIGITS if is_integer else math.isinf(float(number))):
            return match.start()
    return None


class NotUtf8(SyntaxFault):
    """The bytes are not valid UTF-8."""


class Truncated(SyntaxFault):
    """The text ends before its value does."""
