"""What a client that leaves ends: the work for its answer."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class EndsWithClient:
    """ASGI middleware that cancels a request's work when its client has gone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or stop when nobody is there to read it."""
        messages: asyncio.Queue[Message] = asyncio.Queue(1)  # a body comes only as fast as it is read
        working, has_left = asyncio.current_task(), False

        async def listen() -> None:
            """Pass on what comes until the client has gone."""
            nonlocal has_left
            while (message := await receive())["type"] != "http.disconnect":
                await messages.put(message)
            has_left = True
            if working is not None:
                working.cancel()

        listening = asyncio.ensure_future(listen())
        try:
            await self._app(scope, messages.get, send)
        except asyncio.CancelledError:
            if not has_left:
                raise
        finally:
            listening.cancel()
