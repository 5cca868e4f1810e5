"""Free-form dates: what the older service's clients may send, and that nothing else than a refusal comes back."""

from __future__ import annotations

import contextlib
from datetime import date

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from api.legacy.wire.date_parser import first_day, last_day
from api.legacy.wire.responses import OlderError

TODAY = date(2026, 11, 24)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2026-11-24", date(2026, 11, 24)),
        ("20261124", date(2026, 11, 24)),
        ("24/11/2026", date(2026, 11, 24)),
        ("Nov 24 2026", date(2026, 11, 24)),
        ("24 november 2026", date(2026, 11, 24)),
        ("03/04/2026", date(2026, 3, 4)),
        ("03.04.2026", date(2026, 3, 4)),
        ("5", date(2026, 11, 5)),
        ("2023-05", date(2023, 5, 24)),
        ("Feb", date(2026, 2, 24)),
        ("10:25", TODAY),
        ("2026-11-24T23:59:59Z", date(2026, 11, 24)),
        ("2026-11-24T23:59:59-12:00", date(2026, 11, 24)),
        ("2026-11-24T00:00:00 03:00", date(2026, 11, 24)),
        (" 2026-11-24 ", date(2026, 11, 24)),
        ("0001-01-01", date(1, 1, 1)),
    ],
)
def test_what_is_left_out_is_todays(text: str, day: date) -> None:
    assert first_day(text, TODAY) == last_day(text, TODAY) == day


@pytest.mark.parametrize("text", ["2023", " 2023 "])
def test_a_bare_year_is_the_whole_year(text: str) -> None:
    assert first_day(text, TODAY) == date(2023, 1, 1)
    assert last_day(text, TODAY) == date(2023, 12, 31)


def test_a_day_that_the_month_lacks_is_its_last() -> None:
    assert first_day("2023-02", date(2026, 11, 30)) == date(2023, 2, 28)


@pytest.mark.parametrize(
    "text", ["bad", "2026-02-30", "1731407100", "9" * 20, "0000", "10000-01-01", " ", "\0", "31", "x" * 200, "٢٠٢٣-13"]
)
def test_what_is_no_date_is_said_as_sent(text: str) -> None:
    for read in (first_day, last_day):
        with pytest.raises(OlderError) as error:
            read(text, TODAY)
        assert (error.value.status, error.value.body) == (400, {"error": f"Invalid date format: {text}"})


PIECES = st.lists(
    st.sampled_from(["2026", "11", "24", "-", "/", ".", ":", " ", "T", "Z", "am", "Nov", "+", "1e5", "h", ",", "Mon"])
)


@hypothesis_settings(max_examples=500, deadline=None)
@given(text=st.text(max_size=30) | PIECES.map("".join))
def test_any_text_is_a_day_or_refused(text: str) -> None:
    with contextlib.suppress(OlderError):
        assert isinstance(first_day(text, TODAY), date)
