"""`GET /v1/trips` and `GET /v1/stops`: what devices did, worked out from their records when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import duckdb
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from api.analytics import trip_sql
from api.execution.query_pool import Queries
from api.geo.geo_sql import PLACED
from api.records.neighbours import Around, Look
from api.requests import key_devices, params
from api.requests.params import DEVICE_ID, END, LIMIT, PLACE, START, Place
from api.responses import record_schema
from api.snapshot.snapshot import Snapshots, Wanted
from api.tracks.trip_detection import Cut, Move, Rules, Stop, Trip, moves
from telemetry.http.operations import Content, Operation, names, number
from telemetry.http.problem_responses import refuse_unknown
from telemetry.model import problems
from telemetry.model.utc import TimeText, iso

USUAL = Rules()
RULES = (
    number("stopped_kmh", "The greatest speed of a record that stands still.", USUAL.stopped_kmh, 0, 1_000),
    number("min_stop_s", "Standing for less is part of the trip around it.", USUAL.min_stop_s, 0, 86_400),
    number("min_trip_m", "Moving for less is part of the stops around it.", USUAL.min_trip_m, 0, 1_000_000),
    number("max_gap_s", "More between two records ends a trip and a stop.", USUAL.max_gap_s, 0, 31 * 86_400),
    number("rest_m", "But not where both lie so near: the device was at rest.", USUAL.rest_m, 0, 100_000),
)
"""The parameters of `Rules`, by name."""


class TripAnswer(Struct, frozen=True):
    """From one stay to the next, or from or to a gap. The mean speed is the way by the time, stays on it included."""

    device_id: str
    start: TimeText
    end: TimeText
    duration_s: float
    distance_km: float
    speed_kmh_mean: float | None
    speed_kmh_max: float
    records: int
    start_latitude: float
    start_longitude: float
    end_latitude: float
    end_longitude: float


class StopAnswer(Struct, frozen=True):
    """A stay at a place."""

    device_id: str
    start: TimeText
    end: TimeText
    duration_s: float
    records: int
    latitude: float
    longitude: float


class TripsPage(Struct, frozen=True):
    """Trips in the order of devices and time; `next_cursor` is null at the end."""

    trips: list[TripAnswer]
    next_cursor: str | None


class StopsPage(Struct, frozen=True):
    """Stops likewise."""

    stops: list[StopAnswer]
    next_cursor: str | None


PARAMETERS = (DEVICE_ID, START, END, *RULES, LIMIT, PLACE)
TRIPS, STOPS = (
    Operation(
        "GET",
        f"/v1/{name}",
        f"get_{name}",
        f"{name.capitalize()} of devices, worked out from their records",
        "worked out",
        {200: Content("A page, in the order of devices and time", {"application/json": page})},
        PARAMETERS,
        problems=(problems.INVALID_PARAMETER, problems.NOT_TOGETHER),
    )
    for name, page in (("trips", TripsPage), ("stops", StopsPage))
)


class Question(NamedTuple):
    """What one page asks for."""

    wanted: Wanted
    rules: Rules
    limit: int
    after: Place | None


Answer = TripAnswer | StopAnswer


def trip(device_id: str, move: Move) -> TripAnswer | None:
    """The answer of a trip; None for a stop."""
    if not isinstance(move, Trip):
        return None
    start, end = move.start, move.end
    duration_s = (end.us - start.us) / 1e6
    return TripAnswer(
        device_id,
        iso(start.us),
        iso(end.us),
        duration_s,
        move.way_m / 1_000,
        move.way_m / duration_s * 3.6 if duration_s else None,
        move.speed_kmh_max,
        move.records,
        start.latitude,
        start.longitude,
        end.latitude,
        end.longitude,
    )


def stop(device_id: str, move: Move) -> StopAnswer | None:
    """The answer of a stop; None for a trip."""
    if not isinstance(move, Stop):
        return None
    start, end = move.start, move.end
    duration_s = (end.us - start.us) / 1e6
    at, until = iso(start.us), iso(end.us)
    return StopAnswer(device_id, at, until, duration_s, move.records, start.latitude, start.longitude)


Show = Callable[[str, Move], Answer | None]


def look_of(rules: Rules) -> Look:
    """Which records around a range its moves depend on."""
    return Look(rules.margin_us, 1, PLACED)


def found(
    connection: duckdb.DuckDBPyConnection, snapshots: Snapshots, question: Question, show: Show
) -> Iterator[tuple[Place, Answer]]:
    """All from the cursor on, each with its place."""
    wanted, rules, after = question.wanted, question.rules, question.after
    if wanted.start_us >= wanted.end_us:
        return
    look = look_of(rules)
    snapshot = snapshots.take(look.wide(wanted))
    unsaved = snapshot.some(trip_sql.COLUMNS)
    if has_tail := unsaved.num_rows > 0:
        connection.register("tail", unsaved)
    source = Around(connection, snapshot, trip_sql.COLUMNS, has_tail).source(wanted, look)
    if source is None:
        return
    range_cut = Cut(wanted.start_us, wanted.end_us)
    for device, runs, cut in trip_sql.runs(connection, source, rules, range_cut, after.device_id if after else ""):
        for move in moves(runs, rules, cut):
            answer, place = show(device, move), Place(device, move.start.us)
            if answer is not None and (after is None or place > after):
                yield place, answer


def page(
    connection: duckdb.DuckDBPyConnection, snapshots: Snapshots, question: Question, show: Show
) -> tuple[list[Answer], Place | None]:
    """One page, and where the next begins behind, if there is one."""
    some = list(islice(found(connection, snapshots, question, show), question.limit + 1))
    shown = some[: question.limit]
    return [answer for _, answer in shown], shown[-1][0] if len(some) > question.limit else None


class Trips:
    """The two routes."""

    def __init__(self, snapshots: Snapshots, queries: Queries, max_page_records: int) -> None:
        self._snapshots = snapshots
        self._queries = queries
        self._max_page_records = max_page_records

    async def get_trips(self, request: Request) -> Response:
        """Trips of a range, of the devices named or of all."""
        return await self._answer(request, "trips", trip)

    async def get_stops(self, request: Request) -> Response:
        """Stops likewise."""
        return await self._answer(request, "stops", stop)

    async def _answer(self, request: Request, name: str, show: Show) -> Response:
        refuse_unknown(request, names(PARAMETERS))
        devices = key_devices.devices(request)
        question = Question(
            Wanted(devices.named, *params.span(request), prefix=devices.prefix),
            Rules(**{rule.name: rule.of(request) for rule in RULES}),
            params.limit(request, self._max_page_records),
            params.place(request),
        )
        shown, after = await self._queries.run(lambda connection: page(connection, self._snapshots, question, show))
        return record_schema.json({name: shown, "next_cursor": None if after is None else str(after)})
