"""The parts of a collector process: makes them from the settings, starts and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from starlette.types import ASGIApp

from collector.framing.decoder import Decoder
from collector.http.fast_post import FastPosts
from collector.http.fast_post_connection import FastPostConnection
from collector.http.request_headers import HttpLimits
from collector.http.routes import app, make_arrival, make_intake
from collector.ingest.device_lookup import DeviceLookups, device_lookups
from collector.ingest.group_commit import Intake
from collector.inspection import protocol_metrics, traffic_capture
from collector.listeners.connection.time_limits import Timeouts
from collector.listeners.extra_ports import COMMON, Listeners, Rules
from collector.listeners.process_pool import Sockets
from collector.listeners.tcp import TcpCollector
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
from telemetry.http.direct_response import DirectChecks
from telemetry.http.problem_responses import too_many_at
from telemetry.http.rate_limiting import throttled
from telemetry.http.request_id import RequestIds
from telemetry.http.server import GRACE_S, Server, http_server, renew_on_sighup, stop_on_signals, until_stopped
from telemetry.http.site_check import SiteCheck
from telemetry.limits.client_address import Addresses
from telemetry.limits.concurrency import Share, http_share, tcp_share
from telemetry.limits.connections import Connections
from telemetry.limits.open_files import allow_collector
from telemetry.limits.pending_bytes import Pending
from telemetry.limits.rate_limits import Rates
from telemetry.model.api_keys import INGEST
from telemetry.network.client_certificates import ClientCertificates
from telemetry.network.tls import Identity
from telemetry.observability import metrics
from telemetry.system.hang_timeout import hang_timeout
from telemetry.system.systemd_notify import watchdog

if TYPE_CHECKING:
    from collector.mqtt.brokers import Brokers

log = logging.getLogger("collector")

GC_OBJECTS = 5_000
"""Allocations between two garbage collections. With Python's default, collections take much of the collector's time if
each message has one record. With many more, connections that closed within a message keep their memory for too long."""


class CollectorAccess(NamedTuple):
    """API keys, certificates and registered devices, by which senders are checked; None without the setting."""

    keys: Keyring | None
    tls: Identity | None
    lookups: DeviceLookups | None


class CollectorProgram(NamedTuple):
    """The parts of one collector process. `http` and `tcp` serve the common ports, `ports` the additional ones."""

    settings: Settings
    listening: Sockets
    tls: Identity | None
    intake: Intake
    tcp: TcpCollector
    ports: Listeners
    http: Server
    brokers: Brokers | None


class _Shared(NamedTuple):
    """State that a process's listeners share. `devices` are the TCP connections, `clients` the HTTP connections."""

    settings: Settings
    access: CollectorAccess
    intake: Intake
    arrival: Callable[[], Arrival]
    rates: Rates
    addresses: Addresses
    pending: Pending
    http_limits: HttpLimits  # shared, because the limits apply to the sum of all ports
    devices: Connections
    clients: Connections


async def serve(settings: Settings, listening: Sockets) -> None:
    """Collect until a signal comes; then respond to the requests in progress."""
    stopped = stop_on_signals()
    async with open_access(settings) as access:
        await run(build(settings, listening, access), stopped)


@contextlib.asynccontextmanager
async def open_access(settings: Settings) -> AsyncIterator[CollectorAccess]:
    """Load keys, certificates and device lists, and keep them up to date until the context ends."""
    certificates = ClientCertificates.of(settings)
    judged = contextlib.nullcontext() if certificates is None else certificates.judged()
    async with key_cache.required(settings, is_noting=True) as keys, judged, device_lookups(settings) as lookups:
        yield CollectorAccess(keys, Identity.of(settings, certificates), lookups)


def build(settings: Settings, listening: Sockets, access: CollectorAccess) -> CollectorProgram:
    """Make the parts of a process from the settings, without serving. Needs a running event loop."""
    shared = _shared(settings, access, listening.process)
    has_brokers = listening.process == 0  # a broker accepts one client per client id
    return CollectorProgram(
        settings,
        listening,
        access.tls,
        shared.intake,
        _tcp_of_common_port(shared),
        _further_ports(shared),
        _http_of_common_port(shared),
        _brokers(settings, shared.intake, shared.arrival) if has_brokers else None,
    )


async def run(program: CollectorProgram, stopped: asyncio.Event) -> None:
    """Collect until stopped; then respond to the requests in progress, and store the received records."""
    settings = program.settings
    gc.freeze()
    gc.set_threshold(GC_OBJECTS)
    renew_on_sighup(program.tls)
    program.intake.start()
    serving = await _start(program)
    reporter = metric_reports.Reporter(shared_state.COLLECTOR, program.listening.process)
    async with (
        rejection_counts.reported(lambda: connect(settings)),
        traffic_capture.shown(lambda: connect(settings)),
        audit_refusals.recorded(Audit.of(settings, "collector")),
    ):
        with hang_timeout(), metric_reports.publishing(lambda: connect(settings), reporter):
            await until_stopped(serving, stopped)
            await _stop(program, serving)


