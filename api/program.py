"""The API program: makes its parts from the settings, starts and stops them."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from api.access import ApiAccess
from api.app import ForwardedRoutes, app
from api.audit.request_audit import Audited
from api.audit.routes import AuditRoutes
from api.devices.delete_device import Deleting
from api.errors import refusal, too_many_at
from api.execution.client_pace import minimum_pace
from api.execution.request_metrics import RequestMetrics, count_from_zero
from api.latest.fast_latest import FastLatest
from api.latest.fast_latest_connection import FastLatestConnection
from api.latest.live_stream import LiveRoutes
from api.latest.reader_limits import Readers
from api.latest.routes import LatestRoutes
from api.latest.state_tracker import StateTracker
from api.legacy.routes import OlderRoutes
from api.pages.map_page import PageRoutes
from api.query_proxy.forward import MAX_SQL_BYTES, QueryProxy
from api.requests.query_headers import MAX_CONNECTIONS
from api.requests.route_scopes import need_of
from api.responses.html import STATIC, is_page
from api.sign_in.routes import LoginRoutes
from api.sign_in.session_start import SignIn
from api.status.box_history import BoxRoutes
from api.status.prometheus import ASK_S, Metrics, Page
from api.status.sampler import Sampler, ask
from collector.http.request_headers import HttpLimits
from collector.http.routes import make_arrival, make_intake, routes
from collector.ingest.group_commit import Intake
from telemetry.audit import refusals as audit_refusals
from telemetry.audit import settings_changes
from telemetry.audit.writer import Audit
from telemetry.browsers.cors import Cors, vary
from telemetry.browsers.host_names import Hosts
from telemetry.config.settings import Settings
from telemetry.coordination import metric_reports, rejection_counts, shared_state
from telemetry.hot_store.async_query import Asks, asker
from telemetry.hot_store.client import READ_TIMEOUT_S, connect, connect_async
from telemetry.hot_store.direct_connection import DirectAsker
from telemetry.http.authentication import Gate, Sessions
from telemetry.http.connection import ConnectionLimits
from telemetry.http.direct_response import DirectChecks, header_lines
from telemetry.http.rate_limiting import KeyThrottle, throttled
from telemetry.http.request_id import RequestIds
from telemetry.http.server import Server, http_server, listen, query_socket, renew_on_sighup, until_stopped
from telemetry.http.site_check import SiteCheck
from telemetry.limits.client_address import Addresses
from telemetry.limits.concurrency import http_share
from telemetry.limits.connections import Connections
from telemetry.limits.open_files import allow_api
from telemetry.limits.pending_bytes import Pending
from telemetry.limits.rate_limits import Rates
from telemetry.model.api_keys import READ
from telemetry.network.tls import Identity
from telemetry.observability import metrics
from telemetry.system.disk_space import Room
from telemetry.system.hang_timeout import hang_timeout
from telemetry.system.systemd_notify import watchdog

log = logging.getLogger("api")


class Monitoring(NamedTuple):
    """Collects the metrics of all programs: `reporter` publishes this program's, `listener` receives the others'."""

    reporter: metric_reports.Reporter
    listener: metric_reports.Listener
    sampler: Sampler
    room: Room

    def start(self) -> None:
        """Start listening and sampling."""
        self.listener.start()
        self.sampler.start()

    def stop(self) -> None:
        """Stop sampling and listening."""
        self.sampler.stop()
        self.listener.stop()


class ApiProgram(NamedTuple):
    """The parts of the API program; `listening` is bound already."""

    settings: Settings
    listening: socket.socket
    tls: Identity | None
    intake: Intake
    live: LiveRoutes
    proxy: QueryProxy
    monitoring: Monitoring
    audit: Audit
    server: Server


class _Guards(NamedTuple):
    """Checks that a request passes before it reaches the application: access, rate limits, host names, audit."""

    access: ApiAccess
    rates: Rates
    hosts: Hosts
    audit: Audit


def build(settings: Settings, access: ApiAccess) -> ApiProgram:
    """Make the parts from the settings, and bind the port. Needs a running event loop. Raises `ConfigError`."""
    page = PageRoutes.of(settings, access.sessions)
    listening = listen(settings.api.host, settings.api.port)
    tls, intake, audit = Identity.of(settings), make_intake(settings), Audit.of(settings, "api")
    asks = asker(settings)
    latest = _latest(settings, asks)
    live, proxy, monitoring = _live(settings, latest), _query_proxy(settings, tls is not None), _monitoring(settings)
    limits, arrival = HttpLimits.of(settings), make_arrival(settings, intake)
    forwarded = ForwardedRoutes(proxy.forward(refusal), proxy.forward(refusal, MAX_SQL_BYTES), latest)
    application = app(
        [
            latest.routes,
            Deleting(connect(settings), settings.redis.shards).routes,
            forwarded.routes,
            live.routes,
            partial(routes, intake, limits, arrival),
            OlderRoutes(intake, limits, arrival, latest).routes,
            _metrics(settings, monitoring).routes,
            BoxRoutes(monitoring.sampler, monitoring.listener.reports, settings).routes,
            AuditRoutes(settings.audit_dir).routes,
            page.routes,
            _login_routes(settings, access.sessions).routes,
        ],
        forwarded,
    )
    count_from_zero(application.routes)
    hosts = Hosts.of(settings, settings.api.host, access.keys is None and tls is None)
    guards = _Guards(access, Rates.of(settings), hosts, audit)
    named = _in_front(settings, application, guards)
    server = _server(settings, named, _fast_connections(settings, asks, guards, named), tls)
    return ApiProgram(settings, listening, tls, intake, live, proxy, monitoring, audit, server)


async def run(program: ApiProgram, stopped: asyncio.Event) -> None:
    """Answer until stopped; then finish the requests in progress, and store the received records."""
    settings = program.settings
    renew_on_sighup(program.tls)
    program.intake.start()
    program.monitoring.start()
    settings_changes.record(program.audit, settings)
    gc.freeze()  # these objects stay: a search for garbage among them would delay responses
    serving = asyncio.create_task(program.server.serve([program.listening]))
    preparing = asyncio.create_task(STATIC.prepare())
    log.info("answering on %s:%d", settings.api.host, settings.api.port)
    watchdog.in_event_loop()
    async with rejection_counts.reported(lambda: connect(settings)), audit_refusals.recorded(program.audit):
        with hang_timeout(), metric_reports.publishing(lambda: connect(settings), program.monitoring.reporter):
            await until_stopped(serving, stopped)
            preparing.cancel()
            await _stop(program, serving)
    program.monitoring.stop()


async def _stop(program: ApiProgram, serving: asyncio.Task[None]) -> None:
    """Finish the requests in progress, then store the waiting records."""
    program.server.should_exit = True
    program.live.end()
    await serving
    program.proxy.close()
    await program.intake.stop()


# Parts -----------------------------------------------------------------------------------------------


def _latest(settings: Settings, asks: Asks) -> LatestRoutes:
    shards, max_records = settings.redis.shards, settings.api.max_page_records
    return LatestRoutes(connect_async(settings), asks, shards, max_records, asker(settings))


def _live(settings: Settings, latest: LatestRoutes) -> LiveRoutes:
    readers = Readers.of(settings)
    metrics.LIVE_READERS.one.watch(lambda: readers.count)
    metrics.LIVE_READERS_LIMIT.one.set(settings.api.max_live_readers)
    return LiveRoutes(StateTracker(latest, connect_async(settings)), latest, readers)


def _query_proxy(settings: Settings, speaks_tls: bool) -> QueryProxy:
    a = settings.api
    longest_s = 2 * max(a.query_timeout_s, settings.sql.timeout_s)  # a query may wait as long as it may run
    addresses = Addresses.of(settings)
    return QueryProxy(query_socket(settings), longest_s, speaks_tls, addresses, minimum_pace(a), a.max_share_percent)


def _monitoring(settings: Settings) -> Monitoring:
    room = Room.of(settings)
    listener = metric_reports.Listener(lambda: connect(settings, ASK_S))
    sampler = Sampler(
        lambda: connect(settings, ASK_S), lambda client: ask(client, settings, room), listener.reports, time.monotonic
    )
    return Monitoring(metric_reports.Reporter(shared_state.API), listener, sampler, room)


def _metrics(settings: Settings, monitoring: Monitoring) -> Metrics:
    client = connect(settings, ASK_S)
    return Metrics(Page(settings, monitoring.reporter, monitoring.listener, client, monitoring.room))


def _login_routes(settings: Settings, sessions: Sessions | None) -> LoginRoutes:
    """Routes for sign-in and sign-out. The library for OIDC is loaded only if a provider is configured."""
    addresses = Addresses.of(settings)
    if sessions is None:
        return LoginRoutes(None, None, addresses)
    client = connect(settings, READ_TIMEOUT_S)
    sign_in = SignIn(sessions, client, settings.auth)
    if not settings.oidc.issuer:
        return LoginRoutes(sessions, sign_in, addresses)
    more = importlib.import_module("api.sign_in.oidc_routes").routes_of(settings, sessions, sign_in, client, addresses)
    return LoginRoutes(sessions, sign_in, addresses, settings.oidc.name, more)


def _in_front(settings: Settings, application: ASGIApp, guards: _Guards) -> RequestIds:
    """The application within its middleware.

    A request passes its id, metrics, CORS, rate limits, the check of its host and origin, keys, and audit.
    """
    keys, sessions = guards.access
    plain = ProxyHeadersMiddleware(application)  # type: ignore[arg-type]  # uvicorn has its own types for ASGI
    audited = Audited(plain, guards.audit)  # type: ignore[arg-type]
    gate = Gate(KeyThrottle(audited, too_many_at) if guards.rates.key_requests else audited, keys, need_of, sessions)
    origins = settings.api.cors_origins
    checked = SiteCheck(gate, guards.hosts, origins, is_page)
    limited = throttled(checked, guards.rates, Addresses.of(settings), too_many_at, keys is not None)
    return RequestIds(RequestMetrics(Cors(limited, origins) if origins else limited), settings.log.access)


def _fast_connections(
    settings: Settings, asks: Asks, guards: _Guards, named: RequestIds
) -> Callable[..., FastLatestConnection] | None:
    """Makes connections that answer `latest` without the application; None if Redis is reached over TLS."""
    if not isinstance(asks, DirectAsker):
        return None
    addresses, origins = Addresses.of(settings), settings.api.cors_origins
    checks = DirectChecks(READ, guards.access.keys, guards.rates, addresses, guards.hosts.has, named)
    latest = FastLatest(asks, settings.redis.shards, checks, header_lines(vary(origins)))
    return partial(FastLatestConnection, latest)


def _server(
    settings: Settings,
    named: RequestIds,
    make_connection: Callable[..., FastLatestConnection] | None,
    tls: Identity | None,
) -> Server:
    share = http_share(*allow_api(settings, MAX_CONNECTIONS).http)
    clients = Connections(share, time.monotonic, 0, Addresses.of(settings), answers=True)
    limits, pending = ConnectionLimits.of(settings), Pending.of(settings)
    return http_server(named, limits, pending, tls, make=make_connection, connections=clients)
