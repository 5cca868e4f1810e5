"""The response to `GET /v1/latest`: a page of devices, streamed if it is long."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Sequence

from starlette.responses import Response

from api.latest.latest_texts import LARGE_BYTES, Texts, texts_of
from api.latest.representation import LatestAnswer, answer_if_decodable
from api.responses.record_schema import encode
from api.responses.shared_text import StreamedResponse
from telemetry.hot_store import corruption

VARY = {"Vary": "Accept"}

WHOLE_BYTES = 2**20
"""Maximum size of a page that is sent in one piece."""

Batch = list[tuple[str, bytes | None]]
"""Devices with their latest records in Redis as bytes; None for an unknown device."""


async def page(batches: AsyncGenerator[Batch, None], cursor: str | None) -> Response:
    """A `LatestPage`, sent in one piece if it is short, otherwise in parts, each read after the previous one was
    sent."""
    parts = _Parts(batches, cursor)
    begin, size = list[bytes](), 0
    while texts := await parts.next():
        begin += texts
        size += sum(map(len, texts))
        if size > WHOLE_BYTES:
            return StreamedResponse(begin, parts, VARY)
    return Response(b"".join(begin), headers=VARY, media_type="application/json")


class _Parts:
    """Parts of a page. Keeps no reference to returned parts, so that a slow client does not hold memory."""

    def __init__(self, batches: AsyncGenerator[Batch, None], cursor: str | None) -> None:
        self._batches = batches
        self._cursor = cursor
        self._waiting = deque[tuple[str, bytes]]()
        self._before = b'{"records":['
        self._is_over = False

    @property
    def held(self) -> Sequence[bytes]:
        """Values that were read and not returned yet."""
        return [value for _, value in self._waiting]

    async def next(self) -> Sequence[bytes]:
        """The next texts; empty after the end. Raises `ProblemError`."""
        while await self._has_waiting():
            if texts := self._next_texts():
                before, self._before = self._before, b","
                return before, *texts
        before, self._before = self._before, b""
        begin = b"" if before == b"," else before
        return (begin + b'],"next_cursor":' + encode(self._cursor) + b"}",) if before else ()

    async def _has_waiting(self) -> bool:
        """Read until there is a value. False at the end."""
        while not self._waiting and not self._is_over:
            batch = await anext(self._batches, None)
            self._is_over = batch is None
            if batch is not None:
                self._waiting.extend((device, value) for device, value in batch if value is not None)
                batch.clear()  # the generator still refers to it
        return bool(self._waiting)

    async def close(self) -> None:
        """Stop reading."""
        await self._batches.aclose()

    def _next_texts(self) -> Texts:
        """The JSON of one device with a large value, or of all devices before the next large one, with commas.

        Empty if no value can be decoded.
        """
        if len(self._waiting[0][1]) > LARGE_BYTES:
            return _texts_if_decodable(*self._waiting.popleft())
        small = list[LatestAnswer]()
        while self._waiting and len(self._waiting[0][1]) <= LARGE_BYTES:
            answer = answer_if_decodable(*self._waiting.popleft())
            if answer is not None:
                small.append(answer)
        return (encode(small)[1:-1],) if small else ()


def _texts_if_decodable(device_id: str, value: bytes) -> Texts:
    """As `texts_of`; empty for a value that cannot be decoded, which is counted."""
    try:
        return texts_of(device_id, value)
    except corruption.ERRORS as error:
        corruption.skip("latest", device_id, error)
        return ()
