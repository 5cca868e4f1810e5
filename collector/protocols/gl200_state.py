"""What Queclink's messages say of their device's state, and of the cell and odometer behind each fix."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from collector.protocols.text import hexadecimal, number, whole
from collector.protocols.tracker import Attributes, cell

_CELL = re.compile(r"\d{3,4},\d{1,4},[0-9A-Fa-f]{1,8},[0-9A-Fa-f]{1,8}", re.ASCII)
_CELL_VALUES = 4
_GSM_VALUES = 6
_KM = re.compile(r"\d+\.\d+", re.ASCII)
_HOURS = re.compile(r"\d{1,7}:\d\d:\d\d", re.ASCII)
_POWER_MV = re.compile(r"\d{4,5}", re.ASCII)
_USUAL = re.compile(r"\d*,[0-9A-F]{1,2},\d{1,2}", re.ASCII)
_MASK = re.compile(r"0[0-7]")
_STATION = re.compile(r"([0-9A-Fa-f]{12}),(-?\d{1,3})", re.ASCII)
_ADC_MV = re.compile(r"\d{1,5}", re.ASCII)
_ICCID = re.compile(r"89[0-9A-Fa-f]{16,20}")
_STATUS = re.compile(r"1[126A]|2[12]|4[12]|[0-9A-F]{6}|[0-9A-F]{10}")
_VOLTS = re.compile(r"\d{1,2}\.\d+", re.ASCII)
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
"""Type → the alarm that it is."""

_HARSH = ("hard_braking", "hard_acceleration", "hard_cornering") * 2
_GEOFENCE = ("geofence_exit", "geofence_enter")
_IGNITIONS = {"IGN": True, "IGF": False, "VGN": True, "VGF": False}
_IGNITION_OF_STATE = {"1": False, "2": True}
_CHARGING = {"BTC": True, "STC": False}


class Fix(NamedTuple):
    """The places of a fix among the values of its message: of its accuracy, and behind its last."""

    begin: int
    end: int


class Report(NamedTuple):
    """A message: `values` are what stands between the device's id and the time of sending."""

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
    found |= _located(report) if report.fixes else _unlocated(report)
    return {name: value for name, value in found.items() if value is not None}


def where(values: Sequence[str]) -> tuple[Attributes, list[str]]:
    """Of what follows a fix the cell, perhaps the engine's hours, and the odometer; and what follows those.

    Behind the cell a value of two digits may stand, or a blank. Its bits tell how many more follow: the first is the
    number of satellites.
    """
    rest, found = list(values), Attributes()
    if _CELL.fullmatch(",".join(rest[:_CELL_VALUES])):
        found["cells"] = [_cell(rest[:_CELL_VALUES])]
    rest = rest[_CELL_VALUES:]
    if rest and not _KM.fullmatch(rest[0]):
        mask = int(rest[0]) if _MASK.fullmatch(rest[0]) else 0
        if mask & 1 and len(rest) > 1:
            found["satellites"] = whole(rest[1])
        rest = rest[1 + mask.bit_count() :]
    if len(rest) > 1 and _HOURS.fullmatch(rest[0]) and _KM.fullmatch(rest[1]):
        found["engine_hours"] = _hours(rest.pop(0))
    if rest and _KM.fullmatch(rest[0]):
        found["odometer_m"] = round(float(rest[0]) * 1_000, 3)
        rest = rest[1:]
    elif len(rest) > 1 and not rest[0]:
        rest = rest[1:]
    return found, rest


def _cell(values: Sequence[str]) -> dict[str, int]:
    mcc, mnc, lac, cid = values
    return cell(int(mcc), int(mnc), int(lac, 16), int(cid, 16))


# With a fix ------------------------------------------------------------------------------------------


def _located(report: Report) -> Attributes:
    """What stands before the first fix and behind the last one."""
    first, last = report.fixes[0], report.fixes[-1]
    before = report.values[1 : first.begin]
    _, after = where(report.values[last.begin + 7 : last.end])
    return _before(report.name, before) | _after(report.name, after)


def _before(name: str, values: list[str]) -> Attributes:
    """`[…,external mV,]report type,count` for most; the type is the last digit of its value."""
    found: Attributes = {}
    if len(values) >= 3 and _POWER_MV.fullmatch(values[-3]):
        found["external_v"] = int(values[-3]) / 1_000
    kind = whole(values[-2][-1:]) if len(values) >= 2 else None
    if name == "STT" and values:
        found |= _moving(values[-1])
    elif name == "BPL" and values:
        found["battery_v"] = _volts(values[-1])
    elif name == "TEM" and values:
        found["temperature_c"] = number(values[-1])
    elif _USUAL.fullmatch(",".join(values[-3:])) and kind is not None:
        found |= _kind(name, kind)
    else:
        found["data"] = ",".join(values).strip(",") or None
    return found


def _kind(name: str, kind: int) -> Attributes:
    """What the type of a report means for those that have one."""
    if name == "HBM":
        return {"alarm": _HARSH[kind]} if kind < len(_HARSH) else {}
    if name == "GEO":
        return {"alarm": _GEOFENCE[kind]} if kind < len(_GEOFENCE) else {}
    if name == "IGL":
        return {"ignition": kind == 1}
    if name == "NMR":
        return {"motion": kind == 1}
    return {"input1": kind == 1} if name == "DIS" else {}


