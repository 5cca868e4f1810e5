"""Summaries as plain Python works them out, record by record."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

import pytest

from api.positions.plausibility import LEAST_US, Limits, Position, left_out
from telemetry.model.record import Record, Stored

MONDAY = datetime(2000, 1, 3, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Rules(NamedTuple):
    """What a summary is asked: the range, the time that each spans (None: all of it), and which hops are stops."""

    start_us: int
    end_us: int
    every_us: int | None = None
    stopped_kmh: float = 3.0
    max_gap_us: int = 300_000_000
    limits: Limits = Limits()


BOUND_US = 31 * 86_400_000_000
Ends = tuple[int, int]


class Hop(NamedTuple):
    """A record and the one before it, and from when on what lies between them is cut at the ends of buckets."""

    before: Record
    record: Record
    begin_us: int

    def share(self, ends: Ends) -> float:
        """How much of it belongs to a bucket, 0 to 1."""
        at_us = self.record.timestamp_us
        if self.begin_us == at_us:
            return 1.0 if ends[0] <= at_us < ends[1] else 0.0
        return max(min(at_us, ends[1]) - max(self.begin_us, ends[0]), 0) / (at_us - self.begin_us)

    def buckets(self, rules: Rules) -> Iterable[Ends]:
        """Those of the range that it belongs to."""
        at_us = max(self.begin_us, rules.start_us)
        while at_us < min(self.record.timestamp_us + 1, rules.end_us):
            ends = _ends(at_us, rules)
            if self.share(ends) > 0:
                yield ends
            at_us = ends[1]


def summaries(stored: Iterable[Stored], rules: Rules) -> list[dict[str, Any]]:
    """All summaries, by device and time, of records of any time."""
    by_device: dict[bytes, list[Stored]] = {}
    for one in stored:
        by_device.setdefault(one.device_id.encode(), []).append(one)
    if rules.start_us >= rules.end_us:
        return []
    return [one for device in sorted(by_device) for one in _of_device(device.decode(), by_device[device], rules)]


def _of_device(device: str, stored: Sequence[Stored], rules: Rules) -> Iterable[dict[str, Any]]:
    records = [one.record for one in sorted(stored, key=lambda one: (one.record.timestamp_us, one.id))]
    implausible = _implausible(records, rules.limits)
    ways = _ways([record for record in records if id(record) not in implausible], rules)
    hops_kmh = {id(hop.record): kmh for hop in ways if (kmh := _kmh(hop)) is not None}
    stops = _stops(records, rules)
    buckets: dict[Ends, list[Record]] = {}
    for record in records:
        if rules.start_us <= record.timestamp_us < rules.end_us:
            buckets.setdefault(_ends(record.timestamp_us, rules), []).append(record)
    for hop in (*ways, *stops):
        for ends in hop.buckets(rules):
            buckets.setdefault(ends, [])
    for ends in sorted(buckets):
        found = buckets[ends]
        times = [record.timestamp_us for record in found]
        plausible = [record for record in found if id(record) not in implausible]
        speeds = [one.speed_kmh for one in found if one.speed_kmh is not None]
        speeds = speeds or [hops_kmh[id(one)] for one in plausible if id(one) in hops_kmh]
        yield {
            "device_id": device,
            "start": iso(ends[0]),
            "end": iso(ends[1]),
            "count": len(found),
            "first": iso(times[0]) if times else None,
            "last": iso(times[-1]) if times else None,
            "distance_km": _distance_km(ways, ends, plausible),
            "speed_kmh_mean": _mean(speeds),
            "speed_kmh_max": pytest.approx(max(speeds), rel=1e-6, abs=1e-6) if speeds else None,
            "stopped_seconds": _stopped_s(stops, ends, found),
            "bbox": _bbox([record for record in plausible if record.has_fix]),
            "implausible": len(found) - len(plausible),
        }


def _implausible(records: Sequence[Record], limits: Limits) -> set[int]:
    """Which of a device's records have an implausible position, by identity."""
    if not limits.is_on:
        return set()
    placed = [record for record in records if record.has_fix]
    good = [
        one
        for one in placed
        if (one.latitude, one.longitude) != (0, 0) and (one.accuracy_m or 0) <= limits.max_accuracy_m
    ]
    positions = [Position(one.timestamp_us, one.latitude or 0.0, one.longitude or 0.0) for one in good]
    jumped = left_out(positions, limits)
    kept = {id(one) for place, one in enumerate(good) if place not in jumped}
    return {id(one) for one in placed} - kept


