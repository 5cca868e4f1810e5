"""Device state in Queclink's messages, and the cell and odometer after each fix."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from collector.trackers.gl200 import can_obd as vehicle
from collector.trackers.gl200.bluetooth_tags import tags
from collector.trackers.gl200.no_fix import unlocated
from collector.trackers.gl200.values import (
    CELL,
    CELL_VALUES,
    KM,
    POWER_MV,
    STATION,
    STATUS,
    WAITERS,
    WAITING,
    cell_of,
    moving,
    percent,
    volts,
    waiting,
)
from collector.trackers.position import Attributes
from collector.trackers.text_fields import number, whole

_HOURS = re.compile(r"\d{1,7}:\d\d:\d\d", re.ASCII)
_USUAL = re.compile(r"\d*,[0-9A-F]{1,2},\d{1,2}", re.ASCII)
_MASK = re.compile(r"0[0-7]")
_NETWORKS = re.compile(r"^\d{1,2},(?:[0-9A-Fa-f]{12},-\d{1,3},,,,)+|,[0-9A-Fa-f]{12},-\d{1,3}(?=,)", re.ASCII)
_ADC_MV = re.compile(r"\d{1,5}", re.ASCII)
_VIN = re.compile(r"(?=.*\d)[0-9A-HJ-NPR-Z]{17}")
_AGO = re.compile(r"[01]?,([01])?,(-?\d{1,2}\.\d+)?", re.ASCII)
_DIGITS = re.compile(r"(?:-?\d{0,3},)?\d{1,3}", re.ASCII)
_HEX_WORD = re.compile(r"[0-9A-F]{4}")
_ERI_MASK = re.compile(r"[0-9A-F]{8}")
_CARD = re.compile(r"[0-9A-Fa-f]{6,20}")
_ONE_WIRE = re.compile(r"(?:^|,)[0-9A-F]{16},1,([0-9A-F]{4})(?=,|$)")

ALARMS = {
    "SOS": "sos",
    "SPD": "overspeed",
    "TOW": "tow",
    "IDL": "idle",
    "IDN": "idle",
    "PNA": "power_on",
    "PFA": "power_off",
    "EPN": "power_restored",
    "MPN": "power_restored",
    "EPF": "power_cut",
    "MPF": "power_cut",
    "BPL": "low_battery",
    "STT": "movement",
    "SWG": "geofence",
    "GIN": "geofence_enter",
    "GOT": "geofence_exit",
    "TMP": "temperature",
    "TEM": "temperature",
    "JDR": "jamming",
    "JDS": "jamming",
    "CRA": "accident",
}
"""Type → alarm."""

_HARSH = ("hard_braking", "hard_acceleration", "hard_cornering") * 2
_GEOFENCE = ("geofence_exit", "geofence_enter")
_IGNITIONS = {"IGN": True, "IGF": False, "VGN": True, "VGF": False}
_SWITCHES = {"LSW": "input1", "TSW": "input2"}
_CHARGING = {"BTC": True, "STC": False}


class Fix(NamedTuple):
    """Range of a fix in the values of its message: from its accuracy up to the value before `end`."""

    begin: int
    end: int


class Report(NamedTuple):
    """A message; `values` are those between the device's id and the time of sending."""

    kind: str
    name: str
    values: list[str]
    fixes: list[Fix]
    sent_at: str


def state(report: Report) -> Attributes:
    """The attributes of a whole message."""
    found: Attributes = {"type": report.name, "buffered": True if report.kind == "BUFF" else None}
    if report.kind == "ACK":
        return found | ({} if report.name == "HBD" else {"result": ",".join(report.values)})
    if report.name in _CHARGING:
        found["charging"] = _CHARGING[report.name]
    found |= {"alarm": ALARMS.get(report.name), "ignition": _IGNITIONS.get(report.name)}
    found |= _located(report) if report.fixes else unlocated(report.name, report.values[1:])
    return {name: value for name, value in found.items() if value is not None}


