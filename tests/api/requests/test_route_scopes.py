"""Which key a request to the API needs."""

from __future__ import annotations

import pytest

from api.requests.route_scopes import READY, need_of
from telemetry.http.authentication import ADMIN, INGEST, OPEN, READ, READ_WHOLE, SQL, Need


@pytest.mark.parametrize(
    ("method", "path", "need"),
    [
        ("GET", "/healthz", OPEN),
        ("GET", "/static/status.css", OPEN),
        ("GET", "/openapi.json", OPEN),
        ("GET", "/docs", OPEN),
        ("GET", "/", OPEN),
        ("POST", "/static/status.css", ADMIN),
        ("GET", "/readyz", READY),
        ("GET", "/status", READ_WHOLE),
        ("HEAD", "/metrics", READ_WHOLE),
        ("GET", "/v1/box", READ_WHOLE),
        ("GET", "/v1/devices/van-7", READ),
        ("GET", "/v1/devices/van-7/latest", READ),
        ("POST", "/v1/records", INGEST),
        ("POST", "/tracking/data/", INGEST),
        ("POST", "/tracking/data", INGEST),
        ("GET", "/osmand", INGEST),
        ("POST", "/api/v2/write", INGEST),
        ("POST", "/v1/sql", SQL),
        ("GET", "/v1/sql", SQL),
        ("DELETE", "/v1/devices/van-7", ADMIN),
        ("GET", "/v1/deletions/0-1", ADMIN),
        ("PUT", "/v1/records", INGEST),
        ("POST", "/anything/new", ADMIN),
    ],
)
def test_needs(method: str, path: str, need: Need) -> None:
    assert need_of({"method": method, "path": path}) == need


def test_what_is_not_named_is_read() -> None:
    for path in (
        "/nowhere",
        "/v1/records",
        "/v1/latest",
        "/tracking/data/list/",
        "/healthz/",
        "//healthz",
        "/static",
    ):
        assert need_of({"method": "GET", "path": path}).scope == "read"
        assert not need_of({"method": "GET", "path": path}).is_open
