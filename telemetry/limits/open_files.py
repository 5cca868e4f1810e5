"""Numbers of connections that the limit of open files leaves room for, with a reserve for Redis and files."""

from __future__ import annotations

import logging
from typing import NamedTuple

from telemetry.config.settings import Settings
from telemetry.limits.connections import MAX_ANSWERED
from telemetry.system.process import allow_open_files

log = logging.getLogger(__name__)

OTHER_FILES = 100
"""Open files of a program besides connections of clients: libraries, the log, its data, Redis for all of the box."""

FILES_PER_SHARD = 4
"""Connections of a program to Redis for each shard."""


class Cap(NamedTuple):
    """Maximum of connections, in total and per address; 0 per address = no limit."""

    maximum: int
    per_address: int

    def within(self, room: int) -> Cap:
        """The same where there is room for so many. Of a lowered maximum one address may have half."""
        if self.maximum <= room:
            return self
        maximum = max(1, room)
        return Cap(maximum, min(self.per_address, max(1, maximum // 2)))


class Caps(NamedTuple):
    """What `files` open files leave of the settings, which want `wanted`."""

    files: int
    wanted: int
    http: Cap
    tcp: Cap


def collector_wants(settings: Settings) -> int:
    """Open files of a collector process that has all the connections of the settings."""
    c = settings.collector
    return c.max_connections + c.max_http_connections + _reserve(settings)


def api_wants(settings: Settings, forwarded: int) -> int:
    """Open files of the API program that has all the connections of the settings, and so many to the query program."""
    return settings.collector.max_http_connections + _reserve(settings) + forwarded


def collector_caps(settings: Settings, files: int) -> Caps:
    """Those of a collector process. HTTP gets a quarter of too few files, or what TCP leaves."""
    http, tcp = _http(settings), _tcp(settings)
    room = _room(files, _reserve(settings))
    http = http.within(max(room // 4, room - tcp.maximum))
    return Caps(files, collector_wants(settings), http, tcp.within(room - http.maximum))


def api_caps(settings: Settings, files: int, forwarded: int) -> Caps:
    """Those of the API program."""
    http = _http(settings).within(_room(files, _reserve(settings) + forwarded))
    return Caps(files, api_wants(settings, forwarded), http, Cap(0, 0))


def allow_collector(settings: Settings) -> Caps:
    """Raise the limit of open files for a collector process, and log which connections it leaves no room for."""
    caps = collector_caps(settings, allow_open_files(collector_wants(settings)))
    if caps.files < caps.wanted:
        log.warning(
            "%d files may be open: at most %d TCP connections (%d per address) and %d over HTTP (%d per address); "
            "raise ulimit -Hn to %d for those of the settings",
            *(caps.files, *caps.tcp, *caps.http, caps.wanted),
        )
    return caps


def allow_api(settings: Settings, forwarded: int) -> Caps:
    """The same for the API program."""
    caps = api_caps(settings, allow_open_files(api_wants(settings, forwarded)), forwarded)
    if caps.files < caps.wanted:
        log.warning(
            "%d files may be open: at most %d HTTP connections (%d per address); "
            "raise ulimit -Hn to %d for those of the settings",
            *(caps.files, *caps.http, caps.wanted),
        )
    return caps


def _http(settings: Settings) -> Cap:
    return Cap(settings.collector.max_http_connections, settings.collector.max_http_connections_per_address)


def _tcp(settings: Settings) -> Cap:
    return Cap(settings.collector.max_connections, settings.collector.max_connections_per_address)


def _room(files: int, reserve: int) -> int:
    """Files that are left for connections; of very few half."""
    return files - min(reserve, files // 2)


def _reserve(settings: Settings) -> int:
    c = settings.collector
    return OTHER_FILES + MAX_ANSWERED + FILES_PER_SHARD * settings.redis.shards + len(c.listen) + len(c.mqtt)
