"""`next` and `previous`: arguments sorted, encoded anew, none lost."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from api.legacy.wire.page_links import to_page

PATH = "/tracking/data/list/"
HOST = "http://localhost:8000"


def request(query: str, host: str = "localhost:8000") -> Request:
    headers = [(b"host", host.encode()), (b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"evil")]
    return Request(
        {
            "type": "http",
            "method": "GET",
            "path": PATH,
            "query_string": query.encode(),
            "headers": headers if host else [],
            "server": ("127.0.0.1", 8000),
            "scheme": "http",
        }
    )


@pytest.mark.parametrize(
    ("query", "number", "link"),
    [
        ("", 2, "?page=2"),
        ("page=2", 3, "?page=3"),
        ("page=2", 1, ""),
        ("page=", 2, "?page=2"),
        ("page=3&page=2", 3, "?page=3"),
        (
            "start_date=2026-11-24&end_date=2026-11-24&device_id=b&page=3",
            4,
            "?device_id=b&end_date=2026-11-24&page=4&start_date=2026-11-24",
        ),
        ("page=2&device_id=b", 1, "?device_id=b"),
        ("x=b&x=a&empty=&device_id=a%20b:c%2B+d", 2, "?device_id=a+b%3Ac%2B+d&empty=&page=2&x=b&x=a"),
        ("device_id=%C3%BC&z", 2, "?device_id=%C3%BC&page=2&z="),
        ("device_id=%ff", 2, "?device_id=%EF%BF%BD&page=2"),
    ],
)
def test_arguments_are_sorted_and_kept(query: str, number: int, link: str) -> None:
    assert to_page(request(query), number) == f"{HOST}{PATH}{link}"


def test_the_host_is_the_requests_or_else_the_address_that_answers() -> None:
    assert to_page(request("", "box.example"), 2) == f"http://box.example{PATH}?page=2"
    assert to_page(request("a=1", "odd/?#host"), 2) == f"http://odd/?#host{PATH}?a=1&page=2"
    assert to_page(request("", ""), 2) == f"http://127.0.0.1:8000{PATH}?page=2"
