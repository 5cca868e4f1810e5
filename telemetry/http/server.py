"""uvicorn server inside a Whimbrel program, with the program's own signal handling, accept loop and shutdown."""

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
"""Time for requests in progress after SIGTERM, s; the supervisor kills after 5 s."""


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to its program and accepts connections itself."""

    def __init__(self, config: uvicorn.Config, tls: Identity | None, connections: Connections) -> None:
        super().__init__(config)
        self._tls = tls
        self._connections = connections

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve the sockets as uvicorn does, but with limits before the TLS handshake."""
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        connection = partial(make, self.config, self.server_state, self.lifespan.state)

        def connection_of(ticket: Ticket) -> asyncio.Protocol:
            return connection(ticket=ticket)

        acceptors = [Acceptor(listening, self._connections, connection_of, self._tls) for listening in sockets or ()]
        self.servers = cast("list[asyncio.Server]", acceptors)  # uvicorn closes them and waits for their end
        self.started = True
        for listening in sockets or ():
            name = _port_of(listening)
            metrics.HTTP_CONNECTIONS.of(name).watch(lambda: len(self.server_state.connections))
            metrics.HTTP_CONNECTIONS_LIMIT.of(name).set(self._connections.share.maximum)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int, reuse_port: bool = False) -> socket.socket:
    """A listening socket; with `reuse_port` several processes may share the port. Raises `ConfigError` if it fails."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024, reuse_port=reuse_port)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


def listen_udp(host: str, port: int, reuse_port: bool = False) -> socket.socket:
    """A bound UDP socket, otherwise like `listen`. Raises `ConfigError` if it cannot be bound."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        if reuse_port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ConfigError(f"cannot listen on {host}:{port} (UDP): {error.strerror or error}") from None
    return listening


def query_socket(settings: Settings) -> Path:
    """Path of the query program's socket."""
    return runtime_dir(settings.data_dir) / "query.sock"


def listen_at(path: Path) -> socket.socket:
    """A listening unix socket in a private folder; replaces a socket left by a killed program."""
    make_private(path.parent)
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen(1024)
    return listening


def _port_of(listening: socket.socket) -> str:
    """The port number, or the name of a unix socket."""
    name = listening.getsockname()
    return str(name[1]) if isinstance(name, tuple) else Path(name).name


SAFE_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "same-origin"),
)
"""Headers of every response, so that browsers neither guess its type nor show it inside another page."""

STRICT_TRANSPORT = ("Strict-Transport-Security", "max-age=86400")
"""Additional header over TLS. One day only: browsers apply it to the whole host, including other programs' ports."""


def http_server(
    app: ASGIApp,
    limits: ConnectionLimits,
    pending: Pending,
    tls: Identity | None = None,
    is_behind_another: bool = False,
    make: Callable[..., LimitedProtocol] | None = None,
    connections: Connections | None = None,
) -> Server:
    """A server for `app`; run it with `await server.serve([socket])`, stop it with `server.should_exit = True`.

    With `is_behind_another` the other server adds the common headers. `make` creates its connections. Their unsent
    responses are counted in `pending`, and they count among `connections`; without it, they are counted separately.
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
        proxy_headers=False,  # client_address.py reads them
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
    """An event that SIGTERM and SIGINT set."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped


async def until_stopped(serving: asyncio.Task[None], stopped: asyncio.Event) -> None:
    """Wait until the program should stop, or its server has ended."""
    await asyncio.wait({serving, asyncio.create_task(stopped.wait())}, return_when=asyncio.FIRST_COMPLETED)


def renew_on_sighup(tls: Identity | None) -> None:
    """Make SIGHUP reload certificate and key; without TLS SIGHUP is unchanged."""
    if tls is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, tls.reload)
