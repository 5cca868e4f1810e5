"""`whimbrel up --secure` from nothing: keys, TLS and limits hold at once, and the first key opens the box."""

from __future__ import annotations

import json
import socket
import ssl
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.box import Box
from tests.senders import wait_until

pytestmark = pytest.mark.slow


class Secure:
    """A box that was started with `--secure`, and a client that trusts its certificate alone."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.tls = ssl.create_default_context(cafile=str(box.data / "tls" / "certificate.pem"))
        self.http = httpx.Client(base_url=f"https://localhost:{box.api_port}", verify=self.tls, timeout=30)
        self.key = (box.data / "first-admin-key").read_text(encoding="ascii").strip()
        self.bearer = {"Authorization": f"Bearer {self.key}"}
        for port in (box.api_port, box.http_port):
            wait_until(lambda: self.is_known(port))  # noqa: B023

    def is_known(self, port: int) -> bool:
        """Whether the program on this port knows the key, which it reads once a second."""
        url = f"https://localhost:{port}/v1/records"
        return self.http.post(url, json=[], headers=self.bearer).status_code != 401


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    command = [sys.executable, "-m", "cli.main", "up", "--secure"]
    with Box(tmp_path_factory.mktemp("secure"), command) as box:
        found = Secure(box)
        yield found
        found.http.close()


def test_nobody_reads_or_writes_without_a_key(secure: Secure) -> None:
    assert secure.http.get("/v1/latest").status_code == 401
    assert secure.http.post("/v1/records", json=[]).status_code == 401


def test_nobody_is_answered_without_tls(secure: Secure) -> None:
    box = secure.box
    for port in (box.api_port, box.http_port):
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=15)
    with socket.create_connection(("127.0.0.1", box.tcp_port), 15) as plain:
        plain.settimeout(15)
        plain.sendall(b'{"device_id": "plain"}\n')
        assert b"Data received" not in plain.recv(1_000)


def test_the_first_key_opens_the_box(secure: Secure) -> None:
    record = {"device_id": "van-7", "latitude": 53.4, "longitude": -2.9}
    assert secure.http.post("/v1/records", json=record, headers=secure.bearer).status_code == 202
    answer = secure.http.get("/v1/devices/van-7/latest", headers=secure.bearer)
    assert answer.status_code == 200
    assert "RateLimit" in answer.headers
    with (
        socket.create_connection(("localhost", secure.box.tcp_port), 15) as plain,
        secure.tls.wrap_socket(plain, server_hostname="localhost") as tls,
        tls.makefile("rwb", 0) as lines,
    ):
        lines.write(json.dumps({"token": secure.key}).encode() + b"\n")
        assert b"Key accepted" in lines.readline()
        lines.write(json.dumps(record).encode() + b"\n")
        assert b"Data received" in lines.readline()


def test_commands_reach_it_once_the_setting_is_set(secure: Secure) -> None:
    box = secure.box
    assert any("set auth.secure = true" in line for line in box.output)
    assert any("SHA-256 fingerprint" in line for line in box.output)
    box.environ |= {"WHIMBREL__AUTH__SECURE": "true", "WHIMBREL_KEY": secure.key}
    assert json.loads(box.whimbrel("latest", "van-7", "--json").stdout)["device_id"] == "van-7"
    assert box.whimbrel("status").returncode == 0


def test_the_key_is_in_no_log(secure: Secure) -> None:
    assert secure.key.split("_")[2] not in "".join(secure.box.output)
