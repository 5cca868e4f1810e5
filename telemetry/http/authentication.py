"""Who may ask what over HTTP: an ASGI application in front of another, which lets in who has a key for it.

A key comes as a Bearer token, as `Token` (what InfluxDB's clients send), as the password of Basic (or its user, where
there is no password), as `?token=`, or as InfluxDB 1's `?u=&p=`. What came in the query is taken out of it before
anybody else sees the request, whether a key is required or not, and so it is in no link, log or record.

A key that the program does not know is looked up in Redis before it is refused (key_cache.py). A request that is open
to everybody causes no look-up.

A request holds its key until it is answered: once the key was revoked, changed or expired, it is ended (admission.py).

A request without a key may have the session of a person who signed in (session_cookie.py) instead, where the gate knows
sessions. Both lead to a `Caller`, and scopes and bindings of both are checked at the same place.

A request without a key may also come over a connection with a client certificate (client_certificates.py).

Behind the gate `caller_of(scope)` says who asks. How often one key or one address may ask is for others to bound; they
go by its `key_id` and by `scope["client"]`. Wrong keys are counted by rejection_counts.py.
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
from telemetry.browsers.session_cookie import CSRF_HEADER, Cookies, lacks_token
from telemetry.coordination import rejection_counts
from telemetry.limits.client_address import address_of
from telemetry.model import api_keys, problems
from telemetry.model.api_keys import ANYBODY, NO_KEY, NOBODY, WRONG, Caller, Denied, key_id_in, lacks, looks_like_key
from telemetry.model.errors import StoreUnavailable
from telemetry.model.problems import Problem
from telemetry.network.client_certificates import CERTIFIED, Certified, ClientCertificates

CALLER = "whimbrel.caller"
"""Where in a scope its caller stands."""

RETRY_S = 2
LOGIN = "/login"


class Need(NamedTuple):
    """What a request needs: a key with a scope, perhaps one that is not bound to devices.

    One that `is_open` is let in without; who it is is known all the same, if there is a key.
    """

    scope: str
    is_whole: bool = False
    is_open: bool = False


INGEST, READ, SQL, ADMIN = map(Need, api_keys.SCOPES)
READ_WHOLE = Need(api_keys.READ, is_whole=True)
OPEN = Need("", is_open=True)

Needs = Callable[[Scope], Need]

Holding = Keyring | SessionCache | ClientCertificates
"""Who ends what a caller has opened."""


def ingest_only(scope: Scope) -> Need:
    """The needs of a collector's port."""
    return OPEN if scope["path"] == "/healthz" else INGEST


def caller_of(scope: Scope) -> Caller:
    """Who asks."""
    return scope.get(CALLER, ANYBODY)  # type: ignore[no-any-return]


class Sessions(NamedTuple):
    """What a gate needs to accept sessions. `has_provider`: people may sign in by OIDC, too."""

    cache: SessionCache
    cookies: Cookies
    has_provider: bool = False

    @property
    def are_offered(self) -> bool:
        """Whether anybody can sign in."""
        return self.has_provider or self.cache.has_users


