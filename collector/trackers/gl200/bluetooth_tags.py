"""Bluetooth tags in Queclink's messages. A mask in each tag shows which values it has.

A tag is recognised by its address, twelve hexadecimal digits, after the mask (four digits) or after the name.
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
    """All tags in the values: {"tags": [{"mac": …}]}; empty without tags."""
    found = [tag for at in range(1, len(values)) if (tag := _tag(values, at))]
    return {"tags": found} if found else {}


def _tag(values: Sequence[str], at: int) -> Tag | None:
    """The tag whose address is the value `at`; None if it is not an address."""
    if not _ADDRESS.fullmatch(values[at]):
        return None
    for before in (1, 2):
        mask = int(values[at - before], 16) if before <= at and _MASK.fullmatch(values[at - before]) else 0
        if mask & _HAS_ADDRESS and bool(mask & _HAS_NAME) == (before == 2):
            tag: Tag = {"mac": values[at].lower()}
            name = values[at - 1].strip() if before == 2 else ""
            return tag | ({"name": name} if name else {}) | _masked(mask, values[at + 1 :])
    return None


def _masked(mask: int, values: Sequence[str]) -> Tag:
    found: Tag = {}
    rest = list(values)
    for bit, name, parse in _OF_MASK:
        if mask >> bit & 1 and rest:
            value = rest.pop(0)
            found |= {name: parse(value)} if name and _NUMBER.fullmatch(value) else {}
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
"""Bits of a mask in the order of their values; the second temperature has the higher resolution."""
