"""Sessions of people: begun after a password or an OIDC provider said who somebody is, and ended.

A new session always has a new id, and ends the one that the browser had before. Its cookie is HttpOnly and
SameSite=Lax, and Secure where browsers reach the box by https.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable
from urllib.parse import quote

import redis
from starlette.requests import Request
from starlette.responses import Response

from telemetry.access import user_store
from telemetry.access.users import MAX_SESSIONS_OF_USER, Session, new_session, session_id
from telemetry.config.settings import Auth
from telemetry.http.authentication import Sessions
from telemetry.http.problem_responses import ProblemError
from telemetry.model import problems
from telemetry.model.errors import BusyError, StoreError

MAX_SESSIONS = 10_000
"""Of all users: each program has all in memory, some 300 bytes each."""

NO_STORE = {"Cache-Control": "no-store"}

SIGNED_IN = "whimbrel.signed_in"
"""Where in a scope it stands who has signed in by this request."""

log = logging.getLogger(__name__)


class SignIn:
    """Begins and ends sessions."""

    def __init__(self, sessions: Sessions, client: redis.Redis, auth: Auth) -> None:
        self._cache = sessions.cache
        self._cookies = sessions.cookies
        self._client = client
        self._auth = auth

    async def begin(self, request: Request, name: str, address: str, role: str = "") -> str:
        """Begin a session of `name`; returns its Set-Cookie. `role` as in `Session`. Raises `ProblemError`."""
        if self._cache.count >= MAX_SESSIONS:
            raise ProblemError(problems.BUSY, f"cannot sign in: there are {MAX_SESSIONS} sessions; end some")
        text, now_s = new_session(secrets.token_bytes), int(time.time())
        session = Session(name, now_s, now_s + self._auth.session_max_s, address, role)
        kept = MAX_SESSIONS_OF_USER - 1
        oldest = [at for at, _ in self._cache.sessions_of(name)[:-kept]]
        before = session_id(self._cookies.read(request.scope["headers"]))
        await self._store(lambda: user_store.add_session(self._client, session_id(text), session))
        await self._store(lambda: user_store.end_sessions(self._client, filter(None, (before, *oldest))))
        await self._cache.read_again()
        request.scope[SIGNED_IN] = name
        log.info("user %s signed in from %s", name, address)
        return self._cookies.set(text, self._auth.session_max_s)

    async def end(self, request: Request) -> Response:
        """End the session of a request and remove its cookie."""
        at = session_id(self._cookies.read(request.scope["headers"]))
        await self._store(lambda: user_store.end_sessions(self._client, [at] if at else []))
        await self._cache.read_again()
        return Response(None, 204, {"Set-Cookie": self._cookies.clear(), **NO_STORE})

    async def _store(self, change: Callable[[], object]) -> None:
        try:
            await asyncio.to_thread(change)
        except (StoreError, BusyError) as error:
            raise ProblemError(problems.BUSY, str(error), {"Retry-After": "1"}) from None


def see(target: str, cookie: str = "") -> Response:
    """A redirect to an address of this box."""
    headers = {"Location": quote(target, safe="/?#=&%:,;+@!$'()*~"), **NO_STORE}
    return Response(None, 303, {**headers, "Set-Cookie": cookie} if cookie else headers)


def own_address(text: str) -> str:
    """An address of this box to go to after signing in: `text` if it is one, else the page."""
    is_own = re.fullmatch(r"/(?![/\\])[^\\\x00-\x20\x7f]*", text) and not text.startswith("/login")
    return text if is_own and len(text) <= 2_000 else "/"
