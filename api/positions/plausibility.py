"""The rule that decides which positions of a device are implausible. Pure; plausible_sql.py applies it to records.

- A position at 0/0 comes from a receiver without a fix. A position with an accuracy worse than `max_accuracy_m` is of
  little use. Both are left out, and the rest of the rule ignores them.
- A jump lies between two successive positions if the way between them takes more than `max_jump_kmh`. A way that takes
  less than `LEAST_US` counts as taking that long, because trackers round times to seconds. Positions between which a
  device can get anywhere (`Limits.reach_us`) are not compared.
- At a jump, the smallest group of at most `GROUP` positions just after it or just before it is left out that repairs
  the track: the device can get from the position before the group to the one after it, and these two are nearer to
  each other than to the group. So one outlier takes nothing else away.
- A group at the beginning or the end of all positions is left out if the two positions next to it agree.
- If groups of one size on both sides repair the track, the one is left out whose repair another position agrees with.
  If both or neither have such a position, nothing is left out.
- If no group repairs it so, one position just after or just before the jump is left out if the device can get past it,
  like a position on the way with a wrong time. If this applies to both, nothing is left out.
- All positions at any other jump stay. Such a jump is a move while the device was off. Nothing is known about the way
  between the two places.

A verdict depends on `CONTEXT` positions on either side of a jump alone, so it is the same wherever a range is cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from api.geo.geo_sql import EARTH_RADIUS_KM, distance_km

GROUP = 3
"""Maximum of successive positions that are left out at a jump. One more position there confirms the place."""

CONTEXT = GROUP + 2
"""Positions on either side of a jump that decide about it."""

NEAREST = 2 * CONTEXT + 2
"""Positions outside a range that are needed, so that the nearest one that is kept is the same wherever it is cut."""

LEAST_US = 1_000_000
"""Minimum time that a way is taken to last, µs."""

_FARTHEST_KM = math.pi * EARTH_RADIUS_KM


class Limits(NamedTuple):
    """Limits of plausible positions; if `is_on` is false, all positions are plausible."""

    max_jump_kmh: float = 1_200.0
    """Airliners with a strong tail wind are a little slower."""
    max_accuracy_m: float = 1_000.0
    is_on: bool = True

    @property
    def reach_us(self) -> int:
        """Maximum time that a jump takes, µs: in more, a device can be anywhere."""
        return math.ceil(_FARTHEST_KM / self.max_jump_kmh * 3.6e9) + LEAST_US if self.is_on else 0


OFF = Limits(is_on=False)


class Position(NamedTuple):
    """Place and time of a device: µs, degrees."""

    us: int
    latitude: float
    longitude: float


def left_out(positions: Sequence[Position], limits: Limits) -> set[int]:
    """Indices of the positions of one device, in the order of time, that are left out because of jumps."""
    found: set[int] = set()
    first = 0
    for end in range(1, len(positions) + 1):
        if end == len(positions) or positions[end].us - positions[end - 1].us > limits.reach_us:
            found |= {first + place for place in _Track(positions[first:end], limits.max_jump_kmh).left_out()}
            first = end
    return found


def _groups(jump: int, size: int) -> tuple[range, range]:
    """The positions just after a jump, and those just before it."""
    return range(jump, jump + size), range(jump - size, jump)


class _Track:
    """Positions with so little time between them that jumps are possible."""

    def __init__(self, positions: Sequence[Position], max_jump_kmh: float) -> None:
        self._positions = positions
        self._count = len(positions)
        self._max_jump_kmh = max_jump_kmh

    def left_out(self) -> set[int]:
        """Indices of the positions that are left out."""
        jumps = [at for at in range(1, self._count) if not self.is_possible(at - 1, at)]
        return {place for at in jumps for place in self.group_at(at)}

    def is_possible(self, first: int, second: int) -> bool:
        """Return True if a device can get from one position to a later one."""
        us = self._positions[second].us - self._positions[first].us
        return self._km(first, second) <= self._max_jump_kmh * max(us, LEAST_US) / 3.6e9

    def group_at(self, jump: int) -> range:
        """The positions that are left out because of a jump to the position `jump`; none if nothing repairs it."""
        for size in range(1, GROUP + 1):
            fits = [group for group in _groups(jump, size) if self._is_repaired(group) and self._is_aside(group, jump)]
            if len(fits) == 2:
                fits = [group for group in fits if self._is_supported(group)]
                return fits[0] if len(fits) == 1 else range(0)
            if fits:
                return fits[0]
        fits = [group for group in _groups(jump, 1) if self._is_repaired(group)]
        return fits[0] if len(fits) == 1 else range(0)

    def _is_repaired(self, group: range) -> bool:
        """Return True if a device can get from the position before a group to the one after it."""
        before, after = group.start - 1, group.stop
        if before < -1 or after > self._count:
            return False
        if after == self._count:
            return before > 0 and self.is_possible(before - 1, before)
        if before == -1:
            return after + 1 < self._count and self.is_possible(after, after + 1)
        return self.is_possible(before, after)

    def _is_aside(self, group: range, jump: int) -> bool:
        """Return True if the positions before and after a group are nearer to each other than one of them is to it."""
        before, after = group.start - 1, group.stop
        if before == -1 or after == self._count:
            return True
        within = (after - 1, after) if group.start == jump else (before, before + 1)
        return self._km(before, after) < self._km(*within)

    def _is_supported(self, group: range) -> bool:
        """Return True if the position before or after the repaired place agrees."""
        before, after = group.start - 1, group.stop
        is_before = before > 0 and self.is_possible(before - 1, before)
        return is_before or (after + 1 < self._count and self.is_possible(after, after + 1))

    def _km(self, first: int, second: int) -> float:
        a, b = self._positions[first], self._positions[second]
        return distance_km(a.latitude, a.longitude, b.latitude, b.longitude)
