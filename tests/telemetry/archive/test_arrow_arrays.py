"""Arrays that are made quickly are those that pyarrow makes."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from telemetry.archive.arrow_arrays import array_of, of_runs
from telemetry.archive.schema import COLUMNS, TIME

KINDS: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    TIME: st.integers(0, 2**53),
    pa.float64(): st.floats(allow_nan=False) | st.integers(-(2**40), 2**40),
    pa.string(): st.sampled_from(["", "a", "ä", "tcp"]) | st.text(max_size=3).filter(lambda text: text.isprintable()),
}
columns = st.sampled_from(list(KINDS.items())).flatmap(
    lambda one: st.tuples(
        st.just(one[0]),
        st.lists(one[1], max_size=5) | st.lists(one[1] | st.none(), max_size=5) | one[1].map(lambda value: [value] * 3),
    )
)


@hypothesis_settings(max_examples=300, deadline=None)
@given(columns)
def test_an_array_is_as_pyarrow_makes_it(column: tuple[pa.DataType, list[Any]]) -> None:
    kind, values = column
    found, expected = array_of(values, kind), pa.array(values, kind)
    found.validate(full=True)
    assert found.type == expected.type
    assert repr(found.to_pylist()) == repr(expected.to_pylist())  # so that 0.0 is not -0.0
    assert array_of(tuple(values), kind).equals(expected)


def test_each_column_of_files_is_known() -> None:
    assert {field.type for field in COLUMNS} <= KINDS.keys()


@pytest.mark.parametrize(("values", "kind"), [([2**63], pa.int64()), (["a"], pa.float64()), ([1], pa.string())])
def test_what_does_not_fit_is_refused_as_by_pyarrow(values: list[Any], kind: pa.DataType) -> None:
    with pytest.raises((pa.ArrowException, OverflowError)) as expected:
        pa.array(values, kind)
    with pytest.raises(expected.type):
        array_of(values, kind)


@hypothesis_settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "ä", "van-7"]), st.integers(1, 4)), max_size=5))
def test_texts_that_come_in_runs(runs: list[tuple[str, int]]) -> None:
    found = of_runs([text for text, _ in runs], [count for _, count in runs])
    assert found.type == pa.string()
    assert found.to_pylist() == [text for text, count in runs for _ in range(count)]
