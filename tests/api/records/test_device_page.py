"""One device's pages read without DuckDB have the bytes of those that DuckDB reads, whatever the files are like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from random import Random

import duckdb
import pytest

from api.records import device_page, row_group_reader
from api.records.device_page import OneDevice
from api.records.downsampling import Thinned
from api.records.range_query import PAGE_BYTES, Question, body, page, shown_page
from api.snapshot.snapshot import Snapshot, Wanted
from telemetry.archive import parquet_writer
from telemetry.archive.data_files import LiveFile
from telemetry.archive.schema import columns
from telemetry.archive.table import Archive
from telemetry.hot_store.entry_codec import Block
from telemetry.model.record import EARLIEST_US, LATEST_US, Record, Stored, row_of
from telemetry.model.utc import DAY_US
from tests.api.stores import MIDNIGHT_US

NOW_MS = 1_795_500_000_123
DEVICES = ("a", "b", "o'brien\\\"\n", "ü/😀%")
TEXTS = (None, "", "Antalya", "x'y\nü\u2028\"")
ATTRIBUTES = (None, "{}", '{"big":123456789012345678901234567890,"exact":2.50,"ü":"😀","e":""}')
NUMBERS = (None, 0.0, -0.0, 60.0, 53.44, -2.93, 1e300, 5e-324, 1e16, 1e-7, 0.1 + 0.2)
WHEN = (0, 1, 1_000_000, 1_500_000, DAY_US - 1)


def odd(dice: Random, timestamp_us: int) -> Record:
    """Of values that are seldom alike."""
    a, b, c, d, e, f = (dice.choice(NUMBERS) for _ in range(6))
    transport, source = dice.choice(("tcp", "http")), dice.choice(("json", "older"))
    location, attributes = dice.choice(TEXTS), dice.choice(ATTRIBUTES)
    return Record(timestamp_us, transport, source, a, b, c, d, e, f, location, attributes)


def alike(_: Random, timestamp_us: int) -> Record:
    """Of words and nulls that are the same everywhere."""
    return Record(timestamp_us, "tcp", "json", 53.44, -2.93, None, 48.5, attributes='{"fuel":61}')


class Days:
    """Files and a tail, as a snapshot finds them."""

    def __init__(self, archive: Archive, connection: duckdb.DuckDBPyConnection) -> None:
        archive.open()
        self._archive, self._connection = archive, connection
        self._dice = Random(1)
        self._made = 0
        self.files: list[LiveFile] = []
        self.blocks: list[Block] = []

    def _blocks(self, day: int, count: int, make: Callable[[Random, int], Record]) -> list[Block]:
        found = []
        for _ in range(count):
            self._made += 1
            record = make(self._dice, MIDNIGHT_US + day * DAY_US + self._dice.choice(WHEN))
            found.append(Block.of(Stored(self._dice.choice(DEVICES), self._made, NOW_MS, record)))
        return found

    def file(self, day: int, count: int, make: Callable[[Random, int], Record] = odd, order: str = "") -> None:
        """A file of one day. With an order it has that instead of the usual one, and small row groups."""
        records = columns(self._blocks(day, count, make))
        [file] = self._archive.data_files.write(records, str(self._made))
        path = self._archive.root / file.path
        if order:
            self._connection.execute(
                f"COPY (FROM '{path}' ORDER BY {order}) TO '{path}.new' (FORMAT parquet, ROW_GROUP_SIZE 2048)"
            )
            Path(f"{path}.new").rename(path)
        self.files.append(LiveFile(str(path), file.day, count, file.size_bytes, 0, None, None, None, None, None))

    def tail(self, day: int, count: int) -> None:
        self.blocks += self._blocks(day, count, odd)

    def take(self, wanted: Wanted) -> Snapshot:
        """As `Snapshots` does."""
        blocks = [wanted.of(block) for block in self.blocks if block.device_id in wanted.devices]
        files = [file for file in self.files if file.may_hold(wanted.start_us, wanted.end_us, wanted.devices)]
        found = Snapshot(files, (), 1, wanted)
        found.blocks = [block for block in blocks if block is not None]
        return found


def nothing(_: Days) -> None:
    pass


def archive_alone(days: Days) -> None:
    days.file(0, 200)


def tail_alone(days: Days) -> None:
    days.tail(0, 60)
    days.tail(1, 20)


def both(days: Days) -> None:
    for day in range(3):
        days.file(day, 60)
    days.tail(1, 40)
    days.tail(3, 10)


def many_small_files(days: Days) -> None:
    for day in (2, 0, 1, 0, 0, 2):
        days.file(day, 7)


def in_any_order(days: Days) -> None:
    days.file(0, 5_000, alike, "hash(id)")
    days.file(1, 200, odd, "id DESC")
    days.tail(0, 10)


def row_groups_in_order(days: Days) -> None:
    days.file(0, 9_000, alike, "device_id, timestamp, id")
    days.file(0, 5_000, odd, "device_id, timestamp, id")


def several_pages(days: Days) -> None:
    days.file(0, 9_000, alike)
    days.file(0, 5_000, odd)


LAYOUTS = (nothing, archive_alone, tail_alone, both, many_small_files, in_any_order, row_groups_in_order, several_pages)
RANGES = (
    (EARLIEST_US, LATEST_US),
    (MIDNIGHT_US, MIDNIGHT_US + DAY_US),
    (MIDNIGHT_US + 1_000_000, MIDNIGHT_US + 2_000_000),
    (MIDNIGHT_US + 1, MIDNIGHT_US + 2),
    (MIDNIGHT_US + 2, MIDNIGHT_US + 3),
)


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout.__name__)
def days(
    request: pytest.FixtureRequest,
    archive: Archive,
    connection: duckdb.DuckDBPyConnection,
    monkeypatch: pytest.MonkeyPatch,
) -> Days:
    monkeypatch.setattr(parquet_writer, "PAGE_ROWS", 1_024)
    found = Days(archive, connection)
    request.param(found)
    return found


def pages(
    connection: duckdb.DuckDBPyConnection, days: Days, question: Question, one: OneDevice | None
) -> Sequence[bytes]:
    """The JSON of a question's first pages."""
    found: list[bytes] = []
    while True:
        shown = shown_page(connection, days, question, one)  # type: ignore[arg-type]  # it takes snapshots, too
        found.append(body(shown))
        if shown.end is None or len(found) == 4:
            return found
        question = question._replace(after=shown.end)


