"""Trips and stops of a device, put together from its runs: stretches of records that all stand still or all move.

Pure; moves_sql.py makes runs of records. The rules, whose parameters are `Rules`:

- A record stands still if its speed, or without one that from the record before, is at most `stopped_kmh`.
- More than `max_gap_s` between two records is a gap, which ends a trip and a stop: nobody knows what was. Where both
  lie within `rest_m` of each other, though, the device was at rest, as trackers that sleep while parked are.
- Standing for less than `min_stop_s`, rest before and after it included, is part of the trip around it, as at traffic
  lights.
- Then, moving for less than `min_trip_m` is part of the stop around it, as a receiver at rest wanders about.
- A trip begins where the stop before it ends, and ends where the next begins, so no distance is lost between the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

GAP, REST = 1, 2
"""What lies before a run: nobody knows what, or rest."""


class Rules(NamedTuple):
    """See above."""

    stopped_kmh: float = 3.0
    min_stop_s: float = 300.0
    min_trip_m: float = 300.0
    max_gap_s: float = 600.0
    rest_m: float = 200.0


class Point(NamedTuple):
    """Where a device was, when."""

    us: int
    latitude: float
    longitude: float


class Run(NamedTuple):
    """Records next to one another that all stand still or all move. `before` is `GAP`, `REST`, or 0 if the run before
    is the other kind; `entry_m` is the way from that run's last record to this one's first, `inner_m` the way within.
    """

    is_still: bool
    before: int
    first: Point
    last: Point
    records: int
    entry_m: float
    inner_m: float
    speed_kmh_max: float

    @property
    def span_us(self) -> int:
        """From its first record to its last."""
        return self.last.us - self.first.us


class Trip(NamedTuple):
    """`way_m` is along the records; `records` are those on the way, both ends included."""

    start: Point
    end: Point
    way_m: float
    speed_kmh_max: float
    records: int


class Stop(NamedTuple):
    """A stay at a place: that of its first record."""

    start: Point
    end: Point
    records: int


Move = Trip | Stop


def moves(runs: Iterable[Run], rules: Rules) -> Iterator[Move]:
    """What a device did, in the order of time; `runs` are all of one device."""
    for connected in _connected(runs):
        rested = [_without_short_stop(run, rules) for run in _joined(connected)]
        joined = _joined(rested)
        settled = [_moves_too_little(run, joined, rules) for run in joined]
        yield from (move for move in _moves(_joined(settled)) if _counts(move, rules))


def _counts(move: Move, rules: Rules) -> bool:
    """Whether it is more than a device of which little is known, as between two gaps."""
    if isinstance(move, Trip):
        return move.way_m >= rules.min_trip_m
    return move.end.us - move.start.us >= rules.min_stop_s * 1e6


def _connected(runs: Iterable[Run]) -> Iterator[list[Run]]:
    """Runs without a gap between them; rest between two is a run of its own that stands still. The way over a gap is
    no run's."""
    found: list[Run] = []
    for run in runs:
        if run.before == GAP:
            if found:
                yield found
            found = []
            run = run._replace(entry_m=0.0)  # noqa: PLW2901 (the way over a gap is nobody's)
        if run.before == REST and found:
            last = found[-1]
            found.append(Run(True, 0, last.last, run.first, 0, 0.0, run.entry_m, 0.0))
            run = run._replace(entry_m=0.0)  # noqa: PLW2901 (the way is that of the rest)
        found.append(run)
    if found:
        yield found


def _without_short_stop(run: Run, rules: Rules) -> Run:
    """A run that stands too shortly, as part of a trip."""
    is_short = run.is_still and run.span_us < rules.min_stop_s * 1e6
    return run._replace(is_still=False) if is_short else run


def _moves_too_little(run: Run, around: Sequence[Run], rules: Rules) -> Run:
    """A run that moves too little, as part of the stops around it, if there are any."""
    is_little = not run.is_still and len(around) > 1 and run.entry_m + run.inner_m < rules.min_trip_m
    return run._replace(is_still=True) if is_little else run


def _joined(runs: Sequence[Run]) -> list[Run]:
    """Runs next to one another of the same kind as one."""
    return [_one(list(same)) for _, same in groupby(runs, key=lambda run: run.is_still)]


def _one(runs: Sequence[Run]) -> Run:
    first, last = runs[0], runs[-1]
    return first._replace(
        last=last.last,
        records=sum(run.records for run in runs),
        inner_m=first.inner_m + sum(run.entry_m + run.inner_m for run in runs[1:]),
        speed_kmh_max=max(run.speed_kmh_max for run in runs),
    )


def _moves(runs: Sequence[Run]) -> Iterator[Move]:
    """Of runs that take turns in standing and moving."""
    for place, run in enumerate(runs):
        if run.is_still:
            yield Stop(run.first, run.last, run.records)
            continue
        before = runs[place - 1] if place else None
        after = runs[place + 1] if place + 1 < len(runs) else None
        yield Trip(
            before.last if before else run.first,
            after.first if after else run.last,
            run.inner_m + (run.entry_m if before else 0.0) + (after.entry_m if after else 0.0),
            run.speed_kmh_max,
            run.records + (before is not None) + (after is not None),
        )
