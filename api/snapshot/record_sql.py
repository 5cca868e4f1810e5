"""SQL that selects the records of a time range from the files and the tail of a snapshot."""

from __future__ import annotations

from collections.abc import Sequence

from api.snapshot.snapshot import Wanted
from telemetry.archive.data_files import LiveFile
from telemetry.archive.schema import COLUMNS, records_sql, sql_text
from telemetry.model.utc import iso


def records_in(
    files: Sequence[LiveFile], wanted: Wanted, names: Sequence[str] = COLUMNS.names, has_tail: bool = True
) -> str:
    """SQL that selects the columns `names` of the records of `wanted`, from files and from the table `tail`.

    The table must be registered. `has_tail=False` leaves it out if there are files: DuckDB plans that in less time.
    """
    where, columns = _where(wanted), ", ".join(names)
    tail = f"SELECT {columns} FROM tail WHERE {where}"
    if not files:
        return tail
    archived = f"SELECT {columns} FROM {records_sql([file.path for file in files])} WHERE {where}"
    return f"{archived} UNION ALL {tail}" if has_tail else archived


def _where(wanted: Wanted) -> str:
    conditions = [
        f"timestamp >= TIMESTAMPTZ '{iso(wanted.start_us)}'",
        f"timestamp < TIMESTAMPTZ '{iso(wanted.end_us)}'",
    ]
    if len(wanted.devices) == 1:
        conditions.append(f"device_id = {sql_text(wanted.devices[0])}")
    elif wanted.devices:
        conditions.append(f"device_id IN ({', '.join(map(sql_text, wanted.devices))})")
    elif wanted.prefix:  # the first condition skips row groups by their statistics
        prefix = sql_text(wanted.prefix)
        conditions.append(f"device_id >= {prefix} AND starts_with(device_id, {prefix})")
    if wanted.where:
        conditions.append(f"({wanted.where})")
    return " AND ".join(conditions)
