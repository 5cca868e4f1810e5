"""The attack: send records of hundreds of past days in one request. It delays nobody else's records and queries."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.sql.sandbox_process import Question, answer
from telemetry.archive import commit_log
from telemetry.archive.schema import COLUMNS, columns
from telemetry.archive.table import Archive, commit_number
from telemetry.hot_store.entry_codec import Block
from telemetry.model.record import Record, Stored
from tests.box import Box, plain_http
from tests.senders import wait_until

pytestmark = pytest.mark.slow

DAYS = 500
OTHERS = 40
DEADLINE_S = 120


def moment(days_ago: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days_ago)).isoformat()


def record(device_id: str, days_ago: float = 0) -> dict[str, Any]:
    return {"device_id": device_id, "timestamp": moment(days_ago), "latitude": 1.0, "longitude": 2.0}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box on which one device has just sent as many days as it may, and then others one record each."""
    folder = tmp_path_factory.mktemp("old")
    with Box(folder, persist__flush_seconds="2", limits__device_days_per_hour=str(DAYS), sql__enabled="true") as found:
        attack = [record("evil", ago) for ago in range(2, DAYS + 2)]
        assert post(found, attack).status_code == 202
        assert post(found, [record(f"other-{number}") for number in range(OTHERS)]).status_code == 202
        yield found


def post(box: Box, records: list[dict[str, Any]]) -> httpx.Response:
    with plain_http(f"http://127.0.0.1:{box.http_port}") as http:
        return http.post("/v1/records", json=records)


def saves(box: Box) -> list[list[dict[str, Any]]]:
    """The files that each commit of the archive added, and what it says of their devices."""
    entries = [path.read_text().splitlines() for path in sorted(commit_log.folder(box.data / "archive").glob("*.json"))]
    added = [[json.loads(json.loads(line)["add"]["stats"]) for line in lines if '"add":' in line] for lines in entries]
    return [some for some in added if some]


def devices(files: list[dict[str, Any]]) -> set[str]:
    return {one["maxValues"]["device_id"].partition("-")[0] for one in files}


def test_others_are_saved_at_once_and_each_save_is_bounded(box: Box) -> None:
    wait_until(lambda: any("other" in devices(files) for files in saves(box)), DEADLINE_S)
    first = next(number for number, files in enumerate(saves(box)) if "other" in devices(files))
    assert first <= 1, "in the first save, or the second if they came while it was made"
    wait_until(lambda: sum(len(files) for files in saves(box)) >= DAYS, DEADLINE_S)
    assert max(len(files) for files in saves(box)) <= 64 + 3


def test_more_days_are_refused_for_an_hour_over_http(box: Box) -> None:
    refused = post(box, [record("evil"), record("evil", DAYS + 10)])
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:whimbrel:problem:too-many-days")
    assert 3_000 < int(refused.headers["Retry-After"]) <= 3_600
    at_once = post(box, [record("evil-2", ago) for ago in range(2, DAYS + 3)])
    assert at_once.status_code == 429
    assert "send fewer" in at_once.json()["detail"]


def test_they_are_refused_over_tcp_and_its_connection_goes_on(box: Box) -> None:
    with socket.create_connection(("127.0.0.1", box.tcp_port), timeout=30) as connection, connection.makefile() as said:
        answers = []
        for one in (record("evil", DAYS + 10), record("evil", 5), record("other-1", 9)):
            connection.sendall(json.dumps(one).encode() + b"\n")
            answers.append(json.loads(said.readline()))
    assert answers[0]["retry"] is True
    assert "limits.device_days_per_hour" in answers[0]["error"]
    assert [one.get("accepted") for one in answers] == [None, 1, 1]


def test_usual_records_of_the_same_device_are_taken(box: Box) -> None:
    assert post(box, [record("evil"), record("evil", 1), record("other-2", 400)]).status_code == 202
    assert box.http.get("/metrics").status_code == 200


def test_all_questions_are_answered(box: Box) -> None:
    wait_until(lambda: sum(len(files) for files in saves(box)) >= DAYS, DEADLINE_S)
    page = box.http.get("/v1/records", params={"device_id": "evil", "limit": 10_000}).json()["records"]
    assert DAYS <= len(page) <= DAYS + 3
    assert page == sorted(page, key=lambda one: one["timestamp"])
    newest = box.http.get("/v1/records", params={"order": "desc", "limit": 5}).json()["records"]
    assert all(one["timestamp"] > moment(2) for one in newest)
    [summary] = box.http.get("/v1/summary", params={"device_id": "evil"}).json()["summaries"]
    assert summary["count"] == len(page)
    count = "SELECT count(*) FROM records WHERE device_id = 'evil'"
    assert box.http.post("/v1/sql", json={"query": count}).json()["rows"] == [[len(page)]]
    assert box.http.get("/v1/export", params={"format": "csv"}).text.count("evil") == len(page)
    known = {one["device_id"]: one["records"] for one in box.http.get("/v1/devices").json()["devices"]}
    assert known["evil"] == len(page)
    assert box.whimbrel("files").returncode == 0


def test_sql_with_a_bound_key_reads_thousands_of_files(tmp_path: Path) -> None:
    """Its records are copied: each file's took 40 kB of memory, so 6,000 were too many for 256 MiB."""
    archive = Archive(tmp_path / "archive")
    table, at_us = archive.open(), 1_795_500_000_000_000
    one = Stored("evil", 1, at_us // 1_000, Record(at_us, "tcp", "json"))
    made = archive.data_files.write(columns([Block.of(one)]), commit_number(archive.committed(table, 0)))
    files = [str(archive.root / file.path) for file in made] * 3_000
    asked = Question("SELECT count(*) AS n FROM records", "json", files, [], "ev", 60, 2**26, 10, 2**20)
    found = answer(asked, COLUMNS.empty_table())
    assert found.outcome.wrong == "", found.outcome.detail
    assert json.loads(found.data)["rows"] == [[3_000]]
