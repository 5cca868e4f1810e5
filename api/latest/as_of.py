"""Where devices were at a moment: the newest record of each up to then, found day by day, backwards.

Of a day only files are read that have a device whose record is not found yet (file_devices.py): few devices straight
from their row groups, many by DuckDB. What was found in all of a file is remembered (newest_in_files.py). So a device
that was last heard of weeks ago costs one look at its last day, and one that never was costs none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from api.geo.geo_sql import PLACED
from api.records import range_query
from api.records.file_devices import FileDevices
from api.records.newest_in_files import FileNewest, Newest
from api.records.row_group_reader import RowGroups
from api.requests.params import MAX_DEVICES
from api.responses import record_schema, shortened_record
from api.responses.record_schema import RecordAnswer
from api.responses.shortened_record import Shortened, shortened, text_bytes
from api.snapshot.record_sql import records_in
from api.snapshot.snapshot import Snapshot, Snapshots, Wanted
from telemetry.archive.data_files import LiveFile
from telemetry.archive.schema import COLUMNS, LAYOUT, TIME, layout_of, sql_text
from telemetry.archive.text_bytes import of_texts
from telemetry.model.record import NO_FIX
from telemetry.model.utc import DAY_US, TimeText, day_us, iso

SELECT = ", ".join(
    f"epoch_us({name}) AS {name}_us" if name in ("timestamp", "received_at") else name for name in COLUMNS.names
)
"""A record's columns as `record_schema.of_row` takes them."""

FEW = 24
"""Devices of a day that are read one by one, from each of its files: of more DuckDB reads all at once."""

MOST_NAMED = 100
"""Maximum devices that a query names: with more, comparing each row takes longer than reading all devices."""

MOST_BYTES = 2**23
"""Texts of an answer, at which no further device is put into it."""

FEW_BYTES = 2**24
"""Decoded for one of them at most. It is beside `api.query_memory_bytes`, once for each of `api.query_threads`."""


class Past(NamedTuple):
    """A device's newest record at a moment, and its newest with a fix."""

    newest: RecordAnswer
    position: RecordAnswer | None

    @property
    def records(self) -> list[RecordAnswer]:
        """Both, or one if they are the same."""
        others = [] if self.position is None or self.position.id == self.newest.id else [self.position]
        return [self.newest, *others]

    @property
    def text_bytes(self) -> int:
        """Bytes of the texts of its records."""
        return sum(map(text_bytes, self.records))

    def with_whole(self, whole: Mapping[int, RecordAnswer]) -> Past:
        """The same, its cut records replaced by whole ones, which are given by id."""
        newest, position = self
        return Past(whole.get(newest.id, newest), None if position is None else whole.get(position.id, position))


class Moment(NamedTuple):
    """When, and how far back a device's last record may lie."""

    at_us: int
    within_days: int

    def of(self, devices: Sequence[str], most: int = MAX_DEVICES) -> Wanted:
        """Its records that count, of devices in the order of their ids, of which at most so many are named."""
        start_us, end_us = self.at_us - self.within_days * DAY_US, self.at_us + 1
        if len(devices) <= most:
            return Wanted(devices, start_us, end_us)
        between = f"device_id BETWEEN {sql_text(devices[0])} AND {sql_text(devices[-1])}"
        return Wanted((), start_us, end_us, between)


class PastReader:
    """Finds where devices were, from any number of threads."""

    def __init__(self, snapshots: Snapshots, row_groups: RowGroups) -> None:
        self._snapshots = snapshots
        self._row_groups = row_groups
        self._file_devices = FileDevices(row_groups)
        self._file_newest = FileNewest()

    def at(
        self,
        connection: duckdb.DuckDBPyConnection,
        devices: Sequence[str],
        moment: Moment,
        most_bytes: int = MOST_BYTES,
    ) -> tuple[dict[str, Past], Sequence[str]]:
        """Each of the devices, in the order of their ids, that had sent a record by then, up to the one with which
        their texts have `most_bytes`; and the devices after that one."""
        if not devices:
            return {}, ()
        wanted = moment.of(devices)
        snapshot = self._snapshots.take(wanted)
        found = _Found(devices)
        if snapshot.records.num_rows:
            connection.register("tail", snapshot.records)
            found.add(_of_many(connection, records_in((), wanted), devices))
        for day, files in _days(snapshot.files):
            found.close(iso(day_us(day) + DAY_US))
            self._look_at(connection, files, moment, found)
        first, rest = _within(found, devices, most_bytes)
        whole = _whole(connection, snapshot, (record for one in first.values() for record in one.records))
        return {device: one.with_whole(whole) for device, one in first.items()}, rest

    def _look_at(
        self, connection: duckdb.DuckDBPyConnection, files: Sequence[LiveFile], moment: Moment, found: _Found
    ) -> None:
        """Look for what is not found yet in files of one day."""
        unread: dict[LiveFile, list[str]] = {}
        for file in files if found.open else ():
            devices = self._file_devices.among(connection, file.path, found.open)
            known = self._file_newest.of(file.path, devices) if _is_whole(file, moment) else {}
            found.add(record for records in known.values() for record in records)
            if unknown := [device for device in devices if device not in known]:
                unread[file] = unknown
        if not unread:
            return
        read = self._of_few(unread, moment)
        if read is None:
            read = {files[0]: _of_files(connection, files, unread, moment) for files in _apart(unread, moment)}
        for file, newest in read.items():
            found.add(record for records in newest.values() for record in records)
            if _is_whole(file, moment):
                self._file_newest.note(file.path, dict(filter(_is_uncut, newest.items())))

    def _of_few(
        self, unread: Mapping[LiveFile, Sequence[str]], moment: Moment
    ) -> dict[LiveFile, dict[str, Newest]] | None:
        """What each file has of each device, read by itself; None if that is for DuckDB."""
        pairs = [(file.path, device) for file, devices in unread.items() for device in devices]
        if len(pairs) > FEW or any(layout_of(path) != LAYOUT for path, _ in pairs):
            return None
        try:
            if any(self._row_groups.size_bytes(path, device) > FEW_BYTES for path, device in pairs):
                return None
            return {
                file: {one: _last_rows(self._row_groups.read(file.path, one), moment.of([one])) for one in devices}
                for file, devices in unread.items()
            }
        except (OSError, pa.ArrowException):
            return None  # DuckDB says what is wrong with a file


