"""Sends response bodies: compressed where the client accepts it; large ones in pieces, counted while they wait.

Every program and application compresses here; a response that the query program has compressed passes unchanged.
The account counts bodies before they are compressed, and the compressor's memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import NamedTuple

from starlette.types import Message, Scope, Send

from telemetry.coordination import rejection_counts
from telemetry.http import compression
from telemetry.limits.pending_bytes import PIECE_BYTES, RETRY_S, Client, no_room, pieces
from telemetry.model import problems
from telemetry.model.errors import BusyError


class Response:
    """One response on its way to a connection. A large body is counted, and sent in pieces as the client reads.

    A body of at least `min_compressed_bytes` is compressed if the client accepts that; 0 = never. `close` ends a
    response that may have broken off.
    """

    def __init__(self, client: Client, scope: Scope, send: Send, min_compressed_bytes: int) -> None:
        self._client = client
        self._scope = scope
        self._min_compressed_bytes = min_compressed_bytes
        self._compression: _Compression | None = None
        self._send = send
        self._is_refused = False

    async def send(self, message: Message) -> None:
        """Send a message. A response whose body has no room is replaced by an error."""
        if self._is_refused:
            return
        if message["type"] == "http.response.start":
            await self._start(message)
        elif len(message.get("body", b"")) > PIECE_BYTES:
            await self._send_large(message)
        else:
            await self._send_part(message)

    def close(self) -> None:
        """Free the compressor's memory."""
        if self._compression is not None:
            self._compression.held.close()
            self._compression = None

    async def _start(self, message: Message) -> None:
        pending = self._client.pending
        if not (pending.holds(self._client) or pending.make_room(_size(message.get("headers", ())))):
            await self._refuse()
            return
        message, body = compression.begin(self._scope, message, self._min_compressed_bytes)
        if body is not None:
            held = contextlib.ExitStack()
            try:
                held.enter_context(pending.hold(self._client, (), compression.COMPRESSOR_BYTES))
            except BusyError:
                await self._refuse()
                return
            self._compression = _Compression(body, held)
        await self._send(message)

    async def _send_part(self, message: Message) -> None:
        if self._compression is not None and message["type"] == "http.response.body":
            is_last = not message.get("more_body", False)
            data = message.get("body", b"")
            if data or is_last:
                message = {**message, "body": await self._coded(data, is_last)}
        await self._send(message)

    async def _coded(self, data: bytes | memoryview, is_last: bool = False) -> bytes:
        """A part of the body as it is sent. For a client that has left nothing is compressed, and nothing is sent."""
        if self._compression is None or self._client.is_gone:
            self.close()
            return b""
        coded = await self._compression.body.compress(data, is_last)
        if is_last:
            self.close()
        return coded

    async def _send_large(self, message: Message) -> None:
        body, more_body = message["body"], message.get("more_body", False)
        send = self._send_pieces if self._compression is None else self._send_compressed
        try:
            with self._client.pending.hold(self._client, (body,)):
                await send(body)
        except BusyError:
            self._client.disconnect()
            return
        await self._send_part({"type": "http.response.body", "body": b"", "more_body": more_body})

    async def _send_compressed(self, body: bytes) -> None:
        whole = memoryview(body)
        for start in range(0, len(whole), compression.SLICE_BYTES):
            part = await self._coded(whole[start : start + compression.SLICE_BYTES])
            with self._client.pending.hold(self._client, (part,)):
                await self._send_pieces(part)

    async def _send_pieces(self, body: bytes) -> None:
        for piece in pieces((body,)):
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def _refuse(self) -> None:
        self._is_refused = True
        rejection_counts.count(problems.BUSY)
        body = problems.body(problems.BUSY, str(no_room()))
        headers = [
            (b"content-type", problems.CONTENT_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"retry-after", b"%d" % RETRY_S),
        ]
        await self._send({"type": "http.response.start", "status": problems.BUSY.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


class _Compression(NamedTuple):
    """The compressor of a body, and its memory in the account."""

    body: compression.Body
    held: contextlib.ExitStack


def _size(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The Content-Length, bytes; 0 if it is below a few thousand."""
    for name, value in headers:
        if name == b"content-length" and len(value) > 4 and value.isdigit():
            return int(value)
    return 0
