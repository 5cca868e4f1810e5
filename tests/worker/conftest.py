"""What tests of saving share: records to save, and all that is stored afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import duckdb
import pytest

from telemetry.archive.table import Archive
from telemetry.hot_store.entry_codec import pack, read_entry
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard
from telemetry.model.record import Record, Sent
from telemetry.model.utc import DAY_US

NOW_US = 1_795_500_000_000_000

Content = tuple[str, int]
"""A record as these tests tell it from others: its device and its altitude, which is unique."""


class Ledger:
    """Appends records that are all different, and knows what was acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: Counter[Content] = Counter()
        self._appended = 0

    def append(self, shard: Shard, devices: Iterable[str], days: int = 1) -> None:
        sent: list[Sent] = []
        for number, device in enumerate(devices, self._appended):
            timestamp_us = NOW_US - number % days * DAY_US + number
            sent.append(Sent(device, Record(timestamp_us, "tcp", "json", altitude_m=float(number))))
        append_batches(shard, [Batch(pack(sent))], Limits())
        self._appended += len(sent)
        self.acknowledged.update((one.device_id, int(one.record.altitude_m or 0)) for one in sent)


def archived(connection: duckdb.DuckDBPyConnection, archive: Archive) -> Counter[Content]:
    """What the archive's live files hold."""
    files = archive.files(archive.open())
    if not files:
        return Counter()
    rows = connection.execute("SELECT device_id, altitude_m FROM read_parquet($1)", [files]).fetchall()
    return Counter((device, int(altitude)) for device, altitude in rows)


def waiting(shard: Shard) -> Counter[Content]:
    """What the tail holds."""
    devices = shard.all_dirty()
    entries = shard.entries([(device, "-", "+") for device in devices])
    return Counter(
        (device, int(stored.record.altitude_m or 0))
        for device, found in zip(devices, entries, strict=True)
        for raw in found
        for stored in read_entry(device, raw, shard.shards)
    )


@pytest.fixture
def ledger() -> Ledger:
    """An empty ledger."""
    return Ledger()
