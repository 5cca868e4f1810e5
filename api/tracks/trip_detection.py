"""Trips and stops of a device, put together from its runs: stretches of records that all stand still or all move.

Pure; trip_sql.py makes runs of records. The rules, whose parameters are `Rules`:

- A record stands still if its speed, or without one that from the record before, is at most `stopped_kmh`.
- More than `max_gap_s` between two records is a gap, which ends a trip and a stop: nobody knows what was. Where both
  lie within `rest_m` of each other, though, the device was at rest, as trackers that sleep while parked are.
- Standing for less than `min_stop_s`, rest before and after it included, is part of the trip around it, as at traffic
  lights.
- Then, moving for less than `min_trip_m`, and for at most `WANDER_US`, is part of the stop around it, as a receiver at
  rest wanders about.
- A trip begins where the stop before it ends, and ends where the next begins, so no distance is lost between the two.
- Last, moves are cut at the borders of the range, a trip by the time on either side of a border.

What a moment is part of depends on the records around it alone: no rule looks farther than `margin_us` and one record
more, which is at most `neighbours.BOUND_US` away. So moves of days add up to those of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from telemetry.model.record import EARLIEST_US, LATEST_US

GAP, REST = 1, 2
"""What lies before a run: nobody knows what, or rest."""

WANDER_US = 3_600_000_000
"""Maximum time of moving that a short way makes part of a stop, µs: a bound on how far the rules look."""


class Rules(NamedTuple):
    """See above."""

    stopped_kmh: float = 3.0
    min_stop_s: float = 300.0
    min_trip_m: float = 300.0
    max_gap_s: float = 600.0
    rest_m: float = 200.0

    @property
    def margin_us(self) -> int:
        """Distance in time from the range within which all records are needed."""
        return round((self.min_stop_s + self.max_gap_s) * 1e6) + WANDER_US


class Point(NamedTuple):
    """Where a device was, when."""

    us: int
    latitude: float
    longitude: float


class Run(NamedTuple):
    """Records next to one another that all stand still or all move. `before` is `GAP`, `REST`, or 0 if the run before
    is the other kind; `entry_m` is the way from that run's last record to this one's first, `inner_m` the way within.

    Of these ways, `entry_within_m` and `inner_within_m` lie within the range. `records` are those within it, and
    `speed_kmh_max` is their greatest speed, sent or from positions, and `sent_kmh_max` their greatest sent speed; None
    if there is none.
    """

    is_still: bool
    before: int
    first: Point
    last: Point
    records: int
    entry_m: float
    inner_m: float
    speed_kmh_max: float | None
    entry_within_m: float
    inner_within_m: float
    sent_kmh_max: float | None = None

    @property
    def span_us(self) -> int:
        """From its first record to its last."""
        return self.last.us - self.first.us


class Cut(NamedTuple):
    """A range, and where the device was at its borders, for one that is between two records there."""

    start_us: int = EARLIEST_US
    end_us: int = LATEST_US
    at_start: Point | None = None
    at_end: Point | None = None

    def start(self, point: Point) -> Point:
        """Where a move that begins at a point begins within the range."""
        return point if point.us >= self.start_us else self.at_start or point._replace(us=self.start_us)

    def end(self, point: Point) -> Point:
        """Where a move that ends at a point ends within the range."""
        return point if point.us <= self.end_us else self.at_end or point._replace(us=self.end_us)

    def has(self, point: Point) -> bool:
        """Whether a record lies in the range."""
        return self.start_us <= point.us < self.end_us


ALL_TIME = Cut()


class Trip(NamedTuple):
    """`way_m` is along the records; `records` are those on the way, both ends included."""

    start: Point
    end: Point
    way_m: float
    speed_kmh_max: float
    records: int


class Stop(NamedTuple):
    """A stay at a place: that of its first record, also where the range begins later."""

    start: Point
    end: Point
    records: int


Move = Trip | Stop


def moves(runs: Iterable[Run], rules: Rules, cut: Cut = ALL_TIME) -> Iterator[Move]:
    """What a device did, in the order of time; `runs` are all of one device."""
    for connected in _connected(runs):
        rested = [_without_short_stop(run, rules) for run in _joined(connected)]
        stretches = _stretches(_joined(rested))
        settled = [_moves_too_little(stretch, rules) for stretch in stretches]
        for stretch in _stretches(_joined(settled)):
            move = _move(stretch, cut)
            if _counts(stretch, rules) and _is_within(stretch, move, cut):
                yield move


class Stretch(NamedTuple):
    """A run, and those before and after it unless a gap is there."""

    run: Run
    before: Run | None
    after: Run | None

    @property
    def start(self) -> Point:
        """Where a stop begins, or moving: at the end of the stop before it."""
        return self.before.last if self.before and not self.run.is_still else self.run.first

    @property
    def end(self) -> Point:
        """Where a stop ends, or moving: at the beginning of the stop after it."""
        return self.after.first if self.after and not self.run.is_still else self.run.last

    @property
    def span_us(self) -> int:
        """From start to end."""
        return self.end.us - self.start.us

    @property
    def way_m(self) -> float:
        """From stop to stop."""
        before_m = self.run.entry_m if self.before else 0.0
        return self.run.inner_m + before_m + (self.after.entry_m if self.after else 0.0)

    @property
    def way_within_m(self) -> float:
        """As far as it lies within the range."""
        before_m = self.run.entry_within_m if self.before else 0.0
        return self.run.inner_within_m + before_m + (self.after.entry_within_m if self.after else 0.0)

    def is_trip(self, rules: Rules) -> bool:
        """Whether a moving run is a trip: by its distance, or by its duration."""
        return self.way_m >= rules.min_trip_m or self.span_us > WANDER_US


def _stretches(runs: Sequence[Run]) -> list[Stretch]:
    """Of runs that take turns in standing and moving."""
    around = [None, *runs, None]
    return [Stretch(run, before, after) for before, run, after in zip(around, runs, around[2:], strict=False)]


def _counts(stretch: Stretch, rules: Rules) -> bool:
    """Whether it is more than a device of which little is known, as between two gaps."""
    if stretch.run.is_still:
        return stretch.run.span_us >= rules.min_stop_s * 1e6
    return stretch.is_trip(rules)


def _is_within(stretch: Stretch, move: Move, cut: Cut) -> bool:
    """Whether part of it lies in the range. It may be a single moment, or a distance that took no time."""
    if move.start.us != move.end.us:
        return move.start.us < move.end.us
    has_way = isinstance(move, Trip) and move.way_m > 0
    return cut.has(move.start) and (stretch.span_us == 0 or has_way)


def _connected(runs: Iterable[Run]) -> Iterator[list[Run]]:
    """Runs without a gap between them; rest between two is a run of its own that stands still. The way over a gap is
    no run's."""
    found: list[Run] = []
    for run in runs:
        if run.before == GAP:
            if found:
                yield found
            found = []
            run = _without_entry(run)  # noqa: PLW2901 (the way over a gap is nobody's)
        if run.before == REST and found:
            last = found[-1]
            found.append(Run(True, 0, last.last, run.first, 0, 0.0, run.entry_m, None, 0.0, run.entry_within_m))
            run = _without_entry(run)  # noqa: PLW2901 (the way is that of the rest)
        found.append(run)
    if found:
        yield found


