"""Responses made of texts that other responses share, and of more texts than are in memory at a time."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from telemetry.http.problem_responses import ProblemError, busy
from telemetry.limits.pending_bytes import hold, pieces
from telemetry.model.errors import BusyError

JSON = "application/json"

log = logging.getLogger(__name__)


async def send_texts(scope: Scope, send: Send, texts: Sequence[bytes]) -> None:
    """Send texts as a part of a body, counted while they wait. Raises `BusyError` if there is no room for them."""
    with hold(scope, texts):
        await _send_pieces(send, texts)


class TextsResponse(Response):
    """A response whose body is these texts, in order."""

    def __init__(self, texts: Sequence[bytes], headers: Mapping[str, str] | None = None) -> None:
        self.status_code, self.background = 200, None
        self.init_headers({"Content-Length": str(sum(map(len, texts))), "Content-Type": JSON, **(headers or {})})
        self._texts = texts

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer. Raises `ProblemError` if there is no room for the texts."""
        try:
            with hold(scope, self._texts):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await _send_pieces(send, self._texts)
        except BusyError as error:
            raise busy(error) from None
        await send({"type": "http.response.body", "body": b""})


class Parts(Protocol):
    """The rest of a body, made part by part."""

    @property
    def held(self) -> Sequence[bytes]:
        """Bytes in memory that further parts are made of."""
        ...

    async def next(self) -> Sequence[bytes]:
        """The texts of the next part; none behind the end. Raises `ProblemError`."""
        ...

    async def close(self) -> None:
        """End the making."""
        ...


class StreamedResponse(Response):
    """A response whose body comes in parts: the next is made once the client has read the one before.

    A failure amid it breaks the response off: it never ends as if whole.
    """

    def __init__(self, begin: Sequence[bytes], parts: Parts, headers: Mapping[str, str] | None = None) -> None:
        self.status_code, self.background = 200, None
        self.init_headers({"Content-Type": JSON, **(headers or {})})
        self._begin = begin
        self._parts = parts

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer."""
        texts, self._begin = self._begin, ()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while texts:
                with hold(scope, (*texts, *self._parts.held)):
                    await _send_pieces(send, texts)
                texts = ()  # no two parts are in memory
                texts = await self._parts.next()
            await send({"type": "http.response.body", "body": b""})
        except (ProblemError, BusyError) as error:
            log.warning("a response broke off: %s", error)
        finally:
            await self._parts.close()


async def _send_pieces(send: Send, texts: Sequence[bytes]) -> None:
    for piece in pieces(texts):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
