"""Every time in every answer of the API has six digits of fraction, as its OpenAPI document has it: date-time."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from telemetry.model.record import Sent
from tests.api.conftest import Box, box_on, record
from tests.conftest import RedisServer

MIDNIGHT_US = 1_768_003_200_000_000
MINUTE_US = 60_000_000
SAMPLE_S = 30.0

TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?[^\"'<>,\s\]}]*")
SIX_DIGITS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")

Query = list[tuple[str, str | int | float | bool | None]]

FORMATS: list[Query] = [[("format", name)] for name in ("json", "ndjson", "csv", "geojson", "gpx", "kml")]
AT = ("at", f"{(MIDNIGHT_US + 3_000 * 1_000_000) // 1_000_000}")
QUERIES: dict[str, list[Query]] = {
    "/v1/latest": [[], [AT], *FORMATS],
    "/v1/records": [[], [("device_id", "van"), ("limit", "2")], *FORMATS],
    "/v1/export": FORMATS,
    "/v1/summary": [[], [("every", "1h")], [("every", "1h"), ("fields", "count,first,last"), ("device_id", "van")]],
}
"""Parameters with which addresses are asked; the others are asked without."""

WITHOUT_TIMES = {"/healthz", "/openapi.json", "/readyz", "/v1/audit", "/v1/session", "/metrics"}
"""Answers in which no time is on this box: it has no keys, and nothing was noted in its audit log."""

SQL = """
SELECT min(timestamp) AS first, [max(received_at)] AS list, {'at': TIMESTAMPTZ '2026-01-02 03:04:05Z'} AS struct,
MAP {1: TIMESTAMPTZ '2026-01-02 03:04:05+02'} AS map, TIMESTAMPTZ '2026-01-02 03:04:05.5Z' AS half FROM records
"""


@pytest.fixture(scope="module")
def box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box with records at whole seconds, half of them saved, which make a stop and a trip."""
    with box_on(shared_redis.url, tmp_path_factory.mktemp("times"), sql__enabled="true") as found:
        for minute in range(60):
            latitude, speed_kmh = 50.0 + 0.01 * max(minute - 30, 0), 60.0 if minute > 30 else 0.0
            at_us = MIDNIGHT_US + minute * MINUTE_US
            found.append(Sent("van", record(at_us, latitude=latitude, speed_kmh=speed_kmh)))
            if minute == 40:
                found.save()
        found.append(Sent("gone", record(MIDNIGHT_US)))
        stop_s = time.monotonic() + SAMPLE_S
        while not found.get("/v1/box").json()["times"]:
            assert time.monotonic() < stop_s, "the box takes no sample"
            time.sleep(0.1)
        yield found


@pytest.fixture(scope="module")
def document(box: Box) -> dict[str, Any]:
    found: dict[str, Any] = box.get("/openapi.json").json()
    return found


def asked(box: Box, document: dict[str, Any]) -> Iterator[tuple[str, httpx.Response]]:
    """What each GET of the document answers, by its path there. The stream of `/v1/live` is read by itself."""
    deletion = box.http.delete("/v1/devices/gone").json()["id"]
    for path, methods in document["paths"].items():
        if "get" in methods and path != "/v1/live" and methods["get"]["tags"][0] not in ("intake", "other protocols"):
            address = path.format(device_id="van", deletion_id=deletion)
            for query in QUERIES.get(path, [[]]):
                yield (
                    path,
                    box.http.get(address, params=query, headers={"Accept": "application/json"} if not query else {}),
                )


def test_they_have_six_digits_in_every_answer(box: Box, document: dict[str, Any]) -> None:
    for path, answer in asked(box, document):
        assert answer.status_code == 200 or path == "/readyz", (path, answer.text)  # no worker runs here
        found = [] if path == "/openapi.json" else TIME.findall(answer.text)
        assert [text for text in found if not SIX_DIGITS.fullmatch(text)] == [], (path, str(answer.url))
        assert found or path in WITHOUT_TIMES, (path, answer.text[:500])


def test_they_are_date_time_in_the_document(box: Box, document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"].values()
    declared = {name for schema in schemas for name, one in schema.get("properties", {}).items() if has_format(one)}
    assert {"timestamp", "received_at", "last_seen", "start", "first", "made_at", "times", "asked_at"} <= declared
    for path, answer in asked(box, document):
        if answer.headers["content-type"] == "application/json" and path not in WITHOUT_TIMES:
            found = set(names_of_times(answer.json()))
            assert found, path
            assert found <= declared, (path, found - declared)


def has_format(schema: Any) -> bool:
    return '"format": "date-time"' in json.dumps(schema)


def names_of_times(value: Any, name: str = "") -> Iterator[str]:
    """The names of members that are times."""
    if isinstance(value, dict):
        for inner, item in value.items():
            yield from names_of_times(item, inner)
    elif isinstance(value, list):
        for item in value:
            yield from names_of_times(item, name)
    elif isinstance(value, str) and SIX_DIGITS.fullmatch(value):
        yield name


def test_events_have_them(box: Box) -> None:
    with box.http.stream("GET", "/v1/live", params={"device_id": "van"}) as answer:
        data = next(line for line in answer.iter_lines() if line.startswith("data:") and "timestamp" in line)
    found = TIME.findall(data)
    assert found
    assert [text for text in found if not SIX_DIGITS.fullmatch(text)] == []


@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
def test_answers_in_sql_have_them(box: Box, accept: str) -> None:
    answer = box.http.post("/v1/sql", json={"query": SQL}, headers={"Accept": accept})
    assert answer.status_code == 200, answer.text
    found = TIME.findall(answer.text.replace('""', '"'))
    assert found[0] == "2026-01-10T00:00:00.000000Z"
    assert found[2:] == [f"2026-01-02T{clock}Z" for clock in ("03:04:05.000000", "01:04:05.000000", "03:04:05.500000")]
    assert [text for text in found if not SIX_DIGITS.fullmatch(text)] == []


def test_sql_times_without_a_zone_stay_without(box: Box) -> None:
    query = "SELECT TIMESTAMP '2026-01-02 03:04:05' AS at, TIME '03:04:05' AS clock, DATE '2026-01-02' AS day"
    [row] = box.http.post("/v1/sql", json={"query": query}).json()["rows"]
    assert row == ["2026-01-02T03:04:05.000000", "03:04:05.000000", "2026-01-02"]