class _Found:
    """What was found of some devices so far; `open` are those of whom an older day may have what is looked for."""

    def __init__(self, devices: Sequence[str]) -> None:
        self.newest: dict[str, RecordAnswer] = {}
        self.positions: dict[str, RecordAnswer] = {}
        self.open = set(devices)

    def add(self, records: Iterable[RecordAnswer]) -> None:
        """Take records, of any of the devices and in any order."""
        for one in records:
            _take(self.newest, one)
            if is_placed(one):
                _take(self.positions, one)

    def close(self, end: TimeText) -> None:
        """Look no further for devices whose place is not older than the end of a day: so is their newest record."""
        self.open -= {one for one in self.open if one in self.positions and self.positions[one].timestamp >= end}

    def of(self, device: str) -> Past:
        """Of a device of which there is a record."""
        return Past(self.newest[device], self.positions.get(device))


def _take(found: dict[str, RecordAnswer], one: RecordAnswer) -> None:
    other = found.get(one.device_id)
    if other is None or (one.timestamp, one.id) > (other.timestamp, other.id):
        found[one.device_id] = one


def is_placed(record: RecordAnswer) -> bool:
    """Whether a record says where its device was (geo_sql.py)."""
    if record.latitude is None or record.longitude is None:
        return False
    return record.attributes is None or not bytes(record.attributes).startswith(NO_FIX.encode())


def _within(found: _Found, devices: Sequence[str], most_bytes: int) -> tuple[dict[str, Past], Sequence[str]]:
    """Return the results of the first devices, up to the one with which they have `most_bytes`, and the others."""
    first: dict[str, Past] = {}
    size = 0
    for number, device in enumerate(devices):
        if size >= most_bytes:
            return first, devices[number:]
        if device in found.newest:
            first[device] = found.of(device)
            size += first[device].text_bytes
    return first, ()


def _whole(
    connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, records: Iterable[RecordAnswer]
) -> dict[int, RecordAnswer]:
    """Those of some records that are cut, in whole, by their ids; they are read day by day.

    The tail of the snapshot, if it has one, is registered as "tail".
    """
    days: defaultdict[str, list[Shortened]] = defaultdict(list)
    for record in records:
        if isinstance(record, Shortened):
            days[record.timestamp[:10]].append(record)
    return {one.id: one for day, cut in days.items() for one in _of_day(connection, snapshot, day, cut)}


def _of_day(
    connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, day: str, records: Sequence[Shortened]
) -> list[RecordAnswer]:
    start_us, devices = day_us(date.fromisoformat(day)), sorted({record.device_id for record in records})
    wanted = Wanted(devices if len(devices) <= MOST_NAMED else (), start_us, start_us + DAY_US)
    files = [file for file in snapshot.files if file.may_hold(wanted.start_us, wanted.end_us, devices)]
    connection.register("chosen", pa.table({"id": [record.id for record in records]}))
    rows = records_in(files, wanted, has_tail=snapshot.records.num_rows > 0)
    found = connection.execute(f"SELECT {SELECT} FROM ({rows}) SEMI JOIN chosen USING (id)").fetchall()
    return [record_schema.of_row(row) for row in found]


def _is_uncut(found: tuple[str, Newest]) -> bool:
    """True if all records of a device in a file are complete."""
    return not any(isinstance(record, Shortened) for record in found[1])


