"""Summaries that are read without DuckDB are those that DuckDB makes, whatever the files are like."""

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
from api.analytics.hourly_rollup import FIELDS, WholeHours
from api.analytics.rollup_cache import Hours
from api.analytics.summary import Question
from api.analytics.summary_sql import Asked
from api.snapshot.snapshot import Wanted
from telemetry.archive.table import Archive
from telemetry.hot_store.shard import Shard
from telemetry.model.record import EARLIEST_US, LATEST_US, Record, Sent
from telemetry.model.utc import DAY_US, HOUR_US
from tests.api.stores import MIDNIGHT_US, Stores

DEVICES = ("a", "b", "o'brien\\\"\n", "ü/😀%")
SPEEDS = (None, 0.0, 0.125, 48.5, 60.0, 999.5)
"""Whose sums are the same in any order."""

WITHIN_US = (0, 1, HOUR_US - 1, HOUR_US // 2)


def some(dice: Random, day: int, count: int) -> list[Sent]:
    """Records of any hour of a day, more of each moment and device than one."""
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
        """A file of a day, and of all that waits."""
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
    Wanted(("b", "nobody", "ü/😀%"), MIDNIGHT_US + 7 * HOUR_US, MIDNIGHT_US + 2 * DAY_US),
    Wanted(("nobody",), EARLIEST_US, LATEST_US),
)
ASKED = (([*FIELDS], None), ([*FIELDS], 5 * HOUR_US), (["count"], HOUR_US), (["speed_kmh_max"], DAY_US))


@pytest.fixture
def stores(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> Stores:
    return Stores([shard], archive, connection)


@pytest.fixture
def of_any(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any file be worth it."""
    monkeypatch.setattr(rollup_cache, "LEAST_RECORDS", 1)


def pages(stores: Stores, question: Question, whole: WholeHours | None) -> Iterator[dict[str, Any]]:
    """The JSON of a question's first pages."""
    for _ in range(3):
        with stores.connection.cursor() as cursor:
            part = summary.page(cursor, stores.snapshots, question, whole)
        yield json.loads(part.body)
        if part.after is None:
            return
        question = question._replace(after=part.after)


def asked(wanted: Wanted, fields: list[str], every_us: int | None) -> Asked:
    return Asked(fields, wanted.start_us, wanted.end_us, every_us, 3.0, 300_000_000)


def is_read(stores: Stores, wanted: Wanted, question: Asked, whole: WholeHours | None = None) -> bool:
    """Whether it is not left to DuckDB."""
    snapshot = stores.snapshots.take(wanted)
    unsaved = snapshot.some(question.columns)
    return (whole or WholeHours()).summaries(
        stores.connection, snapshot.files, unsaved, wanted, question, None, 10
    ) is not None


@pytest.mark.usefixtures("of_any")
@pytest.mark.parametrize("fill", LAYOUTS, ids=lambda fill: fill.__name__)
def test_pages_are_those_that_duckdb_makes(stores: Stores, fill: Callable[[Filled], None]) -> None:
    fill(Filled(stores))
    whole = WholeHours()
    for (wanted, (fields, every_us)), limit in zip(product(WANTED, ASKED), cycle((3, 10_000, 10_000)), strict=False):
        question = Question(wanted, asked(wanted, fields, every_us), limit)
        assert is_read(stores, *question[:2], whole)
        assert list(pages(stores, question, whole)) == list(pages(stores, question, None))


@pytest.mark.usefixtures("of_any")
def test_a_mean_is_rounded_as_duckdb_does(stores: Stores) -> None:
    means = (25.1640625, -0.0000005, 0.0000005, 1234567.8901235, 9e9 + 0.3, 1e300, 1.7e308)
    sent = [Sent(f"d{n}", Record(MIDNIGHT_US, "tcp", "json", speed_kmh=mean)) for n, mean in enumerate(means)]
    stores.append(*sent, sent[-1])  # the last one's sum is beyond all numbers
    wanted = WANTED[0]
    question = Question(wanted, asked(wanted, [*FIELDS], None))
    [found], [expected] = (list(pages(stores, question, way)) for way in (WholeHours(), None))
    assert found == expected
    assert [one["speed_kmh_mean"] for one in found["summaries"]][0:3] == [25.164063, -1e-06, 1e-06]
    assert found["summaries"][-1]["speed_kmh_mean"] is None


@pytest.mark.usefixtures("of_any")
def test_a_range_may_begin_and_end_within_an_hour_where_no_file_has_records_beyond(stores: Stores) -> None:
    Filled(stores).file(0, 100)
    for start_us, end_us, is_whole in (
        (MIDNIGHT_US - 1, MIDNIGHT_US + DAY_US + 1, True),
        (MIDNIGHT_US, MIDNIGHT_US + DAY_US - 1, False),
        (MIDNIGHT_US + 1, MIDNIGHT_US + DAY_US, False),
    ):
        wanted = Wanted((), start_us, end_us)
        question = Question(wanted, asked(wanted, [*FIELDS], 5 * HOUR_US))
        assert is_read(stores, *question[:2]) == is_whole
        assert list(pages(stores, question, WholeHours())) == list(pages(stores, question, None))


@pytest.mark.usefixtures("of_any")
def test_what_is_left_to_duckdb(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    Filled(stores).file(0, 200)
    day = Wanted((), MIDNIGHT_US, MIDNIGHT_US + DAY_US)
    usual = asked(day, [*FIELDS], HOUR_US)
    assert is_read(stores, day, usual)
    assert not is_read(stores, day, asked(day, ["count", "bbox"], HOUR_US))
    assert not is_read(stores, day, asked(day, [*FIELDS], HOUR_US // 2))
    for module, bound in ((rollup_cache, "LEAST_RECORDS"), (hourly_rollup, "MOST_ROWS"), (hourly_rollup, "LAYOUT")):
        with monkeypatch.context() as patched:
            patched.setattr(module, bound, 199)
            assert not is_read(stores, day, usual), bound
    named, whole = day._replace(devices=("a",)), WholeHours()
    assert not is_read(stores, named, usual, whole)
    assert is_read(stores, day, usual, whole)
    assert is_read(stores, named, usual, whole)


@pytest.mark.usefixtures("of_any")
def test_files_are_read_once_and_remembered_up_to_a_bound(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    filled = Filled(stores)
    for day in range(4):
        filled.file(day, 50)
    paths = stores.archive.files(stores.archive.open())
    sums = [Hours().of(stores.connection, path, 50) for path in paths]
    most = 2 * max(2_000 + one.nbytes for one in sums if one is not None)
    monkeypatch.setattr(rollup_cache, "REMEMBERED_BYTES", most)
    hours = Hours()
    first = [hours.of(stores.connection, path, 50) for path in paths]
    assert hours.of(stores.connection, paths[-1], 50) is first[-1]
    assert hours.of(stores.connection, paths[0], 50) is not first[0]
    assert 0 < hours._known.held_bytes <= most


def test_a_file_that_is_not_worth_it_is_read_once(stores: Stores) -> None:
    Filled(stores).file(0, 20)
    hours, [path] = Hours(), stores.archive.files(stores.archive.open())
    assert hours.of(stores.connection, path, 20) is None
    Path(path).unlink()
    assert hours.of(stores.connection, path, 20) is None
