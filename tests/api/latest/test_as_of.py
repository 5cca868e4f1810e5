"""The state of devices at a time equals the result of one SQL statement over all records, and needs few reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.geo.geo_sql import PLACED
from api.latest import as_of
from api.latest.as_of import SELECT, AsOfReader, Moment, PastState
from api.records import file_devices, newest_in_files
from api.records.file_devices import FileDevices
from api.records.newest_in_files import FileNewest
from api.records.row_group_reader import RowGroups
from api.responses import record_schema, shortened_record
from api.snapshot import record_sql
from telemetry.archive.data_files import LiveFile
from telemetry.archive.schema import columns
from telemetry.archive.table import Archive
from telemetry.hot_store.entry_codec import Block
from telemetry.hot_store.shard import Shard
from telemetry.model.record import Record, Sent
from telemetry.model.utc import DAY_US
from tests.api.stores import MIDNIGHT_US, Stores

DEVICES = ("a", "b", "c", "o'brien\\\"\n", "sensor", "ü/😀%")
ASKED = sorted([*DEVICES, "nobody", "b ", "zz"])
DAYS = 6
WHEN_US = (0, 1, 1_000_000, DAY_US // 2, DAY_US - 1)
ATTRIBUTES = (None, None, "{}", '{"fix":false}', '{"fix":false,"n":1}', '{"n":1,"fix":false}')
NUMBERS = (None, 0.0, -2.93, 53.44, 1e-7)


def some(dice: Random, day: int, count: int) -> list[Sent]:
    """Records of a day: several at the same time, with and without a position; `sensor` never has a position."""
    found = []
    for _ in range(count):
        device, us = dice.choice(DEVICES), MIDNIGHT_US + day * DAY_US + dice.choice(WHEN_US)
        latitude = None if device == "sensor" else dice.choice(NUMBERS)
        record = Record(us, "tcp", "json", latitude, dice.choice(NUMBERS), attributes=dice.choice(ATTRIBUTES))
        found.append(Sent(device, record))
    return found


@pytest.fixture
def stores(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> Stores:
    return Stores([shard], archive, connection)


def fill(stores: Stores, dice: Random) -> None:
    """Saves in any order of days, including late records and small files, and unsaved records that may be older."""
    for _ in range(dice.randrange(5, 12)):
        stores.append(*some(dice, dice.randrange(DAYS), dice.choice((1, 3, 40))))
        if dice.random() < 0.7:
            stores.save()
    for _ in range(dice.randrange(3)):
        stores.append(*some(dice, dice.randrange(DAYS), 5))


def model(stores: Stores, devices: Sequence[str], moment: Moment) -> dict[str, PastState]:
    """The expected states, by definition."""
    records = columns(Block.of(one) for one in stores.stored)
    start_us = moment.at_us - moment.within_days * DAY_US
    newest = "row_number() OVER (PARTITION BY device_id ORDER BY timestamp DESC, id DESC) = 1"
    with stores.connection.cursor() as cursor:
        cursor.register("records", records)

        def of(where: str) -> dict[str, record_schema.RecordAnswer]:
            within = f"epoch_us(timestamp) BETWEEN {start_us} AND {moment.at_us} AND {where}"
            rows = cursor.execute(f"SELECT {SELECT} FROM records WHERE {within} QUALIFY {newest}").fetchall()
            return {row[0]: record_schema.of_row(row) for row in rows}

        last, placed = of("true"), of(PLACED)
        cursor.unregister("records")
    return {device: PastState(last[device], placed.get(device)) for device in devices if device in last}


def encoded(found: dict[str, PastState]) -> bytes:
    return record_schema.encode(found)


def moments(dice: Random) -> Iterator[Moment]:
    for _ in range(12):
        at_us = MIDNIGHT_US + dice.randrange(DAYS) * DAY_US + dice.choice((*WHEN_US, 2, DAY_US // 3))
        yield Moment(at_us, dice.choice((1, 2, 31)))


@pytest.mark.parametrize("few", [0, 1, 24])
@pytest.mark.parametrize("seed", range(6))
def test_any_archive(stores: Stores, seed: int, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(as_of, "MAX_DIRECT_READS", few)
    dice = Random(seed)
    fill(stores, dice)
    reader = AsOfReader(stores.snapshots, RowGroups())
    for moment in moments(dice):
        for devices in (ASKED, [dice.choice(ASKED)], sorted(dice.sample(ASKED, 4))):
            with stores.connection.cursor() as cursor:
                found, _ = reader.at(cursor, devices, moment)
            assert encoded(found) == encoded(model(stores, devices, moment))


@pytest.mark.parametrize("few", [0, 24])
def test_more_devices_than_a_query_names(stores: Stores, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(as_of, "MAX_DIRECT_READS", few)
    monkeypatch.setattr(as_of, "MAX_DEVICES", 3)
    monkeypatch.setattr(as_of, "MAX_NAMED", 2)
    monkeypatch.setattr(Moment.wanted, "__defaults__", (3,))
    dice = Random(7)
    fill(stores, dice)
    reader = AsOfReader(stores.snapshots, RowGroups())
    for moment in moments(dice):
        with stores.connection.cursor() as cursor:
            assert encoded(reader.at(cursor, ASKED, moment)[0]) == encoded(model(stores, ASKED, moment))


@pytest.mark.parametrize("few", [0, 24])
def test_texts_are_read_for_the_devices_that_fit(stores: Stores, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each result has texts of up to `max_bytes`, or one device; together they contain all devices."""
    monkeypatch.setattr(as_of, "MAX_DIRECT_READS", few)
    monkeypatch.setattr(shortened_record, "SHORT_BYTES", 20)
    dice, max_bytes = Random(8), 100
    fill(stores, dice)
    for device in DEVICES:
        texts = ('"' + dice.randrange(90) * "x" + '"', '{"fix":false,"t":"' + dice.randrange(90) * "ü" + '"}')
        for us, text in enumerate(dice.sample(texts, 2)):
            record = Record(MIDNIGHT_US + dice.randrange(DAYS) * DAY_US + us, "tcp", "json", 1.0, 2.0, attributes=text)
            stores.append(Sent(device, record))
        if dice.random() < 0.7:
            stores.save()
    reader = AsOfReader(stores.snapshots, RowGroups())
    parts = 0
    for moment in moments(dice):
        found: dict[str, PastState] = {}
        rest: Sequence[str] = ASKED
        while rest:
            with stores.connection.cursor() as cursor:
                part, rest = reader.at(cursor, rest, moment, max_bytes)
            assert sum(one.text_bytes for one in list(part.values())[:-1]) < max_bytes
            found |= part
            parts += 1
        assert encoded(found) == encoded(model(stores, ASKED, moment))
    assert parts > 18


