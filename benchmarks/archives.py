"""Archives of many days, written by the archive's own code, past the collector: 1,000 records a device and day.

One day is simulated, and thinned until each device has as many records as any other; each further day is the same one,
later. Between its records as many more as are wanted lie on the straight line.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice, takewhile
from random import Random

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from benchmarks import messages
from benchmarks.messages import DEVICES
from telemetry.archive.operations import commits
from telemetry.archive.schema import COLUMNS, TIME
from telemetry.archive.table import Archive, commit_number
from telemetry.codec.record_parser import read
from telemetry.model.record import Sent
from telemetry.model.utc import DAY_US
from telemetry.system.clock import arrival

A_DAY = 1_000
"""Records of a device a day."""

INTERVAL_MS = 20_000
"""Between two reports of a vehicle that drives, of which every other one or so is kept where a day has `A_DAY`."""

LONGEST_WAY_MS = 2_000
"""How long a record is under way at most."""

OTHER_SHARD = 99
"""What these commits are numbered for: no box has that shard, so they are none of its worker's business."""

FIRST_ID = 10**9
NOW = arrival(1_800_000_000_000_000, 0, 86_400, "kmh", 2**20)


def one_day(devices: int = DEVICES, a_device: int = A_DAY) -> pa.Table:
    """The records of one day, in the order of arrival."""
    today, interval_ms = messages.day(0).isoformat(), INTERVAL_MS * A_DAY // a_device
    held: dict[str, list[str]] = defaultdict(list)
    for line in takewhile(lambda line: today in line[:64], messages.lines(devices, interval_ms)):
        held[line[:24]].append(line)
    sent: list[Sent] = [_sent(line) for found in held.values() for line in _thinned(found, a_device)]
    sent.sort(key=lambda one: one.record.timestamp_us)
    return _table(sent)


def first_records(count: int) -> pa.Table:
    """The first records that `whimbrel simulate --seed 1` sends, in the order of time: one in 10 s of each vehicle."""
    return _table([_sent(line) for line in islice(messages.lines(), count)])


def _table(sent: Sequence[Sent]) -> pa.Table:
    """Records as a table: each arrived by itself, a while after its time."""
    dice = Random(messages.SEED)
    rows = [
        (
            one.device_id,
            one.record.timestamp_us,
            (one.record.timestamp_us // 1_000 + dice.randrange(LONGEST_WAY_MS)) * 1_000,
            FIRST_ID + n,
            *msgspec.structs.astuple(one.record)[1:],
        )
        for n, one in enumerate(sent)
    ]
    values = zip(*rows, strict=True)
    return pa.table([pa.array(v, type=f.type) for v, f in zip(values, COLUMNS, strict=True)], schema=COLUMNS)


def _thinned(found: list[str], count: int) -> Iterable[str]:
    if len(found) < count:
        raise ValueError(f"a device has {len(found)} records a day, not {count}: take a smaller interval")
    return (found[n * len(found) // count] for n in range(count))


def _sent(line: str) -> Sent:
    return read(msgspec.json.decode(line), "tcp", "json", NOW)


def in_batches(records: pa.Table) -> pa.Table:
    """The same records as a sender of history brings them: 1,000 at once, every 10 ms."""
    first_us = pc.min(records["timestamp"]).cast(pa.int64()).as_py()
    arrivals = [first_us + n // messages.A_MESSAGE * 10_000 for n in range(records.num_rows)]
    return _with(records, received_at=pa.array(arrivals, TIME))


def later(table: pa.Table, number: int) -> pa.Table:
    """The same records `number` days later, with ids of their own."""
    moved = {
        name: pc.add(table[name].cast(pa.int64()), number * DAY_US).cast(TIME) for name in ("timestamp", "received_at")
    }
    moved["id"] = pc.add(table["id"], number * table.num_rows)
    return _with(table, **moved)


def _with(table: pa.Table, **columns: pa.Array) -> pa.Table:
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    return table


def add(archive: Archive, tables: Iterable[pa.Table]) -> None:
    """Write and commit each table, a file a day."""
    table = archive.open()
    commit = archive.committed(table, OTHER_SHARD)
    for records in tables:
        commit = commit_number(commit)
        files = archive.data_files.write(records, commit)
        commits.commit(archive, table, files, OTHER_SHARD, commit, 0)
        table = archive.open()


def add_days(archive: Archive, day: pa.Table, first: int, behind: int) -> None:
    """Have the days from `first` on, up to the one before `behind`, in the archive."""
    day = day.sort_by([(name, "ascending") for name in ("device_id", "timestamp", "id")])  # once, not for each file
    days = tqdm(range(first, behind), unit="day", initial=first, total=behind, disable=None)
    add(archive, (later(day, number) for number in days))


def denser(connection: duckdb.DuckDBPyConnection, day: pa.Table, times: int, saves: int) -> Iterable[pa.Table]:
    """A day of `times` as many records, on the way from each to the device's next, as `saves` saves would take them."""
    connection.register("day", day)
    names = ("latitude", "longitude", "altitude_m", "speed_kmh")
    digits = dict(zip(names, (6, 6, 1, 1), strict=True))
    ahead = ", ".join(f"lead({name}, 1, {name}) OVER w AS next_{name}" for name in ("timestamp", *names))
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE ahead AS SELECT *, {ahead}, (row_number() OVER (ORDER BY id) - 1) * {saves} "
        "// count(*) OVER () AS save FROM day WINDOW w AS (PARTITION BY device_id ORDER BY timestamp)"
    )
    between = ", ".join(f"round({n} + (next_{n} - {n}) * k / {times}, {digits[n]}) AS {n}" for n in names)
    way = f"to_microseconds(CAST(date_diff('us', timestamp, next_timestamp) * k / {times} AS BIGINT))"
    made = f"timestamp + {way} AS timestamp, received_at + {way} AS received_at, id * {times} + k AS id, {between}"
    helpers = ", ".join(("save", "k", *(f"next_{name}" for name in ("timestamp", *names))))
    for save in range(saves):
        found = connection.sql(
            f"SELECT * EXCLUDE ({helpers}) REPLACE ({made}) "
            f"FROM ahead, (SELECT unnest(range({times})) AS k) WHERE save = {save}"
        )
        yield found.to_arrow_table().cast(day.schema)
    connection.unregister("day")