def _after(name: str, values: list[str]) -> Attributes:
    """A battery alone, or `hours,analog inputs,battery,status,…`; all else is kept as sent."""
    if values and not any(values[1:]) and _is_percent(values[0]):
        return {"battery_percent": _percent(values[0])}
    found: Attributes = {}
    if values and _HOURS.fullmatch(values[0]):
        found["engine_hours"] = _hours(values[0])
        values = ["", *values[1:]]
    for at in (3, 4):
        if len(values) > at + 1 and _STATUS.fullmatch(values[at + 1]) and _is_percent(values[at]):
            found |= {f"adc{n}_v": int(mv) / 1_000 for n, mv in enumerate(values[1:at], 1) if _ADC_MV.fullmatch(mv)}
            found |= {"battery_percent": _percent(values[at]), **_status(values[at + 1])}
            return found | (_accessories(values[at + 2 :]) if name == "ERI" else {})
    return {**found, "extra": ",".join(values).strip(",") or None}


def _hours(text: str) -> float:
    hours, minutes, seconds = map(int, text.split(":"))
    return round(hours + minutes / 60 + seconds / 3_600, 4)


def _is_percent(text: str) -> bool:
    return not text or _percent(text) is not None


def _percent(text: str) -> int | None:
    value = whole(text)
    return value if value is not None and 0 <= value <= 100 else None


def _status(text: str) -> Attributes:
    """Hexadecimal: the state of motion, and of six digits inputs and outputs as well."""
    found: Attributes = {"status": text, **_moving(text[:2])}
    if len(text) == 6:
        found |= {"inputs": hexadecimal(text[2:4]), "outputs": hexadecimal(text[4:])}
    return found


def _moving(text: str) -> Attributes:
    """A state of motion: 1x the ignition is off, 2x on, 4x unknown; x1 is at rest, x2 in motion."""
    ignition = _IGNITION_OF_STATE.get(text[:1])
    motion = {"1": False, "2": True, "6": True}.get(text[1:2])
    return {name: value for name, value in (("ignition", ignition), ("motion", motion)) if value is not None}


def _accessories(values: list[str]) -> Attributes:
    """What is plugged in: thermometers on one wire are known by their ids, the others kept as sent."""
    text = ",".join(values)
    degrees = [_sixteenths(match[1]) for match in _ONE_WIRE.finditer(text)]
    found: Attributes = {f"temperature{n}_c" if n > 1 else "temperature_c": value for n, value in enumerate(degrees, 1)}
    return found | ({"data": text} if text.strip(",") else {})


def _sixteenths(text: str) -> float:
    """A signed number of 16 bits in sixteenths."""
    value = int(text, 16)
    return (value - 0x1_0000 if value & 0x8000 else value) / 16


# Without ---------------------------------------------------------------------------------------------


def _unlocated(report: Report) -> Attributes:
    values = report.values
    if report.name == "GSM":
        return _stations(values[1:])
    if report.name == "WIF":
        return _networks(",".join(values[1:]))
    if report.name == "INF" and (found := _information(values)):
        return found
    if report.name == "BAT" and len(values) >= 5:
        return {"battery_percent": _percent(values[3]), "battery_v": _volts(values[4]), "charging": _flag(values, 5)}
    if report.name == "CSQ" and len(values) >= 2:
        return {"gsm_signal": _signal(values[1])}
    if report.name == "CID" and len(values) >= 2:
        return {"iccid": values[1]}
    found = _moving(values[1]) if report.name == "STT" and len(values) > 1 else {}
    data = ",".join(values[1:])
    return found | ({"data": data} if data.strip(",") else {})


def _stations(values: list[str]) -> Attributes:
    """`{mcc,mnc,lac,cid,level,}`: those around, and last the serving one."""
    cells = []
    for at in range(0, len(values), _GSM_VALUES):
        station = values[at : at + _CELL_VALUES]
        if _CELL.fullmatch(",".join(station)):
            level = whole(values[at + _CELL_VALUES]) if len(values) > at + _CELL_VALUES else None
            cells.append(_cell(station) | ({} if level is None else {"level": level}))
    return {"cells": cells}


def _networks(text: str) -> Attributes:
    """`count,{address,level dBm,,,},…,battery` of the wireless networks around."""
    found = [{"mac": address.lower(), "level": int(level)} for address, level in _STATION.findall(text)]
    return {"wifi": found, "battery_percent": _percent(text.rpartition(",")[2])}


def _information(values: list[str]) -> Attributes:
    """`…,state,ICCID,signal,errors,external power,mV or km,,battery V,charging,…`; known by the ICCID."""
    at = next((at for at, value in enumerate(values) if _ICCID.fullmatch(value)), None)
    if at is None or at == 0 or len(values) < at + 8:
        return {}
    supply, battery = values[at + 4], values[at + 6]
    return {
        **_moving(values[at - 1]),
        "iccid": values[at],
        "gsm_signal": _signal(values[at + 1]),
        "external_power": _flag(values, at + 3),
        "external_v": int(supply) / 1_000 if _POWER_MV.fullmatch(supply) else None,
        "odometer_m": round(float(supply) * 1_000, 3) if _KM.fullmatch(supply) else None,
        "battery_v": _volts(battery),
        "charging": _flag(values, at + 7),
        "data": ",".join(values[at + 8 :]).strip(",") or None,
    }


def _volts(text: str) -> float | None:
    return float(text) if _VOLTS.fullmatch(text) else None


def _signal(text: str) -> int | None:
    """0 to 31; 99 is unknown."""
    value = whole(text)
    return None if value == 99 else value


def _flag(values: Sequence[str], at: int) -> bool | None:
    return {"0": False, "1": True}.get(values[at]) if len(values) > at else None
