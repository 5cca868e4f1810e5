"""TLS with a certificate and key from the settings, verified by a handshake in memory.

Servers use one context for their lifetime. Each handshake presents the certificate that was loaded last, so a renewed
certificate applies to new connections, and open ones continue.
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

if TYPE_CHECKING:  # `whimbrel up` checks certificates, and should not keep an event loop in memory
    from telemetry.network.client_certificates import ClientCertificates

log = logging.getLogger(__name__)

HANDSHAKE_S = 10.0
"""Timeout of a handshake, s. Handshakes in progress have limits: tls.max_handshakes, and the same per address."""

SHUTDOWN_S = 5.0
"""Timeout of a peer's answer to TLS close_notify, s; until then the connection stays open."""

EXPIRED, NOT_YET_VALID = 10, 9
"""OpenSSL's verification codes X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID."""

DAY_S = 86_400


class Validity(NamedTuple):
    """Expiry of a certificate, epoch seconds, or the reason why a verifying client would reject it now."""

    until_s: float | None
    fault: str = ""

    def days_left(self, now_s: float) -> float:
        """Days until it expires; 0 if clients reject it already."""
        return 0.0 if self.until_s is None else (self.until_s - now_s) / DAY_S


class Identity:
    """The box's certificate and key, in files that may be replaced at run time."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        handshakes: Share | None = None,
        clients: ClientCertificates | None = None,
    ) -> None:
        """Load the files. Raises `ConfigError` with the file and its fault.

        With `clients` the server requests client certificates and verifies them.
        """
        self._certificate = certificate
        self._key = key
        self.handshakes = handshakes or handshake_share(Tls().max_handshakes, Tls().max_handshakes_per_address)
        """Handshakes in progress on all ports of this process."""
        self.clients = clients
        self._current = self._server_context()
        self.context = self._server_context()
        self.context.sni_callback = self._present
        """The context for servers. OpenSSL calls back in each handshake, even if the client sends no server name."""

    @classmethod
    def of(cls, settings: Settings, clients: ClientCertificates | None = None) -> Identity | None:
        """The identity from the settings; None without one. Logs a certificate that clients would reject."""
        paths = settings.tls_paths
        if paths is None:
            return None
        handshakes = handshake_share(settings.tls.max_handshakes, settings.tls.max_handshakes_per_address)
        metrics.HANDSHAKES.one.watch(lambda: handshakes.open)
        metrics.HANDSHAKES_LIMIT.one.set(handshakes.maximum)
        identity = cls(*paths, handshakes, clients)
        validity = identity.validity()
        metrics.CERTIFICATE_UNTIL_S.one.set(validity.until_s)
        if validity.fault:
            log.warning("clients that verify certificates will reject %s: %s", paths[0], validity.fault)
        return identity

    def reload(self) -> bool:
        """Load the files for new handshakes. If they are not valid, logs the fault and keeps the old certificate."""
        try:
            renewed = _loaded(self._certificate, self._key)
            validity = validity_of(renewed, self._certificate)
            if validity.fault:
                raise ConfigError(f"cannot use tls.certificate = {str(self._certificate)!r}: {validity.fault}")
            if self.clients is not None:
                self.clients.configure(renewed)
        except ConfigError as error:
            log.error("the certificate is not renewed, the previous one stays in use: %s", error)
            return False
        self._current = renewed
        if self.clients is not None:
            self.clients.read_again()
        metrics.CERTIFICATE_UNTIL_S.one.set(validity.until_s)
        log.info("the certificate is renewed: %s", self._certificate)
        return True

    def validity(self) -> Validity:
        """Validity of the certificate in the files, which is the one in use unless they have changed."""
        return validity_of(_loaded(self._certificate, self._key), self._certificate)

    def _server_context(self) -> ssl.SSLContext:
        context = _loaded(self._certificate, self._key)
        if self.clients is not None:
            self.clients.configure(context)
        return context

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
    raise ConfigError("cannot use tls.key: it is encrypted; provide an unencrypted key")


def _why(error: ssl.SSLError, certificate: Path, key: Path) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"cannot use tls.key = {str(key)!r}: it is not the key of tls.certificate = {str(certificate)!r}"
    if not re.search(rb"-----BEGIN (TRUSTED )?CERTIFICATE-----", certificate.read_bytes()):
        return f"cannot use tls.certificate = {str(certificate)!r}: it has no certificate in PEM"
    if not re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----", key.read_bytes()):
        return f"cannot use tls.key = {str(key)!r}: it has no private key in PEM"
    reason = error.reason or str(error)
    return f"cannot use tls.certificate = {str(certificate)!r} with tls.key = {str(key)!r}: {reason}"


def trusting(certificate: Path) -> ssl.SSLContext:
    """Client context that trusts exactly this certificate, with any host name. Raises `ConfigError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(certificate)
    except OSError as error:
        raise ConfigError(f"cannot read tls.certificate = {str(certificate)!r}: {error}") from None
    return context


def any_certificate() -> ssl.SSLContext:
    """Client context without verification, for checks whether a local program answers, which send no secrets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def trusting_files(ca_file: str) -> ssl.SSLContext:
    """Client context that trusts a file's certificates, or the system's for an empty name. Raises `ConfigError`."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise ConfigError(f"cannot use the certificates of {ca_file!r}: {error}") from None


def validity_of(context: ssl.SSLContext, certificate: Path) -> Validity:
    """Verify a certificate with a handshake in memory, because the ssl module offers no other way to read it."""
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
    certificate_fields = client.getpeercert() or {}
    return Validity(ssl.cert_time_to_seconds(str(certificate_fields["notAfter"])))


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
