"""Whether a page of another site made a request, by headers as browsers send them."""

from __future__ import annotations

import pytest

from telemetry.browsers.origins import Origins, is_navigation, is_of_browser, is_same, seen_in

MAP = b"https://map.example.com"


def seen(**headers: bytes) -> dict[bytes, bytes]:
    return seen_in([(name.replace("_", "-").encode(), value) for name, value in headers.items()])


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({}, False),
        ({"host": b"box"}, False),
        ({"sec_fetch_site": b"same-origin"}, False),
        ({"sec_fetch_site": b"none"}, False),
        ({"sec_fetch_site": b"same-site"}, True),
        ({"sec_fetch_site": b"cross-site"}, True),
        ({"sec_fetch_site": b""}, True),
        ({"sec_fetch_site": b"same-origin", "origin": b"https://public", "host": b"127.0.0.1:8000"}, False),
        ({"sec_fetch_site": b"cross-site", "origin": b"http://box", "host": b"box"}, True),
        ({"origin": b"http://box:8000", "host": b"box:8000"}, False),
        ({"origin": b"http://box:8001", "host": b"box:8000"}, True),
        ({"origin": b"null", "host": b"null"}, True),
        ({"origin": b"", "host": b""}, True),
        ({"origin": b"http://evil"}, True),
    ],
)
def test_who_is_foreign(headers: dict[str, bytes], foreign: bool) -> None:
    assert Origins().is_foreign(seen(**headers)) is foreign


def test_allowed_origins_are_not() -> None:
    asked = seen(origin=MAP, sec_fetch_site=b"cross-site", host=b"box")
    assert not Origins(["https://map.example.com"]).is_foreign(asked)
    assert not Origins(["*"]).is_foreign(asked)
    assert Origins(["https://map.example"]).is_foreign(asked)
    image = seen(sec_fetch_site=b"cross-site", host=b"box")
    assert Origins(["*"]).is_foreign(image), "what says no origin has none that is allowed"


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        (b"http://box", b"box", True),
        (b"http://box", b"BOX:80", True),
        (b"https://box", b"box", True),
        (b"https://box", b"box:443", True),
        (b"https://box", b"box:80", False),
        (b"http://[::1]:8000", b"[::1]:8000", True),
        (b"http://box.:8000", b"box:8000", True),
        (b"http://box:99999", b"box:99999", False),
        (b"file://box", b"box", False),
        (b"chrome-extension://box", b"box", False),
        (b"http://[", b"[", False),
        (b"\xff", b"\xff", False),
    ],
)
def test_same_origin(origin: bytes, host: bytes, same: bool) -> None:
    assert is_same(origin, host) is same


def test_navigations() -> None:
    link = seen(sec_fetch_mode=b"navigate", sec_fetch_dest=b"document")
    assert is_navigation("GET", link)
    assert is_navigation("HEAD", seen(sec_fetch_mode=b"navigate"))
    assert not is_navigation("POST", link)
    assert not is_navigation("GET", seen(sec_fetch_mode=b"navigate", sec_fetch_dest=b"iframe"))
    assert not is_navigation("GET", seen(sec_fetch_mode=b"no-cors", sec_fetch_dest=b"document"))


def test_browsers_by_what_they_all_send() -> None:
    mozilla = (b"user-agent", b"Mozilla/5.0 (iPhone; CPU iPhone OS 16_0 like Mac OS X)")
    languages = (b"accept-language", b"en")
    assert is_of_browser([mozilla, languages])
    assert is_of_browser([(b"sec-fetch-site", b"none")])
    assert not is_of_browser([mozilla])
    assert not is_of_browser([languages, (b"user-agent", b"TraccarClient/9 CFNetwork/1494")])
    assert not is_of_browser([mozilla, languages, (b"origin", MAP)]), "its origin was looked at before"
