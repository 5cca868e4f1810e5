"""Session cookies of requests: which one counts, and what a request needs beside it.

A session counts only on requests of the box's own pages. Browsers say so in `Sec-Fetch-Site`, or, where they do not
send it (plain HTTP to another machine), in `Origin`; a request of another site, or of another port of the same host, is
treated as if it had no cookie. One that changes something must also carry the session's token in `X-CSRF-Token`, which
no other site can read.
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
"""The box's own pages, whichever others may ask without a session."""

MAX_COOKIE_BYTES = 4_096

NO_CSRF = Denied(problems.WRONG_CSRF, "a request with a session that changes something needs its token in X-CSRF-Token")

Headers = Iterable[tuple[bytes, bytes]]


class Cookies(NamedTuple):
    """Names and flags of the box's cookies. `is_secure`: browsers reach the box by https."""

    is_secure: bool

    @classmethod
    def of(cls, settings: Settings) -> Cookies:
        """As browsers reach the box: over its own TLS, or a proxy's that `auth.public_url` names."""
        return cls(bool(settings.tls.certificate) or settings.auth.public_url.startswith("https://"))

    def name(self, plain: str = NAME) -> str:
        """The name; with the prefix that binds a cookie to this host where that is possible."""
        return f"__Host-{plain}" if self.is_secure else plain

    def set(self, value: str, max_age_s: int, plain: str = NAME) -> str:
        """The header Set-Cookie."""
        flags = "; Secure" if self.is_secure else ""
        return f"{self.name(plain)}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{flags}"

    def clear(self, plain: str = NAME) -> str:
        """The header Set-Cookie that removes it."""
        return self.set("", 0, plain)

    def read(self, headers: Headers, plain: str = NAME) -> str:
        """The value that a request has; empty if there is none."""
        wanted = self.name(plain).encode() + b"="
        for name, value in headers:
            if name == b"cookie" and len(value) <= MAX_COOKIE_BYTES:
                for one in value.split(b";"):  # not http.cookies: it gives up at a cookie of others that is malformed
                    if one.strip().startswith(wanted):
                        return one.strip()[len(wanted) :].decode("latin-1")
        return ""

    def session(self, headers: Headers) -> str:
        """The session's cookie of a request of the box's own pages; empty if it has none, or is another site's."""
        text = self.read(headers)
        return text if text and is_same_origin(headers) else ""


def is_same_origin(headers: Headers) -> bool:
    """Whether the box's own page, or a client that is no browser, sent a request."""
    return not OWN.is_foreign(seen_in(headers))


def has_csrf_token(headers: Headers, text: str) -> bool:
    """Whether a request carries the token of the session with this cookie."""
    given = next((value for name, value in headers if name == CSRF_HEADER), b"")
    return hmac.compare_digest(given, csrf_token(text).encode())


def lacks_token(method: str, headers: Headers, text: str) -> Denied | None:
    """Why a request with this session's cookie may not change anything; None if it may, or does not."""
    return None if method in SAFE_METHODS or has_csrf_token(headers, text) else NO_CSRF
