"""Session cookies of requests."""

from __future__ import annotations

import secrets

import pytest

from telemetry.access.users import csrf_token, new_session
from telemetry.browsers.session_cookie import Cookies, has_csrf_token, is_same_origin, missing_token
from telemetry.config.loader import load

PLAIN, SECURE = Cookies(is_secure=False), Cookies(is_secure=True)
TEXT = new_session(bytes)  # always the same: it is part of the names of tests

Headers = list[tuple[bytes, bytes]]


def headers(**values: str) -> Headers:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in {"host": "box:8000", **values}.items()]


def test_flags() -> None:
    assert PLAIN.set("x", 60) == "whimbrel_session=x; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"
    assert SECURE.set("x", 60) == "__Host-whimbrel_session=x; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
    assert "Max-Age=0" in PLAIN.clear()


@pytest.mark.parametrize(
    ("environ", "is_secure"),
    [
        ({}, False),
        ({"WHIMBREL__AUTH__PUBLIC_URL": "http://fleet.example.com"}, False),
        ({"WHIMBREL__AUTH__PUBLIC_URL": "https://fleet.example.com"}, True),
        ({"WHIMBREL__TLS__CERTIFICATE": "a.pem", "WHIMBREL__TLS__KEY": "b.pem"}, True),
    ],
)
def test_cookies_are_secure_where_browsers_come_by_https(environ: dict[str, str], is_secure: bool) -> None:
    assert Cookies.of(load(environ=environ)).is_secure == is_secure


@pytest.mark.parametrize(
    "text",
    [f"whimbrel_session={TEXT}", f'a="x; y"; ,;bad[=]; whimbrel_session={TEXT}; z=1', f"x=1;whimbrel_session={TEXT}"],
)
def test_a_cookie_is_read_among_others(text: str) -> None:
    assert PLAIN.session(headers(cookie=text)) == TEXT
    assert SECURE.session(headers(cookie=text)) == "", "over TLS only the cookie that is bound to this host counts"


@pytest.mark.parametrize("text", ["", "whimbrel_session", "xwhimbrel_session=a", "whimbrel_sessionx=a", "a" * 5_000])
def test_what_is_no_cookie_of_ours(text: str) -> None:
    assert PLAIN.session(headers(cookie=text)) == ""


@pytest.mark.parametrize(
    ("given", "is_ours"),
    [
        ({}, True),
        ({"sec_fetch_site": "same-origin"}, True),
        ({"sec_fetch_site": "none"}, True),
        ({"sec_fetch_site": "same-site"}, False),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": "odd"}, False),
        ({"origin": "http://box:8000"}, True),
        ({"origin": "http://BOX:8000"}, True),
        ({"origin": "http://box:8001"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": "http://box:8000", "sec_fetch_site": "cross-site"}, False),
    ],
)
def test_other_sites(given: dict[str, str], is_ours: bool) -> None:
    assert is_same_origin(headers(**given)) == is_ours
    assert (PLAIN.session(headers(cookie=f"whimbrel_session={TEXT}", **given)) == TEXT) == is_ours


def test_tokens() -> None:
    right = headers(x_csrf_token=csrf_token(TEXT))
    assert has_csrf_token(right, TEXT)
    assert not has_csrf_token(right, new_session(secrets.token_bytes))
    assert not has_csrf_token(headers(), TEXT)
    assert missing_token("GET", headers(), TEXT) is None
    assert missing_token("POST", right, TEXT) is None
    assert [missing_token(method, headers(), TEXT) is None for method in ("POST", "DELETE", "PUT", "get")] == [
        False
    ] * 4
