"""Run uvicorn inside a program of ours: stopped by us, silent about each request, gone within its grace."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from telemetry.config.settings import Settings
from telemetry.http.connection import ConnectionLimits, LimitedProtocol, limited
from telemetry.limits.concurrency import http_share
from telemetry.limits.connections import Connections, Ticket
from telemetry.limits.pending_bytes import Pending
from telemetry.model.errors import ConfigError
from telemetry.network.acceptor import Acceptor
from telemetry.network.tls import Identity
from telemetry.observability import metrics
from telemetry.system.runtime_dir import make_private, runtime_dir

GRACE_S = 3
"""Seconds that requests under way get after SIGTERM; the supervisor waits 5 before it kills."""


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the program it runs in, and accepts connections itself."""

    def __init__(self, config: uvicorn.Config, tls: Identity | None, connections: Connections) -> None:
        super().__init__(config)
        self._tls = tls
        self._connections = connections

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve the sockets; uvicorn's own does the same, without limits before the handshake."""
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        connection = partial(make, self.config, self.server_state, self.lifespan.state)

        def connection_of(ticket: Ticket) -> asyncio.Protocol:
            return connection(ticket=ticket)

        acceptors = [Acceptor(one, self._connections, connection_of, self._tls) for one in sockets or ()]
        self.servers = cast("list[asyncio.Server]", acceptors)  # it closes them, and waits for that
        self.started = True
        for one in sockets or ():
            name = _port_of(one)
            metrics.HTTP_CONNECTIONS.of(name).watch(lambda: len(self.server_state.connections))
            metrics.HTTP_CONNECTIONS_LIMIT.of(name).set(self._connections.share.maximum)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int, reuse_port: bool = False) -> socket.socket:
    """A listening socket; with `reuse_port` several may share the port. Raises `ConfigError` if it can't be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024, reuse_port=reuse_port)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


def listen_udp(host: str, port: int, reuse_port: bool = False) -> socket.socket:
    """A socket bound for datagrams, like that of `listen`. Raises `ConfigError` if it can't be had."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        if reuse_port:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise ConfigError(f"cannot listen on {host}:{port} (UDP): {error.strerror or error}") from None
    return found


def query_socket(settings: Settings) -> Path:
    """Where the query program listens."""
    return runtime_dir(settings.data_dir) / "query.sock"


def listen_at(path: Path) -> socket.socket:
    """A listening unix socket in a folder that only we may enter, in the place of one that a killed program left."""
    make_private(path.parent)
    path.unlink(missing_ok=True)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    found.bind(str(path))
    found.listen(1024)
    return found


def _port_of(listening: socket.socket) -> str:
    """A port's number, or the name of a unix socket."""
    name = listening.getsockname()
    return str(name[1]) if isinstance(name, tuple) else Path(name).name


SAFE_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "same-origin"),
)
"""What every answer says, so that no browser takes it for what it isn't, or shows it inside another page."""

STRICT_TRANSPORT = ("Strict-Transport-Security", "max-age=86400")
"""The same over TLS. A day: a browser holds it against the whole host, other programs' ports too."""


def http_server(
    app: ASGIApp,
    limits: ConnectionLimits,
    pending: Pending,
    tls: Identity | None = None,
    is_behind_another: bool = False,
    make: Callable[..., LimitedProtocol] | None = None,
    connections: Connections | None = None,
) -> Server:
    """A server for `app`; run it with `await server.serve([socket])`, end it with `server.should_exit = True`.

    One behind another leaves it to that to say what every answer says. `make` makes its connections, whose unsent
    responses `pending` counts, and which count among `connections`; without, they count alone.
    """
    metrics.UNSENT_BYTES.one.watch(lambda: pending.bytes)
    metrics.UNSENT_LIMIT.one.set(pending.max_bytes)
    headers = [] if is_behind_another else [*SAFE_HEADERS, *([STRICT_TRANSPORT] if tls else [])]
    config = uvicorn.Config(
        app,
        loop="none",
        http=limited(limits, pending, make, tls.clients if tls else None),  # type: ignore[arg-type]  # it is only called
        ws="none",
        lifespan="off",
        access_log=False,
        proxy_headers=False,  # who answers with addresses of its own reads them
        log_config=None,
        server_header=False,
        headers=headers,
        timeout_keep_alive=limits.keep_alive_s,
        timeout_graceful_shutdown=GRACE_S,
    )
    if connections is None:
        share = http_share(limits.max_connections, limits.max_connections_per_address)
        connections = Connections(share, time.monotonic, 0, limits.addresses, answers=True)
    return Server(config, tls, connections)


def stop_on_signals() -> asyncio.Event:
    """An event that is set by SIGTERM and SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped


async def until_stopped(serving: asyncio.Task[None], stopped: asyncio.Event) -> None:
    """Wait until a program is to stop, or its server has ended."""
    await asyncio.wait({serving, asyncio.create_task(stopped.wait())}, return_when=asyncio.FIRST_COMPLETED)


def renew_on_sighup(tls: Identity | None) -> None:
    """Have SIGHUP read certificate and key again; without TLS it does what it did."""
    if tls is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, tls.reload)
