"""The newest record of each device at a time in the past, searched day by day, backwards.

Of each day, only files are read that contain a device whose record is still missing (file_devices.py): a few devices
directly from row groups, many with DuckDB. Results for whole files are cached (newest_in_files.py). So a device that
has been silent for weeks needs one read of its last day, and an unknown device none.
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
"""A record's columns in the form that `record_schema.of_row` expects."""

MAX_DIRECT_READS = 24
"""Maximum reads of one device from one file of a day. If more are needed, DuckDB reads the files."""

MAX_NAMED = 100
"""Maximum devices that a query names: with more, comparing each row takes longer than reading all devices."""

MAX_BYTES = 2**23
"""Size of the texts of a result at which no further device is added."""

MAX_DIRECT_BYTES = 2**24
"""Memory limit for a direct read of one device, for each of `api.query_threads`. Not part of
`api.query_memory_bytes`."""


class PastState(NamedTuple):
    """A device's newest record at a time, and its newest record with a fix."""

    newest: RecordAnswer
    position: RecordAnswer | None

    @property
    def records(self) -> list[RecordAnswer]:
        """Both, or one if they are the same."""
        others = [] if self.position is None or self.position.id == self.newest.id else [self.position]
        return [self.newest, *others]

    @property
    def text_bytes(self) -> int:
        """Size of the texts of both records."""
        return sum(map(text_bytes, self.records))

    def with_complete(self, complete: Mapping[int, RecordAnswer]) -> PastState:
        """This state with shortened records replaced by complete ones, which are given by id."""
        newest, position = self
        position = None if position is None else complete.get(position.id, position)
        return PastState(complete.get(newest.id, newest), position)


class Moment(NamedTuple):
    """A time, and the maximum age of a device's newest record at that time."""

    at_us: int
    within_days: int

    def wanted(self, devices: Sequence[str], max_named: int = MAX_DEVICES) -> Wanted:
        """The range of records to search. `devices` are sorted by id; more than `max_named` become a range of ids."""
        start_us, end_us = self.at_us - self.within_days * DAY_US, self.at_us + 1
        if len(devices) <= max_named:
            return Wanted(devices, start_us, end_us)
        between = f"device_id BETWEEN {sql_text(devices[0])} AND {sql_text(devices[-1])}"
        return Wanted((), start_us, end_us, between)


class AsOfReader:
    """Finds the newest records at a time. Any thread may use it."""

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
        max_bytes: int = MAX_BYTES,
    ) -> tuple[dict[str, PastState], Sequence[str]]:
        """The states of devices that had sent a record by then, in the order of ids, and the devices not examined yet.

        Ends after the device with which the texts reach `max_bytes`. `devices` are sorted by id.
        """
        if not devices:
            return {}, ()
        wanted = moment.wanted(devices)
        snapshot = self._snapshots.take(wanted)
        search = _Search(devices)
        if snapshot.records.num_rows:
            connection.register("tail", snapshot.records)
            search.add(_newest_by_duckdb(connection, records_in((), wanted), devices))
        for day, files in _days(snapshot.files):
            search.close(iso(day_us(day) + DAY_US))
            self._search_day(connection, files, moment, search)
        first, rest = _within(search, devices, max_bytes)
        complete = _complete(connection, snapshot, (record for state in first.values() for record in state.records))
        return {device: state.with_complete(complete) for device, state in first.items()}, rest

    def _search_day(
        self, connection: duckdb.DuckDBPyConnection, files: Sequence[LiveFile], moment: Moment, search: _Search
    ) -> None:
        """Search a day's files for missing records."""
        unread: dict[LiveFile, list[str]] = {}
        for file in files if search.open else ():
            devices = self._file_devices.among(connection, file.path, search.open)
            known = self._file_newest.of(file.path, devices) if _is_within_reach(file, moment) else {}
            search.add(record for records in known.values() for record in records)
            if unknown := [device for device in devices if device not in known]:
                unread[file] = unknown
        if not unread:
            return
        read = self._read_directly(unread, moment)
        if read is None:
            groups = _grouped(unread, moment)
            read = {files[0]: _newest_in_files(connection, files, unread, moment) for files in groups}
        for file, newest in read.items():
            search.add(record for records in newest.values() for record in records)
            if _is_within_reach(file, moment):
                self._file_newest.note(file.path, dict(filter(_is_complete, newest.items())))

    def _read_directly(
        self, unread: Mapping[LiveFile, Sequence[str]], moment: Moment
    ) -> dict[LiveFile, dict[str, Newest]] | None:
        """The newest records of each file and device, read from row groups; None if DuckDB should read them."""
        pairs = [(file.path, device) for file, devices in unread.items() for device in devices]
        if len(pairs) > MAX_DIRECT_READS or any(layout_of(path) != LAYOUT for path, _ in pairs):
            return None
        try:
            if any(self._row_groups.size_bytes(path, device) > MAX_DIRECT_BYTES for path, device in pairs):
                return None
            return {
                file: {
                    device: _last_rows(self._row_groups.read(file.path, device), moment.wanted([device]))
                    for device in devices
                }
                for file, devices in unread.items()
            }
        except (OSError, pa.ArrowException):
            return None  # DuckDB raises an error that names the fault


