"""The response to `GET /v1/latest`: a page of devices, made while it is sent if it is long."""

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
"""A page up to this size is sent whole."""

Batch = list[tuple[str, bytes | None]]
"""Devices with the bytes of their latest in Redis, None for one that is unknown."""


async def page(batches: AsyncGenerator[Batch, None], cursor: str | None) -> Response:
    """A `LatestPage`: sent whole if it is short, else in parts, each read once the one before was sent."""
    parts = _Parts(batches, cursor)
    begin, size = list[bytes](), 0
    while texts := await parts.next():
        begin += texts
        size += sum(map(len, texts))
        if size > WHOLE_BYTES:
            return StreamedResponse(begin, parts, VARY)
    return Response(b"".join(begin), headers=VARY, media_type="application/json")


class _Parts:
    """Parts of a page. Nothing is referenced any longer once it was returned: a client may take its time."""

    def __init__(self, batches: AsyncGenerator[Batch, None], cursor: str | None) -> None:
        self._batches = batches
        self._cursor = cursor
        self._waiting = deque[tuple[str, bytes]]()
        self._before = b'{"records":['
        self._is_over = False

    @property
    def held(self) -> Sequence[bytes]:
        """Values that were read and are not sent yet."""
        return [value for _, value in self._waiting]

    async def next(self) -> Sequence[bytes]:
        """The next texts; none behind the end. Raises `ProblemError`."""
        while await self._has_waiting():
            if texts := self._taken():
                before, self._before = self._before, b","
                return before, *texts
        before, self._before = self._before, b""
        begin = b"" if before == b"," else before
        return (begin + b'],"next_cursor":' + encode(self._cursor) + b"}",) if before else ()

    async def _has_waiting(self) -> bool:
        """Read until a value waits. False at the end."""
        while not self._waiting and not self._is_over:
            batch = await anext(self._batches, None)
            self._is_over = batch is None
            if batch is not None:
                self._waiting.extend((device, value) for device, value in batch if value is not None)
                batch.clear()  # the generator still has it
        return bool(self._waiting)

    async def close(self) -> None:
        """End the reading."""
        await self._batches.aclose()

    def _taken(self) -> Texts:
        """The JSON of a device with a large value, or of those before the next such device, commas between.

        Empty if none of them can be decoded.
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
    """As `texts_of`; none for a value that cannot be decoded, which is counted."""
    try:
        return texts_of(device_id, value)
    except corruption.ERRORS as error:
        corruption.skip("latest", device_id, error)
        return ()