def _kmh(hop: Hop) -> float | None:
    us = hop.record.timestamp_us - hop.before.timestamp_us
    return way_km(hop.before, hop.record) / max(us, LEAST_US) * 3.6e9 if us else None


def _is_jump(before: Record, record: Record, limits: Limits) -> bool:
    us = max(record.timestamp_us - before.timestamp_us, LEAST_US)
    return limits.is_on and way_km(before, record) > limits.max_jump_kmh * us / 3.6e9


def _pairs(records: Sequence[Record], counts: Callable[[Record], bool]) -> Iterable[tuple[Record, Record, int]]:
    """Neighbours, and the time between them in µs."""
    kept = [record for record in records if counts(record)]
    return [(before, record, record.timestamp_us - before.timestamp_us) for before, record in pairwise(kept)]


def _ways(records: Sequence[Record], rules: Rules) -> list[Hop]:
    found = []
    for before, record, us in _pairs(records, lambda record: record.has_fix):
        if us <= BOUND_US and not _is_jump(before, record, rules.limits):
            begin_us = before.timestamp_us if us <= rules.max_gap_us else record.timestamp_us
            found.append(Hop(before, record, begin_us))
    return found


def _stops(records: Sequence[Record], rules: Rules) -> list[Hop]:
    return [
        Hop(before, record, before.timestamp_us)
        for before, record, us in _pairs(records, lambda record: record.speed_kmh is not None)
        if us <= rules.max_gap_us and _is_stopped(before, record, rules)
    ]


def _ends(at_us: int, rules: Rules) -> Ends:
    """The ends of a moment's bucket, as far as the range goes."""
    if rules.every_us is None:
        return rules.start_us, rules.end_us
    every = timedelta(microseconds=rules.every_us)
    start = MONDAY + (EPOCH + timedelta(microseconds=at_us) - MONDAY) // every * every
    return max(_us(start), rules.start_us), min(_us(start + every), rules.end_us)


def _us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def iso(us: int) -> str:
    """2026-11-24T10:25:00.000000Z"""
    return (EPOCH + timedelta(microseconds=us)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _distance_km(hops: Sequence[Hop], ends: Ends, found: Sequence[Record]) -> Any:
    shares = [(hop, share) for hop in hops if (share := hop.share(ends)) > 0]
    if not shares and not any(record.has_fix for record in found):
        return None
    return pytest.approx(sum(way_km(hop.before, hop.record) * share for hop, share in shares), abs=1e-3)


def way_km(a: Record, b: Record) -> float:
    """Along a great circle: by the chord between the two as points in space."""

    def point(record: Record) -> tuple[float, float, float]:
        assert record.latitude is not None
        assert record.longitude is not None
        up, east = math.radians(record.latitude), math.radians(record.longitude)
        return math.cos(up) * math.cos(east), math.cos(up) * math.sin(east), math.sin(up)

    return 2 * 6371.0088 * math.asin(min(math.dist(point(a), point(b)) / 2, 1))


def _mean(speeds: Sequence[float]) -> Any:
    mean = math.fsum(speed / len(speeds) for speed in speeds)
    return pytest.approx(mean, rel=1e-12, abs=1e-6) if speeds else None


def _stopped_s(hops: Sequence[Hop], ends: Ends, found: Sequence[Record]) -> Any:
    shares = [(hop, share) for hop in hops if (share := hop.share(ends)) > 0]
    if not shares and not any(record.speed_kmh is not None for record in found):
        return None
    waits_us = ((hop.record.timestamp_us - hop.before.timestamp_us) * share for hop, share in shares)
    return pytest.approx(sum(waits_us) / 1e6, abs=1e-6)


def _is_stopped(a: Record, b: Record, rules: Rules) -> bool:
    return all(one.speed_kmh is not None and one.speed_kmh <= rules.stopped_kmh for one in (a, b))


def _bbox(records: Sequence[Record]) -> list[float] | None:
    """Of the box that goes round the 180th meridian and the one that doesn't, the narrower."""
    if not records:
        return None
    south, *_, north = sorted(2 * [record.latitude or 0.0 for record in records])
    longitudes = [record.longitude or 0.0 for record in records]
    east = [longitude for longitude in longitudes if longitude >= 0]
    west = [longitude for longitude in longitudes if longitude < 0]
    if east and west and max(west) + 360 - min(east) < max(longitudes) - min(longitudes):
        return [min(east), south, max(west), north]
    return [min(longitudes), south, max(longitudes), north]
