"""Pages by number are those of all records in order, wherever these rest and however little is remembered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest

import duckdb
import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from api.legacy.paging import file_index, pages, rank_search
from api.legacy.paging.pages import Page, Pages
from api.legacy.paging.row_blocks import List
from api.legacy.wire.responses import OlderError
from api.legacy.wire.serializers import TCP_TRACKING, TRACKING, RecordSet, Shown
from telemetry.archive.table import Archive
from telemetry.model.record import EARLIEST_US, LATEST_US, Sent
from telemetry.model.utc import DAY_US
from telemetry.startup.store_setup import set_up
from tests.api.conftest import record
from tests.api.stores import MIDNIGHT_US, Stores, in_order

SETS = (TRACKING, TCP_TRACKING)
ENOUGH_BYTES, TOO_FEW_BYTES = 1 << 20, 1_000


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks, blocks and pages so small that a few records need several."""
    for module, name, value in (
        (file_index, "STEP", 2),
        (file_index, "SMALL_ROWS", 2),
        (file_index, "BLOCK_ROWS", 8),
        (file_index, "FILES_AHEAD", 2),
        (rank_search, "SLACK", 1),
        (pages, "PAGE_RECORDS", 3),
    ):
        monkeypatch.setattr(module, name, value)


def asked(records: RecordSet, device_id: str = "", first_day: int | None = None, last_day: int | None = None) -> List:
    return List(
        records,
        device_id,
        EARLIEST_US if first_day is None else MIDNIGHT_US + first_day * DAY_US,
        LATEST_US if last_day is None else MIDNIGHT_US + (last_day + 1) * DAY_US,
    )


def expected(stores: Stores, wanted: List) -> list[Shown]:
    """All records of a list, the newest first."""
    return [
        Shown.of(one)
        for one in reversed(in_order(stores.stored))
        if wanted.records.holds(one.record.transport)
        and wanted.device_id in ("", one.device_id)
        and wanted.start_us <= one.record.timestamp_us < wanted.end_us
    ]


def walk(stores: Stores, found: Pages, wanted: List) -> Iterator[Page]:
    """All pages of a list, the last one first by its name."""
    with stores.connection.cursor() as cursor:
        last = found.page(cursor, wanted, "last")
        yield from (found.page(cursor, wanted, str(number)) for number in range(1, last.last + 1))
        assert found.page(cursor, wanted, str(last.last)) == last


def assert_right(stores: Stores, found: Pages, wanted: List) -> None:
    every = expected(stores, wanted)
    walked = list(walk(stores, found, wanted))
    assert [shown for page in walked for shown in page.records] == every
    assert {(page.total, page.last) for page in walked} == {(len(every), len(walked))}
    assert [page.number for page in walked] == list(range(1, len(walked) + 1))
    assert all(len(page.records) == pages.PAGE_RECORDS for page in walked[:-1])


def test_an_empty_list_has_one_empty_page(stores: Stores) -> None:
    found = Pages(stores.snapshots, ENOUGH_BYTES)
    for number in ("", "1", "last"):
        assert found.page(stores.connection, asked(TRACKING), number) == Page(0, 1, 1, [])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("number", ["0", "-1", "3", "9999", "9" * 5_000, "abc", "1.0", "1e0", "LAST", "\0"])
def test_a_page_that_is_not_there(stores: Stores, number: str) -> None:
    stores.append(*(Sent("a", record(MIDNIGHT_US + n)) for n in range(4)))
    with pytest.raises(OlderError) as error:
        Pages(stores.snapshots, ENOUGH_BYTES).page(stores.connection, asked(TRACKING), number)
    assert (error.value.status, error.value.body) == (404, {"detail": "Invalid page."})


MOMENTS = st.integers(0, 3 * DAY_US) | st.integers(0, 5).map(lambda n: n * DAY_US // 2)  # some of them the same
SENT = st.builds(
    lambda device, at, transport, fix, location: Sent(
        device, record(MIDNIGHT_US + at, transport, fix, location=location, speed_kmh=at / 7)
    ),
    st.sampled_from(["a", "b", "'ü"]),
    MOMENTS,
    st.sampled_from(["http", "http", "tcp", "udp"]),
    st.booleans(),
    st.sampled_from([None, "Antalya", "36.90,30.70"]),
)


@pytest.mark.usefixtures("small")
@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=st.lists(st.lists(SENT, min_size=1, max_size=25), max_size=5), saved=st.lists(st.booleans(), max_size=5))
def test_pages_hold_all_records_in_order(
    groups: list[list[Sent]],
    saved: list[bool],
    client: redis.Redis,
    connection: duckdb.DuckDBPyConnection,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    client.flushall()
    archive = Archive(tmp_path_factory.mktemp("pages") / "archive")
    stores = Stores(set_up(client, archive, 1), archive, connection)
    many, few = (Pages(stores.snapshots, size) for size in (ENOUGH_BYTES, TOO_FEW_BYTES))
    for group, is_saved in zip_longest(groups, saved[: len(groups)]):
        stores.append(*group)
        if is_saved:
            stores.save()
        assert_right(stores, many, asked(TRACKING))
    for records in SETS:
        for device, first_day, last_day in (("", None, None), ("", 1, 1), ("a", None, None), ("'ü", 0, None)):
            for found in (many, few):
                assert_right(stores, found, asked(records, device, first_day, last_day))
    assert_right(stores, many, asked(TRACKING, "nobody"))
    assert_right(stores, many, asked(TRACKING, "", 2, 1))
    assert_right(stores, many, asked(TCP_TRACKING, "b", None, 1))


def place(number: int) -> str:
    """A place of its own for each record."""
    return f"36.{number},30.7"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("location", "more"), [(place, 0), (lambda number: None, 1)], ids=["texts", "coordinates"])
