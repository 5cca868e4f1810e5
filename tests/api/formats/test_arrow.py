"""Arrow responses contain only the records."""

from __future__ import annotations

import io

import pyarrow as pa
import pytest

from api.formats.arrow import zero_nulls

OTHER = b"SECRET!!"
"""Earlier contents of the memory of null slots."""

ROWS = 100
KINDS = (pa.float64(), pa.int64(), pa.timestamp("us", "UTC"), pa.bool_(), pa.decimal128(9, 2))


def nulls(kind: pa.DataType) -> pa.Array:
    """An array of nulls whose slots hold other bytes."""
    validity = pa.py_buffer(bytes(ROWS))
    return pa.Array.from_buffers(kind, ROWS, [validity, pa.py_buffer(OTHER * 2 * ROWS)], null_count=ROWS)


def stream(batch: pa.RecordBatch) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, batch.schema) as writer:
        writer.write_batch(batch)
    return out.getvalue()


@pytest.mark.parametrize(
    "column",
    [
        *(
            nulls(kind)
            for kind in (pa.float64(), pa.int64(), pa.timestamp("us", "UTC"), pa.bool_(), pa.decimal128(9, 2))
        ),
        pa.StructArray.from_arrays([nulls(pa.int64())], ["a"]),
        pa.ListArray.from_arrays(pa.array(range(ROWS + 1), pa.int32()), nulls(pa.int64())),
        pa.UnionArray.from_sparse(pa.array([0] * ROWS, pa.int8()), [nulls(pa.int64())], ["a"]),
    ],
    ids=lambda column: str(column.type),
)
def test_null_slots_hold_nothing_of_other_queries(column: pa.Array) -> None:
    batch = pa.record_batch([column], names=["a"])
    assert OTHER in stream(batch)
    clean = zero_nulls(batch)
    assert OTHER not in stream(clean)
    assert clean.equals(batch)


def test_values_stay() -> None:
    batch = pa.record_batch(
        {"a": pa.array([1.5, None, -0.0]), "b": pa.array(["x", None, ""]), "c": pa.array([1, 2, 3])}
    )
    assert zero_nulls(batch).equals(batch)
