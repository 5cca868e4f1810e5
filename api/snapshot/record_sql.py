"""SQL that selects the records of a range: of the files of a snapshot, and of its tail."""

from __future__ import annotations

from collections.abc import Sequence

from api.snapshot.snapshot import Wanted
from telemetry.archive.data_files import LiveFile
from telemetry.archive.schema import COLUMNS, records_sql, sql_text
from telemetry.model.utc import iso


def records_in(
    files: Sequence[LiveFile], wanted: Wanted, names: Sequence[str] = COLUMNS.names, has_tail: bool = True
) -> str:
    """SQL that selects the records of `wanted` in files and in the tail that is registered, the columns named.

    Without a tail a quarter of a small question's time is saved: it goes into planning.
    """
    where, some = _where(wanted), ", ".join(names)
    tail = f"SELECT {some} FROM tail WHERE {where}"
    if not files:
        return tail
    archived = f"SELECT {some} FROM {records_sql([file.path for file in files])} WHERE {where}"
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
    elif wanted.prefix:  # the first half leaves out row groups, by what files say of them
        prefix = sql_text(wanted.prefix)
        conditions.append(f"device_id >= {prefix} AND starts_with(device_id, {prefix})")
    if wanted.where:
        conditions.append(f"({wanted.where})")
    return " AND ".join(conditions)