class _Search:
    """Records found so far; `open` are the devices for which older days must be searched."""

    def __init__(self, devices: Sequence[str]) -> None:
        self.newest: dict[str, RecordAnswer] = {}
        self.positions: dict[str, RecordAnswer] = {}
        self.open = set(devices)

    def add(self, records: Iterable[RecordAnswer]) -> None:
        """Add records of any of the devices, in any order."""
        for record in records:
            _keep_newest(self.newest, record)
            if has_position(record):
                _keep_newest(self.positions, record)

    def close(self, end: TimeText) -> None:
        """End the search for devices whose position is not older than `end`; their newest record is not older
        either."""
        positions = self.positions
        self.open -= {device for device in self.open if device in positions and positions[device].timestamp >= end}

    def state(self, device: str) -> PastState:
        """The state of a device with a record."""
        return PastState(self.newest[device], self.positions.get(device))


def _keep_newest(newest: dict[str, RecordAnswer], record: RecordAnswer) -> None:
    other = newest.get(record.device_id)
    if other is None or (record.timestamp, record.id) > (other.timestamp, other.id):
        newest[record.device_id] = record


def has_position(record: RecordAnswer) -> bool:
    """True if a record has both coordinates and a fix (geo_sql.py)."""
    if record.latitude is None or record.longitude is None:
        return False
    return record.attributes is None or not bytes(record.attributes).startswith(NO_FIX.encode())


def _within(search: _Search, devices: Sequence[str], max_bytes: int) -> tuple[dict[str, PastState], Sequence[str]]:
    """The states of the first devices, up to the one with which the texts reach `max_bytes`, and the other devices."""
    first: dict[str, PastState] = {}
    size = 0
    for number, device in enumerate(devices):
        if size >= max_bytes:
            return first, devices[number:]
        if device in search.newest:
            first[device] = search.state(device)
            size += first[device].text_bytes
    return first, ()


def _complete(
    connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, records: Iterable[RecordAnswer]
) -> dict[int, RecordAnswer]:
    """Complete records for the shortened ones, by id, read day by day.

    The snapshot's unsaved records, if any, are registered as "tail".
    """
    days: defaultdict[str, list[Shortened]] = defaultdict(list)
    for record in records:
        if isinstance(record, Shortened):
            days[record.timestamp[:10]].append(record)
    complete = (record for day, cut in days.items() for record in _complete_of_day(connection, snapshot, day, cut))
    return {record.id: record for record in complete}


def _complete_of_day(
    connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, day: str, records: Sequence[Shortened]
) -> list[RecordAnswer]:
    start_us, devices = day_us(date.fromisoformat(day)), sorted({record.device_id for record in records})
    wanted = Wanted(devices if len(devices) <= MAX_NAMED else (), start_us, start_us + DAY_US)
    files = [file for file in snapshot.files if file.may_hold(wanted.start_us, wanted.end_us, devices)]
    connection.register("chosen", pa.table({"id": [record.id for record in records]}))
    rows = records_in(files, wanted, has_tail=snapshot.records.num_rows > 0)
    chosen = connection.execute(f"SELECT {SELECT} FROM ({rows}) SEMI JOIN chosen USING (id)").fetchall()
    return [record_schema.of_row(row) for row in chosen]


def _is_complete(device_records: tuple[str, Newest]) -> bool:
    """True if no record of a device is shortened."""
    return not any(isinstance(record, Shortened) for record in device_records[1])


def _is_within_reach(file: LiveFile, moment: Moment) -> bool:
    """True if all records of a file lie in the searched range."""
    wanted = moment.wanted(())
    if file.first_us is None or file.last_us is None:
        return False
    return wanted.start_us <= file.first_us and file.last_us < wanted.end_us


def _grouped(files: Iterable[LiveFile], moment: Moment) -> list[list[LiveFile]]:
    """Groups of files to read together: each file within reach alone, so that its results can be cached; the others
    in one group."""
    alone, others = list[list[LiveFile]](), list[LiveFile]()
    for file in files:
        if _is_within_reach(file, moment):
            alone.append([file])
        else:
            others.append(file)
    return [*alone, others] if others else alone


