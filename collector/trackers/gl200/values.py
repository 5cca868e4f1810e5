"""Common values in Queclink's messages: cells, states of motion, percentages and volts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from collector.trackers.position import Attributes, cell
from collector.trackers.text_fields import whole

CELL = re.compile(r"\d{3,4},\d{1,4},[0-9A-Fa-f]{1,8},[0-9A-Fa-f]{1,8}", re.ASCII)
CELL_VALUES = 4
KM = re.compile(r"\d+\.\d+", re.ASCII)
POWER_MV = re.compile(r"\d{4,5}", re.ASCII)
STATUS = re.compile(r"1[126A]|2[12]|4[12]|[0-9A-F]{6}|[0-9A-F]{10}")
WAITING = re.compile(r"\d,\d,\d,(-?\d+\.\d+)?,(\d{1,3})(?:,|$)", re.ASCII)
_VOLTS = re.compile(r"\d{1,2}\.\d+", re.ASCII)
WAITERS = frozenset(("STR", "CTN"))
_IGNITION_OF_STATE = {"1": False, "2": True}
STATION = re.compile(r"(?<![0-9A-Fa-f])([0-9A-Fa-f]{12}),(-\d{1,3})", re.ASCII)


def cell_of(values: Sequence[str]) -> dict[str, int]:
    mcc, mnc, lac, cid = values
    return cell(int(mcc), int(mnc), int(lac, 16), int(cid, 16))


def waiting(match: re.Match[str]) -> Attributes:
    """`report type,…,temperature,battery` of devices that sleep between their reports."""
    return {
        "temperature_c": None if match[1] is None else float(match[1]),
        "battery_percent": percent(match[2]),
    }


def percent(text: str) -> int | None:
    value = whole(text)
    return value if value is not None and 0 <= value <= 100 else None


def moving(text: str) -> Attributes:
    """A state of motion: 1x the ignition is off, 2x on, 4x unknown; x1 is at rest, x2 in motion."""
    ignition = _IGNITION_OF_STATE.get(text[:1])
    motion = {"1": False, "2": True, "6": True}.get(text[1:2])
    return {name: value for name, value in (("ignition", ignition), ("motion", motion)) if value is not None}


def volts(text: str) -> float | None:
    return float(text) if _VOLTS.fullmatch(text) else None


def signal(text: str) -> int | None:
    """0 to 31; 99 = unknown."""
    value = whole(text)
    return None if value == 99 else value


def flag(values: Sequence[str], at: int) -> bool | None:
    return {"0": False, "1": True}.get(values[at]) if len(values) > at else None
