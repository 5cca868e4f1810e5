"""`GET /v1/trips` and `GET /v1/stops`, computed from records for each request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import duckdb
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.analytics import trip_sql
from api.execution.query_pool import Queries
from api.positions import plausible_sql
from api.positions.parameters import PARAMETERS as LIMITS
from api.positions.parameters import limits_of
from api.positions.plausibility import Limits
from api.requests import key_devices, params
from api.requests.params import DEVICE_ID, END, LIMIT, PLACE, START, Place
from api.responses import record_schema
from api.snapshot.neighbours import Around, Look
from api.snapshot.snapshot import Snapshots, Wanted
from api.tracks.trip_detection import Cut, Move, Rules, Stop, Trip, moves
from telemetry.http.operations import Content, Operation, names, number
from telemetry.http.problem_responses import refuse_unknown
from telemetry.model import problems
from telemetry.model.utc import TimeText, iso

DEFAULTS = Rules()
RULES = (
    number("stopped_kmh", "Maximum speed of a record that counts as stopped.", DEFAULTS.stopped_kmh, 0, 1_000),
    number("min_stop_s", "A shorter stop is part of the trip around it.", DEFAULTS.min_stop_s, 0, 86_400),
    number("min_trip_m", "A shorter trip is part of the stops around it.", DEFAULTS.min_trip_m, 0, 1_000_000),
    number("max_gap_s", "A longer gap between two records ends a trip or stop.", DEFAULTS.max_gap_s, 0, 31 * 86_400),
    number("rest_m", "Unless both are this near: the device was at rest.", DEFAULTS.rest_m, 0, 100_000),
)
"""The request parameters for the fields of `Rules`."""


class TripAnswer(Struct, frozen=True):
    """A trip from a stop or gap to the next one. The mean speed is distance divided by duration, including short
    stops."""

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
    """A stop at a place."""

    device_id: str
    start: TimeText
    end: TimeText
    duration_s: float
    records: int
    latitude: float
    longitude: float


class TripsPage(Struct, frozen=True):
    """Trips in the order of devices and time; `next_cursor` is null on the last page. `implausible` counts the
    positions in the range that were left out, for the cursor's device and the ones after it."""

    trips: list[TripAnswer]
    implausible: int
    next_cursor: str | None


class StopsPage(Struct, frozen=True):
    """Stops in the order of devices and time; the other fields are as for trips."""

    stops: list[StopAnswer]
    implausible: int
    next_cursor: str | None


PARAMETERS = (DEVICE_ID, START, END, *RULES, *LIMITS, LIMIT, PLACE)
TRIPS, STOPS = (
    Operation(
        "GET",
        f"/v1/{name}",
        f"get_{name}",
        f"{name.capitalize()} of devices, computed from their records",
        "analytics",
        {200: Content("A page, in the order of devices and time", {"application/json": page})},
        PARAMETERS,
        problems=(problems.INVALID_PARAMETER, problems.NOT_TOGETHER),
    )
    for name, page in (("trips", TripsPage), ("stops", StopsPage))
)


class Question(NamedTuple):
    """The parameters of one page."""

    wanted: Wanted
    rules: Rules
    limits: Limits
    limit: int
    after: Place | None


Answer = TripAnswer | StopAnswer


def trip(device_id: str, move: Move) -> TripAnswer | None:
    """The response object of a trip; None for a stop."""
    if not isinstance(move, Trip):
        return None
    start, end = move.start, move.end
    duration_s = (end.us - start.us) / 1e6
    return TripAnswer(
        device_id,
        iso(start.us),
        iso(end.us),
        duration_s,
        move.distance_m / 1_000,
        move.distance_m / duration_s * 3.6 if duration_s else None,
        move.speed_kmh_max,
        move.records,
        start.latitude,
        start.longitude,
        end.latitude,
        end.longitude,
    )


