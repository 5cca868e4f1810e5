"""The parts of the query program: how they are made of the settings, started and stopped."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import redis
from duckdb import DuckDBPyConnection
from starlette.applications import Starlette

from api.access import ApiAccess
from api.analytics.summary import Summaries
from api.analytics.trips import Trips
from api.devices.deletion_status import DeletionRoutes
from api.devices.list_devices import DeviceRoutes
from api.devices.record_counts import Counts
from api.execution import request_metrics
from api.execution.client_disconnect import CancelOnDisconnect
from api.execution.client_pace import minimum_pace
from api.execution.query_pool import Queries
from api.execution.request_metrics import RequestMetrics
from api.execution.slots import SlotLimits
from api.latest.fleet import Fleet
from api.latest.routes import LatestRoutes
from api.legacy.list_routes import ListRoutes
from api.legacy.paging.pages import Pages
from api.legacy.paging.warm_up import warm_up
from api.pages.openapi import Document
from api.query.app import OPERATIONS, RouteGroup, app
from api.records.export import AT_ONCE, HEAD_S, WAITING, Exports
from api.records.range_query import History
from api.records.row_group_reader import RowGroups
from api.requests.asker import KnowsAsker
from api.requests.query_headers import KEEP_ALIVE_S, MAX_CONNECTIONS
from api.requests.route_scopes import need_of
from api.snapshot.device_tail import OneTail
from api.snapshot.snapshot import Snapshots
from api.snapshot.tail_budget import TailRoom
from api.snapshot.tail_cache import Remembered
from api.sql.routes import Sql, routes_off
from api.status.archive_gauges import refresh_gauges
from api.status.readiness import Health
from api.status.redis_facts import Entries
from api.status.status_page import Status
from telemetry.archive.schema import open_duckdb
from telemetry.archive.table import Archive
from telemetry.config.settings import Settings
from telemetry.coordination import metric_reports, rejection_counts, shared_state
from telemetry.coordination.forward_progress import held_by
from telemetry.hot_store import shard
from telemetry.hot_store.async_query import asker
from telemetry.hot_store.client import READ_TIMEOUT_S, connect, connect_async
from telemetry.http.authentication import Gate
from telemetry.http.connection import ConnectionLimits
from telemetry.http.request_id import RequestIds
from telemetry.http.server import Server, http_server, listen_at, query_socket, until_stopped
from telemetry.limits.pending_bytes import Pending
from telemetry.observability import metrics
from telemetry.system.disk_space import Room
from telemetry.system.hang_timeout import hang_timeout
from telemetry.system.systemd_notify import watchdog

log = logging.getLogger("query")


class QueryProgram(NamedTuple):
    """The parts of the query program; `listening` is bound already, and `gauges` is a cursor of DuckDB for metrics."""

    settings: Settings
    listening: socket.socket
    archive: Archive
    health: Health
    queries: Queries
    exports: Exports
    pages: Pages
    gauges: DuckDBPyConnection
    server: Server


class _Stores(NamedTuple):
    """The stores that queries read. `attach` finds the shards of Redis."""

    client: redis.Redis
    attach: Callable[[], list[shard.Shard]]
    archive: Archive
    snapshots: Snapshots


def build(settings: Settings, access: ApiAccess) -> QueryProgram:
    """Make the parts from the settings, and bind the socket. Needs a running event loop."""
    listening = listen_at(query_socket(settings))
    a, stores = settings.api, _stores(settings)
    connection = open_duckdb(settings.data_dir / "tmp" / "query", f"{a.query_memory_bytes}B")
    queries = Queries(
        connection,
        SlotLimits(a.query_threads, a.query_queue, a.query_timeout_s, a.max_share_percent),
        a.query_timeout_s,
    )
    exports = Exports(stores.snapshots, partial(_export_queries, settings), minimum_pace(a), a.export_wait_s + HEAD_S)
    pages = Pages(stores.snapshots, a.page_memory_bytes)
    health = _health(settings, stores)
    application = _application(settings, stores, queries, exports, pages, health)
    request_metrics.count_from_zero(application.routes)
    server = _server(settings, application, access)
    return QueryProgram(
        settings, listening, stores.archive, health, queries, exports, pages, connection.cursor(), server
    )


async def run(program: QueryProgram, stopped: asyncio.Event) -> None:
    """Answer until stopped; then finish the requests under way."""
    settings = program.settings
    gc.freeze()  # as in the API program
    serving = asyncio.create_task(program.server.serve([program.listening]))
    _set_metrics(settings, program.queries)
    background = (
        asyncio.create_task(warm_up(program.queries, program.pages)),
        asyncio.create_task(refresh_gauges(program.archive, program.health, program.gauges)),
    )
    log.debug("answering the API program")
    watchdog.in_event_loop()
    reporter = metric_reports.Reporter(shared_state.QUERY)
    async with rejection_counts.reported(lambda: connect(settings)):
        with hang_timeout(), metric_reports.publishing(lambda: connect(settings), reporter):
            await until_stopped(serving, stopped)
            for task in background:
                task.cancel()
            program.server.should_exit = True
            await serving
    await program.queries.close()
    await program.exports.close()


# Parts -----------------------------------------------------------------------------------------------


def _stores(settings: Settings) -> _Stores:
    a, shards = settings.api, settings.redis.shards
    archive, client = Archive(settings.archive_dir), connect(settings, READ_TIMEOUT_S)
    attach = partial(shard.attach, client, shards)
    remembered, one_tail = Remembered(a.tail_memory_bytes // shards), OneTail(attach)
    snapshots = Snapshots(
        lambda: shard.pinned(client, shards), archive, remembered, one_tail, TailRoom(a.max_tail_bytes)
    )
    return _Stores(client, attach, archive, snapshots)


def _health(settings: Settings, stores: _Stores) -> Health:
    r = settings.redis
    room = Room.of(settings)
    return Health(stores.client, stores.attach, stores.archive, r.durability, r.full_percent, room)


def _application(
    settings: Settings, stores: _Stores, queries: Queries, exports: Exports, pages: Pages, health: Health
) -> Starlette:
    a, shards = settings.api, settings.redis.shards
    client, attach, archive, snapshots = stores
    row_groups = RowGroups()
    latest = LatestRoutes(connect_async(settings), asker(settings), shards, a.max_page_records)
    entries, room = Entries.of(settings), Room.of(settings)
    return app(
        [
            History(snapshots, queries, a.max_page_records, row_groups).routes,
            Fleet(latest, snapshots, queries, row_groups).routes,
            DeviceRoutes(latest, Counts(snapshots), queries).routes,
            exports.routes,
            Summaries(snapshots, queries, a.max_page_records).routes,
            Trips(snapshots, queries, a.max_page_records).routes,
            _sql_routes(settings, stores),
            health.routes,
            DeletionRoutes(client, shards, archive, held_by(settings), settings.archive.grace_seconds).routes,
            Document(OPERATIONS, settings.auth.required, a.max_page_records).routes,
            Status(health, client, attach, archive, settings.redis.full_percent, room, entries).routes,
            ListRoutes(queries, pages).routes,
        ]
    )


def _sql_routes(settings: Settings, stores: _Stores) -> RouteGroup:
    if not settings.sql.enabled:
        return routes_off
    return Sql(stores.snapshots, settings.sql, str(stores.archive.root), settings.api.max_share_percent).routes


def _server(settings: Settings, application: Starlette, access: ApiAccess) -> Server:
    """The API program has checked a request's key already; any other client of the socket is checked here."""
    gate = Gate(KnowsAsker(CancelOnDisconnect(RequestMetrics(application))), access.keys, need_of, access.sessions)
    limits = _within(ConnectionLimits.of(settings))
    return http_server(RequestIds(gate), limits, Pending.of(settings), is_behind_another=True)


