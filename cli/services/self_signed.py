"""Self-signed certificate: `whimbrel up` creates it if `auth.secure` is on and no certificate is configured."""

from __future__ import annotations

import datetime
import ipaddress
import socket
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from telemetry.system.fsync import make_folder, write_private

VALID_DAYS = 397
"""Maximum that browsers accept."""

RENEW_DAYS = 30
BACKDATED = datetime.timedelta(days=1)
"""For clients whose clocks are slow."""


def ensure(certificate: Path, key: Path, hosts: tuple[str, ...], now: datetime.datetime) -> str:
    """Create both files, unless they exist and are valid for `RENEW_DAYS` more. Returns the SHA-256 fingerprint in hex.

    `hosts` are the certificate's names and addresses. Raises `OSError` if a file cannot be written, `ValueError` if the
    existing certificate cannot be read.
    """
    current = _usable(certificate, key, now) or _create(certificate, key, hosts, now)
    return current.fingerprint(hashes.SHA256()).hex(":").upper()


def own_hosts(*bound: str) -> tuple[str, ...]:
    """This machine's names, the loopback addresses, and the addresses that the box binds, without wildcards."""
    hosts = ["localhost", "127.0.0.1", "::1", socket.gethostname(), socket.getfqdn(), *bound]
    return tuple(dict.fromkeys(host for host in hosts if host and not _is_wildcard(host)))


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _usable(certificate: Path, key: Path, now: datetime.datetime) -> x509.Certificate | None:
    if not (certificate.is_file() and key.is_file()):
        return None
    current = x509.load_pem_x509_certificate(certificate.read_bytes())
    return current if current.not_valid_after_utc - now > datetime.timedelta(days=RENEW_DAYS) else None


def _create(certificate: Path, key: Path, hosts: tuple[str, ...], now: datetime.datetime) -> x509.Certificate:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Whimbrel")])
    created = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS) - BACKDATED)
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )
    pem, unencrypted = serialization.Encoding.PEM, serialization.NoEncryption()
    for path in (certificate, key):
        make_folder(path.parent, 0o700)
    write_private(key, private.private_bytes(pem, serialization.PrivateFormat.PKCS8, unencrypted))
    write_private(certificate, created.public_bytes(pem))
    return created


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
