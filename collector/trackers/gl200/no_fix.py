"""Decodes Queclink's messages without a fix."""

from __future__ import annotations

import re
from collections.abc import Callable

from collector.trackers.gl200 import can_obd as vehicle
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
    flag,
    moving,
    percent,
    signal,
    volts,
    waiting,
)
from collector.trackers.position import Attributes
from collector.trackers.text_fields import whole

_GSM_VALUES = 6
_ICCID = re.compile(r"89[0-9A-Fa-f]{16,20}")
_CELLS = re.compile(r"(\d{3,4},\d{2,4},[0-9A-Fa-f]{2,8},[0-9A-Fa-f]{2,8}),(\d{1,2})?(?=,|$)", re.ASCII)
_LAST = re.compile(r"(?:,[0-9A-Fa-f]{4,8}){2},\d{2,5},(\d{1,3})$", re.ASCII)
_ASLEEP = re.compile(r",\d{0,2},\d{0,5},(\d{1,3}),[01],[01]?,(?:-?\d{1,2}\.\d)?,*$", re.ASCII)
_HEX_TEXT = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_CHARGE = re.compile(r",20\d{12},([1-9]\d?|100)(?=,|$)", re.ASCII)
_GAUGE = re.compile(r"COMB,\d+,(\d+(?:\.\d+)?),", re.ASCII)


def unlocated(name: str, values: list[str]) -> Attributes:
    """Attributes of a message without a fix; `values` are those between the device's name and the time of sending."""
    text = ",".join(values)
    parse = _PARSERS.get(name)
    if parse and (found := parse(values)):
        return found
    found = moving(values[0]) if name == "STT" and values else {}
    if name in WAITERS and (match := WAITING.match(text)):
        found = waiting(match)
    elif match := _LAST.search(text) or _ASLEEP.search(text):
        found = {"battery_percent": percent(match[1])}
    station = _CELLS.search(text)
    found |= {"cells": [cell_of(station[1].split(","))]} if station else {}
    return found | ({"data": text} if text.strip(",") else {})


def _battery(values: list[str]) -> Attributes:
    if len(values) < 4:
        return {}
    return {"battery_percent": percent(values[2]), "battery_v": volts(values[3]), "charging": flag(values, 4)}


def _quality(values: list[str]) -> Attributes:
    return {"gsm_signal": signal(values[0])} if values else {}


def _card(values: list[str]) -> Attributes:
    return {"iccid": values[0]} if values and values[0] else {}


def _around(values: list[str]) -> Attributes:
    """`…,battery,…,{cell,level,}`."""
    if len(values) < 4:
        return {}
    return _stations_in(",".join(values[3:])) | {"battery_percent": percent(values[2])}


def _stations_in(text: str) -> Attributes:
    """Cells with their signal level, at any position."""
    found = [
        cell_of(match[1].split(",")) | ({"level": int(match[2])} if match[2] else {}) for match in _CELLS.finditer(text)
    ]
    return {"cells": found} if found else {}


def _serial_line(values: list[str]) -> Attributes:
    """Data from a serial line, as hexadecimal; one fuel gauge is recognised by its name."""
    if not values or not _HEX_TEXT.fullmatch(values[-1]):
        return {}
    text = bytes.fromhex(values[-1]).decode("ascii", "replace").strip("\0\r\n ")
    gauge = _GAUGE.search(text)
    return {"data": values[-1]} | ({"fuel": float(gauge[1])} if gauge else {})


def _stations(values: list[str]) -> Attributes:
    """`{mcc,mnc,lac,cid,level,}`: neighbouring cells, then the serving cell."""
    cells = []
    for at in range(0, len(values), _GSM_VALUES):
        station = values[at : at + CELL_VALUES]
        if CELL.fullmatch(",".join(station)):
            level = whole(values[at + CELL_VALUES]) if len(values) > at + CELL_VALUES else None
            cells.append(cell_of(station) | ({} if level is None else {"level": level}))
    return {"cells": cells}


def _networks(values: list[str]) -> Attributes:
    """`count,{address,level dBm,,,},…,battery` of the Wi-Fi networks in range."""
    text = ",".join(values)
    found = [{"mac": address.lower(), "level": int(level)} for address, level in STATION.findall(text)]
    return {"wifi": found, "battery_percent": percent(values[-1]) if values else None}


def _information(values: list[str]) -> Attributes:
    """`…,state,ICCID,signal,errors,external power,mV or km,,battery V,charging,…`; recognised by the ICCID."""
    at = next((at for at, value in enumerate(values) if _ICCID.fullmatch(value)), None)
    if at is None and len(values) > 1 and STATUS.fullmatch(values[0]) and not values[1]:
        at = 1
    if at is None or at == 0 or len(values) < at + 8:
        return {}
    supply, battery = values[at + 4], values[at + 6]
    charge = _CHARGE.search(",".join(values[at + 7 :])) if not POWER_MV.fullmatch(supply) else None
    return {
        **moving(values[at - 1]),
        "iccid": values[at] or None,
        "gsm_signal": signal(values[at + 1]),
        "external_power": flag(values, at + 3),
        "external_v": int(supply) / 1_000 if POWER_MV.fullmatch(supply) else None,
        "odometer_m": round(float(supply) * 1_000, 3) if KM.fullmatch(supply) else None,
        "battery_v": volts(battery),
        "battery_percent": percent(charge[1]) if charge else None,
        "charging": flag(values, at + 7),
        "data": ",".join(values[at + 8 :]).strip(",") or None,
    }


_PARSERS: dict[str, Callable[[list[str]], Attributes]] = {
    "GSM": _stations,
    "LBS": _around,
    "DTT": _serial_line,
    "WIF": _networks,
    "INF": _information,
    "BAT": _battery,
    "CSQ": _quality,
    "CID": _card,
    "CAN": vehicle.can,
}
"""Type → parser of its values, which returns nothing if they have another form."""
