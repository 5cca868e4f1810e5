"""Lists are prepared at the start, in any state of the box."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator

import duckdb
import pytest

from api.execution.query_pool import Queries
from api.execution.slots import SlotLimits
from api.legacy.paging.pages import Page, Pages
from api.legacy.paging.row_blocks import List
from api.legacy.paging.warm_up import warm_up
from api.legacy.wire.serializers import TCP_TRACKING, TRACKING, RecordSet
from telemetry.archive.table import READ_ERRORS
from telemetry.model.record import EARLIEST_US, LATEST_US, Sent
from tests.api.conftest import record
from tests.api.stores import MIDNIGHT_US, Stores


@pytest.fixture
def queries(connection: duckdb.DuckDBPyConnection) -> Iterator[Queries]:
    """One at a time."""
    found = Queries(connection, SlotLimits(2, 1, 10), timeout_s=10)
    yield found
    asyncio.run(found.close())


def every(records: RecordSet) -> List:
    """The whole list of a set."""
    return List(records, "", EARLIEST_US, LATEST_US)


def first(queries: Queries, pages: Pages, records: RecordSet) -> Page:
    """A set's first page."""
    return asyncio.run(queries.run(lambda connection: pages.page(connection, every(records), "1")))


def test_both_sets_are_prepared(queries: Queries, stores: Stores) -> None:
    """Even with the archive's files gone the first page is there: nothing of it is read again."""
    stores.append(*(Sent("a", record(MIDNIGHT_US + n, transport)) for n in range(60) for transport in ("http", "tcp")))
    stores.save()
    pages = Pages(stores.snapshots, 1 << 20)
    asyncio.run(warm_up(queries, pages))
    for path in stores.archive.root.glob("date=*/*.parquet"):
        path.unlink()
    for records in (TRACKING, TCP_TRACKING):
        page = first(queries, pages, records)
        assert (page.total, len(page.records)) == (60, 50)


def test_nothing_to_prepare_is_no_error(queries: Queries, stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "api.legacy.paging.warm_up"):
        asyncio.run(warm_up(queries, Pages(stores.snapshots, 1 << 20)))
    assert [one for one in caplog.records if one.name != "asyncio"] == []


def test_errors_of_the_preparation_are_only_logged(
    queries: Queries, stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    """A commit log that can't be read: a start goes on and logs no error, a page fails."""
    log = stores.archive.root / "_delta_log"
    (log / f"{0:020}.json").write_text("{")
    pages = Pages(stores.snapshots, 1 << 20)
    with caplog.at_level(logging.INFO):
        asyncio.run(warm_up(queries, pages))
    assert [one for one in caplog.records if one.name != "asyncio"] == []
    with pytest.raises(READ_ERRORS):
        first(queries, pages, TRACKING)


def test_a_stop_ends_it(queries: Queries, stores: Stores) -> None:
    """However long the reading takes: here as long as nobody interrupts it."""

    class Endless(Pages):
        def prepare(self, connection: duckdb.DuckDBPyConnection, asked: List) -> None:
            connection.execute("SELECT sum(hash(r.range)) FROM range(1000000000000) r").fetchall()

    async def stopped() -> None:
        task = asyncio.create_task(warm_up(queries, Endless(stores.snapshots, 1)))
        await asyncio.sleep(0.2)
        assert not task.done()
        task.cancel()
        async with asyncio.timeout(10):
            await asyncio.wait({task})
            await queries.close()
        assert task.cancelled()

    asyncio.run(stopped())


def test_a_stop_waits_for_what_hears_no_interrupt(
    queries: Queries, stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    """Else its thread would tell an event loop that is gone, and the log would hold that."""
    ended = threading.Event()

    class Deaf(Pages):
        def prepare(self, connection: duckdb.DuckDBPyConnection, asked: List) -> None:
            time.sleep(0.5)
            ended.set()

    async def stopped() -> None:
        task = asyncio.create_task(warm_up(queries, Deaf(stores.snapshots, 1)))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait({task})
        await queries.close()
        assert ended.is_set()

    asyncio.run(stopped())
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


def test_of_one_thread_nothing_is_taken(connection: duckdb.DuckDBPyConnection, stores: Stores) -> None:
    """Whoever asks meanwhile would wait, or be refused."""
    ended = threading.Event()

    class Noted(Pages):
        def prepare(self, connection: duckdb.DuckDBPyConnection, asked: List) -> None:
            ended.set()

    async def warmed(threads: int) -> bool:
        queries = Queries(connection, SlotLimits(threads, 1, 10), timeout_s=10)
        await warm_up(queries, Noted(stores.snapshots, 1))
        await queries.close()
        return ended.is_set()

    assert not asyncio.run(warmed(1))
    assert asyncio.run(warmed(2))
