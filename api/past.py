"""Where devices were at a moment: the newest record of each up to then, found day by day, backwards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date
from typing import NamedTuple

import duckdb
import pyarrow as pa

from api import answers
from api.answers import RecordAnswer
from api.earth import PLACED
from api.history import records_in
from api.params import MAX_DEVICES
from api.snapshot import Snapshots, Wanted
from telemetry.columns import COLUMNS, days_of, sql_text
from telemetry.data_files import LiveFile
from telemetry.days import DAY_US

SELECT = ", ".join(
    f"epoch_us({name}) AS {name}_us" if name in ("timestamp", "received_at") else name for name in COLUMNS.names
)
"""A record's columns as `answers.of_row` takes them."""


class Past(NamedTuple):
    """A device's newest record at a moment, and its newest with a fix."""

    newest: RecordAnswer
    position: RecordAnswer | None


class Moment(NamedTuple):
    """When, and how far back a device's last record may lie."""

    at_us: int
    within_days: int

    def of(self, devices: Sequence[str]) -> Wanted:
        """Its records that count, of devices in the order of their ids."""
        start_us, end_us = self.at_us - self.within_days * DAY_US, self.at_us + 1
        if len(devices) <= MAX_DEVICES:
            return Wanted(devices, start_us, end_us)
        between = f"device_id BETWEEN {sql_text(devices[0])} AND {sql_text(devices[-1])}"
        return Wanted((), start_us, end_us, between)


def past(
    connection: duckdb.DuckDBPyConnection, snapshots: Snapshots, devices: Sequence[str], moment: Moment
) -> dict[str, Past]:
    """Each of the devices, in the order of their ids, that had sent a record by then."""
    if not devices:
        return {}
    wanted = moment.of(devices)
    newest: dict[str, RecordAnswer] = {}
    positions: dict[str, RecordAnswer] = {}
    known = set(devices)
    for files, tail in _days(snapshots, wanted):
        connection.register("tail", tail)
        records = records_in(files, wanted, has_tail=tail.num_rows > 0)
        for found, where in ((newest, "true"), (positions, PLACED)):
            if len(found) < len(devices):
                rows = _newest(connection, records, where)
                found |= {row.device_id: row for row in rows if row.device_id in known and row.device_id not in found}
    return {device: Past(newest[device], positions.get(device)) for device in devices if device in newest}


def _days(snapshots: Snapshots, wanted: Wanted) -> Iterator[tuple[Sequence[LiveFile], pa.Table]]:
    """Files and tail of each day, the latest first."""
    snapshot = snapshots.take(wanted)
    files: defaultdict[date, list[LiveFile]] = defaultdict(list)
    for file in snapshot.files:
        files[file.day].append(file)
    tails = dict(days_of(snapshot.records))
    for day in sorted({*files, *tails}, reverse=True):
        yield files[day], tails.get(day, COLUMNS.empty_table())


def _newest(connection: duckdb.DuckDBPyConnection, records: str, where: str) -> list[RecordAnswer]:
    """The newest record of each device for which SQL holds. To find its moment first spares decoding all columns."""
    moments = f"SELECT device_id, max(timestamp) AS timestamp FROM ({records}) WHERE {where} GROUP BY device_id"
    newest = (
        f"SELECT r.* FROM ({records}) r JOIN ({moments}) m ON r.device_id = m.device_id AND r.timestamp = m.timestamp "
        f"WHERE {where}"
    )
    only = "row_number() OVER (PARTITION BY device_id ORDER BY id DESC) = 1"
    rows = connection.execute(f"SELECT {SELECT} FROM ({newest}) QUALIFY {only}").fetchall()
    return [answers.of_row(row) for row in rows]
