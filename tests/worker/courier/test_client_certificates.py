"""Receivers that ask for a client certificate, and what a wrong one of the settings does."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from telemetry.config.loader import load
from telemetry.model.errors import ConfigError
from tests.certificates import Authority
from tests.worker.courier.receiver import Receiver
from worker.courier.delivery.http_client import Peer, TlsFiles, tls_of


class Strict:
    """A receiver over TLS that lets in whoever has a certificate of `clients`, and the files of one that has."""

    def __init__(self, folder: Path) -> None:
        box = Authority(folder).issue("127.0.0.1")
        clients = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(box.certificate, box.key)
        context.verify_mode = ssl.CERT_REQUIRED
        clients.configure_trust(context)
        self.receiver = Receiver(context)
        issued = clients.issue_cert("box-7")
        issued.private_key_pem.write_to_path(folder / "client.key")
        issued.cert_chain_pems[0].write_to_path(folder / "client.pem")
        self.files = TlsFiles(str(box.ca_file), str(folder / "client.pem"), str(folder / "client.key"))


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Strict]:
    found = Strict(tmp_path)
    yield found
    found.receiver.close()


def test_a_receiver_gets_the_certificate_that_it_asks_for(strict: Strict) -> None:
    peer = Peer(strict.receiver.url, 5, None, strict.files)
    assert peer.post(b"1", {}).is_good
    peer.close()
    assert [post.body for post in strict.receiver.posts] == [b"1"]


def test_without_one_the_receiver_cannot_be_reached(strict: Strict) -> None:
    peer = Peer(strict.receiver.url, 5, None, TlsFiles(strict.files.ca_file))
    with pytest.raises(OSError, match="cannot reach 127"):
        peer.post(b"1", {})
    assert strict.receiver.posts == []


def test_files_that_cannot_be_used_are_named(strict: Strict, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot use client_certificate"):
        tls_of(strict.files._replace(client_certificate=str(tmp_path / "nowhere.pem")))
    with pytest.raises(ConfigError, match="cannot use client_certificate"):
        tls_of(strict.files._replace(client_key=str(tmp_path / "box.key")))
    with pytest.raises(ConfigError, match="cannot use ca_file"):
        tls_of(TlsFiles(str(tmp_path / "nowhere.pem")))


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ('url = "https://h/"\nclient_certificate = "a.pem"', "must be set together"),
        ('url = "https://h/"\nclient_key = "a.key"', "must be set together"),
        ('url = "http://h/"\nclient_certificate = "a.pem"\nclient_key = "a.key"', "has no effect over http://"),
        (
            'url = "whimbrel://h:1"\nclient_certificate = "a.pem"\nclient_key = "a.key"',
            "has no effect over whimbrel://",
        ),
        ('url = "whimbrel://h:1"\nsecret = "s"', "signs HTTP requests"),
    ],
)
def test_what_would_never_be_shown_is_refused(entry: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f'[[forward]]\nname = "hq"\n{entry}\n')
    with pytest.raises(ConfigError, match=why):
        load(str(tmp_path / "config.toml"), {})
