"""Rebuilds each device's latest from the archive, for a Redis that lost it.

For each device and each of the three records in latest (the newest by HTTP, by another transport, and with a fix),
two are offered: the newest that was not ahead of its own arrival, and the newest that was. The rule of the latest
(record.py) then decides between these and the records in Redis.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import duckdb

from telemetry.archive.operations import import_progress
from telemetry.archive.schema import COLUMNS, MEASURED_SQL, records_sql, seen_sql, sql_text
from telemetry.archive.table import Archive
from telemetry.hot_store.entry_codec import NEWEST, NEWEST_FIX, Archived, flags_of
from telemetry.hot_store.keys import shard_of
from telemetry.hot_store.operations.latest_rebuild import deleted_devices, mark_outdated, mark_rebuilt, offer_archived
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import BusyError, PlanOutdated
from telemetry.model.record import Record, Stored

log = logging.getLogger(__name__)

DEVICES_AT_ONCE = 200

_KINDS = (
    ("transport = 'http'", NEWEST),
    ("transport <> 'http'", NEWEST),
    ("latitude IS NOT NULL AND longitude IS NOT NULL", NEWEST_FIX),
)
_AHEAD = "timestamp > received_at + INTERVAL 1 millisecond"


def rebuild(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> int:
    """Offer the archive's records to the shard's latest. Returns the number of its devices.

    After a crash it is repeated, which changes nothing that is right already. If a device is deleted meanwhile, whose
    records these files may still have, it starts again with the files of that time.
    """
    while True:
        deleted = deleted_devices(shard)  # before the table
        table = archive.open_existing()
        files = archive.files(table) if table is not None else []
        seen = seen_sql(import_progress.imported_otherwise(table, shard.shard, shard.shards))
        try:
            devices = offer(shard, connection, files, deleted, seen) if files else 0
        except PlanOutdated as outdated:
            log.info("%s; looking again", outdated)
            continue
        mark_rebuilt(shard)
        return devices


def offer(shard: Shard, connection: duckdb.DuckDBPyConnection, files: Sequence[str], deleted: int, seen: str) -> int:
    """Offer the records of some files to the shard's latest. Returns the number of their devices.

    `seen` is SQL of the time at which a record shows that its device was active. `deleted` is the shard's number of
    deleted devices before the files were listed. Raises `PlanOutdated` if it has changed.
    """
    devices = 0
    result = connection.execute(_sql(files, seen))
    while rows := result.fetchmany(DEVICES_AT_ONCE):
        mine = [row for row in rows if shard_of(row[0], shard.shards) == shard.shard]
        devices += len(mine)
        offer_archived(shard, [one for row in mine for one in _archived(row)], deleted)
    return devices


def tell(
    shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection, files: Sequence[str], deleted: int
) -> None:
    """Offer the records of an import; if Redis has no room for them now, record that latest must be rebuilt.

    If a device was deleted since the count was `deleted`, the offer is repeated if the table still has the files;
    otherwise latest is rebuilt.
    """
    while True:
        try:
            offer(shard, connection, files, deleted, MEASURED_SQL)
            return
        except BusyError:
            mark_outdated(shard)
            return
        except (PlanOutdated, duckdb.IOException) as error:
            deleted = deleted_devices(shard)  # before the table
            if not set(files) <= set(archive.files(archive.open())):
                rebuild(shard, archive, connection)
                return
            if not isinstance(error, PlanOutdated):
                raise


def found_of(
    connection: duckdb.DuckDBPyConnection, files: Sequence[str], devices: Sequence[str], seen: str
) -> dict[str, list[Archived]]:
    """The candidates for latest in some files for some devices; `seen` as for `offer`."""
    if not files or not devices:
        return {}
    rows = connection.execute(_sql(files, seen, devices)).fetchall()
    return {row[0]: _archived(row) for row in rows}


def found_in(stored: Iterable[Stored]) -> list[Archived]:
    """The candidates among records that are not in the archive yet."""
    newest: dict[tuple[int, bool], tuple[Stored, int]] = {}
    for one in stored:
        record = one.record
        is_kind = (record.transport == "http", record.transport != "http", _has_place(record))
        is_ahead = record.timestamp_us > (one.received_ms + 1) * 1_000
        for kind, (_, role) in enumerate(_KINDS):
            best = newest.get((kind, is_ahead))
            if is_kind[kind] and (best is None or _order(one) > _order(best[0])):
                newest[kind, is_ahead] = one, role
    records = sorted(newest.values(), key=lambda one: one[0].id)
    return [Archived(one, flags_of(one.record, role), one.received_ms) for one, role in records]


def _has_place(record: Record) -> bool:
    return record.latitude is not None and record.longitude is not None


def _order(stored: Stored) -> tuple[int, int]:
    return stored.record.timestamp_us, stored.id


def _sql(files: Sequence[str], seen: str, devices: Sequence[str] = ()) -> str:
    values = ", ".join(
        f"{name} := epoch_us({name})" if name in ("timestamp", "received_at") else f"{name} := {name}"
        for name in COLUMNS.names
    )
    newest = [
        f"arg_max(struct_pack({values}), (timestamp, id)) FILTER (WHERE {kind} AND {ahead})"
        for kind, _ in _KINDS
        for ahead in (f"NOT {_AHEAD}", _AHEAD)
    ]
    where = f"WHERE device_id IN ({', '.join(map(sql_text, devices))})" if devices else ""
    select = f"SELECT device_id, epoch_ms(max({seen})), {', '.join(newest)}"
    return f"{select} FROM {records_sql(files)} {where} GROUP BY device_id"


def _archived(row: tuple[Any, ...]) -> list[Archived]:
    roles = [role for _, role in _KINDS for _ in range(2)]
    candidates = [(_stored(values), role) for values, role in zip(row[2:], roles, strict=True) if values is not None]
    candidates.sort(key=lambda one: one[0].id)  # in the order in which they arrived
    return [Archived(stored, flags_of(stored.record, role), row[1]) for stored, role in candidates]


def _stored(values: dict[str, Any]) -> Stored:
    record = Record(
        timestamp_us=values["timestamp"],
        **{name: values[name] for name in COLUMNS.names if name not in _NOT_OF_THE_RECORD},
    )
    return Stored(values["device_id"], values["id"], values["received_at"] // 1_000, record)


_NOT_OF_THE_RECORD = ("device_id", "timestamp", "received_at", "id")
