"""`/v1/records` in every format, page by page; of an area; with what is sent again or too dense left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

import api.records.downsampling as thinning
from telemetry.archive.schema import open_duckdb
from telemetry.http.problem_responses import ProblemError
from telemetry.model.record import Sent
from tests.api.conftest import Box, assert_problem, box_on, record
from tests.api.records.test_export import MEDIA_TYPES, READERS
from tests.api.records.test_export_tracks import of_gpx
from tests.api.records.test_range_query import MIDNIGHT_US
from tests.conftest import RedisServer

SECOND_US = 1_000_000
Row = dict[str, Any]


def sent(device: str, second: float, latitude: float, longitude: float, **more: Any) -> Sent:
    at_us = MIDNIGHT_US + round(second * SECOND_US)
    return Sent(device, record(at_us, latitude=latitude, longitude=longitude, **more))


TWICE = sent("a", 3, 1.5, 2.5, speed_kmh=36.0)
BEFORE = [sent("a", 0, 1.0, 2.0), sent("b", 1, 41.0, 29.0), sent("a", 2, 1.4, 2.4), TWICE, sent("b", 4, 41.1, 29.1)]
AFTER = [TWICE, sent("a", 15, 1.6, 179.5), sent("b", 12, 0.0, 0.0, attributes='{"fix":false}'), sent("c", 1, 5, -179.5)]


@pytest.fixture(scope="module")
def box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Half of the records saved."""
    with box_on(shared_redis.url, tmp_path_factory.mktemp("formats"), redis__shards="2") as found:
        found.append(*BEFORE)
        found.save()
        found.append(*AFTER)
        yield found


def walk(box: Box, kind: str, *query: tuple[str, str | int]) -> list[bytes]:
    """Page after page, by the links that the answers name."""
    path, pages = "/v1/records", []
    parameters: list[tuple[str, str | int]] = [("format", kind), ("limit", 2), *query]
    while True:
        answer = box.get(path, *parameters)
        assert answer.status_code == 200, answer.text
        assert answer.headers["vary"] in ("Accept", "Accept, Accept-Encoding")  # the latter from 1,024 bytes on
        pages.append(answer.content)
        if "next" not in answer.links:
            assert "next-cursor" not in answer.headers
            return pages
        target = urlsplit(answer.links["next"]["url"])
        parameters = [(name, value) for name, value in parse_qsl(target.query)]
        assert (target.path, dict(parameters)["cursor"]) == (path, answer.headers["next-cursor"])


def all_of(box: Box, *query: tuple[str, str | int]) -> list[Row]:
    answer = box.get("/v1/records", *query)
    assert answer.status_code == 200, answer.text
    found: list[Row] = answer.json()["records"]
    return found


@pytest.mark.parametrize("kind", sorted(READERS.keys() - {"json"}))
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_in_every_format(box: Box, kind: str, order: str) -> None:
    found = [row for page in walk(box, kind, ("order", order), ("plausible", "false")) for row in READERS[kind](page)]
    assert found == all_of(box, ("order", order))
    assert len(found) == len(BEFORE) + len(AFTER)


@pytest.mark.parametrize("kind", READERS)
def test_the_format_may_be_accepted(box: Box, kind: str) -> None:
    answer = box.http.get("/v1/records?device_id=c", headers={"Accept": MEDIA_TYPES[kind]})
    assert answer.headers["content-type"] == MEDIA_TYPES[kind]
    rows: Any = READERS[kind](answer.content)
    assert len(rows["records"] if kind == "json" else rows) == 1


def test_a_page_of_tracks_is_device_by_device(box: Box) -> None:
    tracks = of_gpx(box.get("/v1/records", ("format", "gpx"), ("plausible", "false")).content)
    assert [(name, sum(map(len, segments))) for name, segments in tracks] == [("a", 5), ("b", 2), ("c", 1)]


@pytest.mark.parametrize("kind", sorted(READERS.keys() - {"json"}))
def test_a_range_without_records(box: Box, kind: str) -> None:
    [page] = walk(box, kind, ("end", "2001-01-01"))
    assert READERS[kind](page) == []


