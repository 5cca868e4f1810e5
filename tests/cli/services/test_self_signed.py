"""The box's own certificate: created once, renewed in time, accepted by a client that verifies names."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from pathlib import Path

import pytest

from cli.services.self_signed import RENEW_DAYS, VALID_DAYS, ensure, own_hosts

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "tls" / "certificate.pem", tmp_path / "tls" / "key.pem"


def shaken(files: tuple[Path, Path], name: str) -> str:
    """The version of TLS that a client agrees on that trusts this certificate and looks at the name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    ours, theirs = socket.socketpair()
    server = threading.Thread(target=lambda: context.wrap_socket(ours, server_side=True).close())
    server.start()
    try:
        trusting = ssl.create_default_context(cafile=str(files[0]))
        with trusting.wrap_socket(theirs, server_hostname=name) as client:
            return client.version() or ""
    finally:
        server.join()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "box.example.com", "192.0.2.7"])
def test_a_client_that_trusts_it_accepts_each_name(files: tuple[Path, Path], name: str) -> None:
    ensure(*files, own_hosts("box.example.com", "192.0.2.7", "0.0.0.0", "::"), NOW)
    assert shaken(files, name) == "TLSv1.3"


def test_it_is_made_once_and_private(files: tuple[Path, Path]) -> None:
    fingerprint = ensure(*files, ("localhost",), NOW)
    assert len(fingerprint.split(":")) == 32
    assert ensure(*files, ("localhost",), NOW) == fingerprint
    assert all(path.stat().st_mode & 0o077 == 0 for path in (*files, files[0].parent))


def test_it_is_renewed_before_it_expires(files: tuple[Path, Path]) -> None:
    first = ensure(*files, ("localhost",), NOW)
    late = datetime.timedelta(days=VALID_DAYS - RENEW_DAYS)
    assert ensure(*files, ("localhost",), NOW + late - datetime.timedelta(days=3)) == first
    assert ensure(*files, ("localhost",), NOW + late) != first


def test_a_file_that_is_no_certificate_is_not_overwritten(files: tuple[Path, Path]) -> None:
    files[0].parent.mkdir()
    for path in files:
        path.write_text("somebody's")
    with pytest.raises(ValueError, match=r"."):
        ensure(*files, ("localhost",), NOW)
    assert files[0].read_text() == "somebody's"
