"""A client whose calls wait."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from whimbrel_client import reading, tables
from whimbrel_client.answers import checked
from whimbrel_client.batch import Batch, Refused, Sent
from whimbrel_client.errors import BoxUnavailable
from whimbrel_client.events import PATH, SILENT_S, Following
from whimbrel_client.outbox import outbox_of
from whimbrel_client.reading import Pages
from whimbrel_client.spool import Spool
from whimbrel_client.steps import Ask, Steps
from whimbrel_client.values import Moment, encoded, parameters
from whimbrel_client.web import Reached, broken_off, client_of, heard, request_of, run, unreached
from whimbrel_client.writer import Writer

T = TypeVar("T")

TIMEOUT_S = 30.0
RETRY_FOR_S = 60.0

Devices = str | Iterable[str] | None
"""One device, several, or all."""


class Client:
    """A box, asked with calls that wait. Threads may share it.

    `url` is the API's, as http://box:8000. `key` is one of the box's keys. `timeout_s` is how long it may be silent,
    `retry_for_s` how long a call is tried while it is away. With a `spool`, a folder or a `Spool`, what is sent is kept
    on this disk until the box has it. `ca_file` is the certificate of a box's own authority.

    Every call raises `BoxUnavailable` when the box stays away and `RequestRefused` when it does not take the request.
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
        self._web = client_of(Reached(url, key, timeout_s, ca_file))
        self._retry_for_s = retry_for_s
        self._outbox = outbox_of(spool, retry_for_s)
        self._sending = threading.Lock()  # batches go out one at a time, in the order of their numbers

    def close(self) -> None:
        """Leave the connections, and the spool to others."""
        self._web.close()
        self._outbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # Sending -----------------------------------------------------------------------------------------

    def send(self, records: Iterable[Mapping[str, Any]]) -> Sent:
        """Send records, each stored once, however often a try of this call has to be repeated.

        Names of fields are those of docs/record.md, or the others that it takes; a datetime must have a zone. Raises
        `ValueError` or `TypeError` for what JSON can't hold, before anything is sent. Without a spool it returns when
        the box has answered for all, or raises: then the error's `undelivered` can be given to `resend`. With one it
        returns when all is on this disk, and tells what of the spool has gone out; it raises `SpoolError` alone.
        """
        return self._send([encoded(record) for record in records])

    def _send(self, items: Sequence[bytes]) -> Sent:
        with self._sending:
            return run(self._web, self._outbox.send(items))

    def resend(self, batches: Sequence[Batch]) -> Sent:
        """Send the `undelivered` batches of an error again, under their numbers: what the box has is not doubled."""
        with self._sending:
            return run(self._web, self._outbox.resend(batches))

    def drain(self, timeout_s: float = RETRY_FOR_S) -> Sent:
        """Send what waits in the spool until nothing does or the time is over; `waiting` says how many records do.

        Raises `RequestRefused` where waiting does not help, as with a wrong key.
        """
        with self._sending:
            return run(self._web, self._outbox.drain(timeout_s))

    def writer(
        self,
        *,
        max_records: int = 500,
        max_delay_s: float = 1.0,
        on_refused: Callable[[Sequence[Refused]], object] | None = None,
    ) -> Writer:
        """A writer that gathers records into batches, and sends them from a thread of its own."""
        return Writer(self._send, lambda: self._outbox.next_try_s, max_records, max_delay_s, on_refused)

    # Reading -----------------------------------------------------------------------------------------

    def latest(self, device_id: str) -> dict[str, Any]:
        """The newest record of a device, with `last_seen` and `position`. Raises `NotFound` if it was never heard."""
        return self._run(reading.latest(device_id, self._retry_for_s))

    def latest_all(self, *, device_id: Devices = None, **more: Any) -> Iterator[dict[str, Any]]:
        """The newest record of each device; `more` are `bbox`, `near`, `at` and others of `GET /v1/latest`."""
        return self._all("latest", {"device_id": device_id, **more})

    def devices(self, *, device_id: Devices = None, **more: Any) -> Iterator[dict[str, Any]]:
        """What devices there are; `more` are those of `GET /v1/devices`."""
        return self._all("devices", {"device_id": device_id, **more})

    def records(
        self, start: Moment | None = None, end: Moment | None = None, *, device_id: Devices = None, **more: Any
    ) -> Iterator[dict[str, Any]]:
        """The records of a range, in the order of time, read page by page; `more` are those of `GET /v1/records`."""
        return self._all("records", {"start": start, "end": end, "device_id": device_id, **more})

    def trips(
        self, start: Moment | None = None, end: Moment | None = None, *, device_id: Devices = None, **more: Any
    ) -> Iterator[dict[str, Any]]:
        """The trips of a range; `more` are the rules, as in `GET /v1/trips`."""
        return self._all("trips", {"start": start, "end": end, "device_id": device_id, **more})

    def stops(
        self, start: Moment | None = None, end: Moment | None = None, *, device_id: Devices = None, **more: Any
    ) -> Iterator[dict[str, Any]]:
        """The stops of a range; `more` are the rules, as in `GET /v1/stops`."""
        return self._all("stops", {"start": start, "end": end, "device_id": device_id, **more})

    def summary(
        self, start: Moment | None = None, end: Moment | None = None, *, device_id: Devices = None, **more: Any
    ) -> Iterator[dict[str, Any]]:
        """What each device did; `more` are `every`, `fields` and others of `GET /v1/summary`."""
        return self._all("summary", {"start": start, "end": end, "device_id": device_id, **more})

    def arrow(
        self, start: Moment | None = None, end: Moment | None = None, *, device_id: Devices = None, **more: Any
    ) -> Any:
        """All records of a range as a `pyarrow.Table`, in memory; `more` are those of `GET /v1/export`.

        Raises `AnswerBrokenOff` for an answer without its end. It is not tried again.
        """
        return tables.arrow(self._export(start, end, device_id, more))

    def pandas(
        self, start: Moment | None = None, end: Moment | None = None, *, device_id: Devices = None, **more: Any
    ) -> Any:
        """The same as a `pandas.DataFrame`."""
        return tables.pandas(self._export(start, end, device_id, more))

    def polars(
        self, start: Moment | None = None, end: Moment | None = None, *, device_id: Devices = None, **more: Any
    ) -> Any:
        """The same as a `polars.DataFrame`."""
        return tables.polars(self._export(start, end, device_id, more))

    def sql(self, query: str) -> Any:
        """What a question in SQL finds, as a `pyarrow.Table`. Raises `AnswerTruncated` if the box cut it."""
        stream, is_truncated = self._run(reading.sql(query))
        return tables.whole(tables.arrow(stream), is_truncated)

    def live(self, *, device_id: Devices = None, **more: Any) -> Generator[dict[str, Any], None, None]:
        """Changes of latest as they come, for ever; first what is now, unless `snapshot=False`.

        `more` are `bbox`, `near` and others of `GET /v1/live`. After a break it connects again and goes on where it
        was. Raises `RequestRefused` if the box does not take the question. Close the iterator to leave.
        """
        ask = Ask("GET", PATH, parameters({"device_id": device_id, **more}))
        return self._followed(ask, Following())

    def _followed(self, ask: Ask, following: Following) -> Generator[dict[str, Any], None, None]:
        while True:
            error = None
            try:
                with closing(self._stream(ask._replace(headers=following.headers))) as stream:
                    for data in stream:
                        yield from following.feed(data)
            except BoxUnavailable as unavailable:
                error = unavailable
            following.began_anew()
            time.sleep(following.pause_s(error))

    def _stream(self, ask: Ask) -> Generator[bytes, None, None]:
        """The bytes of an answer as they come."""
        request = request_of(self._web, ask)
        request.extensions["timeout"] = httpx.Timeout(SILENT_S).as_dict()
        try:
            response = self._web.send(request, stream=True)
        except httpx.TransportError as error:
            raise unreached(request, error) from error
        try:
            if not response.is_success:
                checked(heard(response, response.read()), "follow changes")
            yield from response.iter_bytes()
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise broken_off(request, error) from error
        finally:
            response.close()

    def _export(self, start: Moment | None, end: Moment | None, device_id: Devices, more: Mapping[str, Any]) -> bytes:
        return self._run(reading.export({"start": start, "end": end, "device_id": device_id, **more}))

    def _all(self, name: str, given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        return self._pages(reading.pages(name, given))

    def _pages(self, question: Pages | None) -> Iterator[dict[str, Any]]:
        while question is not None:
            items, question = self._run(reading.page(question, self._retry_for_s))
            yield from items

    def _run(self, steps: Steps[T]) -> T:
        return run(self._web, steps)
