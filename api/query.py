"""The query program: questions to the archive, and looks at the whole box, behind the API program on a unix socket."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Awaitable, Callable
from functools import partial

from telemetry import early, unneeded

if __name__ == "__main__":
    early.begin()
    unneeded.refuse()  # before anything loads Arrow

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from api import device_path, timed
from api.asker import KnowsAsker
from api.audit import AUDIT
from api.between import KEEP_ALIVE_S, MAX_CONNECTIONS
from api.box import BOX
from api.counts import Counts
from api.deleting import DELETE_DEVICE
from api.deletion import DELETION, DeletionRoutes
from api.device_path import DeviceRoute
from api.devices import DEVICE, DEVICES, DeviceRoutes
from api.document import OPENAPI, Document
from api.export import AT_ONCE, EXPORT, HEAD_S, WAITING, Exports
from api.fleet import LATEST, Fleet
from api.health import Health
from api.history import RECORDS, History
from api.latest import LATEST_OF_DEVICE, LatestRoutes
from api.leaving import EndsWithClient
from api.live import LIVE
from api.login import SESSION
from api.looking import look_for_ever
from api.missing import HANDLERS
from api.needs import need_of
from api.older.lists import ListRoutes
from api.older.pages import Pages
from api.older.warm import warm_up
from api.one_tail import OneTail
from api.pace import minimum_pace
from api.queries import Queries
from api.quick_facts import Entries
from api.remembered import Remembered
from api.row_groups import RowGroups
from api.slots import Terms
from api.snapshot import Snapshots
from api.sql import SQL, Sql, off
from api.status import STATUS, Status
from api.summary import SUMMARY, Summaries
from api.tail_room import TailRoom
from api.timed import Timed
from api.trips import STOPS, TRIPS, Trips
from api.watching import METRICS, READYZ
from collector import http as intake
from telemetry import hot, keyring, meters, notes, refusals, reports, session_cache
from telemetry.archive import Archive
from telemetry.asking import asker
from telemetry.columns import open_duckdb
from telemetry.disk import Room
from telemetry.forwards import held_by
from telemetry.gate import Gate, Sessions
from telemetry.hang_timeout import hang_timeout
from telemetry.http_protocol import ConnectionLimits
from telemetry.keyring import Keyring
from telemetry.pending import Pending
from telemetry.program import main
from telemetry.redis_client import READ_TIMEOUT_S, connect, connect_async
from telemetry.request_ids import Named
from telemetry.serve import http_server, listen_at, query_socket, stop_on_signals
from telemetry.session_cookie import Cookies
from telemetry.settings import Settings
from telemetry.watchdog import watchdog

log = logging.getLogger("query")


OPERATIONS = (
    RECORDS,
    EXPORT,
    LATEST,
    LATEST_OF_DEVICE,
    LIVE,
    DEVICES,
    DEVICE,
    SUMMARY,
    TRIPS,
    STOPS,
    SQL,
    *intake.OPERATIONS,
    DELETE_DEVICE,
    DELETION,
    READYZ,
    STATUS,
    METRICS,
    BOX,
    SESSION,
    AUDIT,
    OPENAPI,
)
"""What the document describes: all of this program's routes and of the API program's."""


def app(
    history: History,
    fleet: Fleet,
    devices: DeviceRoutes,
    exports: Exports,
    summaries: Summaries,
    trips: Trips,
    health: Health,
    status: Status,
    lists: ListRoutes,
    document: Document,
    deletions: DeletionRoutes,
    sql: Callable[[Request], Awaitable[Response]],
) -> Starlette:
    """The query program's application. A new route is a file, a line here and one in `OPERATIONS`."""
    device_path.register()
    return Starlette(
        routes=[
            RECORDS.route(history.get_records),
            LATEST.route(fleet.get_latest),
            DEVICES.route(devices.get_devices),
            DeviceRoute(DEVICE.path, devices.get_device, methods=["GET"]),
            EXPORT.route(exports.get_export),
            SUMMARY.route(summaries.get_summary),
            TRIPS.route(trips.get_trips),
            STOPS.route(trips.get_stops),
            SQL.route(sql),
            READYZ.route(health.get_readyz),
            DELETION.route(deletions.get_deletion),
            OPENAPI.route(document.get),
            *status.routes(),
            *lists.routes(),
        ],
        exception_handlers=HANDLERS,
    )


async def serve(settings: Settings) -> None:
    """Answer until a signal comes; then end what was begun."""
    stopped = stop_on_signals()
    async with keyring.required(settings) as keys, session_cache.required(settings, sees_all=False) as cache:
        sessions = Sessions(cache, Cookies.of(settings), bool(settings.oidc.issuer)) if cache is not None else None
        await answer(settings, stopped, keys, sessions)


