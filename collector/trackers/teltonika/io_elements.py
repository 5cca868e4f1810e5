"""Names of Teltonika's IO elements, which are values with a number (vendor's wiki, "AVL ID" lists of its devices).

Only numbers with the same meaning in all models have a name; other values are kept as sent, as `io<number>`. Some
models use a number for another value with more bytes: 113 is the battery's percentage only if it has one byte.
"""

from __future__ import annotations

from collections.abc import Callable

from collector.trackers.position import Attributes
from collector.trackers.teltonika import bluetooth_tags as tags

Named = Callable[[int, int], object]
"""Value and its size in bytes → attribute value; None if the value has no meaning."""


def named(number: int, value: int, size_bytes: int) -> Attributes:
    """A value under its name, {"external_v": 12.65}, or under its number if the name does not apply."""
    known = NAMES.get(number)
    if known is None or not is_named(known[0], known[1], value, size_bytes):
        return {f"io{number}": value}
    name, _, parse = known
    meaning = parse(value, size_bytes)
    return {} if meaning is None else {name: meaning}


def is_named(name: str, max_bytes: int, value: int, size_bytes: int) -> bool:
    """True if the name applies to a value: it is not too long, and a percentage is at most 100."""
    return size_bytes <= max_bytes and not (name.endswith("_percent") and value > 100)


def named_text(number: int, value: bytes) -> Attributes:
    """A value of variable length under its name; without a name, in hex."""
    if found := _tags(number, value):
        return {"tags": found}
    name = TEXTS.get(number)
    text = value.decode("latin-1").strip("\0 ")
    if name is None or not (text.isascii() and text.isprintable()):
        return {f"io{number}": value.hex()}
    if name == "fault_codes":
        return {name: text.split(",")} if text else {}
    return {name: text} if text else {}


def _tags(number: int, value: bytes) -> list[tags.Tag] | None:
    if number in tags.LISTS:
        return tags.tags(value)
    return tags.beacons(value) if number == tags.BEACONS else None


def _signed(value: int, size_bytes: int) -> int:
    bits = 8 * size_bytes
    return value - (1 << bits) if value >> (bits - 1) else value


def _plain(value: int, _size: int) -> int:
    return value


def _flag(value: int, _size: int) -> bool:
    return value != 0


def _parts(divisor: int) -> Named:
    """An unsigned number in fractions of a unit: 12,650 mV with divisor 1,000 are 12.65 V."""
    return lambda value, _size: value / divisor


def _degrees(divisor: int) -> Named:
    """A signed temperature; values beyond 300 degrees are error codes of the sensor."""

    def parse(value: int, size_bytes: int) -> float | None:
        degrees = _signed(value, size_bytes) / divisor
        return degrees if abs(degrees) < 300 else None

    return parse


def _amperes(value: int, size_bytes: int) -> float:
    return _signed(value, size_bytes) / 1_000


def _key(value: int, size_bytes: int) -> str | None:
    """The id of an iButton as printed on it: the least significant byte first."""
    return value.to_bytes(size_bytes, "little").hex().upper() if value else None


def _alarm(kind: str) -> Named:
    return lambda value, _size: kind if value else None


def _harsh(value: int, _size: int) -> str | None:
    return {1: "hard_acceleration", 2: "hard_braking", 3: "hard_cornering"}.get(value)


NAMES: dict[int, tuple[str, int, Named]] = {
    1: ("input1", 1, _flag),
    2: ("input2", 1, _flag),
    3: ("input3", 1, _flag),
    4: ("input4", 1, _flag),
    179: ("output1", 1, _flag),
    180: ("output2", 1, _flag),
    9: ("adc1_v", 2, _parts(1_000)),
    10: ("adc2_v", 2, _parts(1_000)),
    16: ("odometer_m", 4, _plain),
    17: ("acceleration_x_mg", 2, _signed),
    18: ("acceleration_y_mg", 2, _signed),
    19: ("acceleration_z_mg", 2, _signed),
    21: ("gsm_signal", 1, _plain),
    66: ("external_v", 2, _parts(1_000)),
    67: ("battery_v", 2, _parts(1_000)),
    68: ("battery_a", 2, _amperes),
    72: ("temperature_c", 4, _degrees(10)),
    73: ("temperature2_c", 4, _degrees(10)),
    74: ("temperature3_c", 4, _degrees(10)),
    75: ("temperature4_c", 4, _degrees(10)),
    78: ("driver_id", 8, _key),
    113: ("battery_percent", 1, _plain),
    181: ("pdop", 2, _parts(10)),
    182: ("hdop", 2, _parts(10)),
    199: ("trip_m", 4, _plain),
    236: ("alarm", 1, _alarm("general")),
    239: ("ignition", 1, _flag),
    240: ("motion", 1, _flag),
    241: ("operator", 4, _plain),
    246: ("alarm", 1, _alarm("tow")),
    247: ("alarm", 1, _alarm("accident")),
    249: ("alarm", 1, _alarm("jamming")),
    251: ("alarm", 1, _alarm("idle")),
    252: ("alarm", 1, _alarm("power_cut")),
    253: ("alarm", 1, _harsh),
    255: ("alarm", 1, _alarm("overspeed")),
    10800: ("temperature_c", 2, _degrees(100)),
    10801: ("temperature2_c", 2, _degrees(100)),
    10802: ("temperature3_c", 2, _degrees(100)),
    10803: ("temperature4_c", 2, _degrees(100)),
}
"""Number → attribute (docs/attributes.md), maximum size in bytes, and parser of the value."""

TEXTS = {256: "vin", 281: "fault_codes", 325: "vin"}
"""Number → attribute of a text value."""
