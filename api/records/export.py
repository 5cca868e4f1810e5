"""`GET /v1/export`: all records of a range as one file, streamed while it is made.

What ends an export after its first bytes breaks the answer off: the connection is closed, and no last chunk comes.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import duckdb
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.execution.client_pace import MinimumPace, PacedClient
from api.execution.pipe_stream import PipeStream
from api.execution.query_pool import Queries
from api.formats import FORMATS
from api.formats.format import BATCH_ROWS, Format
from api.geo.area import PARAMETERS as AREA
from api.geo.area import area
from api.positions.parameters import OF_RECORDS, limits_of_records
from api.positions.plausibility import Limits
from api.positions.plausible_records import around, left_out
from api.records.downsampling import PARAMETERS as THINNED
from api.records.downsampling import Thinned, plausible, thinned
from api.records.sorted_export import in_order
from api.requests import key_devices, params
from api.requests.params import DEVICE_ID, END, START
from api.responses.negotiation import CSV_SAFE, FORMAT, MAX_GAP, chosen, kinds, segmented
from api.responses.record_schema import RecordAnswer
from api.snapshot.batch_rows import BatchRows
from api.snapshot.snapshot import Snapshots, Wanted
from telemetry.http.operations import Content, Operation, names
from telemetry.http.problem_responses import refuse_unknown
from telemetry.model import problems
from telemetry.model.record import EARLIEST_US, LATEST_US
from telemetry.model.utc import DAY_US, day_of, iso
from telemetry.observability import metrics

AT_ONCE = 4
"""Exports that run at once: a slow client's takes no CPU, but a thread and some 20 MB."""

WAITING = 8
"""Exports that may wait; one more is answered 503."""

HEAD_S = 1.0
"""How long an export that has its slot may look for its first record before its answer begins all the same."""

ANY_PACE = MinimumPace()

MAX_NAME_CHARACTERS = 64
"""Of a device's id in a file's name."""

EXPORT = Operation(
    "GET",
    "/v1/export",
    "get_export",
    "All records of a range as one file",
    "records",
    {200: Content("The file, sent while it is made", {**kinds(FORMATS), "application/json": list[RecordAnswer]})},
    (DEVICE_ID, START, END, FORMAT, CSV_SAFE, MAX_GAP, *AREA, *OF_RECORDS, *THINNED),
    problems=(problems.INVALID_PARAMETER, problems.NOT_ACCEPTABLE, problems.NOT_TOGETHER),
    description="Records come by day in UTC, device, time and id; in GPX and KML by device, time and id. What breaks "
    "it off closes the connection.",
)

log = logging.getLogger(__name__)


class _Asked(NamedTuple):
    """A request for an export."""

    wanted: Wanted
    kind: Format
    limits: Limits
    thin: Thinned


