"""Summaries from hourly sums equal DuckDB's, for any layout of files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import cycle, product
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pytest

from api.analytics import hourly_rollup, rollup_cache, summary
from api.analytics.hourly_rollup import FIELDS, HourlyRollup
from api.analytics.rollup_cache import RollupCache
from api.analytics.summary import Question
from api.analytics.summary_sql import SummaryQuery
from api.snapshot.snapshot import Wanted
from telemetry.archive.table import Archive
from telemetry.hot_store.shard import Shard
from telemetry.model.record import EARLIEST_US, LATEST_US, Record, Sent
from telemetry.model.utc import DAY_US, HOUR_US
from tests.api.stores import MIDNIGHT_US, Stores

DEVICES = ("a", "b", "o'brien\\\"\n", "ü/😀%")
SPEEDS = (None, 0.0, 0.125, 48.5, 60.0, 999.5)
"""Speeds whose sum does not depend on the order of addition."""

WITHIN_US = (0, 1, HOUR_US - 1, HOUR_US // 2)


def some(dice: Random, day: int, count: int) -> list[Sent]:
    """Random records of a day; several share a time and a device."""
    times_us = (MIDNIGHT_US + day * DAY_US + dice.choice((0, 1, 7, 8, 23)) * HOUR_US for _ in range(count))
    return [
        Sent(
            dice.choice(DEVICES),
            Record(us + dice.choice(WITHIN_US), "tcp", "json", 1.0, 2.0, None, dice.choice(SPEEDS)),
        )
        for us in times_us
    ]


class Filled:
    """Stores with files and a tail."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self._dice = Random(1)

    def tail(self, day: int, count: int) -> None:
        self.stores.append(*some(self._dice, day, count))

    def file(self, day: int, count: int) -> None:
        """Save a day's new records, and all unsaved ones."""
        self.tail(day, count)
        self.stores.save()

    def ordered(self, order: str) -> None:
        """Give all files another order, and row groups of 2,048 rows."""
        archive = self.stores.archive
        for path in archive.files(archive.open()):
            self.stores.connection.execute(
                f"COPY (FROM '{path}' ORDER BY {order}) TO '{path}.new' (FORMAT parquet, ROW_GROUP_SIZE 2048)"
            )
            Path(f"{path}.new").rename(path)


def nothing(_: Filled) -> None:
    pass


def archive_alone(filled: Filled) -> None:
    filled.file(0, 200)


def tail_alone(filled: Filled) -> None:
    filled.tail(0, 60)
    filled.tail(1, 20)


def several_files_and_a_tail(filled: Filled) -> None:
    for day in (1, 0, 0, 1, 3):
        filled.file(day, 60)
    filled.tail(0, 40)
    filled.tail(2, 10)


def in_any_order(filled: Filled) -> None:
    filled.file(0, 5_000)
    filled.file(1, 100)
    filled.ordered("hash(id)")
    filled.tail(0, 10)


def many_row_groups(filled: Filled) -> None:
    filled.file(0, 6_000)
    filled.ordered("device_id, timestamp, id")


LAYOUTS = (nothing, archive_alone, tail_alone, several_files_and_a_tail, in_any_order, many_row_groups)
WANTED = (
    Wanted((), MIDNIGHT_US, MIDNIGHT_US + HOUR_US),
    Wanted((), MIDNIGHT_US + HOUR_US, MIDNIGHT_US + DAY_US),
    Wanted((), EARLIEST_US, LATEST_US),
    Wanted((), EARLIEST_US, LATEST_US, prefix="o'"),
    Wanted(("b", "unknown", "ü/😀%"), MIDNIGHT_US + 7 * HOUR_US, MIDNIGHT_US + 2 * DAY_US),
    Wanted(("unknown",), EARLIEST_US, LATEST_US),
)
ASKED = (([*FIELDS], None), ([*FIELDS], 5 * HOUR_US), (["count"], HOUR_US), (["speed_kmh_max"], DAY_US))


