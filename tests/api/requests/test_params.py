"""Query parameters: what each may be, and that anything else is refused by name."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from starlette.requests import Request

from api.requests import params
from api.requests.params import Position
from telemetry.http.problem_responses import ProblemError
from telemetry.model.errors import RecordError
from telemetry.model.record import EARLIEST_US, LATEST_US
from telemetry.model.utc import DAY_US

MIDNIGHT_US = 1_769_212_800_000_000
"""2026-01-24T00:00:00Z."""

AT_US = MIDNIGHT_US + (10 * 60 + 25) * 60_000_000
"""2026-01-24T10:25:00Z."""


def request(query: str = "", **parameters: object) -> Request:
    text = query or urlencode(parameters)
    return Request({"type": "http", "headers": [], "query_string": text.encode()})


@pytest.mark.parametrize(
    ("text", "expected_us"),
    [
        ("2026-01-24T10:25:00Z", AT_US),
        ("2026-01-24T10:25:00", AT_US),
        ("2026-01-24T10:25", AT_US),
        ("2026-01-24t10:25:00z", AT_US),
        ("2026-01-24 10:25:00", AT_US),
        ("2026-01-24 10:25", AT_US),
        ("20260124T102500Z", AT_US),
        ("2026-01-24T10:25:00.5Z", AT_US + 500_000),
        ("2026-01-24T10:25:00.000001Z", AT_US + 1),
        ("2026-01-24T13:25:00+03:00", AT_US),
        ("2026-01-24T13:25:00+0300", AT_US),
        ("2026-01-24T13:25:00+03", AT_US),
        ("2026-01-24T05:25:00-05:00", AT_US),
        ("2026-01-24T13:25:00 03:00", AT_US),
        ("2026-01-24T13:25:00 0300", AT_US),
        ("2026-01-24T13:25:00 03", AT_US),
        ("2026-01-24T13:25:00.5 03:00", AT_US + 500_000),
        ("2026-01-24T13:25:00,5 03:00", AT_US + 500_000),
        ("2026-01-24T13:25 03:00", AT_US),
        ("2026-01-24 13:25:00 03:00", AT_US),
        ("20260124T132500 0300", AT_US),
        ("1769250300", AT_US),
        ("1769250300.5", AT_US + 500_000),
        ("1769250300.000001", AT_US + 1),
        ("1769250300000", AT_US),
        ("2026-01-24", MIDNIGHT_US),
        ("2026-W04-6", MIDNIGHT_US),
        ("2026-01-24T00:00:00Z", MIDNIGHT_US),
        ("2000-01-01", EARLIEST_US),
        ("1999-12-31T23:59:59Z", EARLIEST_US),
        ("2000-01-01T00:30:00+01:00", EARLIEST_US),
        ("0001-01-01", EARLIEST_US),
        ("0001-01-01T00:00:00+14:00", EARLIEST_US),
        ("0", EARLIEST_US),
        ("-5", EARLIEST_US),
        ("20260124", EARLIEST_US),  # an epoch: in August 1970
        ("-" + "9" * 400, EARLIEST_US),
        ("2200-01-01", LATEST_US),
        ("2200-01-01T00:30:00+01:00", LATEST_US - 30 * 60_000_000),
        ("2199-12-31T23:30:00-01:00", LATEST_US),
        ("9999-12-31", LATEST_US),
        ("9999-12-31T23:59:59-14:00", LATEST_US),
        ("22000101T000000Z", LATEST_US),
        ("7258118400", LATEST_US),
        ("7258118400000", LATEST_US),
        ("9" * 400, LATEST_US),
    ],
)
def test_a_moment(text: str, expected_us: int) -> None:
    assert params.moment_us(text, of_day_us=0) == expected_us


def test_only_a_bare_date_means_its_whole_day() -> None:
    for text in ("2026-01-24", "2026-W04-6"):
        assert params.moment_us(text, DAY_US) == MIDNIGHT_US + DAY_US
    for text in ("2026-01-24T00:00:00Z", "2026-01-24T00:00", "1769212800", "2026-01-24 00:00"):
        assert params.moment_us(text, DAY_US) == MIDNIGHT_US
    assert params.moment_us("2199-12-31", DAY_US) == LATEST_US
    assert params.moment_us("1999-12-31", DAY_US) == EARLIEST_US


WRONG_MOMENTS = [
    *("yesterday", "2026-02-30", "2026-13-01", "2026-00-10", "26-01-24", "2026-1-24", "24/01/2026"),
    *("2026-01-24T25:00:00Z", "2026-01-24T24:30:00Z", "2026-01-24T10:60:00Z", "2026-01-24T10:25:00+25:00"),
    *("2026-01-24T10:25:00 UTC", "nan", "inf", "-inf", "Infinity", "1e400", "1_000", "--1", ".", "٢٠٢٦", "\0"),
    *("2026-W60-1", "true", "null", "2026-01-24T10:25:00Z2026-01-24T10:25:00Z", "2026-01-24T"),
]


@pytest.mark.parametrize("text", WRONG_MOMENTS)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(RecordError, match=r"must be a date"):
        params.moment_us(text, DAY_US)


@pytest.mark.parametrize("name", ["start", "end"])
def test_what_is_no_moment_is_refused_by_the_name_of_its_parameter(name: str) -> None:
    with pytest.raises(ProblemError, match=f"{name} must be a date") as caught:
        params.span(request(**{name: "yesterday"}))
    assert caught.value.kind.status == 400
    assert f'"parameter":"{name}"'.encode() in caught.value.body


def test_a_span_is_open_where_nothing_is_said() -> None:
    assert params.span(request()) == (EARLIEST_US, LATEST_US)
    assert params.span(request("start=&end=%20")) == (EARLIEST_US, LATEST_US)
    assert params.span(request(start="2026-01-24")) == (MIDNIGHT_US, LATEST_US)
    assert params.span(request(end="2026-01-24")) == (EARLIEST_US, MIDNIGHT_US + DAY_US)
    assert params.span(request(start="2026-01-24", end="2026-01-24")) == (MIDNIGHT_US, MIDNIGHT_US + DAY_US)
    assert params.span(request("start=2026-01-24T13:25:00+03:00")) == (AT_US, LATEST_US), "a + is a space in a query"


def test_limit() -> None:
    assert params.limit(request(), 50_000) == 1_000
    assert params.limit(request(), 10) == 10
    for text, expected in (("1", 1), ("50000", 50_000), ("007", 7)):
        assert params.limit(request(limit=text), 50_000) == expected
    for text in ("0", "50001", "-1", "+1", "1.0", "1e3", "", " ", "x", "²", "٣", "0" * 5 + "50000999", "9" * 5_000):
        with pytest.raises(ProblemError, match="limit must be a whole number from 1 to 50000"):
            params.limit(request(limit=text), 50_000)


def test_order() -> None:
    assert not params.is_descending(request())
    assert not params.is_descending(request(order="asc"))
    assert params.is_descending(request(order="desc"))
    for text in ("", "DESC", "up", "asc,desc"):
        with pytest.raises(ProblemError, match="order must be asc or desc"):
            params.is_descending(request(order=text))


def test_devices_come_once_each_in_their_order() -> None:
    assert params.devices(request()) == []
    assert params.devices(request("device_id=b&device_id=a%2Fb&device_id=b&device_id=%C3%BC")) == ["b", "a/b", "ü"]
    many = "&".join(f"device_id={n}" for n in range(params.MAX_DEVICES))
    assert len(params.devices(request(many))) == params.MAX_DEVICES
    with pytest.raises(ProblemError, match=r"device_id may be given 1000 times, not 1001"):
        params.devices(request(f"{many}&device_id=x"))


def test_a_cursor_reads_as_it_was_written() -> None:
    assert params.cursor(request()) is None
    assert params.cursor(request(cursor="")) is None
    for position in (Position(EARLIEST_US, 1), Position(LATEST_US - 1, 2**53 - 1)):
        assert params.cursor(request(cursor=str(position))) == position
    for text in ("x", "1", "1-", "-1", "1-2-3", "1--2", "1.5-2", " 1-2", "1-2\n", "٣-٣", f"{10**17}-1", f"1-{10**17}"):
        with pytest.raises(ProblemError, match="cursor must be the next_cursor of an earlier answer"):
            params.cursor(request(cursor=text))
