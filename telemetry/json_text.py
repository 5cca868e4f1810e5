"""JSON bytes to values, with bounds on what they may cost and errors that name the place."""

from __future__ import annotations

import re

import msgspec

from telemetry.errors import SyntaxFault

_BYTE = re.compile(r" ?\(byte (\d+)\)")
_MESSAGE = "JSON is malformed: "
TRUNCATED = "Input data was truncated"

_decode = msgspec.json.Decoder().decode


def read(data: bytes | bytearray, max_containers: int) -> object:
    """Decode one JSON value. Raises `SyntaxFault`.

    Each object or array costs some 60 bytes of memory however short its text is: more than
    `max_containers` opening brackets are refused before any is made.
    """
    if data.count(b"{") + data.count(b"[") > max_containers:
        raise SyntaxFault(f"more than {max_containers} objects and arrays")
    try:
        return _decode(data)
    except UnicodeDecodeError as error:
        raise NotUtf8(f"not UTF-8: {error.reason}") from None
    except RecursionError:
        raise SyntaxFault("nested too deeply") from None
    except msgspec.MsgspecError as error:
        raise _fault(str(error)) from None


def _fault(text: str) -> SyntaxFault:
    if text == TRUNCATED:
        return Truncated("cut short")
    found = _BYTE.search(text)
    reason = _BYTE.sub("", text).removeprefix(_MESSAGE)
    if found is None:
        return SyntaxFault(reason)
    return SyntaxFault(f"{reason} at byte {found[1]}", int(found[1]))


class NotUtf8(SyntaxFault):
    """The bytes are not UTF-8 text."""


class Truncated(SyntaxFault):
    """The text ends before its value does."""
