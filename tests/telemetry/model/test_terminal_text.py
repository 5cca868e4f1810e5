"""Texts as a terminal may show them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.model.terminal_text import printable, printable_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("büs 7 \u4f60", "büs 7 \u4f60"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\r\n\tb", "a\\r\\n\\tb"),
        ("\x9b31m\x7f\x00", "\\x9b31m\\x7f\\x00"),
        ("\u202egpj.exe\u2066", "\\u202egpj.exe\\u2066"),
        ("\ud83d", "\\ud83d"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_what_does_not_stand_for_itself_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_lines_may_stay() -> None:
    assert printable("a\n\x1bb\r", keeps_lines=True) == "a\n\\x1bb\\r"


@given(st.text(st.characters()))
def test_all_that_is_shown_is_printable(text: str) -> None:
    assert printable(text).isprintable()


@given(st.dictionaries(st.text(), st.text()))
def test_json_stays_what_it_is(value: dict[str, str]) -> None:
    shown = printable_json(json.dumps(value, ensure_ascii=False))
    assert shown.isprintable()
    assert json.loads(shown) == value
