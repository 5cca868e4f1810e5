"""Vehicle data in Queclink's messages. In CAN and OBD messages, a mask shows which values are present.

CAN: `report type,state of the bus,mask,…`; the values of its first bits are decoded, later ones are kept as sent.
OBD: `…,mask,VIN,connected,mV,numbers known (8 digits),rpm,speed,coolant,…,throttle,load,fuel,…`.
Reports of a position: `rpm,l/100 km,% of the tank` after the state; the second is `Inf` or `NaN` while it is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from collector.trackers.position import Attributes

_MASK = re.compile(r"[0-9A-F]{8}")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)
_CODES = re.compile(r"(?:[0-9A-F]{4})+")
_VIN = re.compile(r"[0-9A-Z]{17}")

_ENGINE = re.compile(r"(\d{1,5})?,(\d{1,4}(?:\.\d+)?|inf|nan)?,(\d{1,2}|100)?,*", re.ASCII | re.IGNORECASE)

Value = Callable[[str], object]


def can(values: Sequence[str]) -> Attributes:
    """Attributes of a CAN message; `values` are those between the device's name and the fix."""
    at = next((at for at, value in enumerate(values[:4]) if _MASK.fullmatch(value)), None)
    if at is None:
        return {}
    mask, rest = int(values[at], 16), list(values[at + 1 :])
    found: Attributes = {}
    for bit, name, parse in _OF_CAN:
        if mask >> bit & 1 and rest:
            value = rest.pop(0).strip()
            found |= {name: parse(value)} if name and value else {}
    return found | {"data": ",".join(values).strip(",") or None}


def obd(values: Sequence[str]) -> Attributes:
    """Attributes of an OBD message; its values are also kept as sent."""
    found: Attributes = {"data": ",".join(values).strip(",") or None}
    at = next((at for at, value in enumerate(values) if _MASK.fullmatch(value)), None)
    if at is None or at < 3 or len(values) < at + 12:
        return found
    vin, millivolts, codes = values[at - 3], _number(values[at - 1]), values[at + 9]
    found |= {"vin": vin if _VIN.fullmatch(vin) else None}
    found |= {"external_v": None if millivolts is None else millivolts / 1_000}
    names = ("rpm", "obd_speed_kmh", "coolant_c")
    found |= {name: _number(value) for name, value in zip(names, values[at + 1 : at + 4], strict=False)}
    if _CODES.fullmatch(codes):
        found["fault_codes"] = [codes[n : n + 4] for n in range(0, len(codes), 4)]
    names = ("throttle_percent", "engine_load_percent", "fuel_percent")
    return found | {name: _number(value) for name, value in zip(names, values[at + 10 : at + 13], strict=False)}


def engine(values: Sequence[str]) -> Attributes:
    """Engine values after the state of a position; kept as sent if they have another form."""
    text = ",".join(values)
    match = _ENGINE.fullmatch(text)
    if match is None:
        return {"extra": text.strip(",") or None}
    names = ("rpm", "fuel_l_per_100km", "fuel_percent")
    found = {name: _number(value or "") for name, value in zip(names, match.groups(), strict=True)}
    return {name: value for name, value in found.items() if value is not None}


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _vin(text: str) -> str | None:
    return text if _VIN.fullmatch(text) else None


def _ignition(text: str) -> bool | None:
    return text != "0" if text in ("0", "1", "2") else None


def _hectometers(text: str) -> float | None:
    value = _number(text[1:]) if text[:1] == "H" else None
    return None if value is None else value * 100


def _percent(text: str) -> float | None:
    return _number(text[1:]) if text[:1] == "P" else None


def _per_hour(text: str) -> float | None:
    return _number(text[3:]) if text[:3] == "L/H" else None


_OF_CAN: tuple[tuple[int, str, Value], ...] = (
    (0, "vin", _vin),
    (1, "ignition", _ignition),
    (2, "odometer_m", _hectometers),
    (3, "", _number),
    (5, "rpm", _number),
    (4, "obd_speed_kmh", _number),
    (6, "coolant_c", _number),
    (7, "fuel_l_per_h", _per_hour),
    (8, "fuel_percent", _percent),
    (9, "", _number),
    (10, "throttle_percent", _number),
    (11, "engine_hours", _number),
)
"""Bit of the mask, attribute and parser, in the order of the values."""
