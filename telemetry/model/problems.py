"""HTTP errors as `application/problem+json` (RFC 9457), with a stable `type` each."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

CONTENT_TYPE = "application/problem+json"
MAX_VALUE_CHARACTERS = 200
"""A refused value longer than this is shown cut, as text."""


class Problem(NamedTuple):
    """One kind of error: the end of its `type`, its HTTP status and its title."""

    name: str
    status: int
    title: str

    @property
    def type(self) -> str:
        return f"urn:whimbrel:problem:{self.name}"


INVALID_REQUEST = Problem("invalid-request", 400, "The request is not HTTP")
INVALID_JSON = Problem("invalid-json", 400, "The body is not JSON")
INVALID_MSGPACK = Problem("invalid-msgpack", 400, "The body is not msgpack")
INVALID_ENCODING = Problem("invalid-encoding", 400, "The body can't be inflated")
INVALID_FRAME = Problem("invalid-frame", 400, "A frame is broken")
INVALID_RECORD = Problem("invalid-record", 400, "A record can't be taken")
INVALID_PARAMETER = Problem("invalid-parameter", 400, "A query parameter can't be used")
INVALID_SQL = Problem("invalid-sql", 400, "The SQL can't be run")
NO_KEY = Problem("no-key", 401, "This needs a key")
WRONG_KEY = Problem("wrong-key", 401, "The key is not known, or not any more")
NO_SESSION = Problem("no-session", 401, "The session has ended")
WRONG_LOGIN = Problem("wrong-login", 401, "The name or the password is wrong")
WRONG_SCOPE = Problem("wrong-scope", 403, "The key is not for this")
FOREIGN_PAGE = Problem("foreign-page", 403, "A page of another site may not ask this")
OTHER_DEVICE = Problem("other-device", 403, "The key is not for this device")
DEVICE_REFUSED = Problem("device-refused", 403, "This port does not take this device")
LOGIN_REFUSED = Problem("login-refused", 403, "The provider's sign-in was refused")
WRONG_CSRF = Problem("wrong-csrf-token", 403, "The CSRF token is missing or wrong")
SQL_OFF = Problem("sql-off", 403, "SQL is off on this box")
NOT_FOUND = Problem("not-found", 404, "There is nothing at this address")
UNKNOWN_DEVICE = Problem("unknown-device", 404, "No record of this device was ever received")
UNKNOWN_DELETION = Problem("unknown-deletion", 404, "There is no such deletion, or not any more")
WRONG_METHOD = Problem("wrong-method", 405, "This address has no such method")
NOT_ACCEPTABLE = Problem("not-acceptable", 406, "The answer has none of the forms that Accept names")
TIMED_OUT = Problem("timed-out", 408, "The request took too long to arrive")
BODY_TOO_LARGE = Problem("body-too-large", 413, "The body is too large")
ADDRESS_TOO_LONG = Problem("address-too-long", 414, "The address is too long")
UNSUPPORTED_TYPE = Problem("unsupported-type", 415, "The body is of a kind that is not taken here")
UNSUPPORTED_ENCODING = Problem("unsupported-encoding", 415, "The body is compressed in a way that is not taken")
MISDIRECTED = Problem("misdirected-request", 421, "Misdirected Request")
KEY_REUSED = Problem("idempotency-key-reused", 422, "The Idempotency-Key came before with another body")
SQL_TOO_COSTLY = Problem("sql-too-costly", 422, "The question takes more than one may")
RATE_LIMITED = Problem("rate-limited", 429, "There were too many requests or records")
LOGINS_LIMITED = Problem("logins-limited", 429, "Too many failed attempts to sign in")
SHARE_FULL = Problem("share-full", 429, "The share of this key or address is used up")
TOO_MANY_DAYS = Problem("too-many-days", 429, "Too many past days of one device")
HEADERS_TOO_LARGE = Problem("headers-too-large", 431, "The headers are too many or too long")
INTERNAL = Problem("internal", 500, "Whimbrel failed; the cause is in its log")
BUSY = Problem("busy", 503, "The box can't do this now; try again")
NOT_TOGETHER = Problem("not-together", 503, "Redis and archive don't belong together")


KINDS: tuple[Problem, ...] = tuple(kind for kind in globals().values() if isinstance(kind, Problem))
"""All of the above."""


def body(problem: Problem, detail: str, **more: object) -> bytes:
    """The JSON of one occurrence; `more` are further members."""
    return msgspec.json.encode(
        {"type": problem.type, "title": problem.title, "status": problem.status, "detail": detail, **more}
    )


def shown(value: object) -> object:
    """A refused value as an answer may show it: as it came, or cut if it is long."""
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
        return text[:MAX_VALUE_CHARACTERS]
    return value if len(text) <= MAX_VALUE_CHARACTERS else text[:MAX_VALUE_CHARACTERS] + "…"
