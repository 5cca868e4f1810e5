"""Records of any range: archive and tail as one, in the order of (timestamp, id), page by page."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import duckdb
from starlette.requests import Request
from starlette.responses import Response

from api import answers, params
from api.params import Position
from api.snapshot import Snapshot, Snapshots, Wanted
from collector.http import ProblemError
from telemetry import problem
from telemetry.archive import COLUMNS, columns, iso, sql_text
from telemetry.errors import NotTogether, StoreError

T = TypeVar("T")

_SELECT = ", ".join(
    f"epoch_us({name}) AS {name}_us" if name in ("timestamp", "received_at") else name for name in COLUMNS.names
)


class Question(NamedTuple):
    """What one page asks for."""

    wanted: Wanted
    is_descending: bool = False
    limit: int = 1_000
    after: Position | None = None


def narrowed(question: Question) -> Wanted:
    """The range that is left behind the cursor, so that files and entries before it are not read again."""
    wanted, after = question.wanted, question.after
    if after is None:
        return wanted
    if question.is_descending:
        return wanted._replace(end_us=min(wanted.end_us, after.timestamp_us + 1))
    return wanted._replace(start_us=max(wanted.start_us, after.timestamp_us))


def relation(connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, wanted: Wanted) -> str:
    """SQL that selects a snapshot's records of `wanted`, all columns. Registers the tail as `tail`."""
    where = _where(wanted)
    names = ", ".join(COLUMNS.names)
    connection.register("tail", columns(snapshot.tail))
    tail = f"SELECT {names} FROM tail WHERE {where}"
    if not snapshot.files:
        return tail
    files = ", ".join(sql_text(file.path) for file in snapshot.files)
    return f"SELECT {names} FROM read_parquet([{files}], hive_partitioning = false) WHERE {where} UNION ALL {tail}"


def _where(wanted: Wanted) -> str:
    conditions = [
        f"timestamp >= TIMESTAMPTZ '{iso(wanted.start_us)}'",
        f"timestamp < TIMESTAMPTZ '{iso(wanted.end_us)}'",
    ]
    if len(wanted.devices) == 1:
        conditions.append(f"device_id = {sql_text(wanted.devices[0])}")
    elif wanted.devices:
        conditions.append(f"device_id IN ({', '.join(map(sql_text, wanted.devices))})")
    return " AND ".join(conditions)


def page(connection: duckdb.DuckDBPyConnection, snapshots: Snapshots, question: Question) -> list[tuple[Any, ...]]:
    """The rows of one page and, if there are more, one row of the next."""
    wanted = narrowed(question)
    if wanted.start_us >= wanted.end_us:
        return []
    records = relation(connection, snapshots.take(wanted), wanted)
    direction = "DESC" if question.is_descending else "ASC"
    behind = ""
    if question.after is not None:
        sign = "<" if question.is_descending else ">"
        at = f"TIMESTAMPTZ '{iso(question.after.timestamp_us)}'"
        behind = f"WHERE timestamp {sign} {at} OR (timestamp = {at} AND id {sign} {question.after.id})"
    return connection.execute(
        f"SELECT {_SELECT} FROM ({records}) {behind} "
        f"ORDER BY timestamp {direction}, id {direction} LIMIT {question.limit + 1}"
    ).fetchall()


def body(rows: list[tuple[Any, ...]], limit: int) -> bytes:
    """The JSON of one page."""
    shown = rows[:limit]
    more = str(Position(shown[-1][1], shown[-1][3])) if len(rows) > limit else None
    return answers.encode({"records": [answers.of_row(row) for row in shown], "next_cursor": more})


class Queries:
    """Runs questions in threads, a few at once; those that wait are bounded, and each has its time."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, threads: int, waiting: int, timeout_s: float) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="query")
        self._cursors: queue.SimpleQueue[duckdb.DuckDBPyConnection] = queue.SimpleQueue()
        for _ in range(threads):
            cursor = connection.cursor()
            cursor.execute(f"SET max_execution_time = {round(timeout_s * 1_000)}")
            self._cursors.put(cursor)
        self._places = threads + waiting
        self._timeout_s = timeout_s

    async def run(self, ask: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Answer one question. Raises `ProblemError` if too many wait or it takes too long."""
        if self._places == 0:
            raise ProblemError(problem.BUSY, "too many queries are waiting", {"Retry-After": "1"})
        self._places -= 1
        loop = asyncio.get_running_loop()
        future = self._pool.submit(self._run, ask)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._free))
        try:
            return await asyncio.wrap_future(future)
        except duckdb.InterruptException:
            detail = f"the query took longer than {self._timeout_s:g} s: ask for less"
            raise ProblemError(problem.BUSY, detail, {"Retry-After": "5"}) from None
        except NotTogether as error:
            raise ProblemError(problem.NOT_TOGETHER, str(error), {"Retry-After": "5"}) from None
        except StoreError as error:
            raise ProblemError(problem.BUSY, str(error), {"Retry-After": "1"}) from None

    def _free(self) -> None:
        self._places += 1

    def _run(self, ask: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        cursor = self._cursors.get()
        try:
            return ask(cursor)
        finally:
            self._cursors.put(cursor)

    def close(self) -> None:
        """Let queries under way end."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class History:
    """`GET /v1/records`."""

    PARAMETERS = ("device_id", "start", "end", "order", "limit", "cursor")

    def __init__(self, snapshots: Snapshots, queries: Queries, max_page_records: int) -> None:
        self._snapshots = snapshots
        self._queries = queries
        self._max_page_records = max_page_records

    async def get_records(self, request: Request) -> Response:
        """Records of a range, of the devices named or of all."""
        params.refuse_unknown(request, self.PARAMETERS)
        start_us, end_us = params.span(request)
        question = Question(
            Wanted(params.devices(request), start_us, end_us),
            params.is_descending(request),
            params.limit(request, self._max_page_records),
            params.cursor(request),
        )
        data = await self._queries.run(
            lambda connection: body(page(connection, self._snapshots, question), question.limit)
        )
        return Response(data, media_type="application/json")
