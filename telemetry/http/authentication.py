"""Authentication and authorization over HTTP: ASGI middleware that admits requests with valid credentials.

A key is sent as a Bearer token, as `Token` (by InfluxDB clients), as the password of Basic (or its user, without a
password), as `?token=`, or as InfluxDB 1's `?u=&p=`. A key in the query is removed from it before other code sees the
request, whether a key is required or not, so that no link, log or record contains it.

A key that the program does not know is looked up in Redis before it is rejected (key_cache.py). Requests that need no
key cause no lookup.

A request holds its key until it is answered: once the key is revoked, changed or expired, the request is ended
(admission.py).

A request without a key may instead have the session of a signed-in user (session_cookie.py), if the gate accepts
sessions. Both result in a `Caller`, whose scopes and bindings are checked at the same place.

A request without a key may also use a connection with a client certificate (client_certificates.py).

After the gate, `caller_of(scope)` returns the caller. Rate limits are elsewhere; they use its `key_id` and
`scope["client"]`. rejection_counts.py counts wrong keys.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Iterable
from typing import NamedTuple
from urllib.parse import quote, unquote_plus

from starlette.types import ASGIApp, Receive, Scope, Send

from telemetry.access.admission import Admission
from telemetry.access.key_cache import Keyring
from telemetry.access.session_cache import SessionCache
from telemetry.audit import refusals as audit_refusals
from telemetry.audit.entry import ANONYMOUS, Actor, actor_of
from telemetry.audit.refusals import target_of
from telemetry.browsers.session_cookie import CSRF_HEADER, Cookies, missing_token
from telemetry.coordination import rejection_counts
from telemetry.limits.client_address import address_of
from telemetry.model import api_keys, problems
from telemetry.model.api_keys import (
    ANONYMOUS_CALLER,
    NO_KEY,
    OPEN_CALLER,
    WRONG,
    Caller,
    Denied,
    key_id_in,
    looks_like_key,
    missing_scope,
)
from telemetry.model.errors import StoreUnavailable
from telemetry.model.problems import Problem
from telemetry.network.client_certificates import CERTIFIED, Certified, ClientCertificates

CALLER = "whimbrel.caller"
"""Key of an ASGI scope for the request's `Caller`."""

RETRY_S = 2
LOGIN = "/login"


class Need(NamedTuple):
    """The requirements of a request: a key with a scope, optionally one that is not bound to devices.

    A request that `is_open` needs no key; if it has one, its caller is known all the same.
    """

    scope: str
    is_whole: bool = False
    is_open: bool = False


INGEST, READ, SQL, ADMIN = map(Need, api_keys.SCOPES)
READ_WHOLE = Need(api_keys.READ, is_whole=True)
OPEN = Need("", is_open=True)

Needs = Callable[[Scope], Need]

Holding = Keyring | SessionCache | ClientCertificates
"""Owner of a caller's credential, which ends the holders that it admitted."""


def ingest_only(scope: Scope) -> Need:
    """The requirements on a collector's port."""
    return OPEN if scope["path"] == "/healthz" else INGEST


def caller_of(scope: Scope) -> Caller:
    """The authenticated caller of a request."""
    return scope.get(CALLER, OPEN_CALLER)  # type: ignore[no-any-return]


class Sessions(NamedTuple):
    """The session cache and cookies of a gate. `has_provider`: users may also sign in by OIDC."""

    cache: SessionCache
    cookies: Cookies
    has_provider: bool = False

    @property
    def are_offered(self) -> bool:
        """True if any user can sign in."""
        return self.has_provider or self.cache.has_users


