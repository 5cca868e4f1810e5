"""Further ports, each of one protocol, as `[[collector.listen]]` has them."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from starlette.types import ASGIApp

from collector.framing.decoder import Decoder
from collector.framing.frame_decoder import Options
from collector.http.protocol_routes import Posted, alone
from collector.http.request_headers import HttpLimits
from collector.http_protocols import BY_NAME
from collector.ingest.device_filter import DeviceFilter
from collector.ingest.device_lookup import DeviceLookups
from collector.ingest.group_commit import Intake
from collector.inspection import protocol_metrics
from collector.listeners.tcp import TcpCollector
from collector.listeners.tracker_logins import Logins
from collector.listeners.udp import UdpCollector
from collector.protocols import PROTOCOLS, TRACKERS, MessageLimits, protocols_of
from collector.protocols.auto_detect import Auto
from telemetry.access.key_cache import Keyring
from telemetry.browsers.host_names import Hosts
from telemetry.codec.record_parser import Arrival
from telemetry.config.settings import Collector, Listen, Settings
from telemetry.http.authentication import INGEST, Gate
from telemetry.http.connection import ConnectionLimits
from telemetry.http.problem_responses import too_many_at
from telemetry.http.rate_limiting import KeyThrottle
from telemetry.http.server import Server, http_server, listen, listen_udp
from telemetry.http.site_check import SiteCheck
from telemetry.limits.connections import Connections
from telemetry.limits.pending_bytes import Pending
from telemetry.limits.rate_limits import Rates
from telemetry.network.tls import Identity

log = logging.getLogger(__name__)


class Rules(NamedTuple):
    """Rules of one port: its idle timeout, 0 = by protocol; what ends older connections of a device; its devices, None
    = all."""

    idle_s: int = 0
    logins: Logins | None = None
    devices: DeviceFilter | None = None


COMMON = Rules()
"""Of the common port: what is spoken there knows no logins of devices."""

MakeTcp = Callable[
    [Callable[[str], Decoder], Callable[[], Arrival], Identity | None, Keyring | None, Rules], TcpCollector
]
"""What makes a TCP collector, of what makes its decoders, what tells the arrival of its messages, TLS or none, the keys
that it asks for, and its rules."""


class Running(Protocol):
    """What serves one port."""

    async def start(self, listening: socket.socket) -> None:
        """Serve a bound socket."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Take no more, answer what is under way."""
        ...


class HttpListener:
    """An HTTP server of one protocol."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._serving: asyncio.Task[None] | None = None

    async def start(self, listening: socket.socket) -> None:
        """Serve a listening socket."""
        self._serving = asyncio.create_task(self._server.serve([listening]))

    async def stop(self, _grace_s: float) -> None:
        """Take no more, answer what is under way."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving


def sockets(c: Collector, shares_port: bool = False) -> list[socket.socket]:
    """A bound socket for each entry. Raises `ConfigError` for a port that is taken."""
    return [_socket(one, one.host or c.host, shares_port) for one in c.listen]


def _socket(one: Listen, host: str, shares_port: bool) -> socket.socket:
    bind = listen_udp if one.transport == "udp" else listen
    return bind(host, one.port, shares_port)


def options_of(one: Listen, max_bytes: int) -> Options:
    """What a listener says of its devices."""
    return Options(
        max_bytes=max_bytes,
        transport=one.transport,
        timezone=ZoneInfo(one.timezone),
        speed_unit=one.speed_unit,
        device_tag=one.device_tag,
        keep_frames=one.keep_frames,
        answers_all=one.answers_all,
    )


class Listeners:
    """All of them. With a keyring those ask for a key that do not say otherwise."""

    def __init__(
        self,
        settings: Settings,
        intake: Intake,
        arrival: Callable[[], Arrival],
        make_tcp: MakeTcp,
        tls: Identity | None = None,
        keyring: Keyring | None = None,
        rates: Rates | None = None,
        in_front: Callable[[ASGIApp], ASGIApp] = lambda app: app,
        pending: Pending | None = None,
        http_limits: HttpLimits | None = None,
        clients: Connections | None = None,
        lookups: DeviceLookups | None = None,
    ) -> None:
        """`clients` are the connections over HTTP of all ports; `lookups` are for ports of known devices only."""
        self._settings = settings
        self._intake = intake
        self._arrival = arrival
        self._make_tcp = make_tcp
        self._tls = tls
        self._keyring = keyring
        self._rates = rates
        self._in_front = in_front
        self._pending = pending or Pending.of(settings)
        self._http_limits = http_limits or HttpLimits.of(settings)
        self._clients = clients
        self._lookups = lookups
        self._running: list[Running] = []

    async def start(self, listening: Sequence[socket.socket]) -> None:
        """Serve the sockets, which are those of `sockets`."""
        for one, bound in zip(self._settings.collector.listen, listening, strict=True):
            running = self._made(one)
            await running.start(bound)
            self._running.append(running)
            log.info("collecting: %s over %s on port %d", one.protocol, one.transport.upper(), one.port)

    async def stop(self, grace_s: float) -> None:
        """Take no more, answer what is under way."""
        await asyncio.gather(*(one.stop(grace_s) for one in self._running))

    def _made(self, one: Listen) -> Running:
        c = self._settings.collector
        options, tls = options_of(one, c.max_message_bytes), self._tls if one.tls else None
        keyring = None if one.allow_anonymous else self._keyring
        devices = DeviceFilter.of(one, self._lookups)
        if one.transport == "http":
            read = BY_NAME[one.protocol]
            app = alone(Posted(read, options, self._intake, self._http_limits, self._arrival, devices))
            behind = KeyThrottle(app, too_many_at) if self._rates is not None and self._rates.key_requests else app
            gate = Gate(behind, keyring, lambda _: INGEST)
            hosts = Hosts.of(self._settings, one.host or c.host, keyring is None and tls is None)
            in_front = self._in_front(SiteCheck(gate, hosts, self._settings.api.cors_origins))
            return HttpListener(
                http_server(
                    in_front, ConnectionLimits.of(self._settings), self._pending, tls, connections=self._clients
                )
            )
        protocol_metrics.count_from_zero(protocols_of(one.protocol), one.transport)
        if one.transport == "udp":
            make = TRACKERS[one.protocol]
            return UdpCollector(
                self._intake,
                lambda address: make(options._replace(address=address)),
                self._arrival,
                self._rates,
                devices,
            )
        limits = MessageLimits(c.max_message_bytes, c.max_request_records)
        rules = Rules(one.idle_timeout_s, Logins() if one.one_connection_per_device else None, devices)
        decoder = partial(decoder_of, one.protocol, limits, options)
        return self._make_tcp(decoder, self._arrival_of(one), tls, keyring, rules)

    def _arrival_of(self, one: Listen) -> Callable[[], Arrival]:
        """That of JSON and msgpack has the unit of a plain speed."""
        if not one.speed_unit:
            return self._arrival
        return lambda: self._arrival()._replace(speed_unit=one.speed_unit)


def decoder_of(protocol: str, limits: MessageLimits, options: Options, address: str = "") -> Decoder:
    """The decoder of a connection from an address."""
    options = options._replace(address=address) if address else options
    if protocol == "auto":
        return Auto(lambda chosen: decoder_of(chosen, limits, options))
    make = TRACKERS.get(protocol)
    return make(options) if make else PROTOCOLS[protocol](limits)
