"""Summaries equal those of plain Python: records saved or not, late, with equal times, or on the border of a bucket."""

from __future__ import annotations

import json
from itertools import count
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from api.analytics.summary import UNITS_US, Question, page
from api.analytics.summary_sql import FIELDS, SummaryQuery
from api.positions.plausibility import OFF, Limits
from api.snapshot.snapshot import Wanted
from telemetry.archive.operations import commits
from telemetry.archive.schema import COLUMNS
from telemetry.archive.table import Archive, commit_number
from telemetry.hot_store.shard import Shard
from telemetry.model.record import EARLIEST_US, LATEST_US, Record, Sent, Stored
from telemetry.model.utc import DAY_US
from tests.api.stores import MIDNIGHT_US, Stores
from tests.api.summary_model import Rules, summaries

MINUTE_US, HOUR_US = UNITS_US["m"], UNITS_US["h"]


class Case(NamedTuple):
    """Groups of records in order of arrival, the number of saved groups, and the requests."""

    groups: list[list[Sent]]
    saved: int
    rules: list[Rules]
    limit: int


COORDINATES = st.tuples(
    st.sampled_from([None, -90.0, -10.5, 0.0, 53.4, 53.4001, 90.0]),
    st.sampled_from([None, -180.0, -179.9, -60.0, -0.0, 0.0, 60.0, 179.9, 180.0]),
)
SPEEDS = st.sampled_from([None, 0.0, 2.999, 3.0, 3.001, 60.0, 1e300])
TIMES_US = st.builds(
    lambda step, jitter_us: MIDNIGHT_US + step * 10 * MINUTE_US + jitter_us,
    st.integers(-8, 8),
    st.sampled_from([-300_000_001, -300_000_000, -1, 0, 1, 60_000_000, 300_000_000]),
)
RECORDS = st.builds(
    lambda at_us, place, speed, transport, accuracy_m: Record(
        at_us, transport, "json", place[0], place[1], None, speed, accuracy_m=accuracy_m
    ),
    *(TIMES_US, COORDINATES, SPEEDS, st.sampled_from(["http", "tcp"]), st.sampled_from([None, None, 1_000.0, 1_000.1])),
)
SENT = st.builds(Sent, st.sampled_from(["a", "b", "ü/😀'"]), RECORDS)
RULES = st.builds(
    Rules,
    st.one_of(st.just(EARLIEST_US), TIMES_US),
    st.one_of(st.just(LATEST_US), TIMES_US),
    st.sampled_from([None, MINUTE_US, 7 * MINUTE_US, HOUR_US, 5 * HOUR_US, DAY_US, 7 * DAY_US]),
    st.sampled_from([3.0, 0.0, 60.0]),
    st.sampled_from([300_000_000, 600_000_000, HOUR_US]),
    st.sampled_from([Limits(), Limits(), OFF, Limits(50_000.0)]),
)
CASES = st.integers(0, 3).flatmap(
    lambda saved: st.builds(
        Case,
        st.lists(st.lists(SENT, min_size=1, max_size=12), min_size=1, max_size=4),
        st.just(saved),
        st.lists(RULES, min_size=1, max_size=3),
        st.sampled_from([1, 2, 5, 1_000]),
    )
)
NUMBERS = count()


@pytest.fixture
def stores(shard: Shard, archive: Archive, connection: duckdb.DuckDBPyConnection) -> Stores:
    return Stores([shard], archive, connection)


@hypothesis_settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CASES)
def test_summaries_equal_those_of_plain_python(stores: Stores, case: Case) -> None:
    """Each example has its own devices in the same stores."""
    number = next(NUMBERS)
    names = [f"{number} {name}" for name in ("a", "b", "ü/😀'")]
    for place, group in enumerate(case.groups):
        stores.append(*(Sent(f"{number} {sent.device_id}", sent.record) for sent in group))
        if place < case.saved:
            stores.save()
    mine = [one for one in stores.stored if one.device_id in names]
    for rules in case.rules:
        found = walk(stores, names, rules, case.limit)
        assert found == summaries(mine, rules)
        if rules.start_us < MIDNIGHT_US < rules.end_us:
            parts = [rules._replace(end_us=MIDNIGHT_US), rules._replace(start_us=MIDNIGHT_US)]
            answers = [walk(stores, names, part, case.limit) for part in parts]
            assert answers == [summaries(mine, part) for part in parts]
            assert_same_sums([one for answer in answers for one in answer], found)


