"""Records next to a range: the nearest ones of each device before it and after it.

What happens between two records on either side of a range's border is cut there, so that the parts of a time that are
asked for one by one add up to the whole. The record beyond the border is some seconds away where a device reports all
the time, and days away where a tracker sleeps while its vehicle is parked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import duckdb
import pyarrow as pa

from api.requests.params import MAX_DEVICES
from api.snapshot.record_sql import records_in
from api.snapshot.snapshot import Snapshot, Wanted
from telemetry.archive.data_files import LiveFile
from telemetry.model.record import EARLIEST_US, LATEST_US
from telemetry.model.utc import DAY_US

BOUND_US = 31 * DAY_US
"""Maximum time between two records that are looked at together, µs; between two farther apart nothing is known."""

STEPS_US = (DAY_US // 24, DAY_US, BOUND_US)
"""Distances in time to search for one record of each device: mostly the first is enough."""

STEPS_OF_SOME_US = (DAY_US // 24, DAY_US, 2 * DAY_US, BOUND_US)
"""Distances likewise for several records, which mostly lie within a day of one another."""


class Look(NamedTuple):
    """Records that are read outside a range: all within a margin on either side, and beyond it the `nearest` ones of
    each device that match the SQL `where`."""

    margin_us: int
    nearest: int
    where: str
    is_after: bool = True
    """Whether records after the range are read, too."""
    is_of_range: bool = False
    """Whether only devices with records in the range or its margins are searched."""
    reach_us: int = 0
    """Time without a record of a device at which the search for more than its nearest one ends."""

    @property
    def steps_us(self) -> tuple[int, ...]:
        """Distances in time, searched one after another until each device has enough records."""
        return STEPS_US if self.nearest == 1 else STEPS_OF_SOME_US

    def near(self, wanted: Wanted) -> Wanted:
        """The range and its margins."""
        return widened(wanted, self.margin_us)

    def wide(self, wanted: Wanted) -> Wanted:
        """All that may be read, for a snapshot."""
        return widened(wanted, self.margin_us + BOUND_US)


def widened(wanted: Wanted, margin_us: int) -> Wanted:
    """A range with a margin on either side."""
    start_us = max(wanted.start_us - margin_us, EARLIEST_US)
    return wanted._replace(start_us=start_us, end_us=min(wanted.end_us + margin_us, LATEST_US))


class Around:
    """Reads a snapshot of `Look.wide`; its tail, if it has one, is registered as "tail" in DuckDB."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, names: Sequence[str], has_tail: bool
    ) -> None:
        self._connection = connection
        self._files = snapshot.files
        self._names = names
        self._has_tail = has_tail

    def source(self, wanted: Wanted, look: Look) -> str | None:
        """SQL that selects the records; None if there are none. Good for one question."""
        near = look.near(wanted)
        core = self._records(near)
        found = list(self._beyond(near, look, core)) if look.nearest else []
        rows = pa.concat_tables(found) if found else None
        if rows is None or rows.num_rows == 0:
            return core
        self._connection.register("neighbours", rows)
        beyond = f"SELECT {', '.join(self._names)} FROM neighbours"
        return f"{core} UNION ALL {beyond}" if core else beyond

    def _records(self, wanted: Wanted) -> str | None:
        if wanted.start_us >= wanted.end_us:
            return None
        files = self._within(wanted)
        return records_in(files, wanted, self._names, self._has_tail) if files or self._has_tail else None

    def _within(self, wanted: Wanted) -> list[LiveFile]:
        if wanted.start_us >= wanted.end_us:
            return []
        return [file for file in self._files if file.may_hold(wanted.start_us, wanted.end_us, wanted.devices)]

    def _beyond(self, near: Wanted, look: Look, core: str | None) -> Iterator[pa.Table]:
        among = near.devices
        if look.is_of_range:
            among = self._devices(core)
            if not among:
                return
        yield from self._nearest(_before(near, look), look, among, "max_by", near.start_us)
        if look.is_after:
            yield from self._nearest(_after(near, look), look, among, "min_by", near.end_us)

    def _devices(self, records: str | None) -> list[str]:
        """Which devices have some: one column of them is read, which takes far less time than all."""
        if records is None:
            return []
        rows = self._connection.execute(f"SELECT DISTINCT device_id FROM ({records})").fetchall()
        return [device for (device,) in rows]

    def _nearest(
        self, steps: Iterable[Wanted], look: Look, among: Sequence[str], pick: str, border_us: int
    ) -> Iterator[pa.Table]:
        search = _Search(look, border_us)
        for step in steps:
            full = search.full()
            if among and full.issuperset(among):
                return
            missing = sorted(set(among or self._devices(self._records(step))) - full)
            part = step._replace(devices=missing) if len(missing) <= MAX_DEVICES else step
            search.searched_us = max(border_us - step.start_us, step.end_us - border_us)
            files = self._within(part)
            if not missing or not (files or self._has_tail):
                continue
            found = self._picked(records_in(files, part, self._names, self._has_tail), look, pick)
            search.add(found)
            yield found

    def _picked(self, records: str, look: Look, pick: str) -> pa.Table:
        picked = f"{pick}(record, (timestamp, id), {look.nearest})"
        rows = f"SELECT {', '.join(self._names)} FROM ({records}) WHERE {look.where}"
        return self._connection.sql(
            f"SELECT unnest(kept, recursive := true) FROM "
            f"(SELECT {picked} AS kept FROM ({rows}) AS record GROUP BY record.device_id)"
        ).to_arrow_table()


class _Search:
    """Progress of a search in steps away from a border of a range."""

    def __init__(self, look: Look, border_us: int) -> None:
        self._look = look
        self._border_us = border_us
        self._distances_us: dict[str, list[int]] = defaultdict(list)
        self.searched_us = 0
        """Distance in time up to which all records were searched."""

    def add(self, found: pa.Table) -> None:
        """Note records that were found."""
        times_us = found.column("timestamp").cast(pa.int64()).to_pylist()
        for device, us in zip(found.column("device_id").to_pylist(), times_us, strict=True):
            self._distances_us[device].append(abs(us - self._border_us))

    def full(self) -> set[str]:
        """Devices that have enough records, or have no more that matter."""
        return {device for device, distances_us in self._distances_us.items() if self._is_full(distances_us)}

    def _is_full(self, distances_us: list[int]) -> bool:
        in_turn = [*sorted(distances_us), self.searched_us]
        has_gap = any(after - before >= self._look.reach_us for before, after in pairwise(in_turn))
        return len(distances_us) >= self._look.nearest or has_gap


def _before(near: Wanted, look: Look) -> Iterator[Wanted]:
    """The steps away from a range, backwards."""
    end_us = near.start_us
    for step_us in look.steps_us:
        start_us = max(near.start_us - step_us, EARLIEST_US)
        yield near._replace(start_us=start_us, end_us=end_us)
        end_us = start_us


def _after(near: Wanted, look: Look) -> Iterator[Wanted]:
    start_us = near.end_us
    for step_us in look.steps_us:
        end_us = min(near.end_us + step_us, LATEST_US)
        yield near._replace(start_us=start_us, end_us=end_us)
        start_us = end_us