class Gate:
    """The application. Without a keyring no key is required; without sessions only keys count."""

    def __init__(
        self, behind: ASGIApp, keyring: Keyring | None, needs: Needs, sessions: Sessions | None = None
    ) -> None:
        self._behind = behind
        self._keyring = keyring
        self._needs = needs
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or say why not."""
        if scope["type"] != "http":
            await self._behind(scope, receive, send)
            return
        given = _taken_out(scope) if scope["query_string"] else ""
        caller, need, keyring = NOBODY, OPEN, self._keyring
        if keyring is not None:
            need = self._needs(scope)
            found = self._of_key(keyring, need, scope, given)
            if found is WRONG:
                found = await self._of_new_key(keyring, need, scope, given)
            if found is None:
                found = await self._of_session(need, scope)
            if isinstance(found, Denied):
                await self._deny(found, scope, send, given)
                return
            scope[CALLER] = caller = found
        if given:
            _hand_on(scope, given)
        if keyring is None or not caller.key_id:
            await self._behind(scope, receive, send)
        else:
            admission = Admission(receive, send, need.scope in (api_keys.READ, api_keys.SQL) and not need.is_open)
            await self._answer(self._held_by(keyring, caller, scope), caller, admission, scope)

    async def _answer(self, holds: Holding, caller: Caller, admission: Admission, scope: Scope) -> None:
        """Answer a request for as long as its key, session or certificate counts."""
        holds.hold(caller, admission)
        try:
            await self._behind(scope, admission.receive, admission.send)
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

    def _of_key(self, keyring: Keyring, need: Need, scope: Scope, given: str) -> Caller | Denied | None:
        """None if there is no key, and there may be a session."""
        text = key_in(scope["headers"]) or given
        certified: Certified | None = scope.get(CERTIFIED)
        if not text and certified is not None and not need.is_open:
            return _allowed(certified.check(), need)
        if not text and self._sessions is not None and need.scope:
            return None
        try:
            return _caller(keyring, need, text)
        except StoreUnavailable as error:
            return Denied(problems.BUSY, str(error))

    async def _of_new_key(self, keyring: Keyring, need: Need, scope: Scope, given: str) -> Caller | Denied | None:
        """The same once more, after a look-up in Redis: the key may have been created a moment ago."""
        try:
            await keyring.find_new(key_in(scope["headers"]) or given, address_of(scope))
        except StoreUnavailable as error:
            return Denied(problems.BUSY, str(error))
        return self._of_key(keyring, need, scope, given)

    async def _of_session(self, need: Need, scope: Scope) -> Caller | Denied:
        if self._sessions is None:
            return NO_KEY
        try:
            return await _caller_of_session(self._sessions, need, scope)
        except StoreUnavailable as error:
            return Denied(problems.BUSY, str(error))

    async def _deny(self, denied: Denied, scope: Scope, send: Send, given: str) -> None:
        sessions = self._sessions
        if sessions is not None and sessions.are_offered and _is_opened_by_a_person(denied, scope):
            await send_to_login(scope, send)
            return
        rejection_counts.count(denied.kind)
        await self._note(denied, scope, key_id_in(key_in(scope["headers"]) or given))
        await refuse(denied, send, is_of_page=any(name == CSRF_HEADER for name, _ in scope["headers"]))

    async def _note(self, denied: Denied, scope: Scope, key_id: str) -> None:
        """Note a refusal for the audit log: by the key or the person, if that is only not allowed to do this."""
        address, target, actor = address_of(scope), target_of(scope), ANONYMOUS
        if denied.kind is problems.WRONG_SCOPE and key_id:
            actor, key_id = Actor("key", key_id), ""
        elif self._sessions is not None and not key_id:
            text = self._sessions.cookies.session(scope["headers"])
            found = await self._sessions.cache.check(text) if text and denied.kind is not problems.BUSY else None
            actor = actor_of(found) if isinstance(found, Caller) else ANONYMOUS
        audit_refusals.note(denied.kind, address, target, actor, key_id)


def _caller(keyring: Keyring, need: Need, text: str) -> Caller | Denied:
    if need.is_open:
        caller = keyring.check(text) if text and need.scope else NOBODY
        return NOBODY if isinstance(caller, Denied) else caller
    return _allowed(keyring.check(text), need) if text else NO_KEY


async def _caller_of_session(sessions: Sessions, need: Need, scope: Scope) -> Caller | Denied:
    text = sessions.cookies.session(scope["headers"])
    if not text:
        return NOBODY if need.is_open else NO_KEY
    lacking = lacks_token(scope["method"], scope["headers"], text)
    caller = lacking or await sessions.cache.check(text)
    if need.is_open:
        return NOBODY if isinstance(caller, Denied) else caller
    return _allowed(caller, need)


def _allowed(caller: Caller | Denied, need: Need) -> Caller | Denied:
    if isinstance(caller, Denied):
        return caller
    return lacks(caller, need.scope) or _is_bound(caller, need) or caller


def _is_bound(caller: Caller, need: Need) -> Denied | None:
    if not need.is_whole or caller.sees_all:
        return None
    return Denied(problems.WRONG_SCOPE, f"this is of the whole box, and this key is for {caller.binding}")


# Where a key may stand -------------------------------------------------------------------------------

Headers = Iterable[tuple[bytes, bytes]]


def key_in(headers: Headers) -> str:
    """What the header Authorization gives as a key; empty if there is none."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, rest = value.decode("latin-1").partition(" ")
            kind = scheme.lower()
            if kind in ("bearer", "token"):
                return rest.strip()
            return _of_basic(rest.strip()) if kind == "basic" else ""
    return ""


