"""The legacy service as its clients know it: each line of its contract is an entry in `tests/data/older/`.

Bytes go over plain sockets to a whole box. Requests that read records are sent three times: while all records are in
Redis, with some of them saved, and with all saved.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.box import Box
from tests.older_tables import HEADERS, Case, Http, Tcp, cases, matches

pytestmark = pytest.mark.slow

TODAY = datetime.now(UTC).date()
CASES = list(cases(TODAY))
READING = [case for case in CASES if case.reads_records]
STAGES = {"in Redis": CASES, "some saved": READING, "all saved": READING}

PAUSE_S = 0.15
"""Between two packets: longer than the silence that ends a message."""

BATCH_RECORDS = 5_000
"""Records of one message: below its limit in bytes."""

ALLOW = {
    r"/tracking/data/?": "POST, OPTIONS",
    r"/(tracking|tcp_tracking)/data/(list|latest/[^/]+)/?": "GET, HEAD, OPTIONS",
}


@pytest.fixture(scope="module")
def box(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box with the records that the cases of a stage read."""
    stage = request.param
    records = {over: list(dict.fromkeys(one for case in STAGES[stage] for one in getattr(case, over))) for over in SEND}
    with Box(tmp_path_factory.mktemp("box"), persist__flush_seconds="3600", persist__flush_records="200000") as box:
        for part in range(2):
            for over, send in SEND.items():
                send(box, records[over][part::2])
            if stage == "all saved" or (stage == "some saved" and part == 0):
                assert box.json("drain")["saved"] > 0
        yield box


def send_http(box: Box, records: list[str]) -> None:
    """Store records by the older service's POST."""
    head = {"Content-Type": "application/json"}
    assert box.http.post("/tracking/data/", content=f"[{','.join(records)}]", headers=head).status_code == 202


def send_tcp(box: Box, records: list[str]) -> None:
    """Store records by lines on a connection."""
    with socket.create_connection(("127.0.0.1", box.tcp_port), 30) as device, device.makefile("r") as answers:
        for start in range(0, len(records), BATCH_RECORDS):
            batch = records[start : start + BATCH_RECORDS]
            device.sendall(f"[{','.join(batch)}]\n".encode())
            assert json.loads(answers.readline()) == {"message": "Data received", "accepted": len(batch)}


SEND = {"http": send_http, "tcp": send_tcp}


@pytest.mark.parametrize(
    ("box", "case"),
    [pytest.param(stage, case, id=f"{stage}, {case.name[:90]}") for stage, some in STAGES.items() for case in some],
    indirect=["box"],
    scope="module",
)
def test_what_is_asked_is_answered_as_the_contract_says(box: Box, case: Case) -> None:
    if case.names_today and datetime.now(UTC).date() != TODAY:
        pytest.skip("a new day has begun since the tables were read")
    for exchange in case.exchanges:
        if isinstance(exchange, Http):
            check_http(box, exchange)
        else:
            check_tcp(box, exchange)


@pytest.mark.parametrize("box", ["in Redis"], indirect=True, scope="module")
def test_the_id_of_a_record_is_that_of_v1(box: Box) -> None:
    send_http(box, ['{"device_id":"same id","location":"x","speed":1}'])
    [listed] = box.http.get("/tracking/data/list/?device_id=same+id").json()["results"]
    assert listed["id"] == box.http.get("/v1/devices/same id/latest").json()["id"]
    assert listed == box.http.get("/tracking/data/latest/same id/").json()


# HTTP ------------------------------------------------------------------------------------------------


def check_http(box: Box, exchange: Http) -> None:
    method, _, target = exchange.request.partition(" ")
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", box.api_port, timeout=30)) as connection:
        ask(connection, method, target, exchange)
        answer = connection.getresponse()
        body = answer.read()
    assert answer.status == exchange.status, body[:1000]
    check_headers(answer, target.partition("?")[0], exchange)
    if exchange.status != 301:
        assert not answer.will_close
        assert answer.getheader("Content-Length") == str(len(body)) or method == "HEAD"
    check_text(exchange.answer, body.decode())
    for path, value in exchange.json.items():
        assert inside(json.loads(body), path) == value


def ask(connection: http.client.HTTPConnection, method: str, target: str, exchange: Http) -> None:
    """Send a request with the headers that the table names, and no other but Host and the body's length."""
    body = exchange.body.encode() or bytes.fromhex(exchange.body_hex)
    headers = {"Host": "localhost:8000", **exchange.headers}
    if exchange.chunks:
        headers["Transfer-Encoding"] = "chunked"
        pieces = [piece.encode() for piece in (*exchange.chunks, "")]
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    elif body or method == "POST":
        headers["Content-Length"] = str(len(body))
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        if isinstance(value, str):
            connection.putheader(name, value)
    connection.endheaders(body)


def check_headers(answer: http.client.HTTPResponse, path: str, exchange: Http) -> None:
    """Whether an answer has the headers of its kind, of its path and of its own."""
    expected: dict[str, str | bool] = {**HEADERS["all"], **HEADERS[exchange.kind]} if exchange.kind != "none" else {}
    allow = [methods for pattern, methods in ALLOW.items() if re.fullmatch(pattern, path)]
    if allow and exchange.kind in ("json", "refused", "html"):
        expected["Allow"] = allow[0]
    expected |= exchange.expect
    wanted = {name: value if isinstance(value, str) else None for name, value in expected.items()}
    found = {name: answer.getheader(name) for name in wanted}
    if found.get("Vary"):  # caches have to know that a response may be compressed, which the older service's was not
        found["Vary"] = str(found["Vary"]).removesuffix(", Accept-Encoding")
    assert found == wanted


def inside(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value[name]
    return value


# TCP -------------------------------------------------------------------------------------------------


def check_tcp(box: Box, exchange: Tcp) -> None:
    packets = [packet.encode() for packet in exchange.send] or [bytes.fromhex(exchange.send_hex)]
    with socket.create_connection(("127.0.0.1", box.tcp_port), 10) as device:
        time.sleep(exchange.silent_s)
        for number, packet in enumerate(packets):
            time.sleep(PAUSE_S if number else 0)
            device.sendall(packet)
        if exchange.late:
            time.sleep(2 * PAUSE_S)
            device.sendall(exchange.late.encode())
        if exchange.half_close:
            device.shutdown(socket.SHUT_WR)
        with device.makefile("rb") as answers:
            got = answers.read()  # to the end: it is the server that closes
    check_text(exchange.answer, got.decode("ascii"))


def check_text(expected: str, got: str) -> None:
    if "<" in expected:
        assert matches(expected, got), f"{got[:1000]}\nis not\n{expected[:1000]}"
    else:
        assert got == expected
