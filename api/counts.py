"""How many records each device has, and when the first arrived. A file never changes, so it is counted once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import duckdb
import pyarrow as pa

from api import answers
from api.params import MAX_DEVICES
from api.snapshot import Snapshots, Wanted
from telemetry.columns import sql_text
from telemetry.data_files import LiveFile
from telemetry.record import EARLIEST_US, LATEST_US

MAX_KEPT_BYTES = 2**26
"""Of counts that are kept: 16 bytes and an id for each device of a file."""


class Count(NamedTuple):
    """Records of a device, and when the first of them arrived."""

    records: int
    first_seen: datetime


class Counts:
    """Counts records of devices; keeps what it counted of files that are used."""

    def __init__(self, snapshots: Snapshots, max_kept_bytes: int = MAX_KEPT_BYTES) -> None:
        self._snapshots = snapshots
        self._max_kept_bytes = max_kept_bytes
        self._kept: OrderedDict[str, pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, connection: duckdb.DuckDBPyConnection, devices: Sequence[str]) -> dict[str, Count]:
        """Those of the devices, in the order of their ids, of which any are there: of one snapshot."""
        named = devices if len(devices) <= MAX_DEVICES else ()
        snapshot = self._snapshots.take(Wanted(named, EARLIEST_US, LATEST_US))
        blocks = snapshot.blocks
        tail = pa.table(
            [
                [block.device_id for block in blocks],
                [len(block.ids) for block in blocks],
                [block.received_ms * 1_000 for block in blocks],
            ],
            schema=_SCHEMA,
        )
        connection.register("counts", pa.concat_tables([*self._of_files(connection, snapshot.files), tail]))
        connection.register("asked", pa.table({"device_id": pa.array(devices, pa.string())}))
        rows = connection.execute(
            "SELECT device_id, sum(records)::BIGINT, min(first_us) FROM counts SEMI JOIN asked USING (device_id) "
            "GROUP BY device_id"
        ).fetchall()
        return {device: Count(records, answers.moment(first_us)) for device, records, first_us in rows}

    def _of_files(self, connection: duckdb.DuckDBPyConnection, files: Sequence[LiveFile]) -> list[pa.Table]:
        paths = [file.path for file in files]
        with self._lock:
            known = {path: self._kept[path] for path in paths if path in self._kept}
        known |= {path: _counted(connection, path) for path in paths if path not in known}
        with self._lock:
            self._keep(known)
        return list(known.values())

    def _keep(self, known: dict[str, pa.Table]) -> None:
        """Keep what was used last, as much as may be kept."""
        for path, table in known.items():
            self._kept[path] = table
            self._kept.move_to_end(path)
        size_bytes = sum(table.nbytes for table in self._kept.values())
        while self._kept and size_bytes > self._max_kept_bytes:
            size_bytes -= self._kept.popitem(last=False)[1].nbytes


_SCHEMA = pa.schema({"device_id": pa.string(), "records": pa.int64(), "first_us": pa.int64()})


def _counted(connection: duckdb.DuckDBPyConnection, path: str) -> pa.Table:
    counts = (
        "SELECT device_id, count(*) AS records, epoch_us(min(received_at)) AS first_us "
        f"FROM read_parquet({sql_text(path)}, hive_partitioning = false) GROUP BY device_id"
    )
    return connection.sql(counts).to_arrow_table().cast(_SCHEMA)
