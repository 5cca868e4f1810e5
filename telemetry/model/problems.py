"""HTTP errors as `application/problem+json` (RFC 9457), with a stable `type` each."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

CONTENT_TYPE = "application/problem+json"
MAX_VALUE_CHARACTERS = 200
"""A rejected value longer than this is shortened and shown as text."""


class Problem(NamedTuple):
    """A kind of error: the last part of its `type`, its HTTP status and its title."""

    name: str
    status: int
    title: str

    @property
    def type(self) -> str:
        return f"urn:whimbrel:problem:{self.name}"


INVALID_REQUEST = Problem("invalid-request", 400, "The request is not valid HTTP")
INVALID_JSON = Problem("invalid-json", 400, "The body is not valid JSON")
INVALID_MSGPACK = Problem("invalid-msgpack", 400, "The body is not valid msgpack")
INVALID_ENCODING = Problem("invalid-encoding", 400, "The body cannot be decompressed")
INVALID_FRAME = Problem("invalid-frame", 400, "Invalid frame")
INVALID_RECORD = Problem("invalid-record", 400, "Invalid record")
INVALID_PARAMETER = Problem("invalid-parameter", 400, "Invalid query parameter")
INVALID_SQL = Problem("invalid-sql", 400, "Invalid SQL")
NO_KEY = Problem("no-key", 401, "API key required")
WRONG_KEY = Problem("wrong-key", 401, "Unknown, expired or revoked API key")
NO_SESSION = Problem("no-session", 401, "The session has ended")
WRONG_LOGIN = Problem("wrong-login", 401, "Wrong name or password")
WRONG_SCOPE = Problem("wrong-scope", 403, "The API key lacks the required scope")
FOREIGN_PAGE = Problem("foreign-page", 403, "Request from a page of another site")
OTHER_DEVICE = Problem("other-device", 403, "The API key does not allow this device")
DEVICE_REFUSED = Problem("device-refused", 403, "This port does not accept this device")
LOGIN_REFUSED = Problem("login-refused", 403, "Sign-in by the identity provider was rejected")
WRONG_CSRF = Problem("wrong-csrf-token", 403, "Missing or wrong CSRF token")
SQL_OFF = Problem("sql-off", 403, "SQL is disabled on this box")
NOT_FOUND = Problem("not-found", 404, "Not found")
UNKNOWN_DEVICE = Problem("unknown-device", 404, "Unknown device")
UNKNOWN_DELETION = Problem("unknown-deletion", 404, "Unknown deletion")
WRONG_METHOD = Problem("wrong-method", 405, "Method not allowed")
NOT_ACCEPTABLE = Problem("not-acceptable", 406, "Not acceptable: no format named in Accept is available")
TIMED_OUT = Problem("timed-out", 408, "Request timeout")
BODY_TOO_LARGE = Problem("body-too-large", 413, "The body is too large")
ADDRESS_TOO_LONG = Problem("address-too-long", 414, "The URI is too long")
UNSUPPORTED_TYPE = Problem("unsupported-type", 415, "Unsupported media type")
UNSUPPORTED_ENCODING = Problem("unsupported-encoding", 415, "Unsupported Content-Encoding")
MISDIRECTED = Problem("misdirected-request", 421, "Misdirected Request")
KEY_REUSED = Problem("idempotency-key-reused", 422, "The Idempotency-Key was used with another body")
SQL_TOO_COSTLY = Problem("sql-too-costly", 422, "The SQL query exceeds its limits")
RATE_LIMITED = Problem("rate-limited", 429, "Too many requests or records")
LOGINS_LIMITED = Problem("logins-limited", 429, "Too many failed attempts to sign in")
SHARE_FULL = Problem("share-full", 429, "The share of this key or address is used up")
TOO_MANY_DAYS = Problem("too-many-days", 429, "Too many past days of one device")
HEADERS_TOO_LARGE = Problem("headers-too-large", 431, "The header fields are too large")
INTERNAL = Problem("internal", 500, "Internal error; the cause is in Whimbrel's log")
BUSY = Problem("busy", 503, "Service unavailable; try again")
NOT_TOGETHER = Problem("not-together", 503, "Redis and archive do not belong together")


KINDS: tuple[Problem, ...] = tuple(kind for kind in globals().values() if isinstance(kind, Problem))
"""All kinds of problems."""


def body(problem: Problem, detail: str, **more: object) -> bytes:
    """The JSON of one occurrence; `more` are additional members."""
    return msgspec.json.encode(
        {"type": problem.type, "title": problem.title, "status": problem.status, "detail": detail, **more}
    )


def shown(value: object) -> object:
    """A rejected value for a response: unchanged, or shortened if it is long."""
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
        return text[:MAX_VALUE_CHARACTERS]
    return value if len(text) <= MAX_VALUE_CHARACTERS else text[:MAX_VALUE_CHARACTERS] + "…"
