"""Additional ports, each for one protocol, from `[[collector.listen]]`."""

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
    """Rules of one port: idle timeout, 0 = by protocol; `logins` to end a device's older connections, None = keep them;
    accepted devices, None = all."""

    idle_s: int = 0
    logins: Logins | None = None
    devices: DeviceFilter | None = None


COMMON = Rules()
"""Rules of the common port, whose protocols have no logins of devices."""

MakeTcp = Callable[
    [Callable[[str], Decoder], Callable[[], Arrival], Identity | None, Keyring | None, Rules], TcpCollector
]
"""Factory of a TCP collector. Arguments: factory of decoders, source of arrival times, TLS identity, keys, rules."""


class PortServer(Protocol):
    """A server of one port."""

    async def start(self, listening: socket.socket) -> None:
        """Serve a bound socket."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more; reply to the requests in progress."""
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
        """Accept nothing more; respond to the requests in progress."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving


def sockets(c: Collector, shares_port: bool = False) -> list[socket.socket]:
    """A bound socket for each entry. Raises `ConfigError` for a port that is in use."""
    return [_socket(entry, entry.host or c.host, shares_port) for entry in c.listen]


def _socket(entry: Listen, host: str, shares_port: bool) -> socket.socket:
    bind = listen_udp if entry.transport == "udp" else listen
    return bind(host, entry.port, shares_port)


def options_of(entry: Listen, max_bytes: int) -> Options:
    """The decoder options of a port."""
    return Options(
        max_bytes=max_bytes,
        transport=entry.transport,
        timezone=ZoneInfo(entry.timezone),
        speed_unit=entry.speed_unit,
        device_tag=entry.device_tag,
        keep_frames=entry.keep_frames,
        answers_all=entry.answers_all,
    )


class Listeners:
    """All additional ports. With a keyring each requires a key, unless its entry allows anonymous senders."""

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
        """`clients` are the HTTP connections of all ports; `lookups` are for ports that accept only known devices."""
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
        self._running: list[PortServer] = []

    async def start(self, listening: Sequence[socket.socket]) -> None:
        """Serve the sockets that the function `sockets` returned."""
        for entry, bound in zip(self._settings.collector.listen, listening, strict=True):
            server = self._make(entry)
            await server.start(bound)
            self._running.append(server)
            log.info("collecting: %s over %s on port %d", entry.protocol, entry.transport.upper(), entry.port)

    async def stop(self, grace_s: float) -> None:
        """Stop all ports."""
        await asyncio.gather(*(server.stop(grace_s) for server in self._running))

    def _make(self, entry: Listen) -> PortServer:
        c = self._settings.collector
        options, tls = options_of(entry, c.max_message_bytes), self._tls if entry.tls else None
        keyring = None if entry.allow_anonymous else self._keyring
        devices = DeviceFilter.of(entry, self._lookups)
        if entry.transport == "http":
            read = BY_NAME[entry.protocol]
            app = alone(Posted(read, options, self._intake, self._http_limits, self._arrival, devices))
            throttled = KeyThrottle(app, too_many_at) if self._rates is not None and self._rates.key_requests else app
            gate = Gate(throttled, keyring, lambda _: INGEST)
            hosts = Hosts.of(self._settings, entry.host or c.host, keyring is None and tls is None)
            in_front = self._in_front(SiteCheck(gate, hosts, self._settings.api.cors_origins))
            return HttpListener(
                http_server(
                    in_front, ConnectionLimits.of(self._settings), self._pending, tls, connections=self._clients
                )
            )
        protocol_metrics.count_from_zero(protocols_of(entry.protocol), entry.transport)
        if entry.transport == "udp":
            make = TRACKERS[entry.protocol]
            return UdpCollector(
                self._intake,
                lambda address: make(options._replace(address=address)),
                self._arrival,
                self._rates,
                devices,
            )
        limits = MessageLimits(c.max_message_bytes, c.max_request_records)
        rules = Rules(entry.idle_timeout_s, Logins() if entry.one_connection_per_device else None, devices)
        decoder = partial(decoder_of, entry.protocol, limits, options)
        return self._make_tcp(decoder, self._arrival_of(entry), tls, keyring, rules)

    def _arrival_of(self, entry: Listen) -> Callable[[], Arrival]:
        """Source of arrival times; for JSON and msgpack with the unit of a `speed` without unit."""
        if not entry.speed_unit:
            return self._arrival
        return lambda: self._arrival()._replace(speed_unit=entry.speed_unit)


def decoder_of(protocol: str, limits: MessageLimits, options: Options, address: str = "") -> Decoder:
    """The decoder of a connection from an address."""
    options = options._replace(address=address) if address else options
    if protocol == "auto":
        return Auto(lambda chosen: decoder_of(chosen, limits, options))
    make = TRACKERS.get(protocol)
    return make(options) if make else PROTOCOLS[protocol](limits)
