"""The ships at Suez in March 2021: positions as AIS had them, and how fast and where to each ship was going.

The file has a ship's number, a minute and a place (README.md). Several positions of a ship in the same minute are
spread over it. Speed and heading are worked out between a position and one some minutes earlier: between neighbours
a minute more or less would be half the speed.
"""

from __future__ import annotations

import csv
import gzip
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import asin, atan2, cos, degrees, radians, sin, sqrt
from pathlib import Path
from typing import Any, NamedTuple

from cli.demo.story import Remark, Report, Story

FILE = Path(__file__).with_name("suez_boats.csv.gz")

LIVE_FROM = datetime(2021, 3, 23, tzinfo=UTC)
"""The story is looked at from here on: the canal as usual, and the blockade from the same morning on."""

LAST = datetime(2021, 3, 24, 12, 52, tzinfo=UTC)
"""The file's last minute."""

EVER_GIVEN = "235"
NAMES = {EVER_GIVEN: "ever-given"}

SPEED = 300.0
"""A day and a half in seven minutes."""

LEAST_APART_S, MOST_APART_S = 240.0, 21_600.0
"""How far apart two positions are between which a speed is worked out."""

LEAST_MOVED_M = 200.0
"""A ship at anchor swings; that is no heading."""

EARTH_M = 6_371_000.0
MINUTE_S = 60.0


class Place(NamedTuple):
    """Where a ship was, degrees."""

    at_s: float
    latitude: float
    longitude: float


def reports() -> Iterator[Report]:
    """All positions in the order of time."""
    found = sorted(_positions(), key=lambda one: one[1].at_s)
    earlier: dict[str, deque[Place]] = defaultdict(deque)
    for ship, place in found:
        yield Report(place.at_s, _fields(ship, place, _base(earlier[ship], place)))


def _positions() -> list[tuple[str, Place]]:
    """Ship and place, ship after ship as in the file."""
    with gzip.open(FILE, "rt", encoding="ascii", newline="") as text:
        rows = [(row[0], row[1], float(row[2]), float(row[3])) for row in list(csv.reader(text))[1:]]
    minutes = Counter((ship, minute) for ship, minute, _, _ in rows)
    seen: Counter[tuple[str, str]] = Counter()
    positions = []
    for ship, minute, longitude, latitude in rows:
        within_s = MINUTE_S * seen[ship, minute] / minutes[ship, minute]
        seen[ship, minute] += 1
        positions.append((ship, Place(_seconds(minute) + within_s, latitude, longitude)))
    return positions


def _seconds(minute: str) -> float:
    """`20/03/2021 00:22` as seconds from where the live part begins."""
    day, month, year, hour, minutes = minute[:2], minute[3:5], minute[6:10], minute[11:13], minute[14:]
    moment = datetime(int(year), int(month), int(day), int(hour), int(minutes), tzinfo=UTC)
    return (moment - LIVE_FROM).total_seconds()


def _base(earlier: deque[Place], place: Place) -> Place | None:
    """The ship's newest place that lies far enough back, if it doesn't lie too far; notes this one."""
    while len(earlier) > 1 and place.at_s - earlier[1].at_s >= LEAST_APART_S:
        earlier.popleft()
    base = earlier[0] if earlier else None
    earlier.append(place)
    return base if base and LEAST_APART_S <= place.at_s - base.at_s <= MOST_APART_S else None


def _fields(ship: str, place: Place, base: Place | None) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "device_id": NAMES.get(ship, f"ship-{int(ship):03}"),
        "latitude": place.latitude,
        "longitude": place.longitude,
        "story_time": f"{LIVE_FROM + timedelta(seconds=place.at_s):%Y-%m-%dT%H:%M:%SZ}",
    }
    if base is not None:
        moved_m = metres(base, place)
        fields["speed_kmh"] = round(moved_m / (place.at_s - base.at_s) * 3.6, 1)
        if moved_m >= LEAST_MOVED_M:
            fields["heading_deg"] = round(bearing_deg(base, place), 1) % 360
    return fields


def metres(a: Place, b: Place) -> float:
    """How far apart two places are, on a sphere."""
    north, east = radians(b.latitude - a.latitude) / 2, radians(b.longitude - a.longitude) / 2
    chord = sin(north) ** 2 + cos(radians(a.latitude)) * cos(radians(b.latitude)) * sin(east) ** 2
    return 2 * EARTH_M * asin(sqrt(chord))


def bearing_deg(a: Place, b: Place) -> float:
    """In which direction b lies from a, degrees from north."""
    from_lat, to_lat, east = radians(a.latitude), radians(b.latitude), radians(b.longitude - a.longitude)
    y = sin(east) * cos(to_lat)
    x = cos(from_lat) * sin(to_lat) - sin(from_lat) * cos(to_lat) * cos(east)
    return degrees(atan2(y, x)) % 360


def clock(at_s: float) -> str:
    """`23 March 2021, 05:40`"""
    return f"{LIVE_FROM + timedelta(seconds=at_s):%d %B %Y, %H:%M}".lstrip("0")


def _remark(hour: float, sentence: str) -> Remark:
    return Remark(hour * 3_600, sentence)


STORY = Story(
    "ships at Suez in March 2021, as the Ever Given blocks the canal",
    SPEED,
    (LAST - LIVE_FROM).total_seconds(),
    reports,
    (
        _remark(0, "Ships wait at both ends of the canal, and convoys pass, as on any day."),
        _remark(4.75, "The Ever Given (device ever-given) leaves the bay of Suez and heads north into the canal."),
        _remark(5.75, "She lies across the canal, at 30.018° N, and stays there."),
        _remark(8, "Ships that come from now on anchor: in the bay of Suez, in the Great Bitter Lake, off Port Said."),
    ),
    clock,
)
