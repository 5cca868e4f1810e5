"""Callers known by their client certificates, and when they no longer count."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from telemetry.config.loader import load
from telemetry.model.api_keys import Denied
from telemetry.model.errors import ConfigError
from telemetry.network.client_certificates import EXPIRED, READ_AGAIN, ClientCertificates
from tests.certificates import Authority
from tests.settings_file import refused

UNTIL_S = ssl.cert_time_to_seconds("Jan  1 00:00:00 2030 GMT")


def described(*names: str) -> dict[str, Any]:
    """A verified certificate, as `getpeercert` describes it."""
    subject = ((("organizationName", "Fleet"),), *((("commonName", name),) for name in names))
    return {"subject": subject, "notAfter": "Jan  1 00:00:00 2030 GMT"}


class Clock:
    now_s = UNTIL_S - 10.0

    def __call__(self) -> float:
        return self.now_s


class Opened:
    """Something that a certificate has opened."""

    denied: Denied | None = None

    def end(self, denied: Denied) -> None:
        self.denied = denied


def test_the_common_name_is_the_device() -> None:
    found = ClientCertificates(Path("ca.pem"), now_s=Clock()).certified(described("van-7"))
    assert found is not None
    caller = found.check()
    assert caller is found.caller
    assert (found.caller.key_id, found.caller.device, found.caller.expires_s) == ("certificate:van-7", "van-7", UNTIL_S)
    assert found.caller.may("ingest")
    assert not found.caller.may("read")
    assert found.caller.binding.covers("van-7")
    assert not found.caller.binding.covers("van-70")


@pytest.mark.parametrize("names", [(), ("a", "b"), ("",), ("x" * 256,)])
def test_a_certificate_that_names_no_device_is_nobodys(names: tuple[str, ...]) -> None:
    assert ClientCertificates(Path("ca.pem")).certified(described(*names)) is None


def test_no_certificate_is_nobodys() -> None:
    assert ClientCertificates(Path("ca.pem")).certified(None) is None


def test_what_it_opened_ends_with_it_and_when_authorities_are_read_again() -> None:
    clock, opened = Clock(), Opened()
    clients = ClientCertificates(Path("ca.pem"), now_s=clock)
    found = clients.certified(described("van-7"))
    assert found is not None
    clients.hold(found.caller, opened)
    assert asyncio.run(clients.end_withdrawn(0)) == 0
    assert opened.denied is None
    clock.now_s = UNTIL_S
    assert found.check() == EXPIRED
    asyncio.run(clients.end_withdrawn(0))
    assert opened.denied == EXPIRED
    clock.now_s, opened.denied = UNTIL_S - 10, None
    clients.hold(found.caller, opened)
    clients.read_again()
    assert found.check() == READ_AGAIN
    assert asyncio.run(clients.end_withdrawn(0)) == 1
    assert opened.denied == READ_AGAIN


def test_authorities_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for paths in ((tmp_path / "nowhere.pem",), (Authority(tmp_path).ca_file, tmp_path / "nowhere.pem")):
        with pytest.raises(ConfigError, match=r"cannot use tls\.client_ca"):
            ClientCertificates(*paths).configure(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


def test_settings_that_ask_nobody_for_a_certificate_are_refused(tmp_path: Path) -> None:
    assert "has no effect without tls.client_ca" in refused(tmp_path, "[tls]\nclient_crl = 'crl.pem'")
    assert "needs tls.certificate and auth.required" in refused(tmp_path, "[tls]\nclient_ca = 'ca.pem'")
    environ = {"WHIMBREL__AUTH__SECURE": "true", "WHIMBREL__TLS__CLIENT_CA": str(tmp_path / "ca.pem")}
    assert load(environ=environ).client_ca_paths == (tmp_path / "ca.pem", None)
