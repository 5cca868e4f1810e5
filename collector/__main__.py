"""The collector program: HTTP and TCP to the hot store."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from telemetry.startup import early_signals

if __name__ == "__main__":
    early_signals.begin()

import uvloop
from starlette.types import ASGIApp

from collector.framing.decoder import Decoder
from collector.http.fast_post_connection import QuickConnection, QuickPosts
from collector.http.request_headers import HttpLimits
from collector.http.routes import app, make_arrival, make_intake
from collector.ingest.device_lookup import DeviceLookups, device_lookups
from collector.inspection import protocol_metrics, traffic_capture
from collector.listeners import extra_ports
from collector.listeners.extra_ports import COMMON, Rules
from collector.listeners.process_pool import Sockets, run_each, sockets
from collector.listeners.tcp import TcpCollector, Timeouts
from collector.protocols import PROTOCOLS, MessageLimits, protocols_of
from telemetry.access import key_cache
from telemetry.access.key_cache import Keyring
from telemetry.audit import refusals as audit_refusals
from telemetry.audit.writer import Audit
from telemetry.browsers.host_names import Hosts
from telemetry.codec.record_parser import Arrival
from telemetry.config.settings import Collector, Settings
from telemetry.coordination import metric_reports, rejection_counts, shared_state
from telemetry.hot_store.client import connect
from telemetry.http.connection import ConnectionLimits
from telemetry.http.problem_responses import too_many_at
from telemetry.http.rate_limiting import throttled
from telemetry.http.request_id import Named
from telemetry.http.server import GRACE_S, http_server, listen, renew_on_sighup, stop_on_signals
from telemetry.http.site_check import SiteCheck
from telemetry.limits.client_address import Addresses
from telemetry.limits.concurrency import Share, http_share, tcp_share
from telemetry.limits.connections import Connections
from telemetry.limits.open_files import allow_collector
from telemetry.limits.pending_bytes import Pending
from telemetry.limits.rate_limits import Rates
from telemetry.network.client_certificates import ClientCertificates
from telemetry.network.tls import Identity
from telemetry.observability import metrics
from telemetry.startup.program import main
from telemetry.system.hang_timeout import hang_timeout
from telemetry.system.systemd_notify import watchdog

if TYPE_CHECKING:
    from collector.ingest.group_commit import Intake
    from collector.mqtt.brokers import Brokers

log = logging.getLogger("collector")

GC_OBJECTS = 5_000
"""Objects made before garbage is looked for: at the usual 700 looking takes a tenth of the collector's time where each
message brings one record. With 50,000, connections that were closed amid a message keep 20 MB too long."""


async def serve(settings: Settings, listening: Sockets) -> None:
    """Collect until a signal comes; then answer what was begun."""
    stopped = stop_on_signals()
    clients = ClientCertificates.of(settings)
    judged = contextlib.nullcontext() if clients is None else clients.judged()
    async with key_cache.required(settings, is_noting=True) as keys, judged, device_lookups(settings) as lookups:
        await collect(settings, listening, stopped, keys, Identity.of(settings, clients), lookups)


async def collect(
    settings: Settings,
    listening: Sockets,
    stopped: asyncio.Event,
    keys: Keyring | None,
    tls: Identity | None,
    lookups: DeviceLookups | None = None,
) -> None:
    """The same, asking for a key if there are any."""
    c = settings.collector
    gc.freeze()
    gc.set_threshold(GC_OBJECTS)
    renew_on_sighup(tls)
    intake = make_intake(settings)
    intake.start()
    arrival = make_arrival(settings, intake)
    limits = MessageLimits(c.max_message_bytes, c.max_request_records)
    rates, addresses = Rates.of(settings), Addresses.of(settings)
    caps = allow_collector(settings)
    devices = Connections(tcp_share(*caps.tcp), time.monotonic, listening.process)
    measured(devices.share)
    clients = Connections(http_share(*caps.http), time.monotonic, listening.process, addresses, answers=True)

    def make_tcp(
        make_decoder: Callable[[str], Decoder],
        arrival: Callable[[], Arrival],
        tls: Identity | None,
        keys: Keyring | None,
        rules: Rules = COMMON,
    ) -> TcpCollector:
        timeouts = timeouts_of(c, rules.idle_s)
        return TcpCollector(
            intake,
            make_decoder,
            arrival,
            timeouts,
            devices,
            c.max_pending_bytes,
            tls,
            keys,
            rates,
            rules.logins,
            rules.devices,
        )

    def limited(app: ASGIApp) -> ASGIApp:
        return throttled(app, rates, addresses, too_many_at, keys is not None)

    def named(app: ASGIApp) -> Named:
        return Named(limited(app), settings.log.access)

    protocol_metrics.count_from_zero(protocols_of("any"), "tcp")
    tcp = make_tcp(lambda _address: PROTOCOLS["any"](limits), arrival, tls, keys)
    pending = Pending.of(settings)
    http_limits = HttpLimits.of(settings)  # one for all, for what arrives is bounded together
    further = extra_ports.Listeners(
        settings, intake, arrival, make_tcp, tls, keys, rates, named, pending, http_limits, clients, lookups
    )
    hosts = Hosts.of(settings, c.host, keys is None and tls is None)
    guarded = app(intake, http_limits, arrival, keys, rates.key_requests is not None)
    collecting = named(SiteCheck(guarded, hosts, settings.api.cors_origins))
    make_connection = None
    if keys is None and not rates.are_set and not settings.log.access:
        quick = QuickPosts(intake, http_limits, arrival, collecting.name_of, hosts.has)
        make_connection = partial(QuickConnection, quick)
    server = http_server(
        collecting, ConnectionLimits.of(settings), pending, tls, make=make_connection, connections=clients
    )
    heard = brokers(settings, intake, arrival) if listening.process == 0 else None  # a broker knows one of a name
    await tcp.start(listening.tcp)
    await further.start(listening.more)
    if heard:
        heard.start()
    serving = asyncio.create_task(server.serve([listening.http]))
    log.info("collecting: HTTP on %s:%d, TCP on %s:%d", c.host, c.http_port, c.host, c.tcp_port)
    if c.processes == 1:
        watchdog.in_event_loop()
    told = metric_reports.told(
        lambda: connect(settings), metric_reports.Teller(shared_state.COLLECTOR, listening.process)
    )
    async with (
        rejection_counts.reported(lambda: connect(settings)),
        traffic_capture.shown(lambda: connect(settings)),
        audit_refusals.recorded(Audit.of(settings, "collector")),
    ):
        with hang_timeout(), told:
            await asyncio.wait({serving, asyncio.create_task(stopped.wait())}, return_when=asyncio.FIRST_COMPLETED)
            server.should_exit = True
            ending = [heard.stop(GRACE_S)] if heard else []
            await asyncio.gather(tcp.stop(GRACE_S), further.stop(GRACE_S), serving, *ending)
            await intake.stop()


def timeouts_of(c: Collector, idle_s: int) -> Timeouts:
    """Those of a port over TCP; `idle_s` is its own, 0 if it has none."""
    return Timeouts(
        c.request_timeout_s,
        idle_s or c.idle_timeout_s,
        idle_s or c.tracker_idle_timeout_s,
        c.tcp_keepalive_s,
        c.tcp_user_timeout_s,
    )


def brokers(settings: Settings, intake: Intake, arrival: Callable[[], Arrival]) -> Brokers | None:
    """What hears the brokers of the settings. Without any, the libraries for it stay unloaded."""
    if not settings.collector.mqtt:
        return None
    found: Brokers = importlib.import_module("collector.mqtt.brokers").Brokers(settings, intake, arrival)
    return found


def measured(share: Share) -> None:
    """Have meters show the connections of devices over TCP."""
    metrics.CONNECTIONS.one.watch(lambda: share.open)
    metrics.CONNECTIONS_LIMIT.one.set(share.maximum)
    if share.max_per_owner:
        metrics.OF_ONE_ADDRESS.one.watch(lambda: share.largest)
        metrics.OF_ONE_ADDRESS_LIMIT.one.set(share.max_per_owner)


def run(settings: Settings) -> None:
    """Collect in this process, or in several."""
    c = settings.collector
    if c.processes == 1:
        listening = Sockets(listen(c.host, c.http_port), listen(c.host, c.tcp_port), extra_ports.sockets(c))
        uvloop.run(serve(settings, listening))
    else:
        more = partial(extra_ports.sockets, c)
        pairs = sockets(c.host, c.http_port, c.tcp_port, c.processes, more)
        run_each(pairs, lambda listening: uvloop.run(serve(settings, listening)))


if __name__ == "__main__":
    sys.exit(main("collector", run))
