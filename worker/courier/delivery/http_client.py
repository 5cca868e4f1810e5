"""The courier's HTTP client: one persistent connection to a receiver, POST and GET, short responses."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import time
from collections.abc import Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import urlsplit

from telemetry.config.settings import Alert, Forward
from telemetry.model.errors import ConfigError
from worker.courier.delivery.backoff import LONGEST_ASKED_S

MOST_ANSWER_BYTES = 65_536
"""Maximum size of a response, bytes; beyond it, the connection is closed."""

LEAST_SECRET_CHARACTERS = 6
"""Minimum length of a word in headers or URL that is hidden in logged responses."""

SHOWN_CHARACTERS = 200
"""Number of characters of a response that are logged."""

SCHEMES = ("bearer", "digest")
"""Words of a header that are not secret."""

NOT_NOW = (408, 425, 429, 500, 502, 503, 504)
"""Statuses after which the same request may be accepted later."""


class TlsFiles(NamedTuple):
    """PEM files of a TLS connection: trusted CA certificates, client certificate and its key. "" = none."""

    ca_file: str = ""
    client_certificate: str = ""
    client_key: str = ""

    @classmethod
    def of(cls, entry: Forward | Alert) -> TlsFiles:
        """The files in a receiver's settings."""
        return cls(entry.ca_file, entry.client_certificate, entry.client_key)


class Answer(NamedTuple):
    """A receiver's response. `retry_after_s` is 0 without the header."""

    status: int
    body: bytes
    retry_after_s: float

    @property
    def is_good(self) -> bool:
        """True if the receiver accepted the request."""
        return 200 <= self.status < 300

    def __str__(self) -> str:
        text = " ".join(self.body.decode(errors="replace").split())
        return f"{self.status} {text[:SHOWN_CHARACTERS]}".rstrip()


class Peer:
    """A receiver at an `http://` or `https://` URL."""

    def __init__(
        self,
        url: str,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        files: TlsFiles = TlsFiles(),  # noqa: B008 - it is immutable
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`tls` is used in place of `files`."""
        parts = urlsplit(url)
        self._host, self._timeout_s = parts.hostname or "", timeout_s
        self._port = port_of(url)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = {"User-Agent": "whimbrel", **(headers or {})}
        self._secrets = _secrets(self._path, (headers or {}).values())
        self._tls = (tls or tls_of(files)) if parts.scheme == "https" else None
        self._connection: http.client.HTTPConnection | None = None

    def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post a body. Raises `OSError` without a response; then the outcome is unknown."""
        return self._ask("POST", self._path, body, headers)

    def get(self, path: str = "") -> Answer:
        """Get `path` below the URL."""
        return self._ask("GET", self._path.rstrip("/") + path, None, {})

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        try:
            was_open = self._connection is not None
            try:
                return self._once(method, path, body, headers)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                if not was_open:
                    raise
                self.close()  # an idle connection was closed; a repeated request is recognised by its key
                return self._once(method, path, body, headers)
        except (http.client.HTTPException, OSError) as error:
            self.close()
            raise OSError(f"cannot reach {self._host}:{self._port}: {in_words(error)}") from error

    def _once(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        if self._connection is None:
            self._connection = self._new()
        self._connection.request(method, path, body, {**self._headers, **headers})
        response = self._connection.getresponse()
        content = response.read(MOST_ANSWER_BYTES)
        for secret in self._secrets:
            content = content.replace(secret, b"***")
        answer = Answer(response.status, content, retry_after_s(response.getheader("Retry-After", ""), time.time()))
        if not response.isclosed():
            self.close()
        return answer

    def _new(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._tls)


def _secrets(path: str, headers: Iterable[str]) -> list[bytes]:
    """Words that a response must not bring into the log: the URL, which may contain a token, and headers."""
    words = [path, *(word for value in headers for word in value.split())]
    return [word.encode() for word in words if len(word) >= LEAST_SECRET_CHARACTERS and word.lower() not in SCHEMES]


def tls_of(files: TlsFiles) -> ssl.SSLContext:
    """A context that trusts `ca_file`, or the system's CA certificates, and presents the client certificate.

    Raises `ConfigError` for a file that cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=files.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot use ca_file = {files.ca_file!r}: {error}") from None
    if files.client_certificate:
        try:
            context.load_cert_chain(files.client_certificate, files.client_key, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"cannot use client_certificate = {files.client_certificate!r} with client_key: {error}"
            ) from None
    return context


def _no_password() -> str:
    """Raises an error instead of prompting at the terminal, which would block the start."""
    raise ssl.SSLError("the key is encrypted; provide an unencrypted key")


def port_of(url: str, usual: Mapping[str, int] | None = None) -> int:
    """The port in a URL, or the default of its scheme. Raises `ConfigError`."""
    parts = urlsplit(url)
    try:
        port = parts.port or (usual or {"http": 80, "https": 443}).get(parts.scheme)
    except ValueError as error:
        raise ConfigError(f"cannot use the URL {shown(url)}: {error}") from None
    if not parts.hostname or port is None:
        raise ConfigError(f"cannot use the URL {shown(url)}: it must name a host and a port")
    return port


def shown(url: str) -> str:
    """A URL without possible secrets: user, password, path and query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    path = parts.path if parts.scheme == "s3" else ""
    return f"{parts.scheme}://{host}{path}"


def retry_after_s(value: str, now_s: float) -> float:
    """Seconds of a `Retry-After` header, at most `LONGEST_ASKED_S`; 0 if it is not valid."""
    asked_s = 0.0
    digits = value.strip()
    if digits.isdecimal():
        asked_s = float(digits)  # infinite for 310 digits and more
    else:
        with contextlib.suppress(ValueError, OverflowError):
            at = parsedate_to_datetime(value)
            asked_s = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now_s
    return min(max(0.0, asked_s), LONGEST_ASKED_S)


def in_words(error: Exception) -> str:
    """Description of an error, even if it has no message."""
    return str(error) or type(error).__name__
