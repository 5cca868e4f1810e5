"""The quick way from columns to records gives what the plain way does, or leaves it to that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.imports.rows.column_parser import Rows
from cli.imports.rows.row_parser import Judge, Naming
from telemetry.codec.record_parser import Arrival
from telemetry.model.record import LATEST_US, Sent

NAMES = ("device_id", "timestamp", "lat", "lon", "speed", "location", "fuel", "state", "id")
MOMENT = "2026-03-01T00:00:00Z"

USUAL: dict[str, list[Any]] = {
    "device_id": ["a", "b", "ü", "7"],
    "timestamp": [
        MOMENT,
        "2026-03-01 00:00:00.5",
        "2026-03-01T00:00:00.123456Z",
        "1999-01-01",
        "2026-03-01 00:00:00+03",
        "20260301T000000.5-0330",
        "2026-03-01T00:00:00z",
        "2026-W09-1T00:00:00",
        "2026-03-01x00:00:00",
    ],
    "lat": ["41", "-90", "90.0", "1e1", "", None],
    "lon": ["29.5", "-180", "", None],
    "speed": ["0", "50.25", "", None],
    "location": ["Antalya", "41.0,29.0", "123.456,78.901", "", None],
}
ODD = st.sampled_from(
    [
        "nan",
        "inf",
        "1e400",
        "91",
        "1_0",
        " 5",
        "5 ",
        "٣",
        "+",
        "x",
        "-",
        ".",
        "1.",
        "\0",
        "\ud800",
        "1772366400",
        "0x1A",
    ]
)
TYPED = st.integers() | st.floats() | st.booleans() | st.none() | st.lists(st.integers(), max_size=2)


def cell(name: str) -> st.SearchStrategy[Any]:
    usual = st.sampled_from(USUAL[name]) if name in USUAL else st.text(max_size=5) | st.none()
    return st.integers(0, 60).flatmap(lambda n: ODD if n == 0 else TYPED if n == 1 else usual)


def read(rows: Sequence[Sequence[Any]], blank: str | None, is_quick: bool, names: Sequence[str | None] = NAMES) -> Any:
    judge = Judge(Naming(), Arrival(0, LATEST_US), "csv")
    found = Rows(judge, names, blank, str)
    found._is_quick = is_quick and found._is_quick
    for number, row in enumerate(rows):
        found.add(number, row)
    [piece] = found.rest()
    return piece


@settings(deadline=None, max_examples=600)
@given(rows=st.lists(st.tuples(*map(cell, NAMES)), min_size=1, max_size=4), blank=st.sampled_from(["", None]))
def test_both_ways_give_the_same(rows: list[tuple[Any, ...]], blank: str | None) -> None:
    quick, plain = read(rows, blank, True), read(rows, blank, False)
    assert repr(quick) == repr(plain)


def test_usual_rows_go_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rows, "_one_by_one", None)
    row = ("a", MOMENT, "41", "", "50.5", "41,29", "5", "", None)
    piece = read([row] * 10, "", True)
    assert piece.rows == len(piece.sent) == 10
    [one, *_] = piece.sent
    assert isinstance(one, Sent)
    assert one.record.attributes == '{"fuel":"5"}'
    typed = read([("a", 1_772_366_400_000.25, 41, None, 50.5, None, True, 2**70, None)], None, True)
    assert typed.sent[0].record.attributes == '{"fuel":true,"state":1180591620717411303424}'
    assert typed.sent[0].record.timestamp_us == 1_772_366_400_000_250


def test_bad_rows_keep_their_places() -> None:
    judge = Judge(Naming(), Arrival(0, LATEST_US), "csv")
    rows = Rows(judge, ["device_id", "time"], "", lambda number: f"line {number}")
    rows.refuse(1, "short", None)
    rows.add(2, ("a", MOMENT))
    rows.add(3, ("a", "?"))
    rows.refuse(4, "long", None)
    rows.add(5, ("b", MOMENT))
    rows.refuse(6, "short", None)
    [piece] = rows.rest()
    assert [(one.place, one.where) for one in piece.refused] == [
        (0, "line 1"),
        (2, "line 3"),
        (3, "line 4"),
        (5, "line 6"),
    ]
    assert [one.device_id for one in piece.sent] == ["a", "b"]
    assert [one.device_id for one in piece.behind(2).sent] == ["b"]
    assert [one.place for one in piece.behind(2).refused] == [0, 1, 3]
