"""HTTP as the courier speaks it: one kept connection to a receiver, POST and GET, small answers."""

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
"""So much of an answer is read; who answers with more is hung up on."""

LEAST_SECRET_CHARACTERS = 6
"""Of a header's words and an address: so long a one is hidden in an answer that says it again."""

SHOWN_CHARACTERS = 200
"""So much of it is shown in a trouble."""

SCHEMES = ("bearer", "digest")
"""Words of a header that are no secret."""

NOT_NOW = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which the same request may well be taken."""


class TlsFiles(NamedTuple):
    """PEM files of a connection over TLS: authorities to trust, and the certificate shown with its key. "" = none."""

    ca_file: str = ""
    client_certificate: str = ""
    client_key: str = ""

    @classmethod
    def of(cls, entry: Forward | Alert) -> TlsFiles:
        """Those that a receiver's settings name."""
        return cls(entry.ca_file, entry.client_certificate, entry.client_key)


class Answer(NamedTuple):
    """A receiver's answer. `retry_after_s` is 0 if it named none."""

    status: int
    body: bytes
    retry_after_s: float

    @property
    def is_good(self) -> bool:
        """Whether it took what was sent."""
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
        found = urlsplit(url)
        self._host, self._timeout_s = found.hostname or "", timeout_s
        self._port = port_of(url)
        self._path = (found.path or "/") + (f"?{found.query}" if found.query else "")
        self._headers = {"User-Agent": "whimbrel", **(headers or {})}
        self._secrets = _secrets(self._path, (headers or {}).values())
        self._tls = (tls or tls_of(files)) if found.scheme == "https" else None
        self._connection: http.client.HTTPConnection | None = None

    def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post a body. Raises `OSError` if there is no answer, whatever became of it."""
        return self._ask("POST", self._path, body, headers)

    def get(self, path: str = "") -> Answer:
        """Ask for `path` below the URL."""
        return self._ask("GET", self._path.rstrip("/") + path, None, {})

    def close(self) -> None:
        """Leave the connection."""
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
                self.close()  # it hung up on an idle connection: what it has taken it knows by its key
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
    """What no answer may bring into the log by saying it again: an address, which may hold a token, and headers."""
    words = [path, *(word for value in headers for word in value.split())]
    return [word.encode() for word in words if len(word) >= LEAST_SECRET_CHARACTERS and word.lower() not in SCHEMES]


def tls_of(files: TlsFiles) -> ssl.SSLContext:
    """A context that trusts `ca_file`, else the system's authorities, and shows the client certificate.

    Raises `ConfigError` for a file that cannot be used.
    """
    try:
        found = ssl.create_default_context(cafile=files.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot use ca_file = {files.ca_file!r}: {error}") from None
    if files.client_certificate:
        try:
            found.load_cert_chain(files.client_certificate, files.client_key, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"cannot use client_certificate = {files.client_certificate!r} with client_key: {error}"
            ) from None
    return found


def _no_password() -> str:
    """In place of asking the terminal, which would stop the start for ever."""
    raise ssl.SSLError("the key is encrypted; provide an unencrypted key")


def port_of(url: str, usual: Mapping[str, int] | None = None) -> int:
    """The port that a URL names, or its scheme's usual one. Raises `ConfigError`."""
    found = urlsplit(url)
    try:
        port = found.port or (usual or {"http": 80, "https": 443}).get(found.scheme)
    except ValueError as error:
        raise ConfigError(f"cannot use the URL {shown(url)}: {error}") from None
    if not found.hostname or port is None:
        raise ConfigError(f"cannot use the URL {shown(url)}: it must name a host and a port")
    return port


def shown(url: str) -> str:
    """A URL without what may be secret in it: user, password, path and query of the web, which may hold a token."""
    found = urlsplit(url)
    host = found.netloc.rpartition("@")[2]
    path = found.path if found.scheme == "s3" else ""
    return f"{found.scheme}://{host}{path}"


def retry_after_s(value: str, now_s: float) -> float:
    """The seconds that a `Retry-After` asks for, `LONGEST_ASKED_S` at most; 0 if it is none."""
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
    """What went wrong on the way, even where the error itself has no words."""
    return str(error) or type(error).__name__
