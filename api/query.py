"""The query program: questions to the archive, and looks at the whole box, behind the API program on a unix socket."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Awaitable, Callable
from functools import partial

from collector.http import openapi
from telemetry.startup import early_signals, import_blocker

if __name__ == "__main__":
    early_signals.begin()
    import_blocker.refuse()  # before anything loads Arrow

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from api.analytics.summary import SUMMARY, Summaries
from api.analytics.trips import STOPS, TRIPS, Trips
from api.audit.routes import AUDIT
from api.devices.delete_device import DELETE_DEVICE
from api.devices.deletion_status import DELETION, DeletionRoutes
from api.devices.list_devices import DEVICE, DEVICES, DeviceRoutes
from api.devices.record_counts import Counts
from api.errors import HANDLERS
from api.execution import request_metrics
from api.execution.client_disconnect import EndsWithClient
from api.execution.client_pace import minimum_pace
from api.execution.query_pool import Queries
from api.execution.request_metrics import Timed
from api.execution.slots import Terms
from api.latest.fleet import LATEST, Fleet
from api.latest.live_stream import LIVE
from api.latest.routes import LATEST_OF_DEVICE, LatestRoutes
from api.legacy.list_routes import ListRoutes
from api.legacy.paging.pages import Pages
from api.legacy.paging.warm_up import warm_up
from api.pages.openapi import OPENAPI, Document
from api.records.export import AT_ONCE, EXPORT, HEAD_S, WAITING, Exports
from api.records.range_query import RECORDS, History
from api.records.row_group_reader import RowGroups
from api.requests import device_path
from api.requests.asker import KnowsAsker
from api.requests.device_path import DeviceRoute
from api.requests.query_headers import KEEP_ALIVE_S, MAX_CONNECTIONS
from api.requests.route_scopes import need_of
from api.sign_in.routes import SESSION
from api.snapshot.device_tail import OneTail
from api.snapshot.snapshot import Snapshots
from api.snapshot.tail_budget import TailRoom
from api.snapshot.tail_cache import Remembered
from api.sql.routes import SQL, Sql, off
from api.status.archive_gauges import look_for_ever
from api.status.box_history import BOX
from api.status.probe_operations import METRICS, READYZ
from api.status.readiness import Health
from api.status.redis_facts import Entries
from api.status.status_page import STATUS, Status
from telemetry.access import key_cache, session_cache
from telemetry.access.key_cache import Keyring
from telemetry.archive.schema import open_duckdb
from telemetry.archive.table import Archive
from telemetry.browsers.session_cookie import Cookies
from telemetry.config.settings import Settings
from telemetry.coordination import metric_reports, rejection_counts, shared_state
from telemetry.coordination.forward_progress import held_by
from telemetry.hot_store import shard
from telemetry.hot_store.async_query import asker
from telemetry.hot_store.client import READ_TIMEOUT_S, connect, connect_async
from telemetry.http.authentication import Gate, Sessions
from telemetry.http.connection import ConnectionLimits
from telemetry.http.request_id import Named
from telemetry.http.server import http_server, listen_at, query_socket, stop_on_signals
from telemetry.limits.pending_bytes import Pending
from telemetry.observability import metrics
from telemetry.startup.program import main
from telemetry.system.disk_space import Room
from telemetry.system.hang_timeout import hang_timeout
from telemetry.system.systemd_notify import watchdog

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
    *openapi.OPERATIONS,
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
    async with key_cache.required(settings) as keys, session_cache.required(settings, sees_all=False) as cache:
        sessions = Sessions(cache, Cookies.of(settings), bool(settings.oidc.issuer)) if cache is not None else None
        await answer(settings, stopped, keys, sessions)


async def answer(settings: Settings, stopped: asyncio.Event, keys: Keyring | None, sessions: Sessions | None) -> None:
    """The same. The API program has asked for a key already; whoever else finds the socket is asked, too."""
    listening = listen_at(query_socket(settings))
    a, shards = settings.api, settings.redis.shards
    archive, client, room = Archive(settings.archive_dir), connect(settings, READ_TIMEOUT_S), Room.of(settings)
    attach = partial(shard.attach, client, shards)
    remembered, one_tail = Remembered(a.tail_memory_bytes // shards), OneTail(attach)
    snapshots = Snapshots(
        lambda: shard.pinned(client, shards), archive, remembered, one_tail, TailRoom(a.max_tail_bytes)
    )
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
    request_metrics.count_from_zero(application.routes)
    gate = Gate(KnowsAsker(EndsWithClient(Timed(application))), keys, need_of, sessions)
    server = http_server(
        Named(gate), within(ConnectionLimits.of(settings)), Pending.of(settings), is_behind_another=True
    )
    gc.freeze()  # as in the API program
    serving = asyncio.create_task(server.serve([listening]))
    warming = asyncio.create_task(warm_up(queries, pages))
    metrics.QUERIES.of("query").watch(lambda: queries.under_way)
    metrics.QUERIES.of("export").set(0)
    metrics.QUERIES_LIMIT.of("query").set(queries.most)
    metrics.QUERIES_LIMIT.of("export").set(AT_ONCE + WAITING)
    metrics.QUERY_MEMORY_LIMIT.one.set(a.query_memory_bytes)
    metrics.ARCHIVE_LIMIT.one.set(settings.archive.retention_max_bytes or None)
    metrics.OPEN_DAY_LIMIT.one.set(settings.archive.max_open_files)
    looking = asyncio.create_task(look_for_ever(archive, health, connection.cursor()))
    log.debug("answering the API program")
    watchdog.in_event_loop()
    told = metric_reports.told(lambda: connect(settings), metric_reports.Teller(shared_state.QUERY))
    async with rejection_counts.reported(lambda: connect(settings)):
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
