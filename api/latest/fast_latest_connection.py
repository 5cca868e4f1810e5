"""A connection with the fast path of `GET /v1/devices/{id}/latest` (fast_latest.py).

Answers a request on the fast path in one write, without an ASGI scope and task, often before the connection returns to
the event loop (direct_connection.py).
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from api.latest.fast_latest import DirectRequest, FastLatest
from telemetry.http.direct_response import DirectConnection


class FastLatestConnection(DirectConnection):
    """One connection. `_pending` is a request on the fast path before its processing begins."""

    def __init__(self, latest: FastLatest, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._latest = latest
        self._pending: DirectRequest | None = None

    def _feed(self, piece: bytes) -> None:
        super()._feed(piece)
        if self._pending is not None and self._pending.is_complete:
            self._answer_directly(self._pending)

    def on_headers_complete(self) -> None:
        self._pending = None
        if self.may_answer(b"GET"):
            self._pending = self._latest.begin(self.url, self.headers, self.client)
        if self._pending is None:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self._pending is None:
            super().on_message_complete()
        else:
            self._pending.is_complete = True
            self._complete()

    def _answer_directly(self, request: DirectRequest) -> None:
        value = self._latest.value(request)
        if isinstance(value, asyncio.Future):
            self._waits, self._pending = True, None
            value.add_done_callback(partial(self._on_value, request))
        else:
            self._on_response(request, value)

    def _on_value(self, request: DirectRequest, value: asyncio.Future[Any]) -> None:
        is_usable = not value.cancelled() and value.exception() is None and isinstance(value.result(), bytes)
        if not self.transport.is_closing():
            self._on_response(request, value.result() if is_usable else None)

    def _on_response(self, request: DirectRequest, value: bytes | None) -> None:
        """Send the response; without a usable value, pass the request to the application."""
        response = None
        if value is not None:
            response = self._latest.response(request, value, self.server_state.default_headers)
        if response is None:
            self._waits, self._pending = False, request
            self._pass_on()
        else:
            self._pending = None
            self._respond(response)

    def _pass_on(self) -> None:
        request, self._pending = self._pending, None
        if request is None:
            return
        super().on_headers_complete()
        if request.is_complete:
            super().on_message_complete()
        if self._is_last:
            self.cycle.keep_alive = False
