"""Made-up vehicles in a made-up city: streets, turns, red lights and parking, as records of NDJSON.

Everything hangs on the plan and on the numbers that `rand` gives, in an order that is always the same: the first
records of a longer run are the records of a shorter one. Memory grows with the vehicles alone.

This file knows no socket, clock or file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from math import atan2, cos, degrees, hypot, radians, sqrt
from typing import NamedTuple

Rand = Callable[[], float]
"""The next random number, from 0 to below 1."""

# The city --------------------------------------------------------------------------------------------

SOUTH, WEST = 53.34, -3.02
CROSSINGS = 72
"""Crossings along each side of the city, a square of about 18 km."""

SPACING_M = 250.0
JITTER = 0.3
"""How far a crossing lies off the grid at most, as a part of the spacing: no street is straight for long."""

METRES_PER_DEGREE = 111_320.0
HIGHEST_M = 70.0
SIDE_STREET_MS, MAIN_ROAD_MS = 8.5, 17.0
"""Speed limits: about 30 and 60 km/h."""

MAIN_ROAD_EVERY = 6
"""Every sixth street of the grid is a main road."""

STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Directions: north, east, south, west."""


class Street(NamedTuple):
    """From one crossing to the next, in one direction. What a vehicle is after `at` metres: start + at * slope."""

    length_m: float
    limit_ms: float
    latitude: float
    longitude: float
    altitude_m: float
    latitude_slope: float
    longitude_slope: float
    altitude_slope: float
    heading: str
    direction: int
    end: int
    """The crossing where it ends."""


class Crossing(NamedTuple):
    latitude: float
    longitude: float
    altitude_m: float


Streets = list[Street | None]
"""Four of each crossing, by direction; None where the city ends."""


def build_city(rand: Rand) -> Streets:
    """All streets of a city."""
    step = SPACING_M / METRES_PER_DEGREE
    shrink = cos(radians(SOUTH))
    crossings = [
        Crossing(
            SOUTH + (y + (2 * rand() - 1) * JITTER) * step,
            WEST + (x + (2 * rand() - 1) * JITTER) * step / shrink,
            rand() * HIGHEST_M,
        )
        for y in range(CROSSINGS)
        for x in range(CROSSINGS)
    ]
    return [_street(crossings, place, direction) for place in range(len(crossings)) for direction in range(4)]


def _street(crossings: list[Crossing], place: int, direction: int) -> Street | None:
    (y, x), (right, up) = divmod(place, CROSSINGS), STEPS[direction]
    if not (0 <= x + right < CROSSINGS and 0 <= y + up < CROSSINGS):
        return None
    end = (y + up) * CROSSINGS + x + right
    a, b = crossings[place], crossings[end]
    north_m = (b.latitude - a.latitude) * METRES_PER_DEGREE
    east_m = (b.longitude - a.longitude) * METRES_PER_DEGREE * cos(radians(a.latitude))
    length_m = hypot(north_m, east_m)
    is_main = (x if up else y) % MAIN_ROAD_EVERY == 0
    return Street(
        length_m,
        MAIN_ROAD_MS if is_main else SIDE_STREET_MS,
        a.latitude,
        a.longitude,
        a.altitude_m,
        (b.latitude - a.latitude) / length_m,
        (b.longitude - a.longitude) / length_m,
        (b.altitude_m - a.altitude_m) / length_m,
        f"{degrees(atan2(east_m, north_m)) % 360:.1f}",
        direction,
        end,
    )


# A vehicle -------------------------------------------------------------------------------------------

ACCELERATION_MS2, BRAKING_MS2 = 1.6, 2.2
CORNER_MS = 5.0
STRAIGHT_ON = 0.6
RED_LIGHT = 0.2
"""How often a vehicle goes straight on, and how often a crossing stops it."""

LONGEST_LIGHT_S = 60.0
TRIP_STREETS = 90
LONGEST_PARKING_S = 3_600.0
PARKED_REPORT_S = 600.0
"""How often a vehicle reports while it is parked."""

FUEL_PER_M = 0.00022
EMPTY_FUEL, FULL_FUEL = 10.0, 97.0
TURNS = (0, 1, 3, 2)
"""Straight on, right, left, back: what a vehicle tries in turn where the city ends."""


