"""Summaries as plain Python works them out, record by record."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from telemetry.record import Record, Stored

MONDAY = datetime(2000, 1, 3, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Rules(NamedTuple):
    """What a summary is asked: the range, the time that each spans (None: all of it), and which hops are stops."""

    start_us: int
    end_us: int
    every_us: int | None = None
    stopped_kmh: float = 3.0
    max_gap_us: int = 300_000_000


Hop = tuple[Record | None, Record]
"""A record and the one before it."""


def summaries(stored: Iterable[Stored], rules: Rules) -> list[dict[str, Any]]:
    """All summaries, by device and time."""
    by_device: dict[bytes, list[Stored]] = {}
    for one in stored:
        if rules.start_us <= one.record.timestamp_us < rules.end_us:
            by_device.setdefault(one.device_id.encode(), []).append(one)
    return [one for device in sorted(by_device) for one in _of_device(device.decode(), by_device[device], rules)]


def _of_device(device: str, stored: Sequence[Stored], rules: Rules) -> Iterable[dict[str, Any]]:
    records = [one.record for one in sorted(stored, key=lambda one: (one.record.timestamp_us, one.id))]
    ways = _hops(records, lambda record: record.has_fix)
    waits = _hops(records, lambda record: record.speed_kmh is not None)
    buckets: dict[tuple[int, int], list[Record]] = {}
    for record in records:
        buckets.setdefault(_ends(record, rules), []).append(record)
    for (start_us, end_us), found in buckets.items():
        times = [record.timestamp_us for record in found]
        yield {
            "device_id": device,
            "start": iso(start_us),
            "end": iso(end_us),
            "count": len(found),
            "first": iso(times[0]),
            "last": iso(times[-1]),
            "distance_km": _distance_km([hop for hop in ways if _ends(hop[1], rules)[0] == start_us]),
            "speed_kmh_mean": _mean(speeds := [one.speed_kmh for one in found if one.speed_kmh is not None]),
            "speed_kmh_max": max(speeds, default=None),
            "stopped_seconds": _stopped_s([hop for hop in waits if _ends(hop[1], rules)[0] == start_us], rules),
            "bbox": _bbox([record for record in found if record.has_fix]),
        }


def _hops(records: Sequence[Record], counts: Callable[[Record], bool]) -> list[Hop]:
    kept = [record for record in records if counts(record)]
    return list(zip([None, *kept], kept, strict=False))


def _ends(record: Record, rules: Rules) -> tuple[int, int]:
    """The bucket's, as far as the range goes."""
    if rules.every_us is None:
        return rules.start_us, rules.end_us
    every = timedelta(microseconds=rules.every_us)
    start = MONDAY + (EPOCH + timedelta(microseconds=record.timestamp_us) - MONDAY) // every * every
    return max(_us(start), rules.start_us), min(_us(start + every), rules.end_us)


def _us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def iso(us: int) -> str:
    """2026-11-24T10:25:00Z, with six digits of fraction where it isn't zero."""
    return (EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")


def _distance_km(hops: Sequence[Hop]) -> Any:
    return pytest.approx(sum(way_km(a, b) for a, b in hops if a is not None), abs=1e-5) if hops else None


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


def _stopped_s(hops: Sequence[Hop], rules: Rules) -> Any:
    waits_us = [b.timestamp_us - a.timestamp_us for a, b in hops if a is not None and _is_stopped(a, b, rules)]
    return sum(wait for wait in waits_us if wait <= rules.max_gap_us) / 1e6 if hops else None


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
