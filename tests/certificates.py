"""Certificates of a test authority, in files."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import trustme

from telemetry.network.tls import Identity


class Authority:
    """Issues certificates, and provides its root certificate for clients."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca_file = folder / "ca.pem"
        self._ca = trustme.CA()
        self._ca.cert_pem.write_to_path(self.ca_file)

    @property
    def certificate(self) -> Path:
        """Where `issue` puts the certificate."""
        return self.folder / "box.pem"

    @property
    def key(self) -> Path:
        """Where `issue` puts its key."""
        return self.folder / "box.key"

    def issue(self, *names: str, days: float = 90, start_days: float = -400) -> Authority:
        """Write a certificate and its key, in the place of those before; a negative number of days has expired."""
        now = datetime.datetime.now(datetime.UTC)
        start = now + datetime.timedelta(days=start_days)
        found = self._ca.issue_cert(
            *(names or ("127.0.0.1", "localhost")), not_before=start, not_after=now + datetime.timedelta(days=days)
        )
        self.key.write_bytes(found.private_key_pem.bytes())
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in found.cert_chain_pems))
        return self

    def identity(self) -> Identity:
        """As a server loads it."""
        return Identity(self.certificate, self.key)

    def client(self) -> ssl.SSLContext:
        """That of a client that trusts this authority and looks at names."""
        return ssl.create_default_context(cafile=str(self.ca_file))
