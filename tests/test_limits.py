"""Limits of a running box for senders: over HTTP on both ports, over TCP and over UDP."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.box import Box, free_ports

RECORD = {"device_id": "van-1", "latitude": 53.4, "longitude": -2.9}
REQUESTS, RECORDS = 5, 50
"""Of each address at once; they come back so slowly that a test sees none."""


@pytest.fixture(scope="module")
def udp_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def box(udp_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    listen = [{"protocol": "nmea", "port": udp_port, "transport": "udp"}]
    with Box(
        tmp_path_factory.mktemp("box"),
        limits__address_requests_per_s="0.01",
        limits__address_requests_burst=str(REQUESTS),
        limits__address_records_per_s="20",
        limits__address_records_burst=str(RECORDS),
        limits__trusted_proxies='["127.0.0.1"]',
        collector__listen=json.dumps(listen),
    ) as found:
        yield found


def client(box: Box, port: int, address: str) -> httpx.Client:
    """A client that comes through a proxy of ours."""
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-Forwarded-For": address}, timeout=10)


def posted(web: httpx.Client, count: int = 1) -> httpx.Response:
    return web.post("/v1/records", json=[RECORD] * count)


def test_too_many_requests_of_one_address(box: Box) -> None:
    for port, path in ((box.api_port, "/v1/devices/van-1/latest"), (box.http_port, "/v1/nothing")):
        with client(box, port, f"192.0.2.{port % 100}") as web, client(box, port, "198.51.100.7") as other:
            answers = [web.get(path) for _ in range(REQUESTS + 2)]
            assert [one.status_code == 429 for one in answers] == [False] * REQUESTS + [True] * 2
            refused = answers[-1]
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.json()["type"] == "urn:whimbrel:problem:rate-limited"
            assert refused.json()["violated-policies"] == ["address-requests"]
            assert 0 < int(refused.headers["retry-after"]) <= 100
            assert other.get(path).status_code != 429


def test_every_answer_says_how_things_stand(box: Box) -> None:
    with client(box, box.http_port, "192.0.2.201") as web:
        first, second = posted(web, 10), posted(web, 10)
    assert first.status_code == 202
    assert first.headers["ratelimit-policy"] == (
        f'"address-requests";q={REQUESTS};w=500, "address-records";q={RECORDS};w=3;qu="records"'
    )
    assert first.headers["ratelimit"].startswith(f'"address-requests";r={REQUESTS - 1};t=100')
    assert second.headers["ratelimit"].startswith(f'"address-requests";r={REQUESTS - 2};t=200')


OLDER = {"device_id": "van-1", "speed": 1, "fuel": 1, "temperature": 1, "location": "53.4,-2.9"}


@pytest.mark.parametrize(
    ("address", "path", "record"),
    [
        ("192.0.2.10", "/v1/records", RECORD),
        ("192.0.2.11", "/v1/records?on_error=skip", RECORD),
        ("192.0.2.12", "/tracking/data/", OLDER),
    ],
    ids=["quick", "plain", "older"],
)
def test_too_many_records_of_one_address_are_refused_whole(
    box: Box, address: str, path: str, record: dict[str, object]
) -> None:
    with client(box, box.api_port, address) as web:
        taken, over = (web.post(path, json=[record] * RECORDS) for _ in range(2))
    assert (taken.status_code, over.status_code) == (202, 429)
    assert int(over.headers["retry-after"]) >= 1
    if path == "/tracking/data/":
        assert list(over.json()) == ["detail"]
        assert "20 records a second" in over.json()["detail"]
    else:
        assert over.json()["violated-policies"] == ["address-records"]


def test_more_records_than_a_burst_pass_once_and_are_paid_for(box: Box) -> None:
    with client(box, box.http_port, "192.0.2.16") as web:
        assert posted(web, 2 * RECORDS).status_code == 202
        over = posted(web)
    assert over.status_code == 429
    assert int(over.headers["retry-after"]) in (2, 3)


def test_the_older_addresses_answer_in_their_shape(box: Box) -> None:
    with client(box, box.api_port, "192.0.2.14") as web:
        answers = [web.get("/tracking/data/latest/van-1/") for _ in range(REQUESTS + 1)]
    assert answers[-1].status_code == 429
    assert list(answers[-1].json()) == ["detail"]
    assert "retry-after" in answers[-1].headers


def test_who_watches_the_box_is_not_limited(box: Box) -> None:
    with client(box, box.api_port, "192.0.2.15") as web:
        assert {web.get(path).status_code for path in ("/healthz", "/readyz") for _ in range(10)} == {200}


def test_over_tcp_too_much_is_taken_and_then_read_no_faster_than_may_be(box: Box) -> None:
    line = json.dumps([RECORD | {"device_id": "tcp-1"}] * 10).encode() + b"\n"
    time.sleep(RECORDS / 20)
    with socket.create_connection(("127.0.0.1", box.tcp_port), 30) as connection, connection.makefile("rb") as answers:
        begun_s = time.monotonic()
        for _ in range(11):
            connection.sendall(line)
            assert json.loads(answers.readline())["accepted"] == 10
        took_s = time.monotonic() - begun_s
    # 50 at once and 20 a second: the last 10 are read once what 100 others owe is paid
    assert took_s > (100 - RECORDS) / 20 * 0.9


def test_over_udp_too_much_is_dropped_and_counted(box: Box, udp_port: int) -> None:
    time.sleep(0.5)
    before = refused(box)
    sentence = b"$GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W*6A\r\n"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(3 * RECORDS):
            sender.sendto(sentence, ("127.0.0.1", udp_port))
    deadline = time.monotonic() + 20
    while refused(box) == before:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def refused(box: Box) -> int:
    return int((box.json("status")["refused"] or {}).get("rate-limited", 0))
