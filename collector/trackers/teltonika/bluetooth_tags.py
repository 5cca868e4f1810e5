"""Bluetooth tags and beacons that Teltonika's devices receive (vendor's wiki, "EYE sensor" and "Beacon list").

tags:    01, then for each tag its length u8 and its values: kind u8, length u8, value
beacons: number of the part, then for each beacon flags u8 (bits 4-7 set: iBeacon, otherwise Eddystone), its id of 20
         or 16 bytes, signal i8; with bit 1 voltage u16 (0.01 V), with bit 2 temperature u16
"""

from __future__ import annotations

LISTS = frozenset((548, 10828, 10829, 10831, 11317))
BEACONS = 385

Tag = dict[str, object]


def tags(data: bytes) -> list[Tag] | None:
    """Values of each tag; None if the data has another form."""
    found, at = [], 1
    while at < len(data):
        end = at + 1 + data[at]
        tag = _tag(data[at + 1 : end]) if end <= len(data) else None
        if tag is None:
            return None
        found += [tag] if tag else []
        at = end
    return found


def beacons(data: bytes) -> list[Tag] | None:
    """Values of each beacon; None if the data has another form."""
    found, at = [], 1
    while at < len(data):
        flags = data[at]
        end = at + 1 + (20 if flags >> 4 else 16)
        if end + 1 + bool(flags & 2) * 2 + bool(flags & 4) * 2 > len(data):
            return None
        tag: Tag = {"id": data[at + 1 : end].hex(), "level": _signed(data[end : end + 1])}
        at = end + 1
        if flags & 2:
            tag["battery_v"] = int.from_bytes(data[at : at + 2], "big") / 100
            at += 2
        if flags & 4:
            tag["temperature_c"] = _signed(data[at : at + 2])
            at += 2
        found.append(tag)
    return found


def _tag(data: bytes) -> Tag | None:
    tag: Tag = {}
    at = 0
    while at < len(data):
        if at + 2 > len(data) or at + 2 + data[at + 1] > len(data):
            return None
        value = data[at + 2 : at + 2 + data[at + 1]]
        tag |= _value(data[at], value) if value else {}
        at += 2 + data[at + 1]
    return tag


def _value(kind: int, value: bytes) -> Tag:
    if kind in (0, 11):
        return {"level" if kind == 0 else "pitch_deg": _signed(value)}
    if kind in (1, 15):
        return {"id": value.hex()} if kind == 1 else {"mac": value.hex(":")}
    if kind == 2:
        return {"battery_v": (value[1] * 10 + 2_000) / 1_000} if value[0] & 0x80 and len(value) > 1 else {}
    if kind == 5:
        name = value.decode("utf-8", "replace").strip("\0 ")
        return {"name": name} if name.isprintable() and name else {}
    if kind in _FLAGS:
        return {_FLAGS[kind]: any(value)}
    if kind == 6:
        return {"temperature_c": _signed(value) / 100}
    if kind == 7:
        return {"humidity_percent": value[0]}
    return {"battery_v": int.from_bytes(value, "big") / 1_000} if kind == 14 else {}


_FLAGS = {8: "magnet", 9: "motion", 13: "low_battery"}


def _signed(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)
