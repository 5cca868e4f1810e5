"""Pages out of an archive of many days: few of its files are read, and the page is that of all of them."""

from __future__ import annotations

import random
from datetime import date, timedelta
from itertools import pairwise

import duckdb
import pytest

from api.devices.record_counts import Counts
from api.records import range_query
from api.records.device_page import OneDevice
from api.records.page_ranges import FIRST_FILES, ranges
from api.records.range_query import Question, page
from api.requests.params import Position
from api.snapshot import record_sql
from api.snapshot.snapshot import Wanted
from telemetry.archive.data_files import LiveFile
from telemetry.archive.table import Archive
from telemetry.hot_store.shard import Shard
from telemetry.model.record import EARLIEST_US, LATEST_US, Sent
from telemetry.model.utc import DAY_US, day_of, day_us
from tests.api.conftest import record
from tests.api.stores import MIDNIGHT_US, Stores, in_order
from worker.saving.save_budget import Bounds

ALL = Wanted((), EARLIEST_US, LATEST_US)
DAYS = 60


def files_of(*days: date) -> list[LiveFile]:
    return [LiveFile("", day, 1, 1, 0, "a", "a", day_us(day), day_us(day), None) for day in days]


@pytest.mark.parametrize("is_descending", [False, True])
def test_ranges_are_the_whole_range_in_the_order_of_the_page(is_descending: bool) -> None:
    random_ = random.Random(4)
    days = [date(2011, 1, 1) + timedelta(days=random_.randint(0, 900)) for _ in range(500)]
    files = files_of(*days)
    found = list(ranges(files, ALL, is_descending))
    assert len(found) > 1
    ordered = found[::-1] if is_descending else found
    assert (ordered[0].start_us, ordered[-1].end_us) == (EARLIEST_US, LATEST_US)
    assert all(one.end_us == later.start_us for one, later in pairwise(ordered))
    most = FIRST_FILES
    for part in found:
        assert sum(file.may_hold(part.start_us, part.end_us, ()) for file in files) <= most
        most *= 4


def test_a_day_with_many_files_is_one_range() -> None:
    files = files_of(*[date(2020, 1, 1)] * 1_000, *[date(2020, 1, 2)] * 1_000)
    first, second = ranges(files, ALL, is_descending=True)
    assert first.start_us == second.end_us == day_us(date(2020, 1, 2))
    assert list(ranges([], ALL, is_descending=True)) == [ALL]


@pytest.fixture
def stores(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> Stores:
    """60 days with a file or two each, and some records that are not saved yet, of new days and of old ones."""
    monkeypatch.setattr("api.records.page_ranges.FIRST_FILES", 4)
    monkeypatch.setattr("api.records.device_page.MOST_FILES", 4)
    found = Stores([shard], archive, connection)
    for offset_us in (0, 1):
        found.append(*[Sent(f"d{n % 3}", record(MIDNIGHT_US - n * DAY_US + offset_us)) for n in range(DAYS)])
        found.append(Sent("rare", record(MIDNIGHT_US - 40 * DAY_US)))
        found.save(Bounds(max_days=100))
    found.append(*[Sent("d1", record(MIDNIGHT_US - n * DAY_US + 2)) for n in (-1, 0, 7, 30, DAYS + 3)])
    return found


@pytest.mark.parametrize("is_descending", [False, True])
@pytest.mark.parametrize("devices", [(), ("d1",), ("rare",), ("d0", "rare")])
def test_pages_are_those_of_all_files(stores: Stores, is_descending: bool, devices: tuple[str, ...]) -> None:
    expected = [one for one in in_order(stores.stored) if not devices or one.device_id in devices]
    expected = expected[::-1] if is_descending else expected
    for one_device in (None, OneDevice()):
        found: list[int] = []
        after: Position | None = None
        while True:
            asked = Question(ALL._replace(devices=devices), is_descending, 7, after)
            with stores.connection.cursor() as cursor:
                records = page(cursor, stores.snapshots, asked, one_device)
            shown = records.slice(0, 7)
            found += shown.column("id").to_pylist()
            if records.num_rows <= 7:
                break
            after = range_query.ended(shown)
        assert found == [one.id for one in expected]


def test_a_page_of_the_newest_reads_few_files(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    records_in = record_sql.records_in

    def noted(files: list[LiveFile], *arguments: object, **more: object) -> str:
        read.append(len(files))
        return records_in(files, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(range_query, "records_in", noted)
    with stores.connection.cursor() as cursor:
        newest = page(cursor, stores.snapshots, Question(ALL, True, 3))
    assert newest.num_rows == 4
    assert 0 < sum(read) <= 4
    assert day_of(MIDNIGHT_US) in {file.day for file in stores.snapshots.take(ALL).files}


def test_devices_are_counted_over_all_files(stores: Stores) -> None:
    counts = Counts(stores.snapshots)
    for _ in range(2):
        with stores.connection.cursor() as cursor:
            found = counts.of(cursor, ["d0", "d1", "d2", "rare"])
        assert {device: one.records for device, one in found.items()} == {"d0": 40, "d1": 45, "d2": 40, "rare": 2}


def test_small_files_are_counted_together_and_large_ones_alone(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.devices.record_counts.BATCH_ROWS", 5)
    with stores.connection.cursor() as cursor:
        assert Counts(stores.snapshots).of(cursor, ["d1"])["d1"].records == 45