def where(values: Sequence[str]) -> tuple[Attributes, list[str]]:
    """Cell, engine hours if sent, and odometer after a fix; and the values after them.

    After the cell there may be a mask of two digits, or a blank. Its bits show how many values follow; the first is
    the number of satellites.
    """
    rest, found = list(values), Attributes()
    if CELL.fullmatch(",".join(rest[:CELL_VALUES])):
        found["cells"] = [cell_of(rest[:CELL_VALUES])]
    rest = rest[CELL_VALUES:]
    if rest and not KM.fullmatch(rest[0]):
        mask = int(rest[0]) if _MASK.fullmatch(rest[0]) else 0
        if mask & 1 and len(rest) > 1:
            found["satellites"] = whole(rest[1])
        rest = rest[1 + mask.bit_count() :]
    if len(rest) > 1 and _HOURS.fullmatch(rest[0]) and KM.fullmatch(rest[1]):
        found["engine_hours"] = _hours(rest.pop(0))
    if rest and KM.fullmatch(rest[0]):
        found["odometer_m"] = round(float(rest[0]) * 1_000, 3)
        rest = rest[1:]
    elif len(rest) > 1 and not rest[0]:
        rest = rest[1:]
    return found, rest


# With a fix ------------------------------------------------------------------------------------------


def _located(report: Report) -> Attributes:
    """Attributes from the values before the first fix and after the last one."""
    first, last = report.fixes[0], report.fixes[-1]
    before = report.values[1 : first.begin]
    following, networks = without_networks(report.values[last.begin + 7 : last.end])
    _, after = where(following)
    found = _before(report.name, before)
    found |= _after(report.name, after, found.pop("mask", None)) | networks
    if (vin := report.values[0]) and _VIN.fullmatch(vin):
        found["vin"] = vin
    return found


def without_networks(values: list[str]) -> tuple[list[str], Attributes]:
    """Separate the Wi-Fi networks, which some devices send before or after the cell, from the values after a fix."""
    text = ",".join(values)
    networks = [{"mac": address.lower(), "level": int(level)} for address, level in STATION.findall(text)]
    if not networks:
        return values, {}
    return _NETWORKS.sub("", text).split(","), {"wifi": networks}


def _before(name: str, values: list[str]) -> Attributes:
    """Values before a fix: vehicle data, values of a sleeping device, or the usual values."""
    if name in ("CAN", "OBD"):
        return vehicle.can(values) if name == "CAN" else vehicle.obd(values)
    if name in WAITERS and (match := WAITING.match(",".join(values))):
        return waiting(match)
    found = _reported(name, values)
    if name == "ERI" and values and _ERI_MASK.fullmatch(values[0]):
        found["mask"] = int(values[0], 16)
    if name in ("BAA", "BID"):
        found |= tags(values)
    if name == "IDA":
        found["driver_id"] = next((value for value in values if _CARD.fullmatch(value)), None)
    return found


def _reported(name: str, values: list[str]) -> Attributes:
    """`[…,external mV,]report type,count` for most; the type is the last digit of its value."""
    found: Attributes = {}
    if len(values) >= 3 and POWER_MV.fullmatch(values[-3]):
        found["external_v"] = int(values[-3]) / 1_000
    kind = whole(values[-2][-1:]) if len(values) >= 2 else None
    if name == "STT" and values:
        found |= moving(values[-1])
    elif name == "BPL" and values:
        found["battery_v"] = volts(values[-1])
    elif name == "TEM" and values:
        found["temperature_c"] = number(values[-1])
    elif name in _SWITCHES and values:
        found[_SWITCHES[name]] = values[-1] == "1"
    elif _USUAL.fullmatch(",".join(values[-3:])) and kind is not None:
        found |= _kind(name, kind)
    else:
        found["data"] = ",".join(values).strip(",") or None
    return found


def _kind(name: str, kind: int) -> Attributes:
    """Attributes that follow from the type of a report."""
    if name == "HBM":
        return {"alarm": _HARSH[kind]} if kind < len(_HARSH) else {}
    if name == "GEO":
        return {"alarm": _GEOFENCE[kind]} if kind < len(_GEOFENCE) else {}
    if name == "IGL":
        return {"ignition": kind == 1}
    if name == "NMR":
        return {"motion": kind == 1}
    return {"input1": kind == 1} if name == "DIS" else {}


