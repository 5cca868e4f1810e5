"""Fast conversion of Python values to Arrow arrays.

Numbers without missing values are packed by `struct`, and a text that is the same for all rows is repeated; other
values are passed to `pyarrow.array`. The results are equal (tests/telemetry/archive/test_arrow_arrays.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_CODES = {pa.int64().id: "q", pa.timestamp("us").id: "q", pa.float64().id: "d"}


def array_of(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """An array of values, which may include None; times are numbers. Raises the errors of `pyarrow.array`."""
    if pa.types.is_string(kind):
        return pa.repeat(pa.scalar(values[0], kind), len(values)) if _are_same(values) else pa.array(values, kind)
    if (code := _CODES.get(kind.id)) is None:
        return pa.array(values, kind)
    try:
        packed = struct.pack(f"{len(values)}{code}", *values)
    except (struct.error, OverflowError):  # a value is missing or out of range
        return pa.array(values, kind)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(packed)])


def _are_same(texts: Sequence[str | None]) -> bool:
    return len(texts) > 0 and texts[0] == texts[-1] and texts.count(texts[0]) == len(texts)


def of_runs(texts: Sequence[str], counts: Iterable[int]) -> pa.Array:
    """An array of texts, each repeated by its count, which must not be 0."""
    ends = pa.array(accumulate(counts), pa.int32())
    return pc.run_end_decode(pa.RunEndEncodedArray.from_arrays(ends, pa.array(texts, pa.string())))
