"""Free-form dates of the older service's lists, parsed with dateutil as the service did."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time

from dateutil.parser import parse

from api.legacy.wire.responses import OlderError

_BARE_YEAR = re.compile(r"\s*(\d{4})\s*", re.ASCII)
MAX_CHARACTERS = 100


def first_day(text: str, today: date) -> date:
    """The first day of a list's range; see `_day`."""
    return _day(text, today, in_year=(1, 1))


def last_day(text: str, today: date) -> date:
    """The last day of a list's range; see `_day`."""
    return _day(text, today, in_year=(12, 31))


def _day(text: str, today: date, in_year: tuple[int, int]) -> date:
    """The day that a text names. Missing parts are taken from `today`; a year alone means the whole year.

    03/04/2026 is 4 March. A time and a time zone are ignored. Raises `OlderError` with the text as sent.
    """
    invalid = OlderError(400, {"error": f"Invalid date format: {text}"})
    if len(text) > MAX_CHARACTERS:
        raise invalid
    year = _BARE_YEAR.fullmatch(text)
    try:
        if year is not None:
            return date(int(year[1]), *in_year)
        return parse(text, default=datetime.combine(today, time(), UTC), ignoretz=True).date()
    except (ValueError, OverflowError):
        raise invalid from None
