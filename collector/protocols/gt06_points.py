"""GT06's frames of access points and cells, which have neither serial nor checksum.

    78 78 | count u8 | 17 or 69 | time as six pairs of decimal digits | count times: address (6 bytes), strength u8
          | count of cells u8 | country u16 | network u8 | for each: area u16, cell u16, strength u8 | 0D 0A

They are told from others by their size, which is what their counts say.
"""

from __future__ import annotations

from datetime import UTC

from collector.protocols.gt06_parts import MAC_BYTES, Body, Content, access_points
from collector.protocols.tracker import NOWHERE, cell, moment_us
from telemetry.errors import RecordError

KINDS = (0x17, 0x69)
_POINT_BYTES = MAC_BYTES + 1
_CELL_BYTES = 5
_HEAD_BYTES = 10
_NETWORK_BYTES = 3


def size_bytes(buffer: bytes | bytearray) -> int:
    """How long such a frame is, or at least will be if its counts have not come; 0 if it doesn't end there."""
    at = _HEAD_BYTES + buffer[2] * _POINT_BYTES
    if len(buffer) <= at:
        return at + 1
    size = at + 1 + _NETWORK_BYTES + buffer[at] * _CELL_BYTES + 2
    return 0 if len(buffer) >= size and buffer[size - 2 : size] != b"\r\n" else size


def read(frame: bytes) -> Content:
    """What a whole frame says. Raises `RecordError`."""
    body = Body(frame[4:-2])
    at_us = _moment_us(body.take(6).hex())
    found = access_points(body, frame[2])
    count, mcc, mnc = body.u8(), body.u16(), body.u8()
    cells = [{**cell(mcc, mnc, body.u16(), body.u16()), "level": -body.u8()} for _ in range(count)]
    return at_us, {"cells": cells or None, "wifi": found or None}, NOWHERE


def _moment_us(digits: str) -> int:
    if not digits.isdecimal():
        raise RecordError("timestamp", digits, "must be six pairs of digits")
    year, month, day, hour, minute, second = (int(digits[at : at + 2]) for at in range(0, 12, 2))
    return moment_us(year, month, day, hour, minute, second, UTC)
