"""Client certificates in place of keys: each writes as its own device, and none outlives its expiry or revocation."""

from __future__ import annotations

import datetime
import json
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from telemetry.audit.entry import Actor
from telemetry.audit.reader import Wanted, entries
from tests.box import Box, free_ports
from tests.certificates import Authority
from tests.senders import wait_until

pytestmark = pytest.mark.slow

IMEI = "356307042441013"
LOGIN = bytes.fromhex("000f333536333037303432343431303133")
"""A Teltonika tracker's login with this IMEI."""

SOON_S = 15


class Fleet:
    """A box that accepts certificates of one authority, and that authority."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.issuer = trustme.CA()
        self.issuer.cert_pem.write_to_path(folder / "clients.pem")
        self.revoked: list[x509.Certificate] = []
        self.write_crl()
        self.authority = Authority(folder).issue("localhost", "127.0.0.1")
        [self.tracker_port] = free_ports(1)
        listen = [{"protocol": "teltonika", "port": self.tracker_port, "tls": True}]
        self.box = Box(
            folder / "box",
            auth__required="true",
            limits__address_wrong_keys_per_min="0",
            tls__certificate=str(self.authority.certificate),
            tls__key=str(self.authority.key),
            tls__client_ca=str(folder / "clients.pem"),
            tls__client_crl=str(folder / "revoked.pem"),
            collector__listen=json.dumps(listen),
        )

    def write_crl(self) -> None:
        """Write the list of revoked certificates, as the authority would."""
        now = datetime.datetime.now(datetime.UTC)
        issuer = x509.load_pem_x509_certificate(self.issuer.cert_pem.bytes())
        key = serialization.load_pem_private_key(self.issuer.private_key_pem.bytes(), None)
        found = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject)
        found = found.last_update(now - datetime.timedelta(days=1)).next_update(now + datetime.timedelta(days=30))
        for one in self.revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.serial_number).revocation_date(now).build()
            found = found.add_revoked_certificate(entry)
        signed = found.sign(key, hashes.SHA256())  # type: ignore[arg-type]  # an authority's key is one of signing
        (self.folder / "revoked.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def client(self, name: str, issuer: trustme.CA | None = None, seconds: float = 3_600) -> ssl.SSLContext:
        """A client that trusts the box, with a certificate of this common name."""
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        context = self.authority.client()
        issued = (issuer or self.issuer).issue_cert(f"{name}.example.com", common_name=name, not_after=until)
        issued.configure_cert(context)
        self.last = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
        return context

    def post(self, tls: ssl.SSLContext, device_id: str) -> httpx.Response:
        """A record over HTTP, without a key."""
        with httpx.Client(base_url=f"https://localhost:{self.box.http_port}", verify=tls, timeout=30) as http:
            return http.post("/v1/records", json={"device_id": device_id})

    def connect(self, tls: ssl.SSLContext, port: int) -> ssl.SSLSocket:
        """A connection over TCP."""
        plain = socket.create_connection(("localhost", port), 30)
        return tls.wrap_socket(plain, server_hostname="localhost")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    found = Fleet(tmp_path_factory.mktemp("certified"))
    with found.box:
        yield found


def say(connection: ssl.SSLSocket, device_id: str) -> bytes:
    """The answer to a record; nothing if the connection has ended."""
    try:
        connection.sendall(json.dumps({"device_id": device_id}).encode() + b"\n")
        return connection.recv(4_096)
    except OSError:
        return b""


def acknowledgement(tracker: ssl.SSLSocket) -> bytes:
    """What a tracker hears within 2 s; nothing if its connection has ended."""
    tracker.settimeout(2)
    try:
        return tracker.recv(4)
    except OSError:
        return b""


def has_ended(connection: ssl.SSLSocket) -> bool:
    """Whether the box has closed the connection, whatever it said before."""
    connection.settimeout(SOON_S)
    try:
        while connection.recv(4_096):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def test_a_device_writes_as_itself_alone(fleet: Fleet) -> None:
    van = fleet.client("van-7")
    assert fleet.post(van, "van-7").status_code == 202
    refused = fleet.post(van, "van-8")
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:whimbrel:problem:other-device")
    with fleet.connect(van, fleet.box.tcp_port) as connection:
        assert b"Data received" in say(connection, "van-7")
        assert b"not for device" in say(connection, "van-8")
        assert b"Data received" in say(connection, "van-7")


def test_the_audit_log_names_a_certificate_by_its_device(fleet: Fleet) -> None:
    assert fleet.post(fleet.client("van-9"), "van-8").status_code == 403
    refusals = Wanted(key="van-9", outcome="refused")
    wait_until(lambda: any(entries(fleet.box.data / "audit", refusals)))
    assert {one.actor for one in entries(fleet.box.data / "audit", refusals)} == {Actor("certificate", "van-9")}


def test_who_has_neither_certificate_nor_key_is_refused(fleet: Fleet) -> None:
    nobody = fleet.authority.client()
    assert fleet.post(nobody, "van-7").status_code == 401
    with fleet.connect(nobody, fleet.box.tcp_port) as connection:
        assert b"Data received" not in say(connection, "van-7")


def test_a_certificate_reads_nothing(fleet: Fleet) -> None:
    van = fleet.client("van-7")
    with httpx.Client(base_url=f"https://localhost:{fleet.box.api_port}", verify=van, timeout=30) as http:
        assert http.get("/v1/devices/van-7/latest").status_code == 401


def test_another_authority_is_not_trusted(fleet: Fleet) -> None:
    foreign = fleet.client("van-7", trustme.CA())
    with pytest.raises(httpx.TransportError):
        fleet.post(foreign, "van-7")


def test_a_tracker_is_who_its_certificate_names(fleet: Fleet) -> None:
    """Its protocol has no place for a key, and needs no `allow_anonymous`."""
    record = bytes.fromhex("000000000000002108010000019ca9450a00011145c0c018715ad00023010e090024000000000000010000b7a4")
    with fleet.connect(fleet.client(IMEI), fleet.tracker_port) as tracker:
        tracker.sendall(LOGIN)
        assert tracker.recv(1) == b"\x01"
        tracker.sendall(record)
        assert tracker.recv(4) == b"\x00\x00\x00\x01"
    for other in (fleet.client("000000000000000"), fleet.authority.client()):
        with fleet.connect(other, fleet.tracker_port) as tracker:
            tracker.sendall(LOGIN)
            tracker.recv(1)
            tracker.sendall(record)
            assert acknowledgement(tracker) != b"\x00\x00\x00\x01"


def test_a_connection_ends_with_its_certificate(fleet: Fleet) -> None:
    with fleet.connect(fleet.client("short", seconds=6), fleet.box.tcp_port) as connection:
        assert b"Data received" in say(connection, "short")
        assert has_ended(connection)


def test_a_revoked_certificate_ends_at_sighup(fleet: Fleet) -> None:
    lost = fleet.client("lost")
    fleet.revoked.append(fleet.last)
    kept = fleet.client("kept")
    with fleet.connect(lost, fleet.box.tcp_port) as connection:
        assert b"Data received" in say(connection, "lost")
        fleet.write_crl()
        os.kill(fleet.box.pid, signal.SIGHUP)
        assert has_ended(connection)

    def is_refused() -> bool:
        try:
            return fleet.post(lost, "lost").status_code != 202
        except httpx.TransportError:
            return True

    wait_until(is_refused, SOON_S)
    assert fleet.post(kept, "kept").status_code == 202
