"""A box with TLS, for clients and operators, with a renewal of its certificate under open connections."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.box import Box, free_ports
from tests.certificates import Authority

WAIT_S = 20.0
TEXT = '{"device_id": "van-1", "latitude": 53.4, "longitude": -2.9}'


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates")).issue()


@pytest.fixture(scope="module")
def plain_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def box(authority: Authority, plain_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    listen = [
        {"protocol": "any", "port": plain_port},
        {"protocol": "osmand", "port": free_ports(1)[0], "transport": "http", "tls": True},
    ]
    with Box(
        tmp_path_factory.mktemp("box"),
        tls__certificate=str(authority.certificate),
        tls__key=str(authority.key),
        collector__processes="2",
        collector__listen=json.dumps(listen),
    ) as found:
        found.listen = listen  # type: ignore[attr-defined]
        yield found


def web(box: Box, authority: Authority, port: int | None = None) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection("localhost", port or box.api_port, timeout=10, context=authority.client())


def asked(connection: http.client.HTTPSConnection, path: str = "/healthz") -> int:
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    return response.status


def asked_once(box: Box, authority: Authority, port: int, path: str = "/healthz") -> int:
    with closing(web(box, authority, port)) as connection:
        return asked(connection, path)


def line(box: Box, authority: Authority) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", box.tcp_port), 10)
    return authority.client().wrap_socket(plain, server_hostname="127.0.0.1")


def said(connection: socket.socket) -> Any:
    connection.sendall(TEXT.encode() + b"\n")
    return json.loads(connection.recv(4096))


def serial(connection: ssl.SSLSocket) -> str:
    return str((connection.getpeercert() or {})["serialNumber"])


def shown(box: Box, authority: Authority, port: int) -> str:
    plain = socket.create_connection(("127.0.0.1", port), 10)
    with authority.client().wrap_socket(plain, server_hostname="localhost") as found:
        return serial(found)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_every_port_speaks_tls_but_those_that_are_told_not_to(box: Box, authority: Authority, plain_port: int) -> None:
    assert asked_once(box, authority, box.api_port) == 200
    assert asked_once(box, authority, box.http_port) == 200
    further = box.listen[1]["port"]  # type: ignore[attr-defined]
    assert asked_once(box, authority, further, "/?id=phone-1&lat=53.4&lon=-2.9") == 200
    with line(box, authority) as connection:
        assert said(connection)["accepted"] == 1
    with socket.create_connection(("127.0.0.1", plain_port), 10) as plain:
        assert said(plain)["accepted"] == 1


def test_browsers_are_told_to_come_over_tls_from_then_on(box: Box, authority: Authority) -> None:
    for port in (box.api_port, box.http_port):
        answer = httpx.get(f"https://localhost:{port}/healthz", verify=authority.client())
        assert answer.headers["strict-transport-security"] == "max-age=86400"


def test_links_of_pages_lead_back_over_tls_and_nowhere_else(box: Box, authority: Authority) -> None:
    older = {"device_id": "paged", "speed": 1, "fuel": 1, "temperature": 1, "location": "53.4,-2.9"}
    with httpx.Client(base_url=f"https://localhost:{box.api_port}", verify=authority.client(), timeout=30) as web:
        assert web.post("/tracking/data/", json=[older] * 150).status_code == 202
        for headers in ({}, {"Whimbrel-Scheme": "ftp"}):
            found = web.get("/tracking/data/list/", headers=headers).json()["next"]
            assert found == f"https://localhost:{box.api_port}/tracking/data/list/?page=2"


def test_who_speaks_no_tls_gets_nothing(box: Box) -> None:
    with socket.create_connection(("127.0.0.1", box.tcp_port), 10) as plain:
        plain.sendall(TEXT.encode() + b"\n")
        assert not plain.recv(4096).startswith(b"{")
    with pytest.raises(httpx.TransportError):
        box.http.get("/healthz")


def test_our_commands_reach_it(box: Box, authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "some.ndjson"
    file.write_text(TEXT + "\n")
    ca = ("--ca-file", str(authority.ca_file))
    for way in (
        (),
        ("--over", "tcp"),
        ("--url", f"https://localhost:{box.http_port}", *ca),
        ("--over", "tcp", "--tcp", f"localhost:{box.tcp_port}", "--tls", *ca),
    ):
        assert box.json("send", str(file), *way)["accepted"] == 1
    assert "van-1" in box.whimbrel("latest").stdout
    assert "van-1" in box.whimbrel("latest", "--url", f"https://localhost:{box.api_port}", *ca).stdout
    unknown = box.whimbrel("latest", "--url", f"https://localhost:{box.api_port}")
    assert unknown.returncode != 0
    assert "certificate verify failed" in unknown.stderr


def test_the_doctor_looks_at_the_certificate(box: Box, authority: Authority) -> None:
    def found() -> list[tuple[str, str]]:
        done = json.loads(box.whimbrel("doctor", "--json").stdout)
        return [(one["level"], one["text"]) for one in done["checks"] if one["check"] == "certificate"]

    assert found() == [("ok", f"{authority.certificate} is valid for 90 days")]
    try:
        authority.issue(days=10)
        assert found() == [("warning", f"{authority.certificate} expires in 10 days")]
        authority.issue(days=-1)
        assert found() == [("failure", f"clients refuse {authority.certificate}: it has expired")]
    finally:
        authority.issue()
        renew(box, authority)


def renew(box: Box, authority: Authority) -> None:
    """SIGHUP, until all programs show what the file holds."""
    decoded: Any = ssl._ssl._test_decode_cert(str(authority.certificate))  # type: ignore[attr-defined]
    os.kill(box.pid, signal.SIGHUP)
    for port in (box.api_port, *[box.http_port, box.tcp_port] * 4):  # by chance to each of the two collectors
        until(lambda port=port: shown(box, authority, port) == decoded["serialNumber"])  # type: ignore[misc]


def test_a_renewed_certificate_serves_who_comes_next_and_nobody_is_cut_off(box: Box, authority: Authority) -> None:
    old_web, old_line = web(box, authority), line(box, authority)
    assert asked(old_web) == 200
    assert said(old_line)["accepted"] == 1
    before, old_socket = serial(old_line), old_web.sock
    authority.issue()
    assert shown(box, authority, box.tcp_port) == before
    renew(box, authority)
    assert said(old_line)["accepted"] == 1
    assert serial(old_line) == before
    assert asked(old_web) == 200
    assert old_web.sock is old_socket
    old_line.close()
    old_web.close()


def test_a_bad_certificate_is_said_and_changes_nothing(box: Box, authority: Authority) -> None:
    before = shown(box, authority, box.tcp_port)
    kept = authority.key.read_bytes()
    try:
        authority.key.write_text("nonsense")
        os.kill(box.pid, signal.SIGHUP)
        until(lambda: sum("the previous one stays in use" in text for text in box.output) >= 3)
        assert shown(box, authority, box.tcp_port) == before
        assert asked_once(box, authority, box.api_port) == 200
    finally:
        authority.key.write_bytes(kept)


def test_up_stops_at_once_where_key_and_certificate_do_not_fit(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path).issue()
    shutil.copy(authority.key, other.key)
    box = Box(tmp_path, tls__certificate=str(other.certificate), tls__key=str(other.key))
    done = subprocess.run(
        [*box._command], env=box.environ, cwd=box._cwd, text=True, capture_output=True, timeout=WAIT_S
    )
    assert done.returncode != 0
    assert "it is not the key of tls.certificate" in done.stderr
