"""Attempts to sign in at a provider, between the way there and the way back.

What belongs to one (state, nonce, PKCE verifier, where to go afterwards) is in a cookie of its browser, signed with a
key of this process: strangers who begin attempts fill no memory. A complete one is remembered until it would have
expired, so that none counts twice. A restart ends the attempts that are under way.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable

import msgspec
from msgspec import Struct

ATTEMPT_S = 600
MAX_COMPLETE = 10_000
"""Remembered at once; to have one forgotten early takes as many attempts of people who come back."""


class Attempt(Struct, frozen=True, array_like=True):
    """One attempt to sign in; `until_s` is s since epoch."""

    state: str
    nonce: str
    verifier: str
    target: str
    until_s: int


class Attempts:
    """Signs attempts, and knows those that are complete."""

    def __init__(self, key: bytes, now_s: Callable[[], float]) -> None:
        self._key = key
        self._now_s = now_s
        self._complete: OrderedDict[str, int] = OrderedDict()

    def sealed(self, attempt: Attempt) -> str:
        """The cookie of an attempt."""
        body = urlsafe_b64encode(msgspec.json.encode(attempt)).decode().rstrip("=")
        return f"{body}.{self._seal(body)}"

    def completed(self, cookie: str, state: str) -> Attempt | None:
        """The attempt of a browser with this cookie that comes back with this state, once; None if there is none."""
        attempt = self._opened(cookie)
        if attempt is None or not hmac.compare_digest(attempt.state.encode(), state.encode()):
            return None
        if attempt.state in self._complete:
            return None
        self._complete[attempt.state] = attempt.until_s
        while len(self._complete) > MAX_COMPLETE or next(iter(self._complete.values())) <= self._now_s():
            self._complete.popitem(last=False)
        return attempt

    def _opened(self, cookie: str) -> Attempt | None:
        body, _, seal = cookie.partition(".")
        if not hmac.compare_digest(self._seal(body).encode(), seal.encode()):
            return None
        attempt = msgspec.json.decode(urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=Attempt)
        return attempt if self._now_s() < attempt.until_s else None

    def _seal(self, body: str) -> str:
        return hmac.new(self._key, body.encode(), "sha256").hexdigest()
