"""A writer of an event loop: records go in one by one, batches go out from a task of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from whimbrel_client.batch import Batch, Refused, Sent
from whimbrel_client.errors import WriterClosed
from whimbrel_client.gathering import Gathering, left_of, next_batch, pause_s, plus
from whimbrel_client.values import encoded


class AsyncWriter:
    """Gathers records and sends them; tasks of one loop may share it. All is as for `Writer`, which has the words."""

    def __init__(
        self,
        send: Callable[[Sequence[bytes]], Awaitable[Sent]],
        next_try_s: Callable[[], float | None],
        max_records: int,
        max_delay_s: float,
        on_refused: Callable[[Sequence[Refused]], object] | None,
    ) -> None:
        self.totals = Sent()
        self.unsent: Sequence[Batch] = ()
        self._send = send
        self._next_try_s = next_try_s
        self._on_refused = on_refused
        self._gathering = Gathering(max_records, max_delay_s)
        self._changed = asyncio.Condition()
        self._is_sending = False
        self._is_closing = False
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="whimbrel-writer")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._end()
        if kind is None:
            self._raise_if_failed()

    async def write(self, record: Mapping[str, Any] | None = None, /, **fields: Any) -> None:
        """Add a record, given as a mapping, as fields, or both; waits while ten batches are on their way."""
        item = encoded({**(record or {}), **fields})
        async with self._changed:
            await self._changed.wait_for(lambda: self._gathering.has_room or self._is_over)
            self._raise_if_failed()
            if self._is_over or self._task is None:
                raise WriterClosed("cannot write: the writer is closed, or was not entered")
            self._gathering.add(item, time.monotonic())
            self._changed.notify_all()

    async def flush(self) -> Sent:
        """Send what was written until now, and wait for it: on the box's disk, or in the spool. Returns the totals."""
        async with self._changed:
            self._gathering.want()
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._error or not (self._gathering or self._is_sending))
            self._raise_if_failed()
            return self.totals

    async def close(self) -> None:
        """Flush, and end. Raises why sending failed."""
        await self._end()
        self._raise_if_failed()

    async def _end(self) -> None:
        async with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._task is not None:
            await self._task

    @property
    def _is_over(self) -> bool:
        return self._is_closing or self._error is not None

    def _raise_if_failed(self) -> None:
        if self._error is not None:
            raise self._error

    # The task ----------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while (items := await self._next()) is not None:
            try:
                await self._note(await self._send(items))
            except Exception as error:  # whoever writes hears of it
                await self._fail(error, items)
                return

    async def _next(self) -> Sequence[bytes] | None:
        async with self._changed:
            self._is_sending = False
            self._changed.notify_all()
            while True:
                now_s, again_s = time.monotonic(), self._next_try_s()
                found = next_batch(self._gathering, self._is_closing, now_s, again_s)
                if found is not None:
                    self._is_sending = bool(found)
                    return found
                if self._is_closing:
                    return None
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s(self._gathering, now_s, again_s)):
                        await self._changed.wait()

    async def _note(self, sent: Sent) -> None:
        async with self._changed:
            self.totals = plus(self.totals, sent)
        if sent.refused and self._on_refused is not None:
            self._on_refused(sent.refused)

    async def _fail(self, error: Exception, items: Sequence[bytes]) -> None:
        async with self._changed:
            self.unsent = left_of(self._gathering, error, items)
            self._error = error
            self._is_sending = False
            self._changed.notify_all()
