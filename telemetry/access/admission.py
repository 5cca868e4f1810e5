"""Ends a request when the key that admitted it is withdrawn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from starlette.types import Message, Receive, Send

from telemetry.coordination import rejection_counts
from telemetry.model.api_keys import Denied

FAREWELL_S = 1.0
"""Time for the reader of an event stream to receive the last comment, s."""


class Admission:
    """Holder (holds.py) of one request, between the server and the application.

    A request that only reads can be ended at any time. A request that writes can be ended while its body arrives; once
    complete it is answered, because the change may already have been made. If the response has not begun, the client
    receives a rejection. An event stream ends with a comment that gives the reason. Any other response is cut off, and
    the server closes the connection.
    """

    __slots__ = ("_denied", "_head", "_is_arriving", "_only_reads", "_receive", "_send", "_task")

    def __init__(self, receive: Receive, send: Send, only_reads: bool) -> None:
        self._receive = receive
        self._send = send
        self._only_reads = only_reads
        self._is_arriving = False
        self._head: Message | None = None
        self._denied: Denied | None = None
        self._task = asyncio.current_task()

    @property
    def status(self) -> int:
        """Status of the response, 0 without a response."""
        if self._head is not None:
            return int(self._head["status"])
        return 0 if self._denied is None else self._denied.kind.status

    async def receive(self) -> Message:
        """Receive from the server."""
        self._is_arriving = True
        message = await self._receive()
        self._is_arriving = message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send, unless the request was ended."""
        if self._denied is not None:  # the application ignored the cancellation
            raise asyncio.CancelledError
        if self._head is None:
            self._head = message
        await self._send(message)

    def end(self, denied: Denied) -> None:
        """Cancel the request."""
        if self._task is not None and (self._only_reads or self._is_arriving):
            self._denied = denied
            self._task.cancel()

    async def is_withdrawn(self, refuse: Callable[[Denied, Send], Awaitable[None]]) -> bool:
        """Send the client the reason for the cancellation. Returns False if the key was not the cause."""
        if self._denied is None or self._task is None:
            return False
        self._task.uncancel()
        rejection_counts.count(self._denied.kind)
        if self._head is None:
            await refuse(self._denied, self._send)
        elif _is_event_stream(self._head):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await self._send(_comment(self._denied.reason))
        return True


def _is_event_stream(head: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in head.get("headers", ())
    )


def _comment(text: str) -> Message:
    return {"type": "http.response.body", "body": f": {text}\n".encode(), "more_body": False}
