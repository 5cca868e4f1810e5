"""Questions to DuckDB in threads: some at once, others wait in fair turns; each has its time, and ends if unwanted."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import duckdb

from api.execution.slots import Reader, Slots, Terms
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
    "left_records",
    "neighbours",
    "page",
    "simplified",
    "sorted",
    "tail",
)
"""Names under which questions register relations: an idle cursor must not keep their records in memory."""


class Queries:
    """Runs questions, each on a cursor of its own."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, terms: Terms, timeout_s: float, plural: str = "queries"
    ) -> None:
        """One thread for each slot of the terms."""
        self.threads = threads = terms.slots
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="query")
        self._cursors: queue.SimpleQueue[duckdb.DuckDBPyConnection] = queue.SimpleQueue()
        for _ in range(threads):
            cursor = connection.cursor()
            cursor.execute(f"SET max_execution_time = {round(timeout_s * 1_000)}")
            self._cursors.put(cursor)
        self.most = threads + terms.waiting
        self._slots = Slots(terms, plural)
        self._timeout_s = timeout_s

    async def run(self, ask: Callable[[duckdb.DuckDBPyConnection], T], reader: Reader | None = None) -> T:
        """Answer one question; ends it when the caller is cancelled. A slow `reader` of it is ended while others wait.

        Raises `ProblemError` if too many wait, or if waiting or the question itself takes too long.
        """
        slot = await self._slots.take(current_asker(), reader)
        loop = asyncio.get_running_loop()
        question = _Question(ask)
        future = self._pool.submit(question.run, self._cursors)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(slot.free))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self._end(question, future)
            raise
        except duckdb.InterruptException:
            detail = f"the query took longer than {self._timeout_s:g} s: ask for less"
            raise ProblemError(problems.BUSY, detail, {"Retry-After": "5"}) from None
        except duckdb.OutOfMemoryException:
            detail = "the query needs more than api.query_memory_bytes: ask for less, or for fewer at once"
            raise ProblemError(problems.BUSY, detail, {"Retry-After": "5"}) from None
        except NotTogether as error:
            raise ProblemError(problems.NOT_TOGETHER, str(error), {"Retry-After": "5"}) from None
        except StoreError as error:
            raise ProblemError(problems.BUSY, str(error), {"Retry-After": "1"}) from None
        except BusyError as error:
            raise busy(error) from None

    def _end(self, question: _Question[Any], future: Future[Any]) -> None:
        """Interrupt until it is over: an interrupt between two of its statements goes by unheard."""
        if not future.done():
            question.interrupt()
            asyncio.get_running_loop().call_later(INTERRUPT_EVERY_S, self._end, question, future)

    @property
    def under_way(self) -> int:
        """How many run or wait."""
        return self._slots.count

    async def close(self) -> None:
        """Let queries under way end: each tells the event loop, which must not be gone by then."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)


class _Question(Generic[T]):
    """One question, which may be ended before and while it runs."""

    def __init__(self, ask: Callable[[duckdb.DuckDBPyConnection], T]) -> None:
        self._ask = ask
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._is_unwanted = False
        self._lock = threading.Lock()

    def run(self, cursors: queue.SimpleQueue[duckdb.DuckDBPyConnection]) -> T:
        cursor = cursors.get()
        self._cursor = cursor
        try:
            if self._is_unwanted:
                raise duckdb.InterruptException
            return self._ask(cursor)
        finally:
            with self._lock:
                self._cursor = None
            try:
                _clear(cursor)
            finally:
                cursors.put(cursor)

    def interrupt(self) -> None:
        """Interrupt its statement, and never that of the next one on its cursor."""
        with self._lock:
            self._is_unwanted = True
            if self._cursor is not None:
                self._cursor.interrupt()


def _clear(cursor: duckdb.DuckDBPyConnection) -> None:
    """Drop what a question left on its cursor: a result that was not read to its end, and its relations."""
    cursor.abort()
    for name in RELATIONS:
        cursor.unregister(name)
