"""Accept loop of a listening socket: applies limits, then the TLS handshake; survives errors of accept.

uvloop's own server counts a connection only after its handshake. It also closes the listening socket permanently,
without a log line, when accept fails because the open-files limit is reached.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from telemetry.limits.connections import LOG_EVERY_S, Connections, Ticket
from telemetry.network.tls import HANDSHAKE_S, SHUTDOWN_S, Identity

log = logging.getLogger(__name__)

MAX_ACCEPTED = 64
"""Maximum number of connections accepted in one turn of the event loop, so that a flood does not delay open ones."""

PAUSE_S = 0.2
"""Pause after accept failed because a resource is exhausted; an immediate retry would fail again."""

EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

Make = Callable[[Ticket], asyncio.BaseProtocol]


class Acceptor:
    """Accepts connections until closed. `make` returns the protocol of a connection; it must close its ticket at the
    end.
    """

    def __init__(
        self, listening: socket.socket, connections: Connections, make: Make, tls: Identity | None = None
    ) -> None:
        self._listening = listening
        self._connections = connections
        self._make = make
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        self._logged_s = -LOG_EVERY_S
        listening.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Stop accepting, close the socket, and cancel handshakes in progress."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._listening)
            self._listening.close()
            for task in self._opening:
                task.cancel()

    async def wait_closed(self) -> None:
        """Wait for cancelled handshakes."""
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _resume(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._listening, self._accept_some)

    def _accept_some(self) -> None:
        for _ in range(MAX_ACCEPTED):
            try:
                accepted, peer = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._pause(error)
                    return
                continue  # the connection was closed before it was accepted
            # deferred: connections that end in the same turn make room first
            self._loop.call_soon(self._admit, accepted, peer[0] if isinstance(peer, tuple) else "")

    def _pause(self, error: OSError) -> None:
        self._loop.remove_reader(self._listening)
        self._loop.call_later(PAUSE_S, self._resume)
        if self._loop.time() - self._logged_s >= LOG_EVERY_S:
            self._logged_s = self._loop.time()
            log.error("cannot accept connections: %s; raise ulimit -Hn, or lower the connection limits", error)

    def _admit(self, accepted: socket.socket, address: str) -> None:
        handshakes = None if self._tls is None else self._tls.handshakes
        ticket = self._connections.admit(address, handshakes)
        if ticket is None:
            accepted.close()
            return
        if handshakes is not None:
            handshakes.enter(ticket.owner)
        accepted.setblocking(False)
        opening = self._loop.connect_accepted_socket(partial(self._make, ticket), accepted, **tls_arguments(self._tls))
        task = self._loop.create_task(opening)
        self._opening.add(task)
        task.add_done_callback(partial(self._on_opened, accepted, ticket))

    def _on_opened(self, accepted: socket.socket, ticket: Ticket, task: asyncio.Task[Any]) -> None:
        self._opening.discard(task)
        if self._tls is not None:
            self._tls.handshakes.leave(ticket.owner)
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            return
        accepted.close()
        ticket.close()
        if error is not None and not isinstance(error, OSError):  # OSError: the handshake failed or timed out
            log.error("cannot open a connection", exc_info=error)


def tls_arguments(tls: Identity | None) -> dict[str, Any]:
    """Arguments of `connect_accepted_socket`, with or without TLS."""
    if tls is None:
        return {}
    return {"ssl": tls.context, "ssl_handshake_timeout": HANDSHAKE_S, "ssl_shutdown_timeout": SHUTDOWN_S}
