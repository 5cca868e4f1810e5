"""Session cookies of requests, and the further conditions of a request with one.

A session is valid only on requests of the box's own pages. Browsers indicate this in `Sec-Fetch-Site`, or, if they do
not send it (plain HTTP to another machine), in `Origin`. A request of another site, or of another port of the same
host, is handled as if it had no cookie. A request that changes data must also carry the session's token in
`X-CSRF-Token`, which no other site can read.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import NamedTuple

from telemetry.access.users import csrf_token
from telemetry.browsers.origins import Origins, seen_in
from telemetry.config.settings import Settings
from telemetry.model import problems
from telemetry.model.api_keys import Denied

NAME = "whimbrel_session"
CSRF_HEADER = b"x-csrf-token"

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
OWN = Origins()
"""The box's own pages only; sessions are not for pages of other origins."""

MAX_COOKIE_BYTES = 4_096

NO_CSRF = Denied(problems.WRONG_CSRF, "a change in a session needs the session's token in X-CSRF-Token")

Headers = Iterable[tuple[bytes, bytes]]


class Cookies(NamedTuple):
    """Names and flags of the box's cookies. `is_secure`: browsers use https."""

    is_secure: bool

    @classmethod
    def of(cls, settings: Settings) -> Cookies:
        """The cookies for browsers' URL of the box: its own TLS, or a proxy's in `auth.public_url`."""
        return cls(bool(settings.tls.certificate) or settings.auth.public_url.startswith("https://"))

    def name(self, plain: str = NAME) -> str:
        """The cookie's name, with the prefix that binds it to this host if possible."""
        return f"__Host-{plain}" if self.is_secure else plain

    def set(self, value: str, max_age_s: int, plain: str = NAME) -> str:
        """The header Set-Cookie."""
        flags = "; Secure" if self.is_secure else ""
        return f"{self.name(plain)}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{flags}"

    def clear(self, plain: str = NAME) -> str:
        """The header Set-Cookie that removes it."""
        return self.set("", 0, plain)

    def read(self, headers: Headers, plain: str = NAME) -> str:
        """The cookie's value in a request; empty without one."""
        wanted = self.name(plain).encode() + b"="
        for name, value in headers:
            if name == b"cookie" and len(value) <= MAX_COOKIE_BYTES:
                for pair in value.split(b";"):  # not http.cookies, which gives up at a malformed foreign cookie
                    if pair.strip().startswith(wanted):
                        return pair.strip()[len(wanted) :].decode("latin-1")
        return ""

    def session(self, headers: Headers) -> str:
        """The session cookie of a request of the box's own pages; empty without one, or for another site's request."""
        text = self.read(headers)
        return text if text and is_same_origin(headers) else ""


def is_same_origin(headers: Headers) -> bool:
    """True if the box's own page sent a request, or a client that is not a browser."""
    return not OWN.is_foreign(seen_in(headers))


def has_csrf_token(headers: Headers, text: str) -> bool:
    """True if a request carries the CSRF token of the session with this cookie."""
    token = next((value for name, value in headers if name == CSRF_HEADER), b"")
    return hmac.compare_digest(token, csrf_token(text).encode())


def missing_token(method: str, headers: Headers, text: str) -> Denied | None:
    """Why a request with this session cookie may not change data; None if it may, or changes none."""
    return None if method in SAFE_METHODS or has_csrf_token(headers, text) else NO_CSRF
