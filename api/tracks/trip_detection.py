"""Detects trips and stops ("moves") of a device from its runs: consecutive records that all stand still or all move.

Pure; trip_sql.py groups records into runs. The rules, with the parameters in `Rules`:

- A record stands still if its speed is at most `stopped_kmh`. Without a sent speed, the speed from the previous record
  counts.
- More than `max_gap_s` between two records is a gap, which ends a trip or stop. But if both lie within `rest_m` of each
  other, the device was at rest: many trackers sleep while parked.
- A stop shorter than `min_stop_s`, including rest before and after it, is part of the trip around it (traffic lights).
- After that, a trip shorter than `min_trip_m` that lasts at most `WANDER_US` is part of the stop around it (the
  position of a receiver at rest drifts).
- A trip begins where the previous stop ends, and ends where the next stop begins, so no distance is lost.
- Last, moves are clipped to the range. The hop over a border of the range is divided in proportion to time.

The move at a given time depends only on records nearby: within `margin_us`, and one record beyond, which is at most
`neighbours.BOUND_US` away. So the moves of consecutive days add up to the moves of the whole range.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from telemetry.model.record import EARLIEST_US, LATEST_US

GAP, REST = 1, 2
"""Kinds of intervals before a run: no data for a long time, or at rest."""

WANDER_US = 3_600_000_000
"""Maximum duration of a short trip that becomes part of a stop, µs. Limits the records that the rules depend on."""


class Rules(NamedTuple):
    """Parameters of the rules above."""

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
    """A position of a device at a time."""

    us: int
    latitude: float
    longitude: float


class Run(NamedTuple):
    """Consecutive records that all stand still or all move. `before` is `GAP`, `REST`, or 0 if it directly follows a
    run of the other kind. `entry_m` is the distance from that run's last record to this run's first, `inner_m` the
    distance within the run.

    `entry_within_m` and `inner_within_m` are the parts of these distances within the range. `records` counts the
    records in the range. `speed_kmh_max` is their maximum speed, sent or from positions; `sent_kmh_max` is their
    maximum sent speed; None if there is none.
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
        """Time from the first record to the last."""
        return self.last.us - self.first.us


class Cut(NamedTuple):
    """A range, and the device's interpolated positions at its borders if they lie between two records."""

    start_us: int = EARLIEST_US
    end_us: int = LATEST_US
    at_start: Point | None = None
    at_end: Point | None = None

    def start(self, point: Point) -> Point:
        """The start, clipped to the range, of a move that begins at `point`."""
        return point if point.us >= self.start_us else self.at_start or point._replace(us=self.start_us)

    def end(self, point: Point) -> Point:
        """The end, clipped to the range, of a move that ends at `point`."""
        return point if point.us <= self.end_us else self.at_end or point._replace(us=self.end_us)

    def has(self, point: Point) -> bool:
        """True if a record lies in the range."""
        return self.start_us <= point.us < self.end_us


ALL_TIME = Cut()


class Trip(NamedTuple):
    """A trip. `distance_m` is the distance along its records; `records` is their number, both ends included."""

    start: Point
    end: Point
    distance_m: float
    speed_kmh_max: float
    records: int


class Stop(NamedTuple):
    """A stop. Its position is the first record's, even if the range begins later."""

    start: Point
    end: Point
    records: int


Move = Trip | Stop


def moves(runs: Iterable[Run], rules: Rules, cut: Cut = ALL_TIME) -> Iterator[Move]:
    """The trips and stops of one device in the order of time; `runs` are all its runs."""
    for connected in _connected(runs):
        without_short_stops = [_with_short_stop_moving(run, rules) for run in _merge_neighbours(connected)]
        stretches = _stretches(_merge_neighbours(without_short_stops))
        without_short_trips = [_with_short_trip_still(stretch, rules) for stretch in stretches]
        for stretch in _stretches(_merge_neighbours(without_short_trips)):
            move = _move(stretch, cut)
            if _counts(stretch, rules) and _is_within(stretch, move, cut):
                yield move


class Stretch(NamedTuple):
    """A run with the runs before and after it; None at a gap."""

    run: Run
    before: Run | None
    after: Run | None

    @property
    def start(self) -> Point:
        """The start: the first record of a stop; for a trip, the end of the stop before it."""
        return self.before.last if self.before and not self.run.is_still else self.run.first

    @property
    def end(self) -> Point:
        """The end: the last record of a stop; for a trip, the start of the stop after it."""
        return self.after.first if self.after and not self.run.is_still else self.run.last

    @property
    def span_us(self) -> int:
        """Time from start to end."""
        return self.end.us - self.start.us

    @property
    def distance_m(self) -> float:
        """Distance from stop to stop."""
        before_m = self.run.entry_m if self.before else 0.0
        return self.run.inner_m + before_m + (self.after.entry_m if self.after else 0.0)

    @property
    def distance_within_m(self) -> float:
        """Distance within the range."""
        before_m = self.run.entry_within_m if self.before else 0.0
        return self.run.inner_within_m + before_m + (self.after.entry_within_m if self.after else 0.0)

    def is_trip(self, rules: Rules) -> bool:
        """True if a moving run is long enough for a trip, in distance or duration."""
        return self.distance_m >= rules.min_trip_m or self.span_us > WANDER_US