class Gate:
    """The middleware. Without a keyring no key is required; without sessions only keys are accepted."""

    def __init__(self, app: ASGIApp, keyring: Keyring | None, needs: Needs, sessions: Sessions | None = None) -> None:
        self._app = app
        self._keyring = keyring
        self._needs = needs
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an admitted request on, or reject it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        key_text = _key_from_query(scope) if scope["query_string"] else ""
        caller, need, keyring = ANONYMOUS_CALLER, OPEN, self._keyring
        if keyring is not None:
            need = self._needs(scope)
            result = self._of_key(keyring, need, scope, key_text)
            if result is WRONG:
                result = await self._of_new_key(keyring, need, scope, key_text)
            if result is None:
                result = await self._of_session(need, scope)
            if isinstance(result, Denied):
                await self._deny(result, scope, send, key_text)
                return
            scope[CALLER] = caller = result
        if key_text:
            _move_to_header(scope, key_text)
        if keyring is None or not caller.key_id:
            await self._app(scope, receive, send)
        else:
            admission = Admission(receive, send, need.scope in (api_keys.READ, api_keys.SQL) and not need.is_open)
            await self._answer(self._held_by(keyring, caller, scope), caller, admission, scope)

    async def _answer(self, holds: Holding, caller: Caller, admission: Admission, scope: Scope) -> None:
        """Answer a request while its key, session or certificate is valid."""
        holds.hold(caller, admission)
        try:
            await self._app(scope, admission.receive, admission.send)
        except asyncio.CancelledError:
            if not await admission.is_withdrawn(refuse):
                raise
        finally:
            holds.release(caller, admission)
            audit_refusals.note_status(admission.status, scope, actor_of(caller))

    def _held_by(self, keyring: Keyring, caller: Caller, scope: Scope) -> Holding:
        certified: Certified | None = scope.get(CERTIFIED)
        if certified is not None and caller is certified.caller:
            return certified.clients
        return self._sessions.cache if caller.session and self._sessions is not None else keyring

    def _of_key(self, keyring: Keyring, need: Need, scope: Scope, key_text: str) -> Caller | Denied | None:
        """None if there is no key, but there may be a session."""
        text = key_in(scope["headers"]) or key_text
        certified: Certified | None = scope.get(CERTIFIED)
        if not text and certified is not None and not need.is_open:
            return _allowed(certified.check(), need)
        if not text and self._sessions is not None and need.scope:
            return None
        try:
            return _caller(keyring, need, text)
        except StoreUnavailable as error:
            return Denied(problems.BUSY, str(error))

    async def _of_new_key(self, keyring: Keyring, need: Need, scope: Scope, key_text: str) -> Caller | Denied | None:
        """The same after a lookup in Redis: the key may have been created a moment ago."""
        try:
            await keyring.find_new(key_in(scope["headers"]) or key_text, address_of(scope))
        except StoreUnavailable as error:
            return Denied(problems.BUSY, str(error))
        return self._of_key(keyring, need, scope, key_text)

    async def _of_session(self, need: Need, scope: Scope) -> Caller | Denied:
        if self._sessions is None:
            return NO_KEY
        try:
            return await _caller_of_session(self._sessions, need, scope)
        except StoreUnavailable as error:
            return Denied(problems.BUSY, str(error))

    async def _deny(self, denied: Denied, scope: Scope, send: Send, key_text: str) -> None:
        sessions = self._sessions
        if sessions is not None and sessions.are_offered and _is_opened_by_a_person(denied, scope):
            await send_to_login(scope, send)
            return
        rejection_counts.count(denied.kind)
        await self._note(denied, scope, key_id_in(key_in(scope["headers"]) or key_text))
        await refuse(denied, send, is_of_page=any(name == CSRF_HEADER for name, _ in scope["headers"]))

    async def _note(self, denied: Denied, scope: Scope, key_id: str) -> None:
        """Record a rejection for the audit log, under the key or user if these are valid but lack permission."""
        address, target, actor = address_of(scope), target_of(scope), ANONYMOUS
        if denied.kind is problems.WRONG_SCOPE and key_id:
            actor, key_id = Actor("key", key_id), ""
        elif self._sessions is not None and not key_id:
            text = self._sessions.cookies.session(scope["headers"])
            caller = await self._sessions.cache.check(text) if text and denied.kind is not problems.BUSY else None
            actor = actor_of(caller) if isinstance(caller, Caller) else ANONYMOUS
        audit_refusals.note(denied.kind, address, target, actor, key_id)


def _caller(keyring: Keyring, need: Need, text: str) -> Caller | Denied:
    if need.is_open:
        caller = keyring.check(text) if text and need.scope else ANONYMOUS_CALLER
        return ANONYMOUS_CALLER if isinstance(caller, Denied) else caller
    return _allowed(keyring.check(text), need) if text else NO_KEY


