"""Cancels a request's work when the client disconnects."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class CancelOnDisconnect:
    """ASGI middleware that cancels the application's task when the client disconnects."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application until it returns or the client disconnects."""
        messages: asyncio.Queue[Message] = asyncio.Queue(1)  # bounded: the application sets the pace of the body
        request_task, is_disconnected = asyncio.current_task(), False

        async def forward_messages() -> None:
            """Forward messages to the application until the client disconnects."""
            nonlocal is_disconnected
            while (message := await receive())["type"] != "http.disconnect":
                await messages.put(message)
            is_disconnected = True
            if request_task is not None:
                request_task.cancel()

        forwarding = asyncio.ensure_future(forward_messages())
        try:
            await self._app(scope, messages.get, send)
        except asyncio.CancelledError:
            if not is_disconnected:
                raise
        finally:
            forwarding.cancel()
