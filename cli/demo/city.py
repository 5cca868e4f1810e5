"""Simulated vehicles in a city, as a story without end."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import msgspec

from cli.demo.story import Report, Story
from cli.sending.vehicle_simulation import Plan, traffic

DEVICES = 120
INTERVAL_MS = 5_000
BEFORE_S = 7_200.0
"""They have driven for so long when somebody begins to look."""

START_US = 1_767_225_600_000_000
"""Any moment would do: records carry others."""


def reports() -> Iterator[Report]:
    """What they report, for ever."""
    read = msgspec.json.Decoder(dict)
    for slot in traffic(Plan(DEVICES, START_US, INTERVAL_MS), Random(1).random):  # noqa: S311 - nothing secret
        at_s = (slot.at_us - START_US) / 1_000_000 - BEFORE_S
        for line in slot.lines:
            fields = read.decode(line)
            del fields["timestamp"]
            yield Report(at_s, fields)


def clock(at_s: float) -> str:
    """`1:05:40`"""
    minutes, seconds = divmod(int(at_s), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


STORY = Story(f"{DEVICES} simulated vehicles that drive through a city", 1.0, None, reports, (), clock)
