"""Accounting of the bytes that wait for clients of a process: unsent output, and responses being sent.

All HTTP connections of a process share one account. When it is full, the client that has been stalled longest is
disconnected, then the next one, until there is room. A response for which there is still no room is not started.
"""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from telemetry.config.settings import Settings
from telemetry.model.errors import BusyError
from telemetry.observability import metrics

PIECE_BYTES = 2**16
"""Bytes of a response passed to a transport at once. Each piece is a copy: a transport with a view of a large response
would keep all of it in memory until the last byte was sent."""

RETRY_S = 5

CLIENT = "whimbrel.client"
"""Key of an ASGI scope for the request's `Client`."""

log = logging.getLogger(__name__)


class Client(Protocol):
    """A connection that may be closed to free memory."""

    @property
    def pending(self) -> Pending:
        """The account of its process."""
        ...

    @property
    def is_gone(self) -> bool:
        """Whether it is closed, or is being closed at once."""
        ...

    def disconnect(self) -> None:
        """Close the connection at once and drop its unsent output. May be called from any code of the event loop."""
        ...


class Pending:
    """The account. Not thread-safe: used only in the event loop's thread."""

    @classmethod
    def of(cls, settings: Settings) -> Pending:
        """A new account with the limit from the settings; a process has one."""
        return cls(settings.api.pending_bytes)

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._stalled: OrderedDict[Client, int] = OrderedDict()
        """Unsent bytes of stalled clients, longest stalled first."""
        self._holds: dict[Client, list[_Hold]] = {}
        self._texts: dict[int, list[int]] = {}
        """Size and number of holds of each text, by identity: a text shared by several responses counts once."""
        _ = metrics.SLOW_CLIENTS.one

    def stall(self, client: Client, unsent_bytes: int) -> None:
        """Count the unsent bytes of a stalled client."""
        self.resume(client)
        self._stalled[client] = unsent_bytes
        self.bytes += unsent_bytes
        if self.bytes > self.max_bytes:
            self.make_room(0)

    def resume(self, client: Client) -> None:
        """Stop counting a client's unsent bytes: it has read them or is disconnected."""
        self.bytes -= self._stalled.pop(client, 0)

    @contextlib.contextmanager
    def hold(self, client: Client, texts: Sequence[bytes], own_bytes: int = 0) -> Iterator[None]:
        """Count texts while they are sent to a client, and bytes that only this response needs.

        Raises `BusyError` if there is no room for them.
        """
        held = _Hold(texts, own_bytes)
        self._add(client, held)
        try:
            if self.bytes > self.max_bytes and not self.make_room(0):
                raise no_room()
            yield
        finally:
            self._remove(client, held)

    def holds(self, client: Client) -> bool:
        """True if a response to the client is being counted."""
        return client in self._holds

    def make_room(self, size: int) -> bool:
        """Disconnect stalled clients, longest stalled first, until `size` bytes fit. False if they do not fit."""
        count = 0
        while self.bytes + size > self.max_bytes and self._stalled:
            client = next(iter(self._stalled))
            self.resume(client)
            for held in list(self._holds.get(client, ())):  # its task ends in a later turn of the loop
                self._remove(client, held)
            client.disconnect()
            count += 1
        if count:
            metrics.SLOW_CLIENTS.one.add(count)
            log.warning("disconnected %d slow clients: api.pending_bytes = %d is reached", count, self.max_bytes)
        return self.bytes + size <= self.max_bytes

    def _add(self, client: Client, held: _Hold) -> None:
        self._holds.setdefault(client, []).append(held)
        self.bytes += held.own_bytes
        for text in held.texts:
            counted = self._texts.setdefault(id(text), [len(text), 0])
            counted[1] += 1
            if counted[1] == 1:
                self.bytes += counted[0]

    def _remove(self, client: Client, held: _Hold) -> None:
        """Stop counting a hold; repeated calls have no effect."""
        holds = self._holds.get(client, [])
        if held not in holds:
            return
        holds.remove(held)
        if not holds:
            del self._holds[client]
        self.bytes -= held.own_bytes
        for text in held.texts:
            counted = self._texts[id(text)]
            counted[1] -= 1
            if counted[1] == 0:
                del self._texts[id(text)]
                self.bytes -= counted[0]
        held.texts = ()


class _Hold:
    """Texts held by one response, and bytes of its own."""

    def __init__(self, texts: Sequence[bytes], own_bytes: int) -> None:
        self.texts = texts
        self.own_bytes = own_bytes


def hold(scope: Mapping[str, Any], texts: Sequence[bytes]) -> contextlib.AbstractContextManager[None]:
    """Count texts while they are sent to the client of a request. Raises `BusyError` if there is no room for them.

    Without an account, as in tests of an application, nothing is counted.
    """
    client: Client | None = scope.get(CLIENT)
    return contextlib.nullcontext() if client is None else client.pending.hold(client, texts)


def no_room() -> BusyError:
    """The error for a response that does not fit."""
    return BusyError("cannot begin a response: api.pending_bytes is reached; try again later", RETRY_S)


def pieces(texts: Sequence[bytes]) -> Iterator[bytes]:
    """Copies of texts, in order, of `PIECE_BYTES` at most; short ones are joined."""
    waiting, size = list[bytes](), 0
    for text in texts:
        at = 0
        while at < len(text):
            piece = text[at : at + PIECE_BYTES - size]
            at += len(piece)
            size += len(piece)
            waiting.append(piece)
            if size == PIECE_BYTES:
                yield b"".join(waiting)
                waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)
