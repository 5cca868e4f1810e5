"""What a client that leaves ends: the work for its answer."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class EndsWithClient:
    """ASGI middleware that cancels a request's work when its client has gone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or stop when nobody is there to read it."""
        messages: asyncio.Queue[Message] = asyncio.Queue(1)  # a body comes only as fast as it is read
        working = asyncio.ensure_future(self._app(scope, messages.get, send))
        listening = asyncio.ensure_future(_listen(receive, messages))
        try:
            await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
        finally:
            working.cancel()
            listening.cancel()


async def _listen(receive: Receive, messages: asyncio.Queue[Message]) -> None:
    """Pass on what comes until the client has gone."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        await messages.put(message)