@pytest.mark.parametrize("order", ["hash(id)", "device_id DESC, timestamp, id"])
def test_files_in_any_order(stores: Stores, order: str) -> None:
    dice = Random(3)
    fill(stores, dice)
    stores.save()
    for path in stores.archive.files(stores.archive.open()):
        stores.connection.execute(f"COPY (FROM '{path}' ORDER BY {order}) TO '{path}.new' (FORMAT parquet)")
        Path(f"{path}.new").rename(path)
    reader = AsOfReader(stores.snapshots, RowGroups())
    for moment in moments(dice):
        with stores.connection.cursor() as cursor:
            assert encoded(reader.at(cursor, ASKED, moment)[0]) == encoded(model(stores, ASKED, moment))


def test_large_row_groups_are_read_by_duckdb(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(as_of, "MAX_DIRECT_BYTES", 10)
    fill(stores, Random(4))
    moment = Moment(MIDNIGHT_US + DAYS * DAY_US, 31)
    with stores.connection.cursor() as cursor:
        found = AsOfReader(stores.snapshots, RowGroups()).at(cursor, ASKED, moment)[0]
    assert encoded(found) == encoded(model(stores, ASKED, moment))


class Spy:
    """Records the files that are read, by DuckDB or from row groups."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[str] = []
        real, real_sql = RowGroups.read, record_sql.records_in

        def read(one: RowGroups, path: str, device_id: str) -> pa.Table:
            self.paths.append(path)
            return real(one, path, device_id)

        def records_in(files: Sequence[LiveFile], *more: object, **named: object) -> str:
            self.paths += [file.path for file in files]
            return real_sql(files, *more, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(RowGroups, "read", read)
        monkeypatch.setattr(as_of, "records_in", records_in)

    def taken(self) -> list[str]:
        """The days of the files read since the last call."""
        found = [Path(path).parent.name[-2:] for path in self.paths]
        self.paths.clear()
        return found


def a_day(day: int, *devices: str, latitude: float | None = 1.0) -> list[Sent]:
    us = MIDNIGHT_US + day * DAY_US
    return [Sent(device, Record(us, "tcp", "json", latitude, 2.0)) for device in devices]


@pytest.mark.parametrize("few", [0, 24])
def test_only_the_last_day_of_silent_devices_is_read(stores: Stores, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(as_of, "MAX_DIRECT_READS", few)
    stores.append(*a_day(0, "gone", "here"))
    stores.save()
    for day in range(1, DAYS):
        stores.append(*a_day(day, "a", "here", "z"))
        stores.save()
    reader, spy = AsOfReader(stores.snapshots, RowGroups()), Spy(monkeypatch)
    moment = Moment(MIDNIGHT_US + DAYS * DAY_US, 31)

    def days_read(*devices: str) -> list[str]:
        reader.at(stores.connection, devices, moment)
        return spy.taken()

    assert days_read("gone", "here") == ["15", "10"]
    assert days_read("gone", "here", "z") == ["15"]
    assert days_read("gone") == []
    assert days_read("nobody") == []
    assert days_read("b", "gonf", "ü") == []


@pytest.mark.parametrize("few", [0, 24])
def test_each_file_of_a_day_is_cached(stores: Stores, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the time lies within another file of the day, which is read again."""
    monkeypatch.setattr(as_of, "MAX_DIRECT_READS", few)
    for day, *devices in ((0, "a", "b"), (0, "a", "b"), (0, "gone"), (1, "a", "b"), (1, "a", "b")):
        stores.append(*a_day(day, *devices))
        stores.save()
    at_us = MIDNIGHT_US + DAY_US + 10
    places = [Record(at_us + us, "tcp", "json", 1.0, 2.0) for us in (0, 9)]
    stores.append(*[Sent(device, record) for device in "ab" for record in places])
    stores.save()
    reader, spy = AsOfReader(stores.snapshots, RowGroups()), Spy(monkeypatch)

    def files_read(at_us: int, *devices: str) -> list[str]:
        found, _ = reader.at(stores.connection, devices, Moment(at_us, 31))
        assert set(found) == set(devices)
        spy.paths[:] = dict.fromkeys(spy.paths)  # few devices are read one by one
        return spy.taken()

    assert files_read(at_us + 5, "a", "b", "gone") == ["11", "11", "11", "10"]
    assert files_read(at_us + 6, "a", "b", "gone") == ["11"]
    assert files_read(MIDNIGHT_US + DAY_US - 1, "a", "b") == ["10", "10"]
    assert files_read(MIDNIGHT_US + DAY_US - 2, "a", "b") == []


def test_days_of_devices_without_positions_are_read_once(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(DAYS):
        stores.append(*a_day(day, "sensor", latitude=None), *a_day(day, "van"))
        stores.save()
    reader, spy = AsOfReader(stores.snapshots, RowGroups()), Spy(monkeypatch)
    for at_us, days in ((MIDNIGHT_US + DAYS * DAY_US, DAYS), (MIDNIGHT_US + DAYS * DAY_US + 1, 0)):
        found, _ = reader.at(stores.connection, ["sensor"], Moment(at_us, 31))
        assert found["sensor"].position is None
        assert len(spy.taken()) == days
    found, _ = reader.at(stores.connection, ["sensor", "van"], Moment(MIDNIGHT_US + DAYS * DAY_US, 31))
    assert found["van"].position is not None


def test_a_result_for_a_part_of_a_file_is_not_cached(stores: Stores) -> None:
    """The file has a position after the first requested time."""
    stores.append(*a_day(0, "van", latitude=None))
    stores.append(Sent("van", Record(MIDNIGHT_US + 10, "tcp", "json", 1.0, 2.0)))
    stores.save()
    reader = AsOfReader(stores.snapshots, RowGroups())
    assert reader.at(stores.connection, ["van"], Moment(MIDNIGHT_US + 5, 31))[0]["van"].position is None
    assert reader.at(stores.connection, ["van"], Moment(MIDNIGHT_US + 10, 31))[0]["van"].position is not None


# Devices of files ------------------------------------------------------------------------------------

NAMES = [f"ship {n:05}" for n in range(9_000)]
OTHERWISE: Mapping[str, dict[str, Any]] = {
    "our own": {"compression": "zstd"},
    "a full dictionary": {"compression": "zstd", "dictionary_pagesize_limit": 1_000, "max_rows_per_page": 1_000},
    "no dictionary": {"compression": "zstd", "use_dictionary": False},
    "another compression": {"compression": "snappy"},
    "pages of version 2": {"compression": "zstd", "data_page_version": "2.0"},
}


@pytest.mark.parametrize("kind", OTHERWISE)
def test_all_devices_of_a_file_are_known(kind: str, tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> None:
    path = str(tmp_path / "x.parquet")
    pq.write_table(pa.table({"device_id": NAMES[::2]}), path, row_group_size=2_000, **OTHERWISE[kind])
    found = FileDevices(RowGroups())
    assert found.among(connection, path, NAMES[::2]) == NAMES[::2]
    assert len(found.among(connection, path, NAMES[1::2])) < 5  # of equal hashes
    Path(path).unlink()
    assert found.among(connection, path, NAMES[:1]) == NAMES[:1]


def test_the_memory_of_file_devices_is_limited(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_devices, "REMEMBERED_BYTES", 20_000)
    found = FileDevices(RowGroups())
    for number, count in enumerate((1_000, 1_000, 9_000, 2_000, 1_500)):
        path = str(tmp_path / f"{number}.parquet")
        pq.write_table(pa.table({"device_id": NAMES[:count]}), path, compression="zstd")
        assert found.among(connection, path, NAMES[:5]) == NAMES[:5]
    assert 0 < found._known.held_bytes <= 20_000
    assert 0 < len(found._known) < 4


def answer(device: str, attributes: str) -> record_schema.RecordAnswer:
    row = (device, 0, 0, 1, "tcp", "json", *([None] * 7), attributes)
    return record_schema.of_row(row)


def test_the_memory_of_newest_records_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest_in_files, "REMEMBERED_BYTES", 20_000)
    monkeypatch.setattr(newest_in_files, "MOST_BYTES", 5_000)
    found = FileNewest()
    for number in range(100):
        found.note("x", {NAMES[number]: [answer(NAMES[number], "{}")]})
    found.note("x", {"long": [answer("long", '"' + 6_000 * "x" + '"')], "none": []})
    assert 10_000 < found._known.held_bytes <= 20_000
    known = found.of("x", [NAMES[0], NAMES[99], "long", "none"])
    assert known == {NAMES[99]: [answer(NAMES[99], "{}")], "none": []}
    assert not found.of("y", ["none"])


def test_a_file_that_cannot_be_read_fails(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(duckdb.Error):
        FileDevices(RowGroups()).among(connection, str(path), ["a"])
