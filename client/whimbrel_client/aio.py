"""A client of an event loop: the same calls as `Client`, awaited."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from whimbrel_client import reading, tables
from whimbrel_client.answers import checked
from whimbrel_client.async_writer import AsyncWriter
from whimbrel_client.batch import Batch, Refused, Sent
from whimbrel_client.client import RETRY_FOR_S, TIMEOUT_S, Devices
from whimbrel_client.errors import BoxUnavailable
from whimbrel_client.events import PATH, SILENT_S, Following
from whimbrel_client.outbox import outbox_of
from whimbrel_client.reading import Pages
from whimbrel_client.spool import Spool
from whimbrel_client.steps import Ask, Steps
from whimbrel_client.values import Moment, encoded, parameters
from whimbrel_client.web import Reached, async_client_of, broken_off, heard, request_of, run_async, unreached

T = TypeVar("T")


class AsyncClient:
    """A box, asked from an event loop; tasks of that loop may share it. All is as for `Client`, which has the words.

    What takes the disk's time, or makes a table, is done in a thread beside the loop.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        spool: Spool | str | os.PathLike[str] | None = None,
        timeout_s: float = TIMEOUT_S,
        retry_for_s: float = RETRY_FOR_S,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        self._web = async_client_of(Reached(url, key, timeout_s, ca_file))
        self._retry_for_s = retry_for_s
        self._outbox = outbox_of(spool, retry_for_s)
        self._sending = asyncio.Lock()  # batches go out one at a time, in the order of their numbers

    async def close(self) -> None:
        """Leave the connections, and the spool to others."""
        await self._web.aclose()
        self._outbox.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    # Sending -----------------------------------------------------------------------------------------

    async def send(self, records: Iterable[Mapping[str, Any]]) -> Sent:
        """Send records, each stored once, however often a try of this call has to be repeated."""
        return await self._send([encoded(record) for record in records])

    async def _send(self, items: Sequence[bytes]) -> Sent:
        async with self._sending:
            return await run_async(self._web, self._outbox.send(items))

    async def resend(self, batches: Sequence[Batch]) -> Sent:
        """Send the `undelivered` batches of an error again, under their numbers: what the box has is not doubled."""
        async with self._sending:
            return await run_async(self._web, self._outbox.resend(batches))

    async def drain(self, timeout_s: float = RETRY_FOR_S) -> Sent:
        """Send what waits in the spool until nothing does or the time is over."""
        async with self._sending:
            return await run_async(self._web, self._outbox.drain(timeout_s))

    def writer(
        self,
        *,
        max_records: int = 500,
        max_delay_s: float = 1.0,
        on_refused: Callable[[Sequence[Refused]], object] | None = None,
    ) -> AsyncWriter:
        """A writer that gathers records into batches, and sends them from a task of its own; for an `async with`."""
        return AsyncWriter(self._send, lambda: self._outbox.next_try_s, max_records, max_delay_s, on_refused)

    # Reading -----------------------------------------------------------------------------------------

    async def latest(self, device_id: str) -> dict[str, Any]:
        """The newest record of a device, with `last_seen` and `position`. Raises `NotFound` if it was never heard."""
        return await self._run(reading.latest(device_id, self._retry_for_s))

    def latest_all(self, *, device_id: Devices = None, **more: Any) -> AsyncIterator[dict[str, Any]]:
        """The newest record of each device."""
        return self._all("latest", {"device_id": device_id, **more})

    def devices(self, *, device_id: Devices = None, **more: Any) -> AsyncIterator[dict[str, Any]]:
        """What devices there are."""
        return self._all("devices", {"device_id": device_id, **more})

    def records(
        self, start: Moment | None = None, end: Moment | None = None, *, device_id: Devices = None, **more: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """The records of a range, in the order of time, read page by page."""
        return self._all("records", {"start": start, "end": end, "device_id": device_id, **more})

    def trips(
        self, start: Moment | None = None, end: Moment | None = None, *, device_id: Devices = None, **more: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """The trips of a range."""
        return self._all("trips", {"start": start, "end": end, "device_id": device_id, **more})

    def stops(
        self, start: Moment | None = None, end: Moment | None = None, *, device_id: Devices = None, **more: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """The stops of a range."""
        return self._all("stops", {"start": start, "end": end, "device_id": device_id, **more})

    def summary(
        self, start: Moment | None = None, end: Moment | None = None, *, device_id: Devices = None, **more: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """What each device did."""
        return self._all("summary", {"start": start, "end": end, "device_id": device_id, **more})

    async def arrow(
        self, start: Moment | None = None, end: Moment | None = None, *, device_id: Devices = None, **more: Any
    ) -> Any:
        """All records of a range as a `pyarrow.Table`, in memory."""
        return await asyncio.to_thread(tables.arrow, await self._export(start, end, device_id, more))

    async def pandas(
        self, start: Moment | None = None, end: Moment | None = None, *, device_id: Devices = None, **more: Any
    ) -> Any:
        """The same as a `pandas.DataFrame`."""
        return await asyncio.to_thread(tables.pandas, await self._export(start, end, device_id, more))

    async def polars(
        self, start: Moment | None = None, end: Moment | None = None, *, device_id: Devices = None, **more: Any
    ) -> Any:
        """The same as a `polars.DataFrame`."""
        return await asyncio.to_thread(tables.polars, await self._export(start, end, device_id, more))

    async def sql(self, query: str) -> Any:
        """What a question in SQL finds, as a `pyarrow.Table`. Raises `AnswerTruncated` if the box cut it."""
        stream, is_truncated = await self._run(reading.sql(query))
        return tables.whole(await asyncio.to_thread(tables.arrow, stream), is_truncated)

    def live(self, *, device_id: Devices = None, **more: Any) -> AsyncGenerator[dict[str, Any], None]:
        """Changes of latest as they come, for ever; first what is now, unless `snapshot=False`."""
        ask = Ask("GET", PATH, parameters({"device_id": device_id, **more}))
        return self._followed(ask, Following())

    async def _followed(self, ask: Ask, following: Following) -> AsyncGenerator[dict[str, Any], None]:
        while True:
            error = None
            try:
                async with aclosing(self._stream(ask._replace(headers=following.headers))) as stream:
                    async for data in stream:
                        for state in following.feed(data):
                            yield state
            except BoxUnavailable as unavailable:
                error = unavailable
            following.began_anew()
            await asyncio.sleep(following.pause_s(error))

    async def _stream(self, ask: Ask) -> AsyncGenerator[bytes, None]:
        """The bytes of an answer as they come."""
        request = request_of(self._web, ask)
        request.extensions["timeout"] = httpx.Timeout(SILENT_S).as_dict()
        try:
            response = await self._web.send(request, stream=True)
        except httpx.TransportError as error:
            raise unreached(request, error) from error
        try:
            if not response.is_success:
                checked(heard(response, await response.aread()), "follow changes")
            async for data in response.aiter_bytes():
                yield data
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise broken_off(request, error) from error
        finally:
            await response.aclose()

    async def _export(
        self, start: Moment | None, end: Moment | None, device_id: Devices, more: Mapping[str, Any]
    ) -> bytes:
        return await self._run(reading.export({"start": start, "end": end, "device_id": device_id, **more}))

    def _all(self, name: str, given: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        return self._pages(reading.pages(name, given))

    async def _pages(self, question: Pages | None) -> AsyncIterator[dict[str, Any]]:
        while question is not None:
            items, question = await self._run(reading.page(question, self._retry_for_s))
            for item in items:
                yield item

    async def _run(self, steps: Steps[T]) -> T:
        return await run_async(self._web, steps)
