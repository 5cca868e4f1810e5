"""CORS and the headers of every answer, asked as a browser asks."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from telemetry.config.loader import load
from telemetry.model.errors import ConfigError
from tests.box import Box

PAGE, OTHER = "https://map.example.com", "https://evil.example.com"
ASKED = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with Box(
        tmp_path_factory.mktemp("box"),
        api__cors_origins=json.dumps([PAGE]),
        auth__required="true",
        limits__address_requests_per_s="1000",
    ) as found:
        yield found


def cors(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


def test_a_browser_asks_beforehand_without_a_key(box: Box) -> None:
    answer = box.http.options("/v1/records", headers={"Origin": PAGE, **ASKED})
    assert (answer.status_code, answer.content) == (204, b"")
    assert cors(answer) == {
        "access-control-allow-origin": PAGE,
        "access-control-allow-methods": "GET, HEAD, POST, OPTIONS",
        "access-control-allow-headers": (
            "Accept, Authorization, Batch-Number, Content-Encoding, Content-Type, Idempotency-Key, Last-Event-ID, "
            "Sender-Id"
        ),
        "access-control-max-age": "600",
    }
    assert answer.headers["vary"] == "Origin"


def test_another_origin_is_told_nothing(box: Box) -> None:
    for answer in (
        box.http.options("/v1/records", headers={"Origin": OTHER, **ASKED}),
        box.http.get("/v1/latest", headers={"Origin": OTHER}),
        box.http.get("/v1/latest", headers={"Origin": PAGE + ".evil.example.com"}),
        box.http.get("/v1/latest", headers={"Origin": "null"}),
        box.http.get("/v1/latest"),
    ):
        assert answer.status_code != 204
        assert cors(answer) == {}
        assert "Origin" in answer.headers["vary"]


def test_an_error_can_be_read_by_the_page_too(box: Box) -> None:
    answer = box.http.get("/v1/latest", headers={"Origin": PAGE})
    assert answer.status_code == 401
    assert cors(answer) == {
        "access-control-allow-origin": PAGE,
        "access-control-expose-headers": "Content-Disposition, Implausible, Link, Next-Cursor, RateLimit, "
        "RateLimit-Policy, Retry-After, Truncated, "
        "WWW-Authenticate",
    }
    assert "ratelimit" in answer.headers


def test_cookies_and_kept_passwords_are_never_allowed(box: Box) -> None:
    for path in ("/v1/latest", "/healthz", "/status"):
        assert "access-control-allow-credentials" not in box.http.get(path, headers={"Origin": PAGE}).headers


@pytest.mark.parametrize(
    "path", ["/healthz", "/v1/latest", "/status", "/v1/nothing", "/static/page.css", "/tracking/data/"]
)
def test_what_every_answer_says_once(box: Box, path: str) -> None:
    for port in (box.api_port, box.http_port):
        answer = httpx.get(f"http://127.0.0.1:{port}{path}")
        for name, value in (
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "same-origin"),
        ):
            assert answer.headers.get_list(name) == [value]
        assert "server" not in answer.headers
        assert "strict-transport-security" not in answer.headers


@pytest.mark.parametrize("origin", ["map.example.com", "https://map.example.com/", "https://a b", "null", "file://x"])
def test_what_is_no_origin_stops_the_start(origin: str) -> None:
    with pytest.raises(ConfigError, match=r"api.cors_origins: .* is not an origin"):
        load(environ={"WHIMBREL__API__CORS_ORIGINS": json.dumps([origin])})
