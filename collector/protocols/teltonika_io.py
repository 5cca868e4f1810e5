"""Which of Teltonika's numbered values is what (vendor's wiki, "AVL ID" lists of its devices).

Only what all models agree on has a name; every other value is kept as `io<number>`, as it came.
"""

from __future__ import annotations

from collections.abc import Callable

from collector.protocols import teltonika_tags as tags
from collector.protocols.tracker import Attributes

Named = Callable[[int, int], object]
"""A value and how many bytes it came in → what it means; None if it means nothing."""


def named(number: int, value: int, size_bytes: int) -> Attributes:
    """A value under its name: {"external_v": 12.65}."""
    known = NAMES.get(number)
    if known is None:
        return {f"io{number}": value}
    name, means = known
    meaning = means(value, size_bytes)
    return {} if meaning is None else {name: meaning}


def named_text(number: int, value: bytes) -> Attributes:
    """A value of any length under its name; what has none is written in hex."""
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


def _parts(of_one: int) -> Named:
    """An unsigned number of parts of a unit: 12,650 mV, of which 1,000 are one, are 12.65 V."""
    return lambda value, _size: value / of_one


def _degrees(of_one: int) -> Named:
    """Signed; beyond 300 degrees stand the codes of a sensor that fails."""

    def means(value: int, size_bytes: int) -> float | None:
        found = _signed(value, size_bytes) / of_one
        return found if abs(found) < 300 else None

    return means


def _amperes(value: int, size_bytes: int) -> float:
    return _signed(value, size_bytes) / 1_000


def _key(value: int, size_bytes: int) -> str | None:
    """An iButton, as it is printed on it: the least significant byte first."""
    return value.to_bytes(size_bytes, "little").hex().upper() if value else None


def _alarm(kind: str) -> Named:
    return lambda value, _size: kind if value else None


def _harsh(value: int, _size: int) -> str | None:
    return {1: "hard_acceleration", 2: "hard_braking", 3: "hard_cornering"}.get(value)


NAMES: dict[int, tuple[str, Named]] = {
    1: ("input1", _flag),
    2: ("input2", _flag),
    3: ("input3", _flag),
    4: ("input4", _flag),
    179: ("output1", _flag),
    180: ("output2", _flag),
    9: ("adc1_v", _parts(1_000)),
    10: ("adc2_v", _parts(1_000)),
    16: ("odometer_m", _plain),
    17: ("acceleration_x_mg", _signed),
    18: ("acceleration_y_mg", _signed),
    19: ("acceleration_z_mg", _signed),
    21: ("gsm_signal", _plain),
    66: ("external_v", _parts(1_000)),
    67: ("battery_v", _parts(1_000)),
    68: ("battery_a", _amperes),
    72: ("temperature_c", _degrees(10)),
    73: ("temperature2_c", _degrees(10)),
    74: ("temperature3_c", _degrees(10)),
    75: ("temperature4_c", _degrees(10)),
    78: ("driver_id", _key),
    113: ("battery_percent", _plain),
    181: ("pdop", _parts(10)),
    182: ("hdop", _parts(10)),
    199: ("trip_m", _plain),
    236: ("alarm", _alarm("general")),
    239: ("ignition", _flag),
    240: ("motion", _flag),
    241: ("operator", _plain),
    246: ("alarm", _alarm("tow")),
    247: ("alarm", _alarm("accident")),
    249: ("alarm", _alarm("jamming")),
    251: ("alarm", _alarm("idle")),
    252: ("alarm", _alarm("power_cut")),
    253: ("alarm", _harsh),
    255: ("alarm", _alarm("overspeed")),
    10800: ("temperature_c", _degrees(100)),
    10801: ("temperature2_c", _degrees(100)),
    10802: ("temperature3_c", _degrees(100)),
    10803: ("temperature4_c", _degrees(100)),
}
"""Number → attribute (docs/attributes.md) and what its value means."""

TEXTS = {256: "vin", 281: "fault_codes", 325: "vin"}
"""Number → attribute of a value that is text."""