async def answer(settings: Settings, stopped: asyncio.Event, keys: Keyring | None, sessions: Sessions | None) -> None:
    """The same. The API program has asked for a key already; whoever else finds the socket is asked, too."""
    listening = listen_at(query_socket(settings))
    a, shards = settings.api, settings.redis.shards
    archive, client, room = Archive(settings.archive_dir), connect(settings, READ_TIMEOUT_S), Room.of(settings)
    attach = partial(hot.attach, client, shards)
    remembered, one_tail = Remembered(a.tail_memory_bytes // shards), OneTail(attach)
    snapshots = Snapshots(lambda: hot.pinned(client, shards), archive, remembered, one_tail, TailRoom(a.max_tail_bytes))
    connection = open_duckdb(settings.data_dir / "tmp" / "query", f"{a.query_memory_bytes}B")
    terms = Terms(a.query_threads, a.query_queue, a.query_timeout_s, a.max_share_percent)
    queries = Queries(connection, terms, a.query_timeout_s)
    health = Health(client, attach, archive, settings.redis.durability, settings.redis.full_percent, room)
    pages = Pages(snapshots, a.page_memory_bytes)
    exports = Exports(snapshots, partial(export_queries, settings), minimum_pace(a), a.export_wait_s + HEAD_S)
    row_groups = RowGroups()
    latest = LatestRoutes(connect_async(settings), asker(settings), shards, a.max_page_records)
    application = app(
        History(snapshots, queries, a.max_page_records, row_groups),
        Fleet(latest, snapshots, queries, row_groups),
        DeviceRoutes(latest, Counts(snapshots), queries),
        exports,
        Summaries(snapshots, queries, a.max_page_records),
        Trips(snapshots, queries, a.max_page_records),
        health,
        Status(health, client, attach, archive, settings.redis.full_percent, room, Entries.of(settings)),
        ListRoutes(queries, pages),
        Document(OPERATIONS, settings.auth.required, a.max_page_records),
        DeletionRoutes(client, shards, archive, held_by(settings), settings.archive.grace_seconds),
        Sql(snapshots, settings.sql, str(archive.root), a.max_share_percent).post_sql if settings.sql.enabled else off,
    )
    timed.count_from_zero(application.routes)
    gate = Gate(KnowsAsker(EndsWithClient(Timed(application))), keys, need_of, sessions)
    server = http_server(
        Named(gate), within(ConnectionLimits.of(settings)), Pending.of(settings), is_behind_another=True
    )
    gc.freeze()  # as in the API program
    serving = asyncio.create_task(server.serve([listening]))
    warming = asyncio.create_task(warm_up(queries, pages))
    meters.QUERIES.of("query").watch(lambda: queries.under_way)
    meters.QUERIES.of("export").set(0)
    meters.QUERIES_LIMIT.of("query").set(queries.most)
    meters.QUERIES_LIMIT.of("export").set(AT_ONCE + WAITING)
    meters.QUERY_MEMORY_LIMIT.one.set(a.query_memory_bytes)
    meters.ARCHIVE_LIMIT.one.set(settings.archive.retention_max_bytes or None)
    meters.OPEN_DAY_LIMIT.one.set(settings.archive.max_open_files)
    looking = asyncio.create_task(look_for_ever(archive, health, connection.cursor()))
    log.debug("answering the API program")
    watchdog.in_event_loop()
    told = reports.told(lambda: connect(settings), reports.Teller(notes.QUERY))
    async with refusals.reported(lambda: connect(settings)):
        with hang_timeout(), told:
            await asyncio.wait({serving, asyncio.create_task(stopped.wait())}, return_when=asyncio.FIRST_COMPLETED)
            warming.cancel()
            looking.cancel()
            server.should_exit = True
            await serving
    await queries.close()
    await exports.close()


def export_queries(settings: Settings) -> Queries:
    """What runs exports: a slow client's holds its thread of DuckDB, and no other question may wait for that."""
    connection = open_duckdb(settings.data_dir / "tmp" / "export", f"{settings.api.query_memory_bytes}B")
    a = settings.api
    terms = Terms(AT_ONCE, WAITING, a.export_wait_s, a.max_share_percent, shares_slots=True)
    return Queries(connection, terms, timeout_s=0, plural="exports")


def within(limits: ConnectionLimits) -> ConnectionLimits:
    """The limits of connections from the API program, which keeps its clients' limits itself."""
    most = max(limits.max_connections, 2 * MAX_CONNECTIONS)
    return limits._replace(max_connections=most, keep_alive_s=max(limits.keep_alive_s, 2 * KEEP_ALIVE_S))


if __name__ == "__main__":
    sys.exit(main("query", lambda settings: uvloop.run(serve(settings))))