class Vehicle:
    """One device: where it is, how fast, and when it reports."""

    __slots__ = (
        "at_m",
        "battery_v",
        "end_ms",
        "fuel",
        "held",
        "holds",
        "ignition",
        "is_late",
        "name",
        "next_street",
        "pause_s",
        "rand",
        "report_s",
        "speed_ms",
        "street",
        "streets",
        "trip",
        "wish_ms",
    )

    def __init__(self, name: str, streets: Streets, rand: Rand) -> None:
        self.name = name
        self.streets = streets
        self.rand = rand
        self.speed_ms = self.pause_s = self.report_s = 0.0
        self.ignition = "true"
        self.battery_v = 13.8
        self.fuel = EMPTY_FUEL + rand() * (FULL_FUEL - EMPTY_FUEL)
        self.trip = int(rand() * TRIP_STREETS) + 1
        self.is_late = False
        self.holds = 0
        self.held: list[str] = []
        self.next_street = self._leaving(int(rand() * CROSSINGS * CROSSINGS), int(rand() * 4))
        self._enter()
        self.at_m = rand() * self.street.length_m

    def advance(self, seconds: float) -> bool:
        """Let time pass. Returns whether the vehicle reports now."""
        if self.pause_s > 0:
            self.pause_s -= seconds
            if self.ignition == "false" and self.pause_s > 0:
                return self._parked(seconds)
            if self.pause_s > 0:
                return True
            self._depart()
        before_ms, end_ms, street = self.speed_ms, self.end_ms, self.street
        # what it may drive here, so that it can brake until the crossing
        braking_ms = sqrt(end_ms * end_ms + 2 * BRAKING_MS2 * (street.length_m - self.at_m))
        speed_ms = min(before_ms + ACCELERATION_MS2 * seconds, self.wish_ms, braking_ms)
        distance_m = (before_ms + speed_ms) / 2 * seconds
        self.speed_ms = speed_ms
        self.at_m += distance_m
        self.fuel -= distance_m * FUEL_PER_M
        while self.at_m >= self.street.length_m:
            self._cross()
        return True

    def line(self, time: str) -> str:
        """The record of this moment, as JSON."""
        street, at_m = self.street, self.at_m
        return (
            f'{{"device_id":"{self.name}","timestamp":"{time}",'
            f'"latitude":{street.latitude + at_m * street.latitude_slope:.6f},'
            f'"longitude":{street.longitude + at_m * street.longitude_slope:.6f},'
            f'"altitude_m":{street.altitude_m + at_m * street.altitude_slope:.1f},'
            f'"speed_kmh":{self.speed_ms * 3.6:.1f},"heading_deg":{street.heading},'
            f'"ignition":{self.ignition},"battery_v":{self.battery_v:.2f},"fuel":{self.fuel:.1f}}}'
        )

    def _parked(self, seconds: float) -> bool:
        self.report_s -= seconds
        if self.report_s > 0:
            return False
        self.report_s += PARKED_REPORT_S
        self.battery_v = max(self.battery_v - 0.01, 12.2)
        return True

    def _cross(self) -> None:
        """Stop at the end of the street, or go on into the next one."""
        if self.end_ms > 0:
            self.at_m -= self.street.length_m
            self._enter()
            return
        self.at_m = min(self.at_m, self.street.length_m - 0.001)
        self.speed_ms = 0.0
        if self.trip > 0:
            self.pause_s = self.rand() * LONGEST_LIGHT_S
        else:
            self._park()

    def _park(self) -> None:
        self.pause_s = self.rand() * LONGEST_PARKING_S
        self.report_s = PARKED_REPORT_S
        self.ignition, self.battery_v = "false", 12.7
        if self.fuel < EMPTY_FUEL:
            self.fuel = FULL_FUEL

    def _depart(self) -> None:
        """Leave a red light, or the place where it was parked."""
        if self.trip <= 0:
            self.trip = int(self.rand() * TRIP_STREETS) + 1
            self.ignition, self.battery_v = "true", 13.6 + self.rand() * 0.8
        self.at_m = 0.0
        self._enter()

    def _enter(self) -> None:
        """Turn into the next street, and decide what comes behind it: its speed at the end hangs on that."""
        rand = self.rand
        street = self.street = self.next_street
        self.wish_ms = street.limit_ms * (0.75 + 0.3 * rand())
        self.trip -= 1
        turn = rand()
        direction = street.direction + (0 if turn < STRAIGHT_ON else 1 if turn < 0.5 + STRAIGHT_ON / 2 else 3)
        self.next_street = self._leaving(street.end, direction)
        if self.trip <= 0 or rand() < RED_LIGHT:
            self.end_ms = 0.0
        else:
            self.end_ms = self.wish_ms if self.next_street.direction == street.direction else CORNER_MS

    def _leaving(self, crossing: int, direction: int) -> Street:
        """A street that leaves a crossing, in this direction if there is one."""
        found = (self.streets[crossing * 4 + (direction + turn) % 4] for turn in TURNS)
        return next(street for street in found if street is not None)