@pytest.fixture
def stores(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> Stores:
    return Stores([shard], archive, connection)


@pytest.fixture
def any_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use sums of files with any number of records."""
    monkeypatch.setattr(rollup_cache, "MIN_RECORDS", 1)


def pages(stores: Stores, question: Question, rollup: HourlyRollup | None) -> Iterator[dict[str, Any]]:
    """The JSON of a request's first pages."""
    for _ in range(3):
        with stores.connection.cursor() as cursor:
            part = summary.page(cursor, stores.snapshots, question, rollup)
        yield json.loads(part.body)
        if part.after is None:
            return
        question = question._replace(after=part.after)


def query(wanted: Wanted, fields: list[str], every_us: int | None) -> SummaryQuery:
    return SummaryQuery(fields, wanted.start_us, wanted.end_us, every_us, 3.0, 300_000_000)


def uses_sums(stores: Stores, wanted: Wanted, question: SummaryQuery, rollup: HourlyRollup | None = None) -> bool:
    """True if DuckDB is not needed."""
    snapshot = stores.snapshots.take(wanted)
    unsaved = snapshot.some(question.columns)
    return (rollup or HourlyRollup()).summaries(
        stores.connection, snapshot.files, unsaved, wanted, question, None, 10
    ) is not None


@pytest.mark.usefixtures("any_file")
@pytest.mark.parametrize("fill", LAYOUTS, ids=lambda fill: fill.__name__)
def test_pages_equal_duckdbs(stores: Stores, fill: Callable[[Filled], None]) -> None:
    fill(Filled(stores))
    rollup = HourlyRollup()
    for (wanted, (fields, every_us)), limit in zip(product(WANTED, ASKED), cycle((3, 10_000, 10_000)), strict=False):
        question = Question(wanted, query(wanted, fields, every_us), limit)
        assert uses_sums(stores, *question[:2], rollup)
        assert list(pages(stores, question, rollup)) == list(pages(stores, question, None))


@pytest.mark.usefixtures("any_file")
def test_a_mean_is_rounded_as_duckdb_does(stores: Stores) -> None:
    means = (25.1640625, -0.0000005, 0.0000005, 1234567.8901235, 9e9 + 0.3, 1e300, 1.7e308)
    sent = [Sent(f"d{n}", Record(MIDNIGHT_US, "tcp", "json", speed_kmh=mean)) for n, mean in enumerate(means)]
    stores.append(*sent, sent[-1])  # the last device's sum overflows
    wanted = WANTED[0]
    question = Question(wanted, query(wanted, [*FIELDS], None))
    [found], [expected] = (list(pages(stores, question, rollup)) for rollup in (HourlyRollup(), None))
    assert found == expected
    assert [one["speed_kmh_mean"] for one in found["summaries"]][0:3] == [25.164063, -1e-06, 1e-06]
    assert found["summaries"][-1]["speed_kmh_mean"] is None


@pytest.mark.usefixtures("any_file")
def test_a_range_may_begin_and_end_within_an_hour_where_no_file_has_records_beyond(stores: Stores) -> None:
    Filled(stores).file(0, 100)
    for start_us, end_us, is_whole in (
        (MIDNIGHT_US - 1, MIDNIGHT_US + DAY_US + 1, True),
        (MIDNIGHT_US, MIDNIGHT_US + DAY_US - 1, False),
        (MIDNIGHT_US + 1, MIDNIGHT_US + DAY_US, False),
    ):
        wanted = Wanted((), start_us, end_us)
        question = Question(wanted, query(wanted, [*FIELDS], 5 * HOUR_US))
        assert uses_sums(stores, *question[:2]) == is_whole
        assert list(pages(stores, question, HourlyRollup())) == list(pages(stores, question, None))


@pytest.mark.usefixtures("any_file")
def test_other_summaries_use_duckdb(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    Filled(stores).file(0, 200)
    day = Wanted((), MIDNIGHT_US, MIDNIGHT_US + DAY_US)
    usual = query(day, [*FIELDS], HOUR_US)
    assert uses_sums(stores, day, usual)
    assert not uses_sums(stores, day, query(day, ["count", "bbox"], HOUR_US))
    assert not uses_sums(stores, day, query(day, [*FIELDS], HOUR_US // 2))
    for module, bound in ((rollup_cache, "MIN_RECORDS"), (hourly_rollup, "MAX_ROWS"), (hourly_rollup, "LAYOUT")):
        with monkeypatch.context() as patched:
            patched.setattr(module, bound, 199)
            assert not uses_sums(stores, day, usual), bound
    named, rollup = day._replace(devices=("a",)), HourlyRollup()
    assert not uses_sums(stores, named, usual, rollup)
    assert uses_sums(stores, day, usual, rollup)
    assert uses_sums(stores, named, usual, rollup)


@pytest.mark.usefixtures("any_file")
def test_sums_are_cached_up_to_a_limit(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    filled = Filled(stores)
    for day in range(4):
        filled.file(day, 50)
    paths = stores.archive.files(stores.archive.open())
    sums = [RollupCache().sums(stores.connection, path, 50) for path in paths]
    max_bytes = 2 * max(2_000 + table.nbytes for table in sums if table is not None)
    monkeypatch.setattr(rollup_cache, "REMEMBERED_BYTES", max_bytes)
    cache = RollupCache()
    first = [cache.sums(stores.connection, path, 50) for path in paths]
    assert cache.sums(stores.connection, paths[-1], 50) is first[-1]
    assert cache.sums(stores.connection, paths[0], 50) is not first[0]
    assert 0 < cache._known.held_bytes <= max_bytes


def test_a_file_without_sums_is_read_once(stores: Stores) -> None:
    Filled(stores).file(0, 20)
    cache, [path] = RollupCache(), stores.archive.files(stores.archive.open())
    assert cache.sums(stores.connection, path, 20) is None
    Path(path).unlink()
    assert cache.sums(stores.connection, path, 20) is None