async def _caller_of_session(sessions: Sessions, need: Need, scope: Scope) -> Caller | Denied:
    text = sessions.cookies.session(scope["headers"])
    if not text:
        return ANONYMOUS_CALLER if need.is_open else NO_KEY
    lacking = missing_token(scope["method"], scope["headers"], text)
    caller = lacking or await sessions.cache.check(text)
    if need.is_open:
        return ANONYMOUS_CALLER if isinstance(caller, Denied) else caller
    return _allowed(caller, need)


def _allowed(caller: Caller | Denied, need: Need) -> Caller | Denied:
    if isinstance(caller, Denied):
        return caller
    return missing_scope(caller, need.scope) or _is_bound(caller, need) or caller


def _is_bound(caller: Caller, need: Need) -> Denied | None:
    if not need.is_whole or caller.sees_all:
        return None
    return Denied(problems.WRONG_SCOPE, f"this applies to the whole box, but this key is only for {caller.binding}")


# Keys in requests ------------------------------------------------------------------------------------

Headers = Iterable[tuple[bytes, bytes]]


def key_in(headers: Headers) -> str:
    """The key in the header Authorization; empty without one."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, credentials = value.decode("latin-1").partition(" ")
            kind = scheme.lower()
            if kind in ("bearer", "token"):
                return credentials.strip()
            return _of_basic(credentials.strip()) if kind == "basic" else ""
    return ""


def _of_basic(text: str) -> str:
    try:
        user, _, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return user if looks_like_key(user) and not looks_like_key(password) else password


def _key_from_query(scope: Scope) -> str:
    """The key in the query, which is removed from it."""
    query: bytes = scope["query_string"]
    others, token = [], ""
    for parameter in query.split(b"&"):
        name, _, text = (unquote_plus(text) for text in parameter.decode("latin-1").partition("="))
        if name == "token" or (name == "p" and looks_like_key(text)):
            token = token or text
        else:
            others.append(parameter)
    scope["query_string"] = b"&".join(others)
    return token


def _move_to_header(scope: Scope, key_text: str) -> None:
    """Move a key from the query to a header, where the next program finds it."""
    if not key_in(scope["headers"]):
        scope["headers"] = [*scope["headers"], (b"authorization", b"Bearer " + key_text.encode("latin-1", "replace"))]


# Rejection -------------------------------------------------------------------------------------------

CHALLENGES = {
    problems.NO_KEY: (b'Bearer realm="whimbrel"', b'Basic realm="whimbrel", charset="UTF-8"'),
    problems.WRONG_KEY: (b'Bearer realm="whimbrel", error="invalid_token"', b'Basic realm="whimbrel", charset="UTF-8"'),
    problems.NO_SESSION: (b'Bearer realm="whimbrel"',),
    problems.WRONG_SCOPE: (b'Bearer realm="whimbrel", error="insufficient_scope"',),
}


async def refuse(denied: Denied, send: Send, is_of_page: bool = False) -> None:
    """Answer with a problem. Clients of the legacy API read the same `detail`.

    The page asks for keys itself: a Basic challenge would make the browser ask for a password.
    """
    body = problems.body(denied.kind, denied.reason)
    headers = [
        (b"content-type", problems.CONTENT_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        *(header for header in more_headers(denied.kind) if not (is_of_page and header[1].startswith(b"Basic"))),
    ]
    await send({"type": "http.response.start", "status": denied.kind.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def more_headers(kind: Problem) -> list[tuple[bytes, bytes]]:
    """Additional headers of a problem's response."""
    if kind is problems.BUSY:
        return [(b"retry-after", b"%d" % RETRY_S)]
    return [(b"www-authenticate", challenge) for challenge in CHALLENGES.get(kind, ())]


def _is_opened_by_a_person(denied: Denied, scope: Scope) -> bool:
    """True if a browser opens an address in a window, without valid credentials."""
    headers = dict(scope["headers"])
    asks = scope["method"] == "GET" and b"text/html" in headers.get(b"accept", b"")
    return asks and b"authorization" not in headers and denied.kind in (problems.NO_KEY, problems.NO_SESSION)


async def send_to_login(scope: Scope, send: Send) -> None:
    """Redirect to the login page, which returns to this address."""
    query = scope["query_string"].decode("latin-1")
    target = scope["path"] + (f"?{query}" if query else "")
    location = f"{LOGIN}?next={quote(target, safe='/')}".encode()
    headers = [(b"location", location), (b"content-length", b"0"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
