"""Records for JSON made of columns are encoded to the bytes of those made one by one."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from api.responses import record_schema
from api.responses.json_columns import answers_of
from telemetry.archive.schema import columns
from telemetry.hot_store.entry_codec import Block
from telemetry.model.record import EARLIEST_US, LATEST_US, Record, Stored

TEXTS = st.text(max_size=8)
NUMBERS = st.none() | st.floats(allow_nan=False, allow_infinity=False)
MOMENTS = st.integers(EARLIEST_US, LATEST_US - 1) | st.integers(EARLIEST_US // 10**6, LATEST_US // 10**6 - 1).map(
    lambda second: second * 10**6
)
ATTRIBUTES = st.sampled_from((None, "{}", '{"exact":2.50,"ü":"😀\\n"}'))
RECORDS = st.builds(Record, MOMENTS, TEXTS, TEXTS, *[NUMBERS] * 6, st.none() | TEXTS, ATTRIBUTES)
STORED = st.builds(Stored, TEXTS, st.integers(1, 2**53 - 1), st.integers(0, LATEST_US // 1_000), RECORDS)


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.lists(STORED, max_size=6), st.booleans())
def test_they_are_as_those_made_one_by_one(stored: list[Stored], in_pieces: bool) -> None:
    found = columns(Block.of(one) for one in stored)
    if in_pieces:
        found = pa.concat_tables([found.slice(n, 1) for n in range(found.num_rows)] or [found])
    assert record_schema.encode(answers_of(found)) == record_schema.encode(
        [record_schema.of_stored(one) for one in stored]
    )
    rows = [record_schema.of_row(row) for row in _rows(found)]
    assert record_schema.encode(answers_of(found)) == record_schema.encode(rows)


def _rows(found: pa.Table) -> list[tuple[object, ...]]:
    """What DuckDB would fetch."""
    times = {name: found.column(name).cast(pa.int64()) for name in ("timestamp", "received_at")}
    values = [times.get(name, found.column(name)).to_pylist() for name in found.column_names]
    return list(zip(*values, strict=True))
