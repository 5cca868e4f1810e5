"""Thread pool for DuckDB queries with fair queueing, a time limit, and cancellation."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import duckdb

from api.execution.slots import Reader, SlotLimits, Slots
from api.requests.asker import current_asker
from telemetry.http.problem_responses import ProblemError, busy
from telemetry.model import problems
from telemetry.model.errors import BusyError, NotTogether, StoreError

T = TypeVar("T")

INTERRUPT_EVERY_S = 0.1

RELATIONS = (
    "asked",
    "chosen",
    "counts",
    "implausible",
    "judged",
    "jumped",
    "left_records",
    "neighbours",
    "outliers",
    "page",
    "simplified",
    "sorted",
    "tail",
)
"""Names under which queries register relations. They are unregistered after each query to free their memory."""


class Queries:
    """Runs queries, each on its own cursor."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, limits: SlotLimits, timeout_s: float, plural: str = "queries"
    ) -> None:
        """Start one thread for each slot."""
        self.threads = threads = limits.slots
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="query")
        self._cursors: queue.SimpleQueue[duckdb.DuckDBPyConnection] = queue.SimpleQueue()
        for _ in range(threads):
            cursor = connection.cursor()
            cursor.execute(f"SET max_execution_time = {round(timeout_s * 1_000)}")
            self._cursors.put(cursor)
        self.max_in_flight = threads + limits.waiting
        self._slots = Slots(limits, plural)
        self._timeout_s = timeout_s

    async def run(self, function: Callable[[duckdb.DuckDBPyConnection], T], reader: Reader | None = None) -> T:
        """Run a query; interrupt it if the caller is cancelled. A slow `reader` is ended while others wait.

        Raises `ProblemError` if too many queries wait, or if waiting or the query takes too long.
        """
        slot = await self._slots.take(current_asker(), reader)
        loop = asyncio.get_running_loop()
        query = _Query(function)
        future = self._pool.submit(query.run, self._cursors)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(slot.free))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self._end(query, future)
            raise
        except duckdb.InterruptException:
            detail = f"the query took longer than {self._timeout_s:g} s: request less data"
            raise ProblemError(problems.BUSY, detail, {"Retry-After": "5"}) from None
        except duckdb.OutOfMemoryException:
            detail = (
                "the query needs more than api.query_memory_bytes: request less data, or in fewer queries at a time"
            )
            raise ProblemError(problems.BUSY, detail, {"Retry-After": "5"}) from None
        except NotTogether as error:
            raise ProblemError(problems.NOT_TOGETHER, str(error), {"Retry-After": "5"}) from None
        except StoreError as error:
            raise ProblemError(problems.BUSY, str(error), {"Retry-After": "1"}) from None
        except BusyError as error:
            raise busy(error) from None

    def _end(self, query: _Query[Any], future: Future[Any]) -> None:
        """Interrupt the query repeatedly until it ends: an interrupt between two statements has no effect."""
        if not future.done():
            query.interrupt()
            asyncio.get_running_loop().call_later(INTERRUPT_EVERY_S, self._end, query, future)

    @property
    def in_flight(self) -> int:
        """The number of running and waiting queries."""
        return self._slots.count

    async def close(self) -> None:
        """Wait for running queries: each calls back into the event loop, which must still exist."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)


class _Query(Generic[T]):
    """A query that can be cancelled before and while it runs."""

    def __init__(self, function: Callable[[duckdb.DuckDBPyConnection], T]) -> None:
        self._function = function
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._is_cancelled = False
        self._lock = threading.Lock()

    def run(self, cursors: queue.SimpleQueue[duckdb.DuckDBPyConnection]) -> T:
        cursor = cursors.get()
        self._cursor = cursor
        try:
            if self._is_cancelled:
                raise duckdb.InterruptException
            return self._function(cursor)
        finally:
            with self._lock:
                self._cursor = None
            try:
                _clear(cursor)
            finally:
                cursors.put(cursor)

    def interrupt(self) -> None:
        """Interrupt the current statement, but never a statement of the cursor's next query."""
        with self._lock:
            self._is_cancelled = True
            if self._cursor is not None:
                self._cursor.interrupt()


def _clear(cursor: duckdb.DuckDBPyConnection) -> None:
    """Drop a query's unread result and its registered relations from its cursor."""
    cursor.abort()
    for name in RELATIONS:
        cursor.unregister(name)