def _is_whole(file: LiveFile, moment: Moment) -> bool:
    """Whether all of a file's records are within reach of a moment."""
    wanted = moment.of(())
    if file.first_us is None or file.last_us is None:
        return False
    return wanted.start_us <= file.first_us and file.last_us < wanted.end_us


def _apart(files: Iterable[LiveFile], moment: Moment) -> list[list[LiveFile]]:
    """Files that are read together: each whole one by itself, so that it can be remembered, and all others."""
    whole, others = list[list[LiveFile]](), list[LiveFile]()
    for file in files:
        if _is_whole(file, moment):
            whole.append([file])
        else:
            others.append(file)
    return [*whole, others] if others else whole


def _of_files(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[LiveFile],
    unread: Mapping[LiveFile, Sequence[str]],
    moment: Moment,
) -> dict[str, Newest]:
    """The newest records in these files together of each device that is not known of one of them."""
    devices = sorted({device for file in files for device in unread[file]})
    records = records_in(files, moment.of(devices, MOST_NAMED), has_tail=False)
    return _by_device(devices, _of_many(connection, records, devices))


def _days(files: Sequence[LiveFile]) -> Iterator[tuple[date, list[LiveFile]]]:
    """The files of each day, the latest first."""
    found: defaultdict[date, list[LiveFile]] = defaultdict(list)
    for file in files:
        found[file.day].append(file)
    for day in sorted(found, reverse=True):
        yield day, found[day]


def _last_rows(records: pa.Table, wanted: Wanted) -> list[RecordAnswer]:
    """The newest of one device's records within a range, and the newest with a place."""
    us = records.column("timestamp").cast(pa.int64())
    records = records.filter(pc.and_(pc.greater_equal(us, wanted.start_us), pc.less(us, wanted.end_us)))
    newest = _last_row(records)
    if newest is None or is_placed(newest):
        return [] if newest is None else [newest]
    has_fix = pc.invert(_starts_with(records.column("attributes"), NO_FIX))
    has_place = pc.and_(pc.is_valid(records.column("latitude")), pc.is_valid(records.column("longitude")))
    position = _last_row(records.filter(pc.and_(has_place, has_fix)))
    return [newest] if position is None else [newest, position]


def _starts_with(texts: pa.ChunkedArray, beginning: str) -> pa.ChunkedArray:
    """True for each text that begins so."""
    return pc.fill_null(of_texts(texts, lambda some: pc.starts_with(some, beginning), pa.bool_()), False)


def _last_row(records: pa.Table) -> RecordAnswer | None:
    if not records.num_rows:
        return None
    order = [("timestamp", "descending"), ("id", "descending")]
    one = records.take(pc.select_k_unstable(records, k=1, sort_keys=order))
    found = record_schema.of_row(tuple(_plain(column) for column in one.columns))
    return shortened(found, text_bytes(found))


def _plain(column: pa.ChunkedArray) -> object:
    return (column.cast(pa.int64()) if column.type == TIME else column)[0].as_py()


def _by_device(devices: Iterable[str], records: Iterable[RecordAnswer]) -> dict[str, Newest]:
    found: dict[str, list[RecordAnswer]] = {device: [] for device in devices}
    for one in records:
        found[one.device_id].append(one)
    return dict(found)


def _of_many(connection: duckdb.DuckDBPyConnection, records: str, devices: Sequence[str]) -> list[RecordAnswer]:
    """The newest record of each device, and the newest with a place where that is another one, by DuckDB."""
    asked = set(devices)
    newest = [row for row in _newest(connection, records, "true") if row.device_id in asked]
    without = {row.device_id for row in newest if not is_placed(row)}
    if not without:
        return newest
    named = f"device_id IN ({', '.join(map(sql_text, sorted(without)))}) AND " if len(without) <= MAX_DEVICES else ""
    return newest + [row for row in _newest(connection, records, named + PLACED) if row.device_id in without]


def _newest(connection: duckdb.DuckDBPyConnection, records: str, where: str) -> list[RecordAnswer]:
    """The newest record of each device for which SQL holds. To find its moment first spares decoding all columns.

    Texts are cut after the join, through which rows stream, and before rows are held: of most rows none is cut.
    """
    some = f"(SELECT * FROM ({records}) WHERE {where})"
    moments = f"(SELECT device_id, max(timestamp) AS timestamp FROM {some} GROUP BY device_id)"
    newest = f"SELECT r.* FROM {some} r JOIN {moments} m ON r.device_id = m.device_id AND r.timestamp = m.timestamp"
    only = "row_number() OVER (PARTITION BY device_id ORDER BY id DESC) = 1"
    cut = f"SELECT {range_query.shortened(shortened_record.SHORT_BYTES)} FROM ({newest})"
    rows = connection.execute(f"SELECT {SELECT}, {range_query.TEXT_BYTES} FROM ({cut}) QUALIFY {only}").fetchall()
    return [shortened(record_schema.of_row(row[:-1]), row[-1]) for row in rows]
