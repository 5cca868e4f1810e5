"""Captures the traffic of a port for `whimbrel sniff`: published through Redis, only while a client watches.

Once a second the collector reads which ports are watched. Their traffic is put into a short queue, and published from a
thread; for other ports this costs a set lookup per read. Nothing is stored. All functions must be called in the event
loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
import redis
from msgspec import Struct

from collector.framing.decoder import Decoder, Message
from collector.framing.frame_decoder import Framed
from collector.inspection.message_view import Line, line_of
from collector.protocols.auto_detect import Auto
from collector.protocols.first_byte import FirstByte
from telemetry.coordination import shared_state
from telemetry.model.api_keys import redacted
from telemetry.model.errors import BusyError, StoreError
from telemetry.system.periodic import run_periodically

log = logging.getLogger(__name__)

LOOK_S = 1.0
SHOW_S = 0.05
MAX_WAITING = 2_000
"""Maximum number of pieces in the queue; beyond it the oldest are dropped and counted."""

MAX_RAW_BYTES = 4_096
"""Maximum number of bytes shown of a piece."""

_SECRET = re.compile(rb"(?i)((?:token|password|api_key|key|p)=)[^&\s]+")


class Seen(Struct, omit_defaults=True):
    """A piece of a stream, a datagram or a request: `raw` in hex, of `raw_bytes`, and its decoded content.

    `event` is `opened`, `frame`, `closed`, or `lost`: `raw_bytes` pieces could not be shown in time. `protocol` and
    `device_id` are the connection's, as far as known; `held_bytes` is the size of an incomplete message. `status` is
    the HTTP response's, `connection` the name of a TCP connection in the log.
    """

    event: str
    at_ms: int
    port: int
    transport: str = ""
    peer: str = ""
    protocol: str = ""
    device_id: str = ""
    raw: str = ""
    raw_bytes: int = 0
    lines: list[Line] = []
    held_bytes: int = 0
    status: int | None = None
    connection: str = ""


_ports: frozenset[int] = frozenset()
_waiting: deque[Seen] = deque()
_lost = 0


def is_watched(port: int) -> bool:
    """True if a client watches a port."""
    return port in _ports


def see(seen: Seen) -> None:
    """Show a piece to watching clients."""
    global _lost  # noqa: PLW0603 (as all here, the event loop's alone)
    if len(_waiting) >= MAX_WAITING:
        _waiting.popleft()
        _lost += 1
    _waiting.append(seen)


def see_frame(
    port: int,
    transport: str,
    peer: str,
    decoder: Decoder,
    data: bytes | bytearray,
    messages: Sequence[Message],
    connection: str = "",
) -> None:
    """Show received bytes, and the decoder's result."""
    protocol, device_id = speaker(decoder)
    piece = _piece("frame", port, transport, peer, bytes(data))
    piece.protocol, piece.device_id, piece.held_bytes = protocol, device_id, decoder.held_bytes
    piece.lines, piece.connection = [line_of(message) for message in messages], connection
    see(piece)


def see_event(event: str, port: int, peer: str, connection: str = "") -> None:
    """Show that a connection was opened or closed."""
    piece = _piece(event, port, "tcp", peer)
    piece.connection = connection
    see(piece)


def see_request(port: int, peer: str, head: bytes, body: bytes, message: Message, status: int) -> None:
    """Show an HTTP request by its first line and its body, without possible secrets in its query."""
    raw = _SECRET.sub(rb"\1***", head) + (b"\n" + body if body else b"")
    piece = _piece("frame", port, "http", peer, raw)
    piece.lines, piece.status = [line_of(message)], status
    see(piece)


def _piece(event: str, port: int, transport: str, peer: str, raw: bytes = b"") -> Seen:
    shown = redacted(raw)[:MAX_RAW_BYTES].hex()
    return Seen(event, time.time_ns() // 1_000_000, port, transport, peer, raw=shown, raw_bytes=len(raw))


def address(peer: Sequence[object] | None) -> str:
    """A socket's address as text."""
    if not peer:
        return ""
    host = f"[{peer[0]}]" if ":" in str(peer[0]) else str(peer[0])
    return f"{host}:{peer[1]}"


def speaker(decoder: Decoder) -> tuple[str, str]:
    """Protocol and device of a connection, as far as known."""
    decoder = innermost(decoder)
    return decoder.PROTOCOL, decoder.device_id if isinstance(decoder, Framed) else ""


def innermost(decoder: Decoder) -> Decoder:
    """The decoder chosen by a port with several protocols; before that, the one that will choose."""
    while isinstance(decoder, Auto | FirstByte) and decoder.chosen is not None:
        decoder = decoder.chosen
    return decoder


# Publishing ------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def shown(connect: Callable[[], redis.Redis]) -> AsyncIterator[None]:
    """Context in which captured traffic is published."""
    with connect() as client:
        showing = asyncio.create_task(_show_for_ever(client))
        try:
            yield
        finally:
            showing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await showing


async def _show_for_ever(client: redis.Redis) -> None:
    look_at_s = 0.0

    async def show() -> None:
        nonlocal look_at_s
        global _ports  # noqa: PLW0603
        try:
            await asyncio.to_thread(shared_state.publish_frames, client, _taken())
            if time.monotonic() >= look_at_s:
                look_at_s = time.monotonic() + LOOK_S
                _ports = await asyncio.to_thread(shared_state.requested_ports, client, time.time_ns() // 1_000_000)
        except (StoreError, BusyError) as error:
            log.debug("cannot publish captured traffic: %s", error)

    await run_periodically("frames", lambda: SHOW_S if _ports else LOOK_S, show)


def _taken() -> list[tuple[int, bytes]]:
    """The queued pieces, encoded for publishing."""
    global _lost  # noqa: PLW0603
    taken = list(_waiting)
    _waiting.clear()
    if _lost:
        taken += [Seen("lost", time.time_ns() // 1_000_000, port, raw_bytes=_lost) for port in _ports]
        _lost = 0
    return [(one.port, msgspec.json.encode(one)) for one in taken]