class Exports:
    """`GET /v1/export`. `open_queries` makes what runs them, at the first: a DuckDB of their own costs memory."""

    def __init__(
        self,
        snapshots: Snapshots,
        open_queries: Callable[[], Queries],
        minimum: MinimumPace = ANY_PACE,
        head_s: float = HEAD_S,
    ) -> None:
        """An answer begins within `head_s` even if no record has been read; a later failure breaks it off."""
        self._snapshots = snapshots
        self._open_queries = open_queries
        self._minimum = minimum
        self._head_s = head_s
        self._batch_rows = BatchRows()

    def routes(self) -> list[Route]:
        """The route."""
        return [EXPORT.route(self.get_export)]

    async def get_export(self, request: Request) -> Response:
        """All records of a range, of the devices named or of all."""
        refuse_unknown(request, names(EXPORT.parameters))
        kind = chosen(request, FORMATS)
        limits = limits_of_records(request, kind.is_map)
        kind = segmented(request, kind, limits)
        where, thin, devices = area(request), thinned(request), key_devices.devices(request)
        wanted = Wanted(devices.named, *params.span(request), where.sql if where else "", devices.prefix)
        headers = {
            "Content-Type": kind.content_type,
            "Content-Disposition": f'attachment; filename="{file_name(wanted)}.{kind.suffix}"',
            "Vary": "Accept",
        }
        if request.method == "HEAD":
            return _Export(headers)
        asked = _Asked(wanted, kind, limits, thin)
        client = PacedClient(self._minimum)
        piped = PipeStream(self._queries, lambda connection, file: self._write(connection, file, asked), client)
        first = asyncio.ensure_future(piped.read())
        try:
            await asyncio.wait((first,), timeout=self._head_s)
            if first.done():
                first.result()
            return _Export(headers, _Body(piped, first, client))
        except BaseException:
            first.cancel()
            piped.close()
            raise

    def _write(self, connection: duckdb.DuckDBPyConnection, file: int, asked: _Asked) -> None:
        wanted = asked.wanted
        wide = self._snapshots.take(around(wanted, asked.limits))
        outside = left_out(connection, wide, wanted, asked.limits, drops_records=bool(wanted.where))
        snapshot = wide.within(wanted)
        batch_rows = self._batch_rows.of(snapshot, BATCH_ROWS)
        with (
            in_order(connection, snapshot, wanted, asked.kind.has_tracks, batch_rows) as records,
            plausible(connection, records, outside, batch_rows) as (judging, judged),
            asked.thin.of_sorted(judging, judged, batch_rows) as (reading, kept),
        ):
            asked.kind.write(reading, kept, file, batch_rows)

    @cached_property
    def _queries(self) -> Queries:
        queries = self._open_queries()
        metrics.QUERIES.of("export").watch(lambda: queries.in_flight)
        return queries

    async def close(self) -> None:
        """Let exports under way end."""
        if "_queries" in self.__dict__:
            await self._queries.close()


class _Body(NamedTuple):
    """What is read of a pipe: the first bytes, which may have yet to come, and what comes behind them."""

    piped: PipeStream
    first: asyncio.Future[bytes]
    client: PacedClient

    async def send(self, send: Send) -> bool:
        """Send it. Returns whether all of it was sent."""
        with self.client:
            try:
                data = await self.first
                while data:
                    await self.client.send(send, data, True)
                    data = await self.piped.read()
                return True
            except Exception as error:  # whatever it was, the rest is missing
                log.error("an export broke off: %s", error)
            finally:
                self.first.cancel()
                self.piped.close()
        if self.client.was_ended:
            log.warning("an export broke off: its client read too slowly while others waited for a slot")
        return False


class _Export(Response):
    """The answer."""

    def __init__(self, headers: dict[str, str], body: _Body | None = None) -> None:
        self.status_code, self.background = 200, None
        self.init_headers(headers)
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; or return without an end, upon which the server closes the connection."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if self._body is None or await self._body.send(send):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def file_name(wanted: Wanted) -> str:
    """The name of a range's file, without its ending: whimbrel-van_7-2026-11-24_2026-11-26."""
    devices = [re.sub(r"[^\w.-]", "_", wanted.devices[0], flags=re.ASCII)] if len(wanted.devices) == 1 else []
    return "-".join(["whimbrel", *(device[:MAX_NAME_CHARACTERS] for device in devices), *_range_name(wanted)])


def _range_name(wanted: Wanted) -> list[str]:
    is_from, is_until = wanted.start_us > EARLIEST_US, wanted.end_us < LATEST_US
    first = _moment_name(wanted.start_us)
    last = _moment_name(wanted.end_us - DAY_US if wanted.end_us % DAY_US == 0 else wanted.end_us)
    if is_from and is_until:
        return [first if first == last else f"{first}_{last}"]
    return ["from", first] if is_from else ["until", last] if is_until else []


def _moment_name(timestamp_us: int) -> str:
    """A day, or a moment in UTC without colons, which some systems allow in no name."""
    if timestamp_us % DAY_US == 0:
        return day_of(timestamp_us).isoformat()
    return iso(timestamp_us)[:19].replace(":", "") + "Z"
