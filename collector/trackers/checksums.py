"""The checksums of trackers' frames."""

from __future__ import annotations

from collections.abc import Sequence


def _table(polynomial: int) -> tuple[int, ...]:
    """Table of a reflected 16-bit CRC: the register after each byte, from 0."""
    return tuple(_shifted(byte, polynomial) for byte in range(256))


def _shifted(register: int, polynomial: int) -> int:
    for _ in range(8):
        register = register >> 1 ^ (polynomial if register & 1 else 0)
    return register


_ARC = _table(0xA001)
_X25 = _table(0x8408)


def crc16_arc(data: bytes) -> int:
    """CRC-16/ARC. The check value, for b"123456789", is 0xBB3D."""
    return _crc(data, _ARC, 0)


def crc16_x25(data: bytes) -> int:
    """CRC-16/X-25, which vendors call CRC-ITU. The check value, for b"123456789", is 0x906E."""
    return _crc(data, _X25, 0xFFFF) ^ 0xFFFF


def _crc(data: bytes, table: Sequence[int], register: int) -> int:
    for byte in data:
        register = register >> 8 ^ table[(register ^ byte) & 0xFF]
    return register


def xor(data: bytes) -> int:
    """Exclusive or of all bytes, the checksum of NMEA 0183."""
    checksum = 0
    for byte in data:
        checksum ^= byte
    return checksum
