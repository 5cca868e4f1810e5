"""Finds the n-th record of several sorted parts from a sample of their keys. Pure.

Each part is sorted by distinct keys; for some keys (its *marks*) the rank in the part is known. To read the records of
the ranks [low, high) of all parts together, it is enough to read the ranks [a, b) of each part:

    lower = a key, as large as possible, with at most `low` records below it;  a = minimum of records below `lower`
    upper = a key, as small as possible, with at least `high` records below it;  b = maximum of records below `upper`

All records before a part's rank a are below `lower`, so they are before the page. The page therefore begins at position
low - (sum of all a) of the records that are read. With a mark at every m-th rank, about 2 m and at most 4 m records per
part are read in addition to the page and twice `SLACK`, independent of the page's number.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

SLACK = 256
"""Maximum extra records at either end for which the search for a better key stops."""


class Marks(NamedTuple):
    """Some keys of a sorted part of `total` records, ascending, and the rank of each."""

    total: int
    keys: Sequence[int]
    ranks: Sequence[int]

    def surely_below(self, key: int) -> int:
        """Minimum number of the part's records below `key`."""
        passed = bisect_left(self.keys, key)
        return self.ranks[passed - 1] + 1 if passed else 0

    def perhaps_below(self, key: int) -> int:
        """Maximum number of the part's records below `key`."""
        passed = bisect_left(self.keys, key)
        return self.ranks[passed] if passed < len(self.keys) else self.total


class Bounds(NamedTuple):
    """A part without marks: only its total and the inclusive bounds of its keys are known."""

    total: int
    least: int
    greatest: int

    def surely_below(self, key: int) -> int:
        """Minimum number of the part's records below `key`."""
        return self.total if key > self.greatest else 0

    def perhaps_below(self, key: int) -> int:
        """Maximum number of the part's records below `key`."""
        return self.total if key > self.least else 0


Part = Marks | Bounds


class Window(NamedTuple):
    """The ranks [starts[p], ends[p]) to read of each part; sorted, the page begins at their position `skip`."""

    starts: list[int]
    ends: list[int]
    skip: int


def window(parts: Sequence[Part], low: int, high: int, least: int, greatest: int) -> Window:
    """The window for the ranks [low, high) of all parts, whose keys lie in [least, greatest]."""
    lower, _ = _bracket(parts, least, greatest, lambda part, key: part.perhaps_below(key), low + 1)
    _, upper = _bracket(parts, least, greatest, lambda part, key: part.surely_below(key), high)
    starts = [part.surely_below(lower) for part in parts]
    ends = [max(part.perhaps_below(upper), start) for part, start in zip(parts, starts, strict=True)]
    return Window(starts, ends, low - sum(starts))


def _bracket(
    parts: Sequence[Part], least: int, greatest: int, below: Callable[[Part, int], int], goal: int
) -> tuple[int, int]:
    """Two keys: the parts have fewer than `goal` records below the first, and at least `goal` below the second.

    If they have fewer in total, the second is above all keys. Both keys are adjacent, or their counts differ by at most
    `SLACK`. A part with equal counts for both is added to a sum and not examined further.
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
