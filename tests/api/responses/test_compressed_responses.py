"""Responses of a real box, compressed: how many bytes a client gets, and which responses stay as they are."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import httpx
import pyarrow as pa
import pytest
from backports import zstd

from benchmarks import archives
from telemetry.model.record import Sent
from tests.api.conftest import Box, box_on, record
from tests.conftest import RedisServer

RECORDS = 50_000
MIN_BYTES, MAX_BYTES = 15_000_000, 2_000_000
DECOMPRESS = {"gzip": gzip.decompress, "zstd": zstd.decompress}


@pytest.fixture(scope="module")
def box(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with box_on(shared_redis.url, tmp_path_factory.mktemp("compressed")) as found:
        archives.add(found.archive, [archives.first_records(RECORDS)])
        found.append(*(Sent(f"van-{number}", record(1_800_000_000_000_000 + number)) for number in range(20)))
        yield found


def raw(box: Box, path: str, coding: str) -> tuple[httpx.Headers, bytes]:
    """The headers of a response, and its body as it was sent."""
    with box.http.stream("GET", path, headers={"Accept-Encoding": coding}) as answer:
        assert answer.status_code == 200
        return answer.headers, b"".join(answer.iter_raw())


@pytest.mark.parametrize("coding", DECOMPRESS)
def test_50_000_records_as_json_have_at_most_2_mb(box: Box, coding: str) -> None:
    path = f"/v1/records?limit={RECORDS}"
    _, as_they_are = raw(box, path, "identity")
    headers, compressed = raw(box, path, coding)
    assert as_they_are.count(b'"device_id":') == RECORDS
    assert len(as_they_are) > MIN_BYTES
    assert headers["content-encoding"] == coding
    assert len(compressed) <= MAX_BYTES
    assert DECOMPRESS[coding](compressed) == as_they_are


@pytest.mark.parametrize("coding", DECOMPRESS)
@pytest.mark.parametrize("kind", ["json", "ndjson", "csv", "geojson", "gpx", "kml", "arrow"])
def test_formats_that_are_compressed(box: Box, kind: str, coding: str) -> None:
    path = f"/v1/records?limit=1000&format={kind}"
    _, as_they_are = raw(box, path, "identity")
    headers, compressed = raw(box, path, coding)
    assert (headers["content-encoding"], "Accept-Encoding" in headers["vary"]) == (coding, True)
    assert len(compressed) < len(as_they_are) / 2
    assert read(kind, DECOMPRESS[coding](compressed)) == read(kind, as_they_are)


def read(kind: str, body: bytes) -> bytes | pa.Table:
    return pa.ipc.open_stream(body).read_all() if kind == "arrow" else body


@pytest.mark.parametrize("path", ["/v1/export?format=parquet", "/", "/status", "/v1/devices/van-1/latest"])
def test_parquet_pages_and_short_responses_stay_as_they_are(box: Box, path: str) -> None:
    with box.http.stream("GET", path, headers={"Accept": "text/html, */*;q=0.1", "Accept-Encoding": "gzip"}) as answer:
        assert answer.status_code == 200
        assert "content-encoding" not in answer.headers


def test_events_are_sent_as_they_are(box: Box) -> None:
    with box.http.stream("GET", "/v1/live", headers={"Accept-Encoding": "gzip, zstd"}) as answer:
        assert "content-encoding" not in answer.headers
        lines: Any = answer.iter_lines()
        assert next(line for line in lines if "van-1" in line)


def test_the_latest_of_a_fleet_is_compressed(box: Box) -> None:
    _, as_they_are = raw(box, "/v1/latest", "identity")
    headers, compressed = raw(box, "/v1/latest", "gzip")
    assert headers["content-encoding"] == "gzip"
    assert gzip.decompress(compressed) == as_they_are
