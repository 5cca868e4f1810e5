"""Rate limits of keys on a running box: of one key from any address, and of clients without a valid key."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.box import Box

RECORD = {"device_id": "van-1", "latitude": 53.4, "longitude": -2.9}
WRONG = 10


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with Box(
        tmp_path_factory.mktemp("box"),
        auth__required="true",
        limits__key_requests_per_s="0.01",
        limits__key_requests_burst="4",
        limits__key_records_per_s="10",
        limits__key_records_burst="20",
        limits__address_wrong_keys_per_min=str(WRONG),
        limits__trusted_proxies='["127.0.0.1"]',
    ) as found:
        yield found


def new_key(box: Box) -> str:
    """That it is known cost one request of each program."""
    return box.new_key("--scope", "ingest", "--scope", "read")


def client(port: int, address: str, key: str) -> httpx.Client:
    headers = {"X-Forwarded-For": address, "Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=10)


@pytest.mark.parametrize("path", ["/v1/devices/van-1/latest", "/v1/records?start=2026-01-01"])
def test_too_many_requests_with_one_key_from_wherever(box: Box, path: str) -> None:
    key, other = new_key(box), new_key(box)
    statuses = []
    for number in range(5):
        with client(box.api_port, f"192.0.2.{number}", key) as web:
            answer = web.get(path)
            statuses.append(answer.status_code == 429)
    assert statuses == [False] * 3 + [True] * 2
    assert answer.json()["violated-policies"] == ["key-requests"]
    assert '"key-requests";r=0' in answer.headers["ratelimit"]
    with client(box.api_port, "192.0.2.1", other) as web:
        assert web.get(path).status_code != 429


def test_too_many_records_with_one_key(box: Box) -> None:
    with client(box.http_port, "192.0.2.20", new_key(box)) as web:
        answers = [web.post("/v1/records", json=[RECORD] * 15) for _ in range(2)]
    assert [one.status_code for one in answers] == [202, 429]
    assert answers[1].json()["violated-policies"] == ["key-records"]


def test_over_tcp_the_key_of_a_message_counts(box: Box) -> None:
    line = json.dumps({**RECORD, "token": new_key(box)}).encode() + b"\n"
    with socket.create_connection(("127.0.0.1", box.tcp_port), 30) as connection, connection.makefile("rb") as answers:
        begun_s = time.monotonic()
        for _ in range(40):
            connection.sendall(line)
            assert json.loads(answers.readline())["accepted"] == 1
        assert time.monotonic() - begun_s > (39 - 20) / 10 * 0.9


def test_many_wrong_keys_of_one_address(box: Box) -> None:
    good = new_key(box)
    with client(box.api_port, "192.0.2.30", "whimbrel_nonsense") as web:
        answers = [web.get("/v1/latest") for _ in range(WRONG + 2)]
        assert [one.status_code for one in answers] == [401] * WRONG + [429] * 2
        assert answers[-1].json()["violated-policies"] == ["address-wrong-keys"]
        assert int(answers[-1].headers["retry-after"]) <= 60 // WRONG
        assert "www-authenticate" not in answers[-1].headers
        assert web.get("/v1/latest", headers={"Authorization": f"Bearer {good}"}).status_code == 200
    with client(box.api_port, "192.0.2.31", "whimbrel_nonsense") as web:
        assert web.get("/v1/latest").status_code == 401
