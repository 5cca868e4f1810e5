"""Texts that spreadsheets do not run as formulas, in Python and in SQL."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.formats.spreadsheet import safe, safe_sql

ODD = st.text(st.sampled_from("=+-@\t\r\n;\"', a\u00e9\uff1d\uff20"), max_size=8)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("truck-7", "truck-7"),
        ("=1", "'=1"),
        ("-5", "'-5"),
        ("\t1", "'\t1"),
        ("a;=1", "a;'=1"),
        ('a; "=1', "a; \"'=1"),
        ("=1;=2", "'=1;'=2"),
        ("a=1;b", "a=1;b"),
        ("\uff0b1", "'\uff0b1"),
    ],
)
def test_safe(text: str, shown: str) -> None:
    assert safe(text) == shown


@settings(deadline=None)
@given(texts=st.lists(ODD, min_size=1, max_size=50))
def test_sql_does_the_same(texts: list[str]) -> None:
    with duckdb.connect() as connection:
        rows = connection.execute(f"SELECT {safe_sql('t')} FROM (SELECT unnest(?) AS t)", [texts]).fetchall()
    assert [text for (text,) in rows] == list(map(safe, texts))


@given(ODD)
def test_the_result_cannot_begin_a_formula(text: str) -> None:
    assert safe(safe(text)) in (safe(text), f"'{safe(text)}")
    assert not safe(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff20"))
