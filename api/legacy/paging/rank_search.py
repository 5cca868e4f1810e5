"""Where the n-th record of several sorted parts is, from a few of their keys: pure arithmetic.

Each part is sorted by its keys, all of which differ; part p knows some of them with their rank in p
(its *marks*). To read the records of the ranks [low, high) of all parts together, it is enough to read
[a, b) of each part, where

    lower = a key, as great as may be, that at most `low` records can be below; a = records of p surely below it
    upper = a key, as small as may be, that at least `high` records are below;  b = records of p perhaps below it

All records before a part's a lie below `lower`, hence before the page; so the page begins at place
low - (sum of all a) of what is read. With a mark at every m-th rank about 2 m, at most 4 m records a part are read
beyond the page itself and twice `SLACK`, however deep it lies.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

SLACK = 256
"""Records that may be read too many at either end rather than look for a better key."""


class Marks(NamedTuple):
    """Keys of a sorted part of `total` records, rising, and the rank of each."""

    total: int
    keys: Sequence[int]
    ranks: Sequence[int]

    def surely_below(self, key: int) -> int:
        """How many of the part's records are below `key` at least."""
        passed = bisect_left(self.keys, key)
        return self.ranks[passed - 1] + 1 if passed else 0

    def perhaps_below(self, key: int) -> int:
        """How many of the part's records are below `key` at most."""
        passed = bisect_left(self.keys, key)
        return self.ranks[passed] if passed < len(self.keys) else self.total


class Bounds(NamedTuple):
    """A part of which only the total is known, and between which keys its records lie, both included."""

    total: int
    least: int
    greatest: int

    def surely_below(self, key: int) -> int:
        """How many of the part's records are below `key` at least."""
        return self.total if key > self.greatest else 0

    def perhaps_below(self, key: int) -> int:
        """How many of the part's records are below `key` at most."""
        return self.total if key > self.least else 0


Part = Marks | Bounds


class Window(NamedTuple):
    """What to read: [starts[p], ends[p]) of each part; the page begins at place `skip` of it, sorted."""

    starts: list[int]
    ends: list[int]
    skip: int


def window(parts: Sequence[Part], low: int, high: int, least: int, greatest: int) -> Window:
    """What to read for the ranks [low, high) of all parts, whose keys lie in [least, greatest]."""
    lower, _ = _bracket(parts, least, greatest, lambda part, key: part.perhaps_below(key), low + 1)
    _, upper = _bracket(parts, least, greatest, lambda part, key: part.surely_below(key), high)
    starts = [part.surely_below(lower) for part in parts]
    ends = [max(part.perhaps_below(upper), start) for part, start in zip(parts, starts, strict=True)]
    return Window(starts, ends, low - sum(starts))


def _bracket(
    parts: Sequence[Part], least: int, greatest: int, below: Callable[[Part, int], int], goal: int
) -> tuple[int, int]:
    """Two keys: below the first the parts count less than `goal`, below the second `goal` or more.

    If all of them count less, the second is above all keys. They are neighbours, or their counts differ by
    no more than `SLACK`. A part that counts the same below both is added up and left out.
    """
    low, high = least, greatest + 2
    left, settled = list(parts), 0
    at_low, at_high = [0] * len(left), [below(part, high) for part in left]
    while high - low > 1 and sum(at_high) - sum(at_low) > SLACK:
        middle = (low + high) // 2
        counts = [below(part, middle) for part in left]
        if settled + sum(counts) >= goal:
            high, at_high = middle, counts
        else:
            low, at_low = middle, counts
        moving = [place for place, count in enumerate(at_low) if count != at_high[place]]
        if len(moving) < len(left):
            settled += sum(at_low) - sum(at_low[place] for place in moving)
            left = [left[place] for place in moving]
            at_low, at_high = [at_low[place] for place in moving], [at_high[place] for place in moving]
    return low, high