def _set_metrics(settings: Settings, queries: Queries) -> None:
    """Report the queries under way, and the limits that the settings set."""
    metrics.QUERIES.of("query").watch(lambda: queries.in_flight)
    metrics.QUERIES.of("export").set(0)
    metrics.QUERIES_LIMIT.of("query").set(queries.max_in_flight)
    metrics.QUERIES_LIMIT.of("export").set(AT_ONCE + WAITING)
    metrics.QUERY_MEMORY_LIMIT.one.set(settings.api.query_memory_bytes)
    metrics.ARCHIVE_LIMIT.one.set(settings.archive.retention_max_bytes or None)
    metrics.OPEN_DAY_LIMIT.one.set(settings.archive.max_open_files)


def _export_queries(settings: Settings) -> Queries:
    """Threads of DuckDB for exports alone: a slow client holds one, and no other query may wait for that."""
    connection = open_duckdb(settings.data_dir / "tmp" / "export", f"{settings.api.query_memory_bytes}B")
    a = settings.api
    terms = SlotLimits(AT_ONCE, WAITING, a.export_wait_s, a.max_share_percent, shares_slots=True)
    return Queries(connection, terms, timeout_s=0, plural="exports")


def _within(limits: ConnectionLimits) -> ConnectionLimits:
    """Limits of connections from the API program, which limits its clients itself."""
    most = max(limits.max_connections, 2 * MAX_CONNECTIONS)
    return limits._replace(max_connections=most, keep_alive_s=max(limits.keep_alive_s, 2 * KEEP_ALIVE_S))