def assert_same_sums(parts: list[dict[str, Any]], whole: list[dict[str, Any]]) -> None:
    """The sums of two adjacent ranges add up to the sums of the whole range."""
    for name in ("count", "distance_km", "stopped_seconds", "implausible"):
        sum_of_parts, sum_of_whole = (sum(summary[name] or 0 for summary in rows) for rows in (parts, whole))
        assert sum_of_parts == pytest.approx(sum_of_whole, abs=1e-4)


def walk(stores: Stores, devices: list[str], rules: Rules, limit: int) -> list[dict[str, Any]]:
    """All summaries, page by page."""
    wanted = Wanted(devices, rules.start_us, rules.end_us)
    found, after = [], None
    while True:
        question = Question(wanted, SummaryQuery([*FIELDS], *rules), limit, after)
        with stores.connection.cursor() as cursor:
            part = page(cursor, stores.snapshots, question)
        body = json.loads(part.body)
        assert len(body["summaries"]) <= limit
        found += body["summaries"]
        if part.after is None:
            assert body["next_cursor"] is None
            return found
        assert len(body["summaries"]) == limit
        assert body["next_cursor"] == f"{part.after.start_us}-{part.after.device_id}"
        after = part.after


# A million -------------------------------------------------------------------------------------------

DEVICES, A_DEVICE = 100, 10_000
STEP_US = DAY_US // A_DEVICE


def test_a_million_records(stores: Stores) -> None:
    """Each device moves north until noon and then stands; the last record of each is unsaved."""
    stores.append(*(Sent(f"d{n:02}", moving(A_DEVICE - 1)) for n in range(DEVICES)))
    commit, table = commit_number("0"), stores.archive.open()
    files = stores.archive.data_files.write(many(stores.connection), commit)
    commits.commit(stores.archive, table, files, 99, commit, 0)
    day = Rules(MIDNIGHT_US, MIDNIGHT_US + DAY_US)
    found = walk(stores, [], day._replace(every_us=HOUR_US), 1_000)
    assert [one["device_id"] for one in found] == [f"d{n:02}" for n in range(DEVICES) for _ in range(24)]
    records = [Stored("d00", n, 0, moving(n)) for n in range(A_DEVICE)]
    for place, expected in enumerate(summaries(records, day._replace(every_us=HOUR_US))):
        for n in (0, 1, DEVICES - 1):
            assert found[24 * n + place] == expected | {"device_id": f"d{n:02}"}
    [whole] = walk(stores, ["d07"], day, 1)
    assert whole == summaries(records, day)[0] | {"device_id": "d07"}


def moving(n: int) -> Record:
    """The n-th record of a device."""
    is_before_noon = n < A_DEVICE // 2
    north = min(n, A_DEVICE // 2) / 1_000
    return Record(MIDNIGHT_US + n * STEP_US, "tcp", "json", north, -3.0, None, 60.0 if is_before_noon else 0.0)


def many(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """The records of all devices, without the last of each."""
    at = f"make_timestamp({MIDNIGHT_US} + n * {STEP_US}) AT TIME ZONE 'UTC'"
    made = {
        **dict.fromkeys(COLUMNS.names, "NULL"),
        "device_id": "printf('d%02d', device)",
        "timestamp": at,
        "received_at": at,
        "id": f"1000000 + device * {A_DEVICE} + n",
        "transport": "'tcp'",
        "source": "'json'",
        "latitude": f"least(n, {A_DEVICE // 2}) / 1000",
        "longitude": "-3.0",
        "speed_kmh": f"CASE WHEN n < {A_DEVICE // 2} THEN 60 ELSE 0 END",
    }
    names = ", ".join(f"{sql} AS {name}" for name, sql in made.items())
    rows = f"SELECT range AS device FROM range({DEVICES})), (SELECT range AS n FROM range({A_DEVICE - 1})"
    return connection.sql(f"SELECT {names} FROM ({rows})").to_arrow_table().cast(COLUMNS)
