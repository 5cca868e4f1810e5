"""Connection limits that fit the open-files limit, with a reserve for Redis and files."""

from __future__ import annotations

import logging
from typing import NamedTuple

from telemetry.config.settings import Settings
from telemetry.limits.connections import MAX_ANSWERED
from telemetry.system.process import allow_open_files

log = logging.getLogger(__name__)

OTHER_FILES = 100
"""Open files of a program besides client connections: libraries, log, data, Redis connections for the whole box."""

FILES_PER_SHARD = 4
"""Redis connections of a program for each shard."""


class Cap(NamedTuple):
    """Maximum number of connections, in total and per address; 0 per address = no limit."""

    maximum: int
    per_address: int

    def within(self, room: int) -> Cap:
        """The limits reduced to `room` connections. One address may have half of a reduced total."""
        if self.maximum <= room:
            return self
        maximum = max(1, room)
        return Cap(maximum, min(self.per_address, max(1, maximum // 2)))


class Caps(NamedTuple):
    """Connection limits for `files` open files; the settings need `wanted`."""

    files: int
    wanted: int
    http: Cap
    tcp: Cap


def collector_wants(settings: Settings) -> int:
    """Open files that a collector process needs for all connections of the settings."""
    c = settings.collector
    return c.max_connections + c.max_http_connections + _reserve(settings)


def api_wants(settings: Settings, forwarded: int) -> int:
    """Open files that the API program needs for all connections of the settings and for the query program."""
    return settings.collector.max_http_connections + _reserve(settings) + forwarded


def collector_caps(settings: Settings, files: int) -> Caps:
    """Limits of a collector process. If files are short, HTTP gets a quarter, or more if TCP needs less."""
    http, tcp = _http(settings), _tcp(settings)
    room = _room(files, _reserve(settings))
    http = http.within(max(room // 4, room - tcp.maximum))
    return Caps(files, collector_wants(settings), http, tcp.within(room - http.maximum))


def api_caps(settings: Settings, files: int, forwarded: int) -> Caps:
    """Limits of the API program."""
    http = _http(settings).within(_room(files, _reserve(settings) + forwarded))
    return Caps(files, api_wants(settings, forwarded), http, Cap(0, 0))


def allow_collector(settings: Settings) -> Caps:
    """Raise the open-files limit for a collector process; log the connections that do not fit."""
    caps = collector_caps(settings, allow_open_files(collector_wants(settings)))
    if caps.files < caps.wanted:
        log.warning(
            "%d files may be open: at most %d TCP connections (%d per address) and %d over HTTP (%d per address); "
            "raise ulimit -Hn to %d for the limits of the settings",
            *(caps.files, *caps.tcp, *caps.http, caps.wanted),
        )
    return caps


def allow_api(settings: Settings, forwarded: int) -> Caps:
    """The same for the API program."""
    caps = api_caps(settings, allow_open_files(api_wants(settings, forwarded)), forwarded)
    if caps.files < caps.wanted:
        log.warning(
            "%d files may be open: at most %d HTTP connections (%d per address); "
            "raise ulimit -Hn to %d for the limits of the settings",
            *(caps.files, *caps.http, caps.wanted),
        )
    return caps


def _http(settings: Settings) -> Cap:
    return Cap(settings.collector.max_http_connections, settings.collector.max_http_connections_per_address)


def _tcp(settings: Settings) -> Cap:
    return Cap(settings.collector.max_connections, settings.collector.max_connections_per_address)


def _room(files: int, reserve: int) -> int:
    """Files left for connections; at least half of all."""
    return files - min(reserve, files // 2)


def _reserve(settings: Settings) -> int:
    c = settings.collector
    return OTHER_FILES + MAX_ANSWERED + FILES_PER_SHARD * settings.redis.shards + len(c.listen) + len(c.mqtt)