def _of_basic(text: str) -> str:
    try:
        user, _, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return user if looks_like_key(user) and not looks_like_key(password) else password


def _taken_out(scope: Scope) -> str:
    """The key of a query, which is left without it."""
    query: bytes = scope["query_string"]
    kept, token = [], ""
    for part in query.split(b"&"):
        name, _, text = (unquote_plus(text) for text in part.decode("latin-1").partition("="))
        if name == "token" or (name == "p" and looks_like_key(text)):
            token = token or text
        else:
            kept.append(part)
    scope["query_string"] = b"&".join(kept)
    return token


def _hand_on(scope: Scope, given: str) -> None:
    """Have a key that was in the query stand where a program behind this one finds it."""
    if not key_in(scope["headers"]):
        scope["headers"] = [*scope["headers"], (b"authorization", b"Bearer " + given.encode("latin-1", "replace"))]


# Refusing --------------------------------------------------------------------------------------------

CHALLENGES = {
    problems.NO_KEY: (b'Bearer realm="whimbrel"', b'Basic realm="whimbrel", charset="UTF-8"'),
    problems.WRONG_KEY: (b'Bearer realm="whimbrel", error="invalid_token"', b'Basic realm="whimbrel", charset="UTF-8"'),
    problems.NO_SESSION: (b'Bearer realm="whimbrel"',),
    problems.WRONG_SCOPE: (b'Bearer realm="whimbrel", error="insufficient_scope"',),
}


async def refuse(denied: Denied, send: Send, is_of_page: bool = False) -> None:
    """Answer with a problem. The older service's clients read the same `detail`.

    The page asks for keys itself: a challenge of Basic would have the browser ask for a password.
    """
    body = problems.body(denied.kind, denied.reason)
    headers = [
        (b"content-type", problems.CONTENT_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        *(one for one in more_headers(denied.kind) if not (is_of_page and one[1].startswith(b"Basic"))),
    ]
    await send({"type": "http.response.start", "status": denied.kind.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def more_headers(kind: Problem) -> list[tuple[bytes, bytes]]:
    """What an answer of a kind says beside its body."""
    if kind is problems.BUSY:
        return [(b"retry-after", b"%d" % RETRY_S)]
    return [(b"www-authenticate", challenge) for challenge in CHALLENGES.get(kind, ())]


def _is_opened_by_a_person(denied: Denied, scope: Scope) -> bool:
    """Whether a browser opens an address in a window, without a credential that counts."""
    headers = dict(scope["headers"])
    asks = scope["method"] == "GET" and b"text/html" in headers.get(b"accept", b"")
    return asks and b"authorization" not in headers and denied.kind in (problems.NO_KEY, problems.NO_SESSION)


async def send_to_login(scope: Scope, send: Send) -> None:
    """Redirect to the login page, which leads back."""
    query = scope["query_string"].decode("latin-1")
    target = scope["path"] + (f"?{query}" if query else "")
    location = f"{LOGIN}?next={quote(target, safe='/')}".encode()
    headers = [(b"location", location), (b"content-length", b"0"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