def _after(name: str, values: list[str], mask: object = None) -> Attributes:
    """A battery charge alone, or `hours,analog inputs,battery,status,…`; other values are kept as sent."""
    if name in _IGNITIONS:
        return _ignited(values)
    if values and not any(values[1:]) and _is_percent(values[0]):
        return {} if name in WAITERS else {"battery_percent": percent(values[0])}
    if _DIGITS.fullmatch(",".join(values)) and _is_percent(values[-1]):
        return {"battery_percent": percent(values[-1])}
    if found := _asleep(values):
        return found
    if values and _HOURS.fullmatch(values[0]):
        found["engine_hours"] = _hours(values[0])
        values = ["", *values[1:]]
    for at in (3, 4, 2, 5):
        if len(values) > at + 1 and STATUS.fullmatch(values[at + 1]) and _is_percent(values[at]):
            found |= _analog(values[1:at])
            found |= {"battery_percent": percent(values[at]), **_status(values[at + 1])}
            rest = values[at + 2 :]
            return found | (_accessories(rest, mask) if name == "ERI" else vehicle.engine(rest))
    return {**found, "extra": ",".join(values).strip(",") or None}


def _analog(values: Sequence[str]) -> Attributes:
    """Inputs in mV, or `F<percent>` from a fuel gauge; other values are kept as sent."""
    found: Attributes = {}
    for n, value in enumerate(values, 1):
        if _ADC_MV.fullmatch(value):
            found[f"adc{n}_v"] = int(value) / 1_000
        elif (level := percent(value[1:])) is not None and value[0] == "F":
            found["fuel2_percent" if "fuel_percent" in found else "fuel_percent"] = level
        elif value:
            found["data"] = ",".join(values)
    return found


def _ignited(values: list[str]) -> Attributes:
    """`hours,odometer` after the cell. The hours may be missing, or a blank value may precede them."""
    found: Attributes = {}
    rest = values[1:] if values and not values[0] else values
    if rest and _HOURS.fullmatch(rest[0]):
        found["engine_hours"] = _hours(rest[0])
        rest = rest[1:]
    if rest and KM.fullmatch(rest[0]):
        found["odometer_m"] = round(float(rest[0]) * 1_000, 3)
        rest = rest[1:]
    return found | {"extra": ",".join(rest).strip(",") or None}


def _asleep(values: list[str]) -> Attributes:
    """`errors,battery mV,battery,mode,motion,temperature` of the GL500; the first two may be missing."""
    for at in (0, 2):
        rest = values[at:]
        if rest and rest[0] and _is_percent(rest[0]) and len(rest) > 2 and not (at and len(values[0]) > 2):
            match = _AGO.fullmatch(",".join(rest[1:4]))
            if match and not any(rest[4:]):
                millivolts = values[1] if at and POWER_MV.fullmatch(values[1]) else ""
                return {
                    "battery_v": int(millivolts) / 1_000 if millivolts else None,
                    "battery_percent": percent(rest[0]),
                    "motion": None if match[1] is None else match[1] == "1",
                    "temperature_c": None if match[2] is None else float(match[2]),
                }
    return {}


def _hours(text: str) -> float:
    hours, minutes, seconds = map(int, text.split(":"))
    return round(hours + minutes / 60 + seconds / 3_600, 4)


def _is_percent(text: str) -> bool:
    return not text or percent(text) is not None


def _status(text: str) -> Attributes:
    """Hexadecimal: the state of motion; with six digits also inputs and outputs."""
    found: Attributes = {"status": text, **moving(text[:2])}
    if len(text) == 6:
        inputs, outputs = int(text[2:4], 16), int(text[4:], 16)
        found |= {"inputs": inputs, "input1": bool(inputs & 2), "input2": bool(inputs & 4)}
        found |= {"outputs": outputs, "output1": bool(outputs & 1), "output2": bool(outputs & 2)}
    return found


def _accessories(values: list[str], mask: object) -> Attributes:
    """Accessories: a fuel gauge, and 1-Wire thermometers, recognised by their ids; also kept as sent."""
    text = ",".join(values)
    fuel = next((value for value in values if _HEX_WORD.fullmatch(value)), None) if _has_gauge(mask) else None
    degrees = [_sixteenths(match[1]) for match in _ONE_WIRE.finditer(text)]
    found: Attributes = {f"temperature{n}_c" if n > 1 else "temperature_c": value for n, value in enumerate(degrees, 1)}
    found |= tags(values) | ({} if fuel is None else {"fuel": int(fuel, 16)})
    return found | ({"data": text} if text.strip(",") else {})


def _has_gauge(mask: object) -> bool:
    return isinstance(mask, int) and bool(mask & 1)


def _sixteenths(text: str) -> float:
    """A signed 16-bit number in units of 1/16."""
    value = int(text, 16)
    return (value - 0x1_0000 if value & 0x8000 else value) / 16