def _newest_in_files(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[LiveFile],
    unread: Mapping[LiveFile, Sequence[str]],
    moment: Moment,
) -> dict[str, Newest]:
    """The newest records in a group of files, for each device that is unread in one of them."""
    devices = sorted({device for file in files for device in unread[file]})
    records = records_in(files, moment.wanted(devices, MAX_NAMED), has_tail=False)
    return _by_device(devices, _newest_by_duckdb(connection, records, devices))


def _days(files: Sequence[LiveFile]) -> Iterator[tuple[date, list[LiveFile]]]:
    """The files of each day, the latest day first."""
    by_day: defaultdict[date, list[LiveFile]] = defaultdict(list)
    for file in files:
        by_day[file.day].append(file)
    for day in sorted(by_day, reverse=True):
        yield day, by_day[day]


def _last_rows(records: pa.Table, wanted: Wanted) -> list[RecordAnswer]:
    """The newest of one device's records within a range, and the newest one with a position, if that is another."""
    us = records.column("timestamp").cast(pa.int64())
    records = records.filter(pc.and_(pc.greater_equal(us, wanted.start_us), pc.less(us, wanted.end_us)))
    newest = _last_row(records)
    if newest is None or has_position(newest):
        return [] if newest is None else [newest]
    has_fix = pc.invert(_starts_with(records.column("attributes"), NO_FIX))
    has_place = pc.and_(pc.is_valid(records.column("latitude")), pc.is_valid(records.column("longitude")))
    position = _last_row(records.filter(pc.and_(has_place, has_fix)))
    return [newest] if position is None else [newest, position]


def _starts_with(texts: pa.ChunkedArray, beginning: str) -> pa.ChunkedArray:
    """True for each text that starts with `beginning`."""
    return pc.fill_null(of_texts(texts, lambda some: pc.starts_with(some, beginning), pa.bool_()), False)


def _last_row(records: pa.Table) -> RecordAnswer | None:
    if not records.num_rows:
        return None
    order = [("timestamp", "descending"), ("id", "descending")]
    row = records.take(pc.select_k_unstable(records, k=1, sort_keys=order))
    record = record_schema.of_row(tuple(_plain(column) for column in row.columns))
    return shortened(record, text_bytes(record))


def _plain(column: pa.ChunkedArray) -> object:
    return (column.cast(pa.int64()) if column.type == TIME else column)[0].as_py()


def _by_device(devices: Iterable[str], records: Iterable[RecordAnswer]) -> dict[str, Newest]:
    by_device: dict[str, list[RecordAnswer]] = {device: [] for device in devices}
    for record in records:
        by_device[record.device_id].append(record)
    return dict(by_device)


def _newest_by_duckdb(
    connection: duckdb.DuckDBPyConnection, records: str, devices: Sequence[str]
) -> list[RecordAnswer]:
    """The newest record of each device, and its newest record with a position, if that is another one."""
    names = set(devices)
    newest = [row for row in _newest(connection, records, "true") if row.device_id in names]
    without = {row.device_id for row in newest if not has_position(row)}
    if not without:
        return newest
    named = f"device_id IN ({', '.join(map(sql_text, sorted(without)))}) AND " if len(without) <= MAX_DEVICES else ""
    return newest + [row for row in _newest(connection, records, named + PLACED) if row.device_id in without]


def _newest(connection: duckdb.DuckDBPyConnection, records: str, where: str) -> list[RecordAnswer]:
    """The newest record of each device that matches `where`. Its time is found first, so that few rows are decoded.

    Texts are shortened after the join, which streams rows, and before rows are held in memory.
    """
    some = f"(SELECT * FROM ({records}) WHERE {where})"
    moments = f"(SELECT device_id, max(timestamp) AS timestamp FROM {some} GROUP BY device_id)"
    newest = f"SELECT r.* FROM {some} r JOIN {moments} m ON r.device_id = m.device_id AND r.timestamp = m.timestamp"
    only = "row_number() OVER (PARTITION BY device_id ORDER BY id DESC) = 1"
    cut = f"SELECT {range_query.shortened(shortened_record.SHORT_BYTES)} FROM ({newest})"
    rows = connection.execute(f"SELECT {SELECT}, {range_query.TEXT_BYTES} FROM ({cut}) QUALIFY {only}").fetchall()
    return [shortened(record_schema.of_row(row[:-1]), row[-1]) for row in rows]
