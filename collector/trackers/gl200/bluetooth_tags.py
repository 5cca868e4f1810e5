"""What Queclink's messages say of the Bluetooth tags around a device: values of which a mask tells which are there.

A tag is known by its address, twelve hexadecimal digits, which stands behind the mask (four digits) or behind the name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from collector.trackers.position import Attributes
from collector.trackers.text_fields import number

_ADDRESS = re.compile(r"[0-9A-F]{12}")
_MASK = re.compile(r"[0-9A-F]{4}")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)
_HAS_NAME, _HAS_ADDRESS = 1, 2

Tag = dict[str, object]


def tags(values: Sequence[str]) -> Attributes:
    """All tags that values tell of: {"tags": [{"mac": …}]}; nothing if there is none."""
    found = [tag for at in range(1, len(values)) if (tag := _tag(values, at))]
    return {"tags": found} if found else {}


def _tag(values: Sequence[str], at: int) -> Tag | None:
    """The tag whose address stands there."""
    if not _ADDRESS.fullmatch(values[at]):
        return None
    for before in (1, 2):
        mask = int(values[at - before], 16) if before <= at and _MASK.fullmatch(values[at - before]) else 0
        if mask & _HAS_ADDRESS and bool(mask & _HAS_NAME) == (before == 2):
            tag: Tag = {"mac": values[at].lower()}
            name = values[at - 1].strip() if before == 2 else ""
            return tag | ({"name": name} if name else {}) | _told(mask, values[at + 1 :])
    return None


def _told(mask: int, values: Sequence[str]) -> Tag:
    found: Tag = {}
    rest = list(values)
    for bit, name, means in _OF_MASK:
        if mask >> bit & 1 and rest:
            value = rest.pop(0)
            found |= {name: means(value)} if name and _NUMBER.fullmatch(value) else {}
    return found


def _volts(text: str) -> float:
    return float(text) / 1_000


_OF_MASK: tuple[tuple[int, str, Callable[[str], object]], ...] = (
    (2, "", number),
    (3, "battery_v", _volts),
    (4, "temperature_c", number),
    (5, "humidity_percent", number),
    (7, "", number),
    (8, "", number),
    (9, "", number),
    (10, "", number),
    (11, "temperature_c", number),
    (12, "", number),
    (13, "battery_percent", number),
)
"""Bits of a mask in the order of their values; the second temperature is the finer one."""
