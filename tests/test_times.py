"""Records of any time in any order, and a wrong clock of the box: the whole path agrees with a model of lists.

A record is decoded, appended, saved and compacted in this process, on a real Redis and a real archive; then the
latest of each device, ranges, and the days of the files are compared.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb
import pytest
import redis
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from api.records.range_query import Question, page
from api.snapshot.snapshot import Snapshots, Wanted
from compactor.compaction import Compactor
from compactor.plan import Limits as PlanLimits
from telemetry.archive.schema import sql_text
from telemetry.archive.table import Archive
from telemetry.codec.record_parser import read
from telemetry.config.settings import Settings
from telemetry.hot_store import shard as hot
from telemetry.hot_store.entry_codec import decode_latest, entry_id, pack, read_entry
from telemetry.hot_store.operations.append import Batch, Limits, append_batches
from telemetry.hot_store.shard import Shard
from telemetry.model.errors import RecordError
from telemetry.model.record import EARLIEST_US, LATEST_US, Sent, Stored, replaces
from telemetry.model.utc import DAY_US, day_of, iso
from telemetry.startup.store_setup import set_up
from telemetry.system import clock
from worker.saving.saver import Saver

pytestmark = pytest.mark.slow

HOUR_US = 3_600_000_000
FUTURE_S = 86_400
DEVICES = "ab"
FILES = PlanLimits(max_open_files=4, quiet_s=0)


class Append(NamedTuple):
    """One message: a device's records at these times, and the box's clock at its arrival."""

    device: str
    moments: tuple[str, ...]
    box: str
    transport: str
    has_fix: bool


class Step(NamedTuple):
    """Something that the box does, its clock showing a moment."""

    name: str
    box: str


def moments_us() -> dict[str, int]:
    """The moments that records and the box's clock may show, around the real now, which Redis's clock shows."""
    now_us = time.time_ns() // 1_000
    midnight_us = now_us // DAY_US * DAY_US
    return {
        "1970": 0,
        "2000": EARLIEST_US,
        "a year ago": now_us - 365 * DAY_US,
        "days ago": now_us - 3 * DAY_US,
        "an hour ago": now_us - HOUR_US,
        "before midnight": midnight_us - 1,
        "midnight": midnight_us,
        "after midnight": midnight_us + 1,
        "now": now_us,
        "soon": now_us + 10 * 60_000_000,
        "tomorrow": now_us + FUTURE_S * 1_000_000,
        "the day after": now_us + 2 * DAY_US,
        "2038": 2_147_483_648_000_000,
        "2200": LATEST_US - 1,
        "too late": LATEST_US,
    }


MOMENTS = tuple(moments_us())

steps = st.lists(
    st.builds(
        Append,
        st.sampled_from(DEVICES),
        st.lists(st.sampled_from(MOMENTS), min_size=1, max_size=4).map(tuple),
        st.sampled_from(["now", "now", "now", "1970", "an hour ago", "2038"]),
        st.sampled_from(["http", "tcp"]),
        st.booleans(),
    )
    | st.builds(Step, st.sampled_from(["save", "compact", "set back"]), st.sampled_from(["now", "1970", "2038"])),
    min_size=1,
    max_size=12,
)


class Model:
    """All records, and by the rule of record.py the newest of each device and kind."""

    def __init__(self) -> None:
        self.stored: list[Stored] = []
        self.newest: dict[tuple[str, str], Stored] = {}

    def arrive(self, entry: Sequence[Stored]) -> None:
        """Take one entry: of its records the one with the greatest timestamp counts, of equals the last."""
        self.stored += entry
        for kind in ("http", "other", "fix"):
            mine = [one for one in entry if kind in kinds(one)]
            if mine:
                self._offer(kind, max(mine, key=lambda one: (one.record.timestamp_us, one.id)))

    def _offer(self, kind: str, new: Stored) -> None:
        old = self.newest.get((new.device_id, kind))
        if old is None or replaces(new.record.timestamp_us, new.received_ms, old.record.timestamp_us, old.received_ms):
            self.newest[new.device_id, kind] = new

    def range(self, devices: Sequence[str], start_us: int, end_us: int) -> list[int]:
        wanted = [
            one
            for one in self.stored
            if start_us <= one.record.timestamp_us < end_us and (not devices or one.device_id in devices)
        ]
        return [one.id for one in sorted(wanted, key=lambda one: (one.record.timestamp_us, one.id))]


def kinds(one: Stored) -> set[str]:
    found = {"http" if one.record.transport == "http" else "other"}
    return found | {"fix"} if one.record.has_fix else found


class WholePath:
    """The whole path in this process."""

    def __init__(self, shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> None:
        self.shard = shard
        self.archive = archive
        self.connection = connection
        self.model = Model()
        self.at_us = moments_us()

    def take(self, step: Append | Step) -> None:
        if isinstance(step, Append):
            self.append(step)
        elif step.name == "save":
            self.save()
        elif step.name == "compact":
            self.compact(self.at_us[step.box])
        else:
            self.set_back()

    def append(self, step: Append) -> None:
        """Decode a message and store the records that the box's clock accepts; compares them with the expected ones."""
        box_us = self.at_us[step.box]
        arrival = clock.arrival(box_us, self.shard.newest_ms(), FUTURE_S)
        is_believed = step.box != "1970" and self.shard.newest_ms() <= box_us // 1_000 + clock.STEP_MS
        latest_us = box_us + FUTURE_S * 1_000_000 if is_believed else LATEST_US - 1
        good: list[Sent] = []
        for name in step.moments:
            at_us = self.at_us[name]
            fields: dict[str, object] = {"device_id": step.device, "timestamp": iso(at_us)}
            fields |= {"latitude": 1, "longitude": 2} if step.has_fix else {}
            try:
                good.append(read(fields, step.transport, "json", arrival))
            except RecordError:
                assert not EARLIEST_US <= at_us <= latest_us, name
            else:
                assert EARLIEST_US <= at_us <= latest_us, name
                assert good[-1].record.timestamp_us == at_us
        before = self.tail(step.device)
        if good:
            append_batches(self.shard, [Batch(pack(good))], Limits())
        for entry in self.tail(step.device)[len(before) :]:
            self.model.arrive(entry)

    def tail(self, device: str) -> list[list[Stored]]:
        [entries] = self.shard.entries([(device, "-", "+")])
        return [read_entry(device, raw, 1) for raw in entries]

    def save(self) -> None:
        Saver(self.archive, self.connection, clock.now_ms).save(self.shard)

    def compact(self, now_us: int) -> None:
        compactor = Compactor(self.archive, lambda: self.connection, lambda: now_us, FILES)
        while compactor.compact() is not None:
            pass

    def set_back(self) -> None:
        """As if the box's clock had been an hour ahead: the ids of entries go on from there."""
        ahead_ms = clock.now_ms() + 3_600_000
        for device in DEVICES:
            key = self.shard.keys.stream(device)
            info = self.shard.client.xinfo_stream(key) if self.shard.client.exists(key) else None
            if info and entry_id(info["last-generated-id"]) < (ahead_ms, 0):
                self.shard.client.execute_command("XSETID", key, f"{ahead_ms}-0")  # type: ignore[no-untyped-call]

    def check(self) -> None:
        self.check_latest()
        self.check_ranges()
        self.check_days()

    def check_latest(self) -> None:
        for device, value in zip(DEVICES, self.shard.latest([name.encode() for name in DEVICES]), strict=True):
            known = {kind: one.id for (name, kind), one in self.model.newest.items() if name == device}
            latest = decode_latest(value) if value is not None else None
            slots = {"http": latest.http, "other": latest.other, "fix": latest.position} if latest is not None else {}
            assert {kind: slot.id for kind, slot in slots.items() if slot is not None} == known

    def check_ranges(self) -> None:
        snapshots = Snapshots(lambda: hot.pinned(self.shard.client, 1), self.archive)
        ends = ("2000", "days ago", "midnight", "now", "too late")
        spans = [(self.at_us[a], self.at_us[b]) for n, a in enumerate(ends) for b in ends[n + 1 :]]
        for devices in ((), ("a",), ("b", "nobody")):
            for start_us, end_us in spans:
                question = Question(Wanted(devices, start_us, end_us))
                with self.connection.cursor() as cursor:
                    found = page(cursor, snapshots, question).column("id").to_pylist()
                assert found == self.model.range(devices, start_us, end_us)

    def check_days(self) -> None:
        table = self.archive.open_existing()
        for file in [] if table is None else self.archive.live(table):
            query = f"SELECT DISTINCT epoch_us(timestamp) FROM read_parquet({sql_text(file.path)})"
            assert {day_of(us) for (us,) in self.connection.execute(query).fetchall()} == {file.day}


@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=steps)
@example(
    plan=[
        Append("a", ("now", "2038"), "1970", "http", True),
        Step("save", "now"),
        Append("a", ("an hour ago", "soon", "now"), "now", "http", False),
        Step("compact", "2038"),
    ]
)
@example(
    plan=[
        *[
            Append("a", ("before midnight", "midnight", "after midnight", "midnight"), "now", "tcp", True),
            Step("save", "now"),
        ]
        * 5,
        Step("set back", "now"),
        Append("a", ("now",), "an hour ago", "tcp", True),
        Append("a", ("days ago",), "now", "tcp", True),
        Step("save", "now"),
        Step("compact", "1970"),
    ]
)
def test_any_order_of_any_times(
    client: redis.Redis,
    settings: Settings,
    connection: duckdb.DuckDBPyConnection,
    tmp_path_factory: pytest.TempPathFactory,
    plan: list[Append | Step],
) -> None:
    client.flushall()
    archive = Archive(Path(tmp_path_factory.mktemp("times")) / "archive")
    path = WholePath(set_up(client, archive, 1)[0], archive, connection)
    for step in plan:
        path.take(step)
        path.check_latest()
    path.check()
    path.save()
    path.compact(path.at_us["now"])
    path.check()