@pytest.mark.parametrize("is_descending", [False, True], ids=["oldest first", "newest first"])
def test_pages_have_the_bytes_of_those_that_duckdb_reads(
    days: Days, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch, is_descending: bool
) -> None:
    one = OneDevice()
    if is_descending:  # all texts in a thread of their own
        monkeypatch.setattr(row_group_reader, "TEXT_THREAD_BYTES", 0)
    for (start_us, end_us), device, limit in product(RANGES, (*DEVICES, "nobody"), (1, 13, 10_000)):
        question = Question(Wanted((device,), start_us, end_us), is_descending, limit)
        assert pages(connection, days, question, one) == pages(connection, days, question, None)


def test_a_page_reads_no_more_days_than_it_needs(
    archive: Archive, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = Days(archive, connection)
    for day in range(5):
        days.file(day, 100)
    read: list[str] = []
    real = row_group_reader.RowGroups.read

    def spy(self: row_group_reader.RowGroups, path: str, device_id: str) -> object:
        read.append(path)
        return real(self, path, device_id)

    monkeypatch.setattr(row_group_reader.RowGroups, "read", spy)
    page(connection, days, Question(Wanted(("a",), EARLIEST_US, LATEST_US), True, 10), OneDevice())  # type: ignore[arg-type]
    assert read == [days.files[-1].path]


def left_to_duckdb(days: Days, wanted: Wanted) -> bool:
    return OneDevice().page(days.take(wanted), wanted, None, False, 10, PAGE_BYTES) is None


def test_what_is_left_to_duckdb(
    archive: Archive, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = Days(archive, connection)
    days.file(0, 200)
    wanted = Wanted(("a",), EARLIEST_US, LATEST_US)
    assert not left_to_duckdb(days, wanted)
    assert left_to_duckdb(days, wanted._replace(where="latitude > 0"))
    assert left_to_duckdb(days, wanted._replace(devices=("a", "b")))
    assert left_to_duckdb(days, wanted._replace(devices=(), prefix="a"))
    with monkeypatch.context() as patched:
        patched.setattr(device_page, "MOST_BYTES", 1_000)
        assert left_to_duckdb(days, wanted)
    [file] = days.files
    newer = Path(file.path).rename(file.path.replace(".parquet", ".v2.parquet"))
    days.files = [file._replace(path=str(newer))]
    assert left_to_duckdb(days, wanted)
    days.files = [file]  # it is gone
    assert left_to_duckdb(days, wanted)
    newer.rename(file.path).write_bytes(b"PAR1 and no more")
    assert left_to_duckdb(days, wanted)


def test_thinned_pages_are_left_to_duckdb(archive: Archive, connection: duckdb.DuckDBPyConnection) -> None:
    days = Days(archive, connection)
    days.file(0, 200)
    question = Question(Wanted(("a",), EARLIEST_US, LATEST_US), thinned=Thinned(every_us=60_000_000))
    found = page(connection, days, question, OneDevice())  # type: ignore[arg-type]
    assert found.num_rows == 2


def test_footers_are_remembered_up_to_a_bound(
    archive: Archive, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = Days(archive, connection)
    for day in range(6):
        days.file(day, 50)
    monkeypatch.setattr(row_group_reader, "FOOTERS_BYTES", 10_000)
    found = row_group_reader.RowGroups()
    for file in days.files:
        found.read(file.path, "a")
    assert 0 < found._footers.held_bytes <= 10_000
    assert len(found._footers) < len(days.files)


def test_a_text_that_many_records_have_is_in_memory_once(archive: Archive) -> None:
    """2,000 records of 60 kB have 120 MB of texts, which take 1 MB of a file and of memory if all are the same."""
    archive.open()
    record = Record(MIDNIGHT_US, "tcp", "json", 1.0, 2.0, attributes='{"t":"' + 60_000 * "x" + '"}')
    [file] = archive.data_files.write(columns([Block("a", NOW_MS, range(2_000), 2_000 * [row_of(record)])]), "1")
    found = row_group_reader.RowGroups().read(str(archive.root / file.path), "a")
    assert found.num_rows == 2_000
    assert sum(column.nbytes for column in found.columns) < 5_000_000
    assert row_group_reader.plain(found.slice(0, 1)).column("attributes").to_pylist() == [record.attributes]