def _without_entry(run: Run) -> Run:
    return run._replace(entry_m=0.0, entry_within_m=0.0)


def _without_short_stop(run: Run, rules: Rules) -> Run:
    """A run that stands too shortly, as part of a trip."""
    is_short = run.is_still and run.span_us < rules.min_stop_s * 1e6
    return run._replace(is_still=False) if is_short else run


def _moves_too_little(stretch: Stretch, rules: Rules) -> Run:
    """A run that moves too little, as part of the stops around it, if there are any."""
    run, before, after = stretch
    is_little = not run.is_still and (before or after) and not stretch.is_trip(rules)
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
        speed_kmh_max=_greatest(run.speed_kmh_max for run in runs),
        sent_kmh_max=_greatest(run.sent_kmh_max for run in runs),
        inner_within_m=first.inner_within_m + sum(run.entry_within_m + run.inner_within_m for run in runs[1:]),
    )


def _greatest(speeds_kmh: Iterable[float | None]) -> float | None:
    return max((kmh for kmh in speeds_kmh if kmh is not None), default=None)


def _move(stretch: Stretch, cut: Cut) -> Move:
    """A run as a move, as far as it lies in the range; one that doesn't ends before it begins."""
    run, before, after = stretch
    if run.is_still:
        start_us, end_us = max(run.first.us, cut.start_us), min(run.last.us, cut.end_us)
        return Stop(run.first._replace(us=start_us), run.last._replace(us=end_us), run.records)
    start, end, way_m = cut.start(stretch.start), cut.end(stretch.end), stretch.way_within_m
    ends = (before is not None and cut.has(before.last)) + (after is not None and cut.has(after.first))
    speed_kmh_max = run.speed_kmh_max if run.sent_kmh_max is None else run.sent_kmh_max
    if speed_kmh_max is not None:
        return Trip(start, end, way_m, speed_kmh_max, run.records + ends)
    span_us = end.us - start.us
    return Trip(start, end, way_m, way_m / span_us * 3.6e6 if span_us > 0 else 0.0, run.records + ends)