@pytest.mark.parametrize("path", ["/v1/records", "/v1/export"])
@pytest.mark.parametrize(
    ("query", "devices"),
    [
        (("bbox", "28,40,30,42"), ["b", "b"]),
        (("bbox", "-1,-1,1,1"), []),
        (("bbox", "179,-10,-179,10"), ["a", "c"]),
        (("near", "41.05,29.05,10000"), ["b", "b"]),
        (("near", "41.05,29.05,1000"), []),
        (("near", "5,180,60000"), ["c"]),
    ],
)
def test_what_lies_in_an_area(box: Box, path: str, query: tuple[str, str], devices: list[str]) -> None:
    found = box.get(path, query).json()
    assert sorted(row["device_id"] for row in (found["records"] if path == "/v1/records" else found)) == devices


@pytest.mark.parametrize("limit", [1, 2, 50])
def test_re_sends_are_hidden_on_every_page(box: Box, limit: int) -> None:
    whole = [row["id"] for row in all_of(box, ("distinct", "true"))]
    assert len(whole) == len(BEFORE) + len(AFTER) - 1
    exported = box.get("/v1/export", ("distinct", "true")).json()
    assert sorted(row["id"] for row in exported) == sorted(whole)
    assert pages_of(box, limit, ("distinct", "true")) == whole


@pytest.mark.parametrize("limit", [1, 2, 50])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_one_record_a_stretch_on_every_page(box: Box, limit: int, order: str) -> None:
    found = pages_of(box, limit, ("every", "10s"), ("order", order))
    rows = {row["id"]: row for row in all_of(box)}
    stretches = [(rows[one]["device_id"], rows[one]["timestamp"][17:19]) for one in found]
    assert sorted(stretches) == [("a", "00"), ("a", "15"), ("b", "01"), ("b", "12"), ("c", "01")]
    exported = box.get("/v1/export", ("every", "10s")).json()
    assert sorted(row["id"] for row in exported) == sorted(found)


def pages_of(box: Box, limit: int, *query: tuple[str, str]) -> list[int]:
    """Ids of all pages in their order."""
    found: list[int] = []
    cursor: list[tuple[str, str]] = []
    while True:
        page = box.get("/v1/records", ("limit", limit), *query, *cursor).json()
        found += [row["id"] for row in page["records"]]
        if page["next_cursor"] is None:
            return found
        cursor = [("cursor", page["next_cursor"])]


@pytest.mark.parametrize("path", ["/v1/records", "/v1/export"])
@pytest.mark.parametrize("query", [("bbox", "1,2"), ("every", "1"), ("distinct", "1"), ("format", "xls")])
def test_what_is_refused(box: Box, path: str, query: tuple[str, str]) -> None:
    assert_problem(box.get(path, query), 400, "invalid-parameter")


def test_a_format_that_nobody_has(box: Box) -> None:
    assert_problem(box.http.get("/v1/records", headers={"Accept": "image/png"}), 406, "not-acceptable")


@pytest.mark.parametrize("limit", [1, 3, 50])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_simplified_tracks_on_every_page(box: Box, limit: int, order: str) -> None:
    """a goes straight on, and stays at the end; b's record without a fix is no point."""
    query = [("simplify_m", "1000"), ("device_id", "a"), ("device_id", "b"), ("end", "2026-01-10T00:00:13Z")]
    rows = {row["id"]: row for row in all_of(box, *query)}
    assert sorted((row["device_id"], row["timestamp"][17:19]) for row in rows.values()) == [
        ("a", "00"),
        ("a", "03"),
        ("b", "01"),
        ("b", "04"),
    ]
    paged = pages_of(box, limit, *query, ("order", order))
    assert sorted(paged) == sorted(rows)
    assert sorted(row["id"] for row in box.get("/v1/export", *query).json()) == sorted(rows)
    both = [*query, ("distinct", "true"), ("every", "1s")]
    assert sorted(pages_of(box, limit, *both)) == sorted(row["id"] for row in box.get("/v1/export", *both).json())


def test_too_much_to_simplify_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thinning, "MAX_SIMPLIFIED", 2)
    place = "1.0 AS latitude, 2.0 AS longitude, NULL AS attributes"
    some = f"SELECT range AS id, 'a' AS device_id, now() AS timestamp, {place}"
    with open_duckdb() as connection, pytest.raises(ProblemError, match="ask for less, or for an export"):
        thinning.Thinned(simplify_m=1.0).simplified(connection, f"{some} FROM range(3)")
