"""The API program: latest, the HTTP collector's routes on the same port, and the way to the query program."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import sys
import time
from collections.abc import Callable
from functools import partial

from telemetry.startup import early_signals

if __name__ == "__main__":
    early_signals.begin()

import uvloop
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from api.app import app
from api.audit.request_audit import Audited
from api.audit.routes import AuditRoutes
from api.devices.delete_device import Deleting
from api.errors import refusal, too_many_at
from api.execution.client_pace import minimum_pace
from api.execution.request_metrics import Timed, count_from_zero
from api.latest.fast_latest import QuickLatest
from api.latest.fast_latest_connection import QuickAnswers, QuickConnection
from api.latest.live_stream import LiveRoutes
from api.latest.reader_limits import Readers
from api.latest.routes import LatestRoutes
from api.latest.state_tracker import States
from api.legacy.routes import OlderRoutes
from api.pages.map_page import PageRoutes
from api.query_proxy.forward import MAX_SQL_BYTES, QueryProgram
from api.requests.query_headers import MAX_CONNECTIONS
from api.requests.route_scopes import need_of
from api.responses.html import is_page
from api.sign_in.routes import LoginRoutes
from api.sign_in.session_start import SignIn
from api.status.box_history import BoxRoutes
from api.status.prometheus import ASK_S, Metrics, Page
from api.status.sampler import Sampler, ask
from collector.http.request_headers import HttpLimits
from collector.http.routes import make_arrival, make_intake, routes
from telemetry.access import key_cache, session_cache
from telemetry.access.key_cache import Keyring
from telemetry.audit import refusals as audit_refusals
from telemetry.audit import settings_changes
from telemetry.audit.writer import Audit
from telemetry.browsers.cors import Cors
from telemetry.browsers.host_names import Hosts
from telemetry.browsers.session_cookie import Cookies
from telemetry.config.settings import Settings
from telemetry.coordination import metric_reports, rejection_counts, shared_state
from telemetry.hot_store.async_query import Asks, asker
from telemetry.hot_store.client import READ_TIMEOUT_S, connect, connect_async
from telemetry.hot_store.direct_connection import DirectAsker
from telemetry.http.authentication import Gate, Sessions
from telemetry.http.connection import ConnectionLimits
from telemetry.http.rate_limiting import OfKeys, throttled
from telemetry.http.request_id import Named
from telemetry.http.server import http_server, listen, query_socket, renew_on_sighup, stop_on_signals
from telemetry.http.site_check import SiteCheck
from telemetry.limits.client_address import Addresses
from telemetry.limits.concurrency import http_share
from telemetry.limits.connections import Connections
from telemetry.limits.open_files import allow_api
from telemetry.limits.pending_bytes import Pending
from telemetry.limits.rate_limits import Rates
from telemetry.network.tls import Identity
from telemetry.observability import metrics
from telemetry.startup.program import main
from telemetry.system.disk_space import Room
from telemetry.system.hang_timeout import hang_timeout
from telemetry.system.systemd_notify import watchdog

log = logging.getLogger("api")


async def serve(settings: Settings) -> None:
    """Answer until a signal comes; then end what was begun."""
    stopped = stop_on_signals()
    async with (
        key_cache.required(settings, is_noting=True) as keys,
        session_cache.required(settings, sees_all=True) as cache,
    ):
        has_provider = bool(settings.oidc.issuer)
        sessions = Sessions(cache, Cookies.of(settings), has_provider) if cache is not None else None
        await answer(settings, stopped, keys, sessions)


async def answer(settings: Settings, stopped: asyncio.Event, keys: Keyring | None, sessions: Sessions | None) -> None:
    """The same, asking for a key or a session if there are any."""
    page = PageRoutes.of(settings, sessions)
    listening = listen(settings.api.host, settings.api.port)
    a, tls = settings.api, Identity.of(settings)
    renew_on_sighup(tls)
    intake = make_intake(settings)
    intake.start()
    limits, arrival = HttpLimits.of(settings), make_arrival(settings, intake)
    asks = asker(settings)
    latest = LatestRoutes(connect_async(settings), asks, settings.redis.shards, a.max_page_records, asker(settings))
    states = States(latest, connect_async(settings))
    readers = Readers.of(settings)
    live = LiveRoutes(states, latest, readers)
    metrics.LIVE_READERS.one.watch(lambda: readers.count)
    metrics.LIVE_READERS_LIMIT.one.set(a.max_live_readers)
    longest_s = 2 * max(a.query_timeout_s, settings.sql.timeout_s)  # a question may wait as long as it may take
    program = QueryProgram(
        query_socket(settings),
        longest_s,
        tls is not None,
        Addresses.of(settings),
        minimum_pace(a),
        a.max_share_percent,
    )
    teller = metric_reports.Teller(shared_state.API)
    listener = metric_reports.Listener(lambda: connect(settings, ASK_S))
    listener.start()
    room = Room.of(settings)
    sampler = Sampler(
        lambda: connect(settings, ASK_S), lambda client: ask(client, settings, room), listener.heard, time.monotonic
    )
    sampler.start()
    application = app(
        routes(intake, limits, arrival),
        latest,
        live,
        OlderRoutes(intake, limits, arrival, latest),
        Metrics(Page(settings, teller, listener, connect(settings, ASK_S), room)),
        BoxRoutes(sampler, listener.heard, settings),
        program.forward(refusal),
        program.forward(refusal, MAX_SQL_BYTES),
        Deleting(connect(settings), settings.redis.shards),
        page,
        login_routes(settings, sessions),
        AuditRoutes(settings.audit_dir),
    )
    count_from_zero(application.routes)
    audit = Audit.of(settings, "api")
    settings_changes.record(audit, settings)
    rates = Rates.of(settings)
    hosts = Hosts.of(settings, a.host, keys is None and tls is None)
    named = in_front(settings, application, latest, keys, rates, hosts, audit, sessions)
    make_connection = quick_connections(settings, asks, keys, rates, named, hosts)
    share = http_share(*allow_api(settings, MAX_CONNECTIONS).http)
    clients = Connections(share, time.monotonic, 0, Addresses.of(settings), answers=True)
    server = http_server(
        named, ConnectionLimits.of(settings), Pending.of(settings), tls, make=make_connection, connections=clients
    )
    gc.freeze()  # what is here stays: to look through it for garbage takes 26 ms, in which nothing is answered
    serving = asyncio.create_task(server.serve([listening]))
    log.info("answering on %s:%d", a.host, a.port)
    watchdog.in_event_loop()
    async with rejection_counts.reported(lambda: connect(settings)), audit_refusals.recorded(audit):
        with hang_timeout(), metric_reports.told(lambda: connect(settings), teller):
            await asyncio.wait({serving, asyncio.create_task(stopped.wait())}, return_when=asyncio.FIRST_COMPLETED)
            server.should_exit = True
            live.end()
            await serving
            program.close()
            await intake.stop()
    sampler.stop()
    listener.stop()


def in_front(
    settings: Settings,
    application: ASGIApp,
    latest: LatestRoutes,
    keys: Keyring | None,
    rates: Rates,
    hosts: Hosts,
    audit: Audit,
    sessions: Sessions | None = None,
) -> Named:
    """The application behind what a request passes first: its name, CORS, rates, the check of its host and origin,
    keys, the quick way of latest."""
    plain = ProxyHeadersMiddleware(application)  # type: ignore[arg-type]  # uvicorn words ASGI's types its own way
    quick = Audited(QuickLatest(plain, latest), audit)  # type: ignore[arg-type]
    gate = Gate(OfKeys(quick, too_many_at) if rates.key_requests else quick, keys, need_of, sessions)
    origins = settings.api.cors_origins
    checked = SiteCheck(gate, hosts, origins, is_page)
    limited = throttled(checked, rates, Addresses.of(settings), too_many_at, keys is not None)
    return Named(Timed(Cors(limited, origins) if origins else limited), settings.log.access)


def login_routes(settings: Settings, sessions: Sessions | None) -> LoginRoutes:
    """What signs people in and out. The library of OIDC is loaded only where a provider is configured."""
    addresses = Addresses.of(settings)
    if sessions is None:
        return LoginRoutes(None, None, addresses)
    client = connect(settings, READ_TIMEOUT_S)
    sign_in = SignIn(sessions, client, settings.auth)
    if not settings.oidc.issuer:
        return LoginRoutes(sessions, sign_in, addresses)
    more = importlib.import_module("api.sign_in.oidc_routes").routes_of(settings, sessions, sign_in, client, addresses)
    return LoginRoutes(sessions, sign_in, addresses, settings.oidc.name, more)


def quick_connections(
    settings: Settings, asks: Asks, keys: Keyring | None, rates: Rates, named: Named, hosts: Hosts
) -> Callable[..., QuickConnection] | None:
    """What makes connections that answer latest by themselves; None where the application has more to do with it."""
    does_more = keys is not None or rates.are_set or settings.api.cors_origins or settings.log.access
    if does_more or not isinstance(asks, DirectAsker):
        return None
    return partial(QuickConnection, QuickAnswers(asks, settings.redis.shards, named.name_of, hosts.has))


if __name__ == "__main__":
    sys.exit(main("api", lambda settings: uvloop.run(serve(settings))))