def _stretches(runs: Sequence[Run]) -> list[Stretch]:
    """Each run with its neighbours; `runs` alternate between standing and moving."""
    around = [None, *runs, None]
    return [Stretch(run, before, after) for before, run, after in zip(around, runs, around[2:], strict=False)]


def _counts(stretch: Stretch, rules: Rules) -> bool:
    """False if too short for a stop or trip, as between two gaps."""
    if stretch.run.is_still:
        return stretch.run.span_us >= rules.min_stop_s * 1e6
    return stretch.is_trip(rules)


def _is_within(stretch: Stretch, move: Move, cut: Cut) -> bool:
    """True if a part of the move lies in the range. It may have no duration, with or without a distance."""
    if move.start.us != move.end.us:
        return move.start.us < move.end.us
    has_distance = isinstance(move, Trip) and move.distance_m > 0
    return cut.has(move.start) and (stretch.span_us == 0 or has_distance)


def _connected(runs: Iterable[Run]) -> Iterator[list[Run]]:
    """Groups of runs without a gap. Rest between two runs becomes a run that stands still. The distance over a gap
    belongs to no run."""
    group: list[Run] = []
    for run in runs:
        if run.before == GAP:
            if group:
                yield group
            group = []
            run = _without_entry(run)  # noqa: PLW2901 (the distance over a gap does not count)
        if run.before == REST and group:
            last = group[-1]
            group.append(Run(True, 0, last.last, run.first, 0, 0.0, run.entry_m, None, 0.0, run.entry_within_m))
            run = _without_entry(run)  # noqa: PLW2901 (the distance belongs to the rest)
        group.append(run)
    if group:
        yield group


def _without_entry(run: Run) -> Run:
    return run._replace(entry_m=0.0, entry_within_m=0.0)


def _with_short_stop_moving(run: Run, rules: Rules) -> Run:
    """The run; if it stands still for too short a time, as a moving run."""
    is_short = run.is_still and run.span_us < rules.min_stop_s * 1e6
    return run._replace(is_still=False) if is_short else run


def _with_short_trip_still(stretch: Stretch, rules: Rules) -> Run:
    """The run; if it moves too little and is next to a stop, as a run that stands still."""
    run, before, after = stretch
    is_little = not run.is_still and (before or after) and not stretch.is_trip(rules)
    return run._replace(is_still=True) if is_little else run


def _merge_neighbours(runs: Sequence[Run]) -> list[Run]:
    """Runs in which consecutive runs of the same kind are merged."""
    return [_merged(list(same)) for _, same in groupby(runs, key=lambda run: run.is_still)]


def _merged(runs: Sequence[Run]) -> Run:
    first, last = runs[0], runs[-1]
    return first._replace(
        last=last.last,
        records=sum(run.records for run in runs),
        inner_m=first.inner_m + sum(run.entry_m + run.inner_m for run in runs[1:]),
        speed_kmh_max=_max_speed(run.speed_kmh_max for run in runs),
        sent_kmh_max=_max_speed(run.sent_kmh_max for run in runs),
        inner_within_m=first.inner_within_m + sum(run.entry_within_m + run.inner_within_m for run in runs[1:]),
    )


def _max_speed(speeds_kmh: Iterable[float | None]) -> float | None:
    return max((kmh for kmh in speeds_kmh if kmh is not None), default=None)


def _move(stretch: Stretch, cut: Cut) -> Move:
    """A run as a move, clipped to the range; a move outside the range ends before it begins."""
    run, before, after = stretch
    if run.is_still:
        start_us, end_us = max(run.first.us, cut.start_us), min(run.last.us, cut.end_us)
        return Stop(run.first._replace(us=start_us), run.last._replace(us=end_us), run.records)
    start, end, distance_m = cut.start(stretch.start), cut.end(stretch.end), stretch.distance_within_m
    ends = (before is not None and cut.has(before.last)) + (after is not None and cut.has(after.first))
    speed_kmh_max = run.speed_kmh_max if run.sent_kmh_max is None else run.sent_kmh_max
    if speed_kmh_max is not None:
        return Trip(start, end, distance_m, speed_kmh_max, run.records + ends)
    span_us = end.us - start.us
    return Trip(start, end, distance_m, distance_m / span_us * 3.6e6 if span_us > 0 else 0.0, run.records + ends)