async def _start(program: CollectorProgram) -> asyncio.Task[None]:
    """Serve all sockets; returns the task that serves HTTP on the common port."""
    c, listening = program.settings.collector, program.listening
    await program.tcp.start(listening.tcp)
    await program.ports.start(listening.more)
    if program.brokers:
        program.brokers.start()
    serving = asyncio.create_task(program.http.serve([listening.http]))
    log.info("collecting: HTTP on %s:%d, TCP on %s:%d", c.host, c.http_port, c.host, c.tcp_port)
    if c.processes == 1:
        watchdog.in_event_loop()
    return serving


async def _stop(program: CollectorProgram, serving: asyncio.Task[None]) -> None:
    """Respond to the requests in progress on all ports, then store the waiting records."""
    program.http.should_exit = True
    brokers = [program.brokers.stop(GRACE_S)] if program.brokers else []
    await asyncio.gather(program.tcp.stop(GRACE_S), program.ports.stop(GRACE_S), serving, *brokers)
    await program.intake.stop()


# Parts -----------------------------------------------------------------------------------------------


def _shared(settings: Settings, access: CollectorAccess, process: int) -> _Shared:
    intake, addresses = make_intake(settings), Addresses.of(settings)
    limits = allow_collector(settings)
    devices = Connections(tcp_share(*limits.tcp), time.monotonic, process)
    watch_connections(devices.share)
    return _Shared(
        settings,
        access,
        intake,
        make_arrival(settings, intake),
        Rates.of(settings),
        addresses,
        Pending.of(settings),
        HttpLimits.of(settings),
        devices,
        Connections(http_share(*limits.http), time.monotonic, process, addresses, answers=True),
    )


def _make_tcp(
    shared: _Shared,
    make_decoder: Callable[[str], Decoder],
    arrival: Callable[[], Arrival],
    tls: Identity | None,
    keys: Keyring | None,
    rules: Rules = COMMON,
) -> TcpCollector:
    c = shared.settings.collector
    return TcpCollector(
        shared.intake,
        make_decoder,
        arrival,
        timeouts_of(c, rules.idle_s),
        shared.devices,
        c.max_pending_bytes,
        tls,
        keys,
        shared.rates,
        rules.logins,
        rules.devices,
    )


def _tcp_of_common_port(shared: _Shared) -> TcpCollector:
    c = shared.settings.collector
    protocol_metrics.count_from_zero(protocols_of("any"), "tcp")
    limits = MessageLimits(c.max_message_bytes, c.max_request_records)
    access = shared.access
    return _make_tcp(shared, lambda _address: PROTOCOLS["any"](limits), shared.arrival, access.tls, access.keys)


def _further_ports(shared: _Shared) -> Listeners:
    return Listeners(
        shared.settings,
        shared.intake,
        shared.arrival,
        partial(_make_tcp, shared),
        shared.access.tls,
        shared.access.keys,
        shared.rates,
        partial(_in_front, shared),
        shared.pending,
        shared.http_limits,
        shared.clients,
        shared.access.lookups,
    )


def _http_of_common_port(shared: _Shared) -> Server:
    settings, access, rates = shared.settings, shared.access, shared.rates
    hosts = Hosts.of(settings, settings.collector.host, access.keys is None and access.tls is None)
    guarded = app(shared.intake, shared.http_limits, shared.arrival, access.keys, rates.key_requests is not None)
    named = _in_front(shared, SiteCheck(guarded, hosts, settings.api.cors_origins))
    checks = DirectChecks(INGEST, access.keys, rates, shared.addresses, hosts.has, named)
    make_connection = partial(FastPostConnection, FastPosts(shared.intake, shared.http_limits, shared.arrival, checks))
    limits = ConnectionLimits.of(settings)
    return http_server(named, limits, shared.pending, access.tls, make=make_connection, connections=shared.clients)


def _in_front(shared: _Shared, app: ASGIApp) -> RequestIds:
    """Wrap an application with the request id and the rate limits."""
    asks_for_key = shared.access.keys is not None
    limited = throttled(app, shared.rates, shared.addresses, too_many_at, asks_for_key)
    return RequestIds(limited, shared.settings.log.access)


def _brokers(settings: Settings, intake: Intake, arrival: Callable[[], Arrival]) -> Brokers | None:
    """Clients of the MQTT brokers in the settings. Without brokers, the MQTT libraries are not loaded."""
    if not settings.collector.mqtt:
        return None
    made: Brokers = importlib.import_module("collector.mqtt.brokers").Brokers(settings, intake, arrival)
    return made


def timeouts_of(c: Collector, idle_s: int) -> Timeouts:
    """The timeouts of a TCP port; `idle_s` is the port's idle timeout, 0 = by protocol."""
    return Timeouts(
        c.request_timeout_s,
        idle_s or c.idle_timeout_s,
        idle_s or c.tracker_idle_timeout_s,
        c.tcp_keepalive_s,
        c.tcp_user_timeout_s,
    )


def watch_connections(share: Share) -> None:
    """Register the gauges of TCP connections."""
    metrics.CONNECTIONS.one.watch(lambda: share.open)
    metrics.CONNECTIONS_LIMIT.one.set(share.maximum)
    if share.max_per_owner:
        metrics.OF_ONE_ADDRESS.one.watch(lambda: share.largest)
        metrics.OF_ONE_ADDRESS_LIMIT.one.set(share.max_per_owner)
