"""What a story is: reports of devices in the order of its own clock, and what is said meanwhile.

This file knows no socket, clock or file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple


class Report(NamedTuple):
    """What a device reports. `at_s` is seconds of the story's clock; below 0 lies what was before it is looked at.

    `fields` are those of a record as JSON has it, but for its `timestamp`, which hangs on when it is told.
    """

    at_s: float
    fields: dict[str, Any]


class Remark(NamedTuple):
    """A sentence for who looks on, and when it is due."""

    at_s: float
    sentence: str


class Story(NamedTuple):
    """A story: how fast it is told unless somebody says otherwise, and how long its live part is; None: without end.

    `clock` says how late it is in the story, as text, at some seconds of it.
    """

    sentence: str
    speed: float
    length_s: float | None
    reports: Callable[[], Iterator[Report]]
    remarks: Sequence[Remark]
    clock: Callable[[float], str]