def stop(device_id: str, move: Move) -> StopAnswer | None:
    """The response object of a stop; None for a trip."""
    if not isinstance(move, Stop):
        return None
    start, end = move.start, move.end
    duration_s = (end.us - start.us) / 1e6
    at, until = iso(start.us), iso(end.us)
    return StopAnswer(device_id, at, until, duration_s, move.records, start.latitude, start.longitude)


Show = Callable[[str, Move], Answer | None]


def look_of(rules: Rules, limits: Limits) -> Look:
    """Records outside a range that its trips and stops depend on."""
    return plausible_sql.look(rules.margin_us, limits)


class Page(NamedTuple):
    """A page's trips or stops, the count of implausible positions, and the place after which the next page begins, if
    any."""

    answers: list[Answer]
    implausible: int
    after: Place | None


def page(connection: duckdb.DuckDBPyConnection, snapshots: Snapshots, question: Question, show: Show) -> Page:
    """One page of trips or stops."""
    runs = _runs(connection, snapshots, question)
    if runs is None:
        return Page([], 0, None)
    answers = list(islice(_answers(runs, question, show), question.limit + 1))
    shown = answers[: question.limit]
    after = shown[-1][0] if len(answers) > question.limit else None
    return Page([answer for _, answer in shown], runs.implausible, after)


def _runs(
    connection: duckdb.DuckDBPyConnection, snapshots: Snapshots, question: Question
) -> trip_sql.DeviceRuns | None:
    wanted, rules, limits, after = question.wanted, question.rules, question.limits, question.after
    if wanted.start_us >= wanted.end_us:
        return None
    look, columns = look_of(rules, limits), trip_sql.columns(limits)
    snapshot = snapshots.take(look.wide(wanted))
    unsaved = snapshot.some(columns)
    if has_tail := unsaved.num_rows > 0:
        connection.register("tail", unsaved)
    source = Around(connection, snapshot, columns, has_tail).source(wanted, look)
    if source is None:
        return None
    cut = Cut(wanted.start_us, wanted.end_us)
    return trip_sql.runs(connection, source, rules, cut, limits, after.device_id if after else "")


def _answers(found: trip_sql.DeviceRuns, question: Question, show: Show) -> Iterator[tuple[Place, Answer]]:
    """All trips or stops after the cursor, each with its place."""
    for device, runs, cut in found.devices:
        for move in moves(runs, question.rules, cut):
            answer, place = show(device, move), Place(device, move.start.us)
            if answer is not None and (question.after is None or place > question.after):
                yield place, answer


class Trips:
    """Handlers of `/v1/trips` and `/v1/stops`."""

    def __init__(self, snapshots: Snapshots, queries: Queries, max_page_records: int) -> None:
        self._snapshots = snapshots
        self._queries = queries
        self._max_page_records = max_page_records

    def routes(self) -> list[Route]:
        """All routes."""
        return [TRIPS.route(self.get_trips), STOPS.route(self.get_stops)]

    async def get_trips(self, request: Request) -> Response:
        """Trips of a range, for the named devices or all."""
        return await self._answer(request, "trips", trip)

    async def get_stops(self, request: Request) -> Response:
        """Stops of a range, for the named devices or all."""
        return await self._answer(request, "stops", stop)

    async def _answer(self, request: Request, name: str, show: Show) -> Response:
        refuse_unknown(request, names(PARAMETERS))
        devices = key_devices.devices(request)
        question = Question(
            Wanted(devices.named, *params.span(request), prefix=devices.prefix),
            Rules(**{rule.name: rule.of(request) for rule in RULES}),
            limits_of(request),
            params.limit(request, self._max_page_records),
            params.place(request),
        )
        result = await self._queries.run(lambda connection: page(connection, self._snapshots, question, show))
        cursor = None if result.after is None else str(result.after)
        return record_schema.json({name: result.answers, "implausible": result.implausible, "next_cursor": cursor})
