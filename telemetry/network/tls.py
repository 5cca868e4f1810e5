"""TLS by two settings, a certificate and its key: what servers present, checked by shaking hands with ourselves.

Servers are given one context for their whole life. Each handshake takes the certificate that was loaded last, so a
renewed one serves who comes next, and connections that are open live on.
"""

from __future__ import annotations

import logging
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from telemetry.config.settings import Settings, Tls
from telemetry.limits.concurrency import Share, handshake_share
from telemetry.model.errors import ConfigError
from telemetry.observability import metrics

if TYPE_CHECKING:  # `whimbrel up` checks certificates, and needs no event loop for the months that it waits
    from telemetry.network.client_certificates import ClientCertificates

log = logging.getLogger(__name__)

HANDSHAKE_S = 10.0
"""Time-out of a handshake, s. Those under way have limits: tls.max_handshakes, and the same per address."""

SHUTDOWN_S = 5.0
"""Time-out of a peer's answer to the end of TLS, s; until then the connection is open."""

EXPIRED, NOT_YET_VALID = 10, 9
"""OpenSSL's codes of verification: X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID."""

DAY_S = 86_400


class Validity(NamedTuple):
    """Until when a certificate is valid, in epoch seconds, or why a client that looks would refuse it now."""

    until_s: float | None
    fault: str = ""

    def days_left(self, now_s: float) -> float:
        """Days until it expires; 0 if it is refused already."""
        return 0.0 if self.until_s is None else (self.until_s - now_s) / DAY_S


class Identity:
    """The box's certificate and key, in files that may be replaced while it runs."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        handshakes: Share | None = None,
        clients: ClientCertificates | None = None,
    ) -> None:
        """Load them. Raises `ConfigError` that says what is wrong with which file.

        With `clients` their certificates are asked for, and verified if they come.
        """
        self._certificate = certificate
        self._key = key
        self.handshakes = handshakes or handshake_share(Tls().max_handshakes, Tls().max_handshakes_per_address)
        """Handshakes under way on all ports of this process."""
        self.clients = clients
        self._current = self._server_context()
        self.context = self._server_context()
        self.context.sni_callback = self._present
        """What servers are given. OpenSSL calls back in each handshake, also where the client names no server."""

    @classmethod
    def of(cls, settings: Settings, clients: ClientCertificates | None = None) -> Identity | None:
        """That of the settings; None where they name none. A certificate that clients would refuse is logged."""
        paths = settings.tls_paths
        if paths is None:
            return None
        handshakes = handshake_share(settings.tls.max_handshakes, settings.tls.max_handshakes_per_address)
        metrics.HANDSHAKES.one.watch(lambda: handshakes.open)
        metrics.HANDSHAKES_LIMIT.one.set(handshakes.maximum)
        found = cls(*paths, handshakes, clients)
        validity = found.validity()
        metrics.CERTIFICATE_UNTIL_S.one.set(validity.until_s)
        if validity.fault:
            log.warning("clients that look will refuse the certificate %s: %s", paths[0], validity.fault)
        return found

    def reload(self) -> bool:
        """Take what the files hold now, for handshakes from now on. What is not fit is logged, and the old one kept."""
        try:
            renewed = _loaded(self._certificate, self._key)
            found = validity_of(renewed, self._certificate)
            if found.fault:
                raise ConfigError(f"cannot use tls.certificate = {str(self._certificate)!r}: {found.fault}")
            if self.clients is not None:
                self.clients.configure(renewed)
        except ConfigError as error:
            log.error("the certificate is not renewed, the one before stays in use: %s", error)
            return False
        self._current = renewed
        if self.clients is not None:
            self.clients.read_again()
        metrics.CERTIFICATE_UNTIL_S.one.set(found.until_s)
        log.info("the certificate is renewed: %s", self._certificate)
        return True

    def validity(self) -> Validity:
        """Of the certificate in the files, which is the one in use unless they changed."""
        return validity_of(_loaded(self._certificate, self._key), self._certificate)

    def _server_context(self) -> ssl.SSLContext:
        found = _loaded(self._certificate, self._key)
        if self.clients is not None:
            self.clients.configure(found)
        return found

    def _present(self, handshake: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
        handshake.context = self._current


def _loaded(certificate: Path, key: Path) -> ssl.SSLContext:
    """Raises `ConfigError`."""
    _require_readable("certificate", certificate)
    _require_readable("key", key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, _no_password)
    except ConfigError:
        raise
    except ssl.SSLError as error:
        raise ConfigError(_why(error, certificate, key)) from None
    return context


def _require_readable(name: str, path: Path) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ConfigError(f"cannot read tls.{name} = {str(path)!r}: {error.strerror}") from None


def _no_password() -> str:
    raise ConfigError("cannot use tls.key: it is encrypted; nobody is there to give its password when the box starts")


def _why(error: ssl.SSLError, certificate: Path, key: Path) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"cannot use tls.key = {str(key)!r}: it is not the key of tls.certificate = {str(certificate)!r}"
    if not re.search(rb"-----BEGIN (TRUSTED )?CERTIFICATE-----", certificate.read_bytes()):
        return f"cannot use tls.certificate = {str(certificate)!r}: it holds no certificate in PEM"
    if not re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----", key.read_bytes()):
        return f"cannot use tls.key = {str(key)!r}: it holds no private key in PEM"
    reason = error.reason or str(error)
    return f"cannot use tls.certificate = {str(certificate)!r} with tls.key = {str(key)!r}: {reason}"


def trusting(certificate: Path) -> ssl.SSLContext:
    """What a client on the box itself trusts: this very certificate, whatever names are in it. Raises `ConfigError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(certificate)
    except OSError as error:
        raise ConfigError(f"cannot read tls.certificate = {str(certificate)!r}: {error}") from None
    return context


def any_certificate() -> ssl.SSLContext:
    """For who only asks whether a program on this machine answers, and says nothing that it should keep to itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def trusting_files(ca_file: str) -> ssl.SSLContext:
    """What a client trusts: the certificates of a file, or with an empty name the system's. Raises `ConfigError`."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise ConfigError(f"cannot use the certificates of {ca_file!r}: {error}") from None


def validity_of(context: ssl.SSLContext, certificate: Path) -> Validity:
    """Shake hands in memory: what a client sees is what counts, and the ssl module reads no certificate otherwise."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = trusting(certificate).wrap_bio(to_client, to_server)
    try:
        _shake_hands(client, server)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == EXPIRED:
            return Validity(None, "it has expired")
        if error.verify_code == NOT_YET_VALID:
            return Validity(None, "it is not valid yet, or the box's clock is wrong")
        return Validity(None, error.verify_message)
    found = client.getpeercert() or {}
    return Validity(ssl.cert_time_to_seconds(str(found["notAfter"])))


def _shake_hands(client: ssl.SSLObject, server: ssl.SSLObject) -> None:
    is_client_done = is_server_done = False
    while not (is_client_done and is_server_done):
        is_client_done = is_client_done or _step(client)
        is_server_done = is_server_done or _step(server)


def _step(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
