"""Certificate and key: what is wrong is said by name, and a renewed one serves who comes next."""

import logging
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from telemetry.model.errors import ConfigError
from telemetry.network import tls
from telemetry.network.tls import Identity, validity_of
from tests.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path).issue()


def presented(identity: Identity, authority: Authority, name: str | None = "localhost") -> int:
    """The serial number of the certificate that a client is shown."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = identity.context.wrap_bio(to_server, to_client, server_side=True)
    context = authority.client()
    context.check_hostname = name is not None
    client = context.wrap_bio(to_client, to_server, server_hostname=name)
    tls._shake_hands(client, server)
    return int(str((client.getpeercert() or {})["serialNumber"]), 16)


def wrong(authority: Authority) -> str:
    with pytest.raises(ConfigError) as caught:
        authority.identity()
    return str(caught.value)


def test_a_certificate_and_until_when_it_is_valid(authority: Authority) -> None:
    validity = authority.identity().validity()
    assert validity.fault == ""
    assert 89.9 < validity.days_left(time.time()) < 90.1


def test_old_versions_of_tls_are_not_spoken(authority: Authority) -> None:
    assert authority.identity().context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("name", ["certificate", "key"])
def test_a_file_that_is_missing(authority: Authority, name: str) -> None:
    path: Path = getattr(authority, name)
    path.unlink()
    assert wrong(authority) == f"cannot read tls.{name} = {str(path)!r}: No such file or directory"


@pytest.mark.parametrize("name", ["certificate", "key"])
def test_a_file_that_is_a_folder(authority: Authority, name: str) -> None:
    path: Path = getattr(authority, name)
    path.unlink()
    path.mkdir()
    assert wrong(authority) == f"cannot read tls.{name} = {str(path)!r}: Is a directory"


def test_a_key_of_another_certificate(authority: Authority) -> None:
    kept = authority.key.read_bytes()
    authority.issue()
    authority.key.write_bytes(kept)
    assert "it is not the key of tls.certificate" in wrong(authority)


def test_a_file_that_holds_something_else(authority: Authority) -> None:
    authority.certificate.write_text("hello")
    assert "it has no certificate in PEM" in wrong(authority)
    authority.issue()
    authority.key.write_text("hello")
    assert "it has no private key in PEM" in wrong(authority)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="encrypts a key with the openssl command")
def test_a_key_that_is_encrypted(authority: Authority, tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", authority.key, "-out", locked, "-passout", "pass:secret"], check=True
    )
    shutil.copy(locked, authority.key)
    assert "it is encrypted" in wrong(authority)


def test_one_that_has_expired_says_so(authority: Authority) -> None:
    authority.issue(days=-1)
    assert authority.identity().validity() == (None, "it has expired")


def test_one_of_tomorrow(authority: Authority) -> None:
    authority.issue(start_days=1)
    assert authority.identity().validity().fault == "it is not valid yet, or the box's clock is wrong"


@pytest.mark.parametrize("name", ["localhost", None])
def test_a_renewed_certificate_is_shown_after_a_reload(authority: Authority, name: str | None) -> None:
    identity = authority.identity()
    first = presented(identity, authority, name)
    authority.issue()
    assert presented(identity, authority, name) == first
    assert identity.reload()
    second = presented(identity, authority, name)
    assert second != first


def test_a_bad_one_is_not_taken_and_the_old_one_stays(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    identity = authority.identity()
    first = presented(identity, authority)
    for spoil in (
        lambda: authority.issue(days=-1),
        lambda: authority.key.write_text("hello"),
        lambda: authority.certificate.unlink(),
    ):
        spoil()
        caplog.clear()
        with caplog.at_level(logging.ERROR):
            assert not identity.reload()
        assert "the previous one stays in use" in caplog.text
        assert presented(identity, authority) == first


def test_the_box_itself_trusts_its_certificate_whatever_it_is_called(authority: Authority) -> None:
    authority.issue("box.example.com")
    context = authority.identity().context
    assert validity_of(context, authority.certificate).fault == ""
    authority.issue("box.example.com")
    assert validity_of(context, authority.certificate).fault != ""