# All of them -----------------------------------------------------------------------------------------

MOST_SLOTS = 100
"""Moments into which an interval is cut, so that the devices don't all report at once."""

LATE_DEVICES, AHEAD_DEVICES = 0.1, 0.01
LOST_CONTACT = 0.03
MOST_HELD = 20
LEAST_AHEAD_S, MOST_AHEAD_S = 60.0, 21_600.0
"""Clocks that run ahead do so by no more than what a collector still takes."""


class Plan(NamedTuple):
    """What to make up. With `mess`, some devices lose contact and send up to 20 records at once when they are back,
    and the clocks of a few run ahead."""

    devices: int
    start_us: int
    interval_ms: int
    end_us: int | None = None
    mess: bool = False


class Slot(NamedTuple):
    """The records of one moment, each a line without its end."""

    at_us: int
    lines: list[str]


class _Group(NamedTuple):
    """Vehicles that report at the same moment, and how far their clocks run ahead."""

    vehicles: list[Vehicle]
    ahead_s: float


def traffic(plan: Plan, rand: Rand) -> Iterator[Slot]:
    """Slot after slot until the end, if there is one; whoever is out of reach then sends what it holds."""
    slots = min(plan.devices, MOST_SLOTS)
    streets = build_city(rand)
    vehicles = [Vehicle(f"sim-{number:06}", streets, rand) for number in range(1, plan.devices + 1)]
    groups = [_groups(vehicles[slot::slots], plan.mess, rand) for slot in range(slots)]
    for turn in count():
        slot = turn % slots
        at_us = plan.start_us + (turn // slots * plan.interval_ms + plan.interval_ms * slot // slots) * 1_000
        if plan.end_us is not None and at_us >= plan.end_us:
            break
        lines: list[str] = []
        for group in groups[slot]:
            _report(group, at_us, plan.interval_ms / 1_000, lines)
        yield Slot(at_us, lines)
    yield Slot(at_us, [line for vehicle in vehicles for line in vehicle.held])


def _groups(vehicles: list[Vehicle], mess: bool, rand: Rand) -> list[_Group]:
    if not mess:
        return [_Group(vehicles, 0.0)]
    ahead: list[_Group] = []
    right: list[Vehicle] = []
    for vehicle in vehicles:
        vehicle.is_late = rand() < LATE_DEVICES
        if rand() < AHEAD_DEVICES:
            ahead.append(_Group([vehicle], LEAST_AHEAD_S + rand() * (MOST_AHEAD_S - LEAST_AHEAD_S)))
        else:
            right.append(vehicle)
    return [_Group(right, 0.0), *ahead]


def _report(group: _Group, at_us: int, seconds: float, lines: list[str]) -> None:
    time = iso_ms(at_us + round(group.ahead_s * 1_000) * 1_000)
    for vehicle in group.vehicles:
        if vehicle.advance(seconds):
            if vehicle.is_late:
                lines += _late(vehicle, vehicle.line(time))
            else:
                lines.append(vehicle.line(time))


def _late(vehicle: Vehicle, line: str) -> list[str]:
    """What a vehicle that is at times out of reach sends now: nothing, or all that it holds."""
    vehicle.held.append(line)
    if vehicle.holds == 0 and vehicle.rand() < LOST_CONTACT:
        vehicle.holds = int(vehicle.rand() * MOST_HELD) + 1
    vehicle.holds = max(vehicle.holds - 1, 0)
    if vehicle.holds > 0:
        return []
    sent, vehicle.held = vehicle.held, []
    return sent


def iso_ms(at_us: int) -> str:
    """2026-11-24T10:25:00.000Z"""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_us // 1_000 % 1_000:03}Z"