def test_a_jump_reads_a_pages_rows_and_going_on_the_whole_block(
    stores: Stores, location: Callable[[int], str | None], more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coordinates cost one more question, wherever a record has no other place."""
    monkeypatch.setattr(file_index, "BLOCK_ROWS", 64)
    stores.append(*(Sent("ab"[n % 2], record(MIDNIGHT_US + n, location=location(n))) for n in range(60)))
    stores.save()
    found = Pages(stores.snapshots, ENOUGH_BYTES)
    counted = CountedConnection(stores.connection)
    every = expected(stores, asked(TRACKING))

    def questions(number: int) -> int:
        before = counted.questions
        rows = found.page(counted, asked(TRACKING), str(number)).records  # type: ignore[arg-type]
        assert rows == every[3 * number - 3 : 3 * number]
        return counted.questions - before

    assert questions(4) == 3 + more, "marks, keys of the block, rows of the page"
    assert questions(16) == 1 + more, "rows of the page"
    assert questions(4) == 1 + more, "rows of the page"
    assert questions(5) == 1 + more, "all rows of the block"
    assert [questions(number) for number in (16, 1, 20)] == [0, 0, 0]
    found.page(counted, asked(TRACKING, "a"), "4")  # type: ignore[arg-type]
    assert questions(4) == 0, "another list has blocks of its own"


@pytest.mark.usefixtures("small")
def test_prepared_lists_need_nothing_for_their_first_page(stores: Stores) -> None:
    found = Pages(stores.snapshots, ENOUGH_BYTES)
    counted = CountedConnection(stores.connection)
    found.prepare(counted, asked(TRACKING))  # type: ignore[arg-type]
    assert counted.questions == 0, "there is nothing yet"
    for day in range(3):
        stores.append(*(Sent("ab"[n % 2], record(MIDNIGHT_US + day * DAY_US + n, location="x")) for n in range(40)))
        stores.save()
    found.prepare(counted, asked(TRACKING))  # type: ignore[arg-type]
    prepared = counted.questions
    assert found.page(counted, asked(TRACKING), "1").records == expected(stores, asked(TRACKING))[:3]  # type: ignore[arg-type]
    assert counted.questions == prepared
    found.page(counted, asked(TRACKING), "35")  # type: ignore[arg-type]
    assert counted.questions == prepared + 2, "keys and rows; the marks are known"


class CountedConnection:
    """A connection that counts what it is asked."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.questions = 0

    def sql(self, text: str) -> duckdb.DuckDBPyRelation:
        self.questions += 1
        return self._connection.sql(text)

    execute = sql


@pytest.mark.usefixtures("small")
def test_a_page_is_right_while_records_arrive_and_are_saved(stores: Stores) -> None:
    """Of a day that is over every page stays what it is; of the whole list no page doubles a record."""
    day = [Sent("abc"[n % 3], record(MIDNIGHT_US + n * 7)) for n in range(30)]
    stores.append(*day)
    wanted = asked(TRACKING, "", 0, 0)
    every = expected(stores, wanted)
    done = threading.Event()
    seen: list[list[Shown]] = []

    def read() -> None:
        found = Pages(stores.snapshots, ENOUGH_BYTES)
        with stores.connection.cursor() as cursor:
            while not done.is_set():
                last = found.page(cursor, wanted, "last").last
                seen.append([s for n in range(1, last + 1) for s in found.page(cursor, wanted, str(n)).records])
                newest = found.page(cursor, asked(TRACKING), "1").records
                assert len({shown.id for shown in newest}) == len(newest) == pages.PAGE_RECORDS
                assert newest == sorted(newest, key=lambda one: (one.timestamp_us, one.id), reverse=True)

    with ThreadPoolExecutor(1) as threads:
        reader = threads.submit(read)
        for n in range(20):
            stores.append(*(Sent("abcd"[k % 4], record(MIDNIGHT_US + (n + 1) * DAY_US + k)) for k in range(5)))
            stores.save()
        done.set()
        reader.result()
    assert len(seen) > 2
    assert all(found == every for found in seen)
