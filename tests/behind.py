"""An application to which a fast path passes requests on."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class Behind:
    """Counts how often the application is asked."""

    def __init__(self, behind: ASGIApp) -> None:
        self.asked = 0
        self._behind = behind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        await self._behind(scope, receive, send)
