"""Sends large response bodies in pieces, and counts them while they wait for the client."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import Message, Send

from telemetry.coordination import rejection_counts
from telemetry.limits.pending_bytes import PIECE_BYTES, RETRY_S, Client, no_room, pieces
from telemetry.model import problems
from telemetry.model.errors import BusyError


class Response:
    """One response on its way to a connection. A large body is counted, and sent in pieces as the client reads."""

    def __init__(self, client: Client, send: Send) -> None:
        self._client = client
        self._send = send
        self._is_refused = False

    async def send(self, message: Message) -> None:
        """Send a message. A response whose body has no room is replaced by an error."""
        if self._is_refused:
            return
        if message["type"] == "http.response.start":
            pending = self._client.pending
            if not (pending.holds(self._client) or pending.make_room(_size(message.get("headers", ())))):
                self._is_refused = True
                await self._refuse()
                return
        elif len(message.get("body", b"")) > PIECE_BYTES:
            await self._send_large(message)
            return
        await self._send(message)

    async def _send_large(self, message: Message) -> None:
        body, more_body = message["body"], message.get("more_body", False)
        try:
            with self._client.pending.hold(self._client, (body,)):
                for piece in pieces((body,)):
                    await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        except BusyError:
            self._client.disconnect()
            return
        await self._send({"type": "http.response.body", "body": b"", "more_body": more_body})

    async def _refuse(self) -> None:
        rejection_counts.count(problems.BUSY)
        body = problems.body(problems.BUSY, str(no_room()))
        headers = [
            (b"content-type", problems.CONTENT_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"retry-after", b"%d" % RETRY_S),
        ]
        await self._send({"type": "http.response.start", "status": problems.BUSY.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _size(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The Content-Length, bytes; 0 if it is below a few thousand."""
    for name, value in headers:
        if name == b"content-length" and len(value) > 4 and value.isdigit():
            return int(value)
    return 0
