"""Re-sends hidden, and one record a stretch: the same by sorting all and while sorted records stream."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from api.records.downsampling import Thinned, distinct, thinned
from telemetry.archive.schema import COLUMNS, open_duckdb
from telemetry.http.problem_responses import ProblemError
from telemetry.model.utc import DAY_US

CONNECTION = open_duckdb()
Row = dict[str, Any]

SECOND_US = 1_000_000
ROWS = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.sampled_from([0, 1, SECOND_US, 9 * SECOND_US, DAY_US - 1, DAY_US, DAY_US + 7 * SECOND_US]),
        st.sampled_from([None, 0.0, 1.5]),
    ),
    max_size=12,
)


def table(rows: list[tuple[str, int, float | None]]) -> pa.Table:
    """Records, their ids in the order of arrival."""
    made = [
        {
            "device_id": device,
            "timestamp": at,
            "received_at": 0,
            "id": number,
            "speed_kmh": speed,
            "source": str(number),
        }
        for number, (device, at, speed) in enumerate(rows)
    ]
    return pa.Table.from_pylist(made, COLUMNS)


def in_order(records: pa.Table) -> list[Row]:
    found: list[Row] = records.to_pylist()
    return sorted(found, key=lambda row: (row["timestamp"].date(), row["device_id"], row["timestamp"], row["id"]))


def expected(records: pa.Table, thin: Thinned) -> list[int]:
    """Ids of what stays, worked out one by one."""
    kept, seen, stretches = [], set(), set()
    for row in in_order(records):
        same = (row["device_id"], row["timestamp"], row["speed_kmh"])
        us = round(row["timestamp"].timestamp() * 1_000_000)
        stretch = (row["device_id"], us // DAY_US, us % DAY_US // (thin.every_us or 1))
        if thin.is_distinct and same in seen:
            continue
        seen.add(same)
        if thin.every_us and stretch in stretches:
            continue
        stretches.add(stretch)
        kept.append(row["id"])
    return kept


@settings(deadline=None)
@given(ROWS, st.booleans(), st.sampled_from([0, 10 * SECOND_US, 7 * 60 * SECOND_US, DAY_US]))
def test_both_ways_leave_the_same(rows: list[tuple[str, int, float | None]], is_distinct: bool, every_us: int) -> None:
    records, thin = table(rows), Thinned(is_distinct, every_us)
    CONNECTION.register("records", records)
    order = "timestamp::TIMESTAMP::DATE, device_id, timestamp, id"
    by_sorting = CONNECTION.execute(f"SELECT id FROM ({thin.sql('SELECT * FROM records')}) ORDER BY {order}").fetchall()
    CONNECTION.register("ordered", pa.Table.from_pylist(in_order(records), COLUMNS))
    with thin.of_sorted(CONNECTION, "SELECT * FROM ordered") as (connection, sql):
        streamed = [number for (number,) in connection.execute(f"SELECT id FROM ({sql})").fetchall()]
    assert [number for (number,) in by_sorting] == streamed == expected(records, thin)


@settings(deadline=None)
@given(ROWS, st.integers(1, 5))
def test_batches_may_end_anywhere(rows: list[tuple[str, int, float | None]], size: int) -> None:
    ordered = pa.Table.from_pylist(in_order(table(rows)), COLUMNS)
    found = [number for batch in distinct(ordered.to_batches(size)) for number in batch.column("id").to_pylist()]
    assert found == expected(ordered, Thinned(True))


def asked(**query: str) -> Request:
    text = "&".join(f"{name}={value}" for name, value in query.items())
    return Request({"type": "http", "query_string": text.encode(), "headers": []})


def test_what_is_asked_for() -> None:
    assert thinned(asked()) == Thinned()
    assert thinned(asked(distinct="true", every="10s")) == Thinned(True, 10 * SECOND_US)
    assert thinned(asked(every="24h")).every_us == DAY_US


@pytest.mark.parametrize(("name", "text"), [("distinct", "yes"), ("every", "10"), ("every", "0s"), ("every", "25h")])
def test_what_is_refused(name: str, text: str) -> None:
    with pytest.raises(ProblemError, match=f"`?{name}`? must be"):
        thinned(asked(**{name: text}))


def test_a_stretch_begins_at_midnight() -> None:
    assert Thinned(every_us=7 * SECOND_US).begin_us(DAY_US + 8 * SECOND_US) == DAY_US + 7 * SECOND_US
