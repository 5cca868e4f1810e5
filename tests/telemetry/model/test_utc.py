"""The text of a moment, written by Python, by DuckDB and by Arrow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from api.formats.text_lines import iso as iso_sql
from api.responses.json_columns import times
from telemetry.archive.schema import open_duckdb, time_sql
from telemetry.model.record import EARLIEST_US, LATEST_US
from telemetry.model.utc import iso, to_second

SECOND_US = 1_000_000
MOMENTS = st.integers(EARLIEST_US, LATEST_US - 1) | st.integers(
    EARLIEST_US // SECOND_US, LATEST_US // SECOND_US - 1
).map(lambda second: second * SECOND_US)


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    return open_duckdb()


@pytest.mark.parametrize(
    ("timestamp_us", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (EARLIEST_US, "2000-01-01T00:00:00.000000Z"),
        (1_795_515_900_000_001, "2026-11-24T10:25:00.000001Z"),
        (1_795_515_900_500_000, "2026-11-24T10:25:00.500000Z"),
    ],
)
def test_a_text_has_six_digits_of_fraction(timestamp_us: int, text: str) -> None:
    assert iso(timestamp_us) == text
    assert to_second(text) == text[:19] + "Z"


@hypothesis_settings(max_examples=100, deadline=None)
@given(st.lists(MOMENTS, min_size=1, max_size=20))
def test_all_writers_agree(connection: duckdb.DuckDBPyConnection, moments_us: list[int]) -> None:
    found = [iso(us) for us in moments_us]
    epoch, microsecond = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
    assert [(datetime.fromisoformat(text) - epoch) // microsecond for text in found] == moments_us
    assert times(pa.chunked_array([pa.array(moments_us, pa.timestamp("us", "UTC"))])) == found
    connection.register("moments", pa.table({"us": pa.array(moments_us, pa.int64())}))
    moments = f"SELECT {time_sql('us')}, {iso_sql('make_timestamptz(us)')} FROM moments"
    assert connection.execute(moments).fetchall() == [(text, text) for text in found]


@given(MOMENTS, MOMENTS)
def test_texts_sort_as_moments(one_us: int, other_us: int) -> None:
    assert (iso(one_us) < iso(other_us)) is (one_us < other_us)
