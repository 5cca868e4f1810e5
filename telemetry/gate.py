"""Who may ask what over HTTP: an ASGI application in front of another, which lets in who has a key for it.

A key comes as a Bearer token, as `Token` (what InfluxDB's clients send), as the password of Basic (or its user, where
there is no password), as `?token=`, or as InfluxDB 1's `?u=&p=`. What came in the query is taken out of it before
anybody else sees the request, whether a key is required or not, and so it is in no link, log or record.

A request holds its key until it is answered: once the key was revoked, changed or expired, it is ended (admission.py).

Behind the gate `caller_of(scope)` says who asks. How often one key or one address may ask is for others to bound; they
go by its `key_id` and by `scope["client"]`. Wrong keys are counted by refusals.py.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Iterable
from typing import NamedTuple
from urllib.parse import unquote_plus

from starlette.types import ASGIApp, Receive, Scope, Send

from telemetry import keys, problem, refusals
from telemetry.admission import Admission
from telemetry.errors import StoreUnavailable
from telemetry.keyring import Keyring
from telemetry.keys import ANYBODY, NO_KEY, NOBODY, Caller, Denied, lacks, looks_like_key
from telemetry.problem import Problem

CALLER = "whimbrel.caller"
"""Where in a scope its caller stands."""

RETRY_S = 2


class Need(NamedTuple):
    """What a request needs: a key with a scope, perhaps one that is not bound to devices.

    One that `is_open` is let in without; who it is is known all the same, if there is a key.
    """

    scope: str
    is_whole: bool = False
    is_open: bool = False


INGEST, READ, SQL, ADMIN = map(Need, keys.SCOPES)
READ_WHOLE = Need(keys.READ, is_whole=True)
OPEN = Need("", is_open=True)

Needs = Callable[[Scope], Need]


def ingest_only(scope: Scope) -> Need:
    """The needs of a collector's port."""
    return OPEN if scope["path"] == "/healthz" else INGEST


def caller_of(scope: Scope) -> Caller:
    """Who asks."""
    return scope.get(CALLER, ANYBODY)  # type: ignore[no-any-return]


class Gate:
    """The application. Without a keyring no key is required."""

    def __init__(self, behind: ASGIApp, keyring: Keyring | None, needs: Needs) -> None:
        self._behind = behind
        self._keyring = keyring
        self._needs = needs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or say why not."""
        if scope["type"] != "http":
            await self._behind(scope, receive, send)
            return
        given = _taken_out(scope) if scope["query_string"] else ""
        caller, need, keyring = NOBODY, OPEN, self._keyring
        if keyring is not None:
            need = self._needs(scope)
            found = _admitted(keyring, need, scope["headers"], given)
            if isinstance(found, Denied):
                refusals.count(found.kind)
                await refuse(found, send)
                return
            scope[CALLER] = caller = found
        if given:
            _hand_on(scope, given)
        if keyring is None or not caller.key_id:
            await self._behind(scope, receive, send)
        else:
            admission = Admission(receive, send, need.scope in (keys.READ, keys.SQL))
            await self._answer(keyring, caller, admission, scope)

    async def _answer(self, keyring: Keyring, caller: Caller, admission: Admission, scope: Scope) -> None:
        """Answer a request for as long as its key counts."""
        keyring.hold(caller, admission)
        try:
            await self._behind(scope, admission.receive, admission.send)
        except asyncio.CancelledError:
            if not await admission.is_withdrawn(refuse):
                raise
        finally:
            keyring.release(caller, admission)


def _admitted(keyring: Keyring, need: Need, headers: Headers, given: str) -> Caller | Denied:
    try:
        return _caller(keyring, need, headers, given)
    except StoreUnavailable as error:
        return Denied(problem.BUSY, str(error))


def _caller(keyring: Keyring, need: Need, headers: Headers, given: str) -> Caller | Denied:
    text = key_in(headers) or given
    if need.is_open:
        caller = keyring.check(text) if text and need.scope else NOBODY
        return NOBODY if isinstance(caller, Denied) else caller
    if not text:
        return NO_KEY
    caller = keyring.check(text)
    if isinstance(caller, Denied):
        return caller
    return lacks(caller, need.scope) or _is_bound(caller, need) or caller


def _is_bound(caller: Caller, need: Need) -> Denied | None:
    if not need.is_whole or caller.sees_all:
        return None
    return Denied(problem.WRONG_SCOPE, f"this is of the whole box, and this key is for {caller.binding}")


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
    problem.NO_KEY: (b'Bearer realm="whimbrel"', b'Basic realm="whimbrel", charset="UTF-8"'),
    problem.WRONG_KEY: (b'Bearer realm="whimbrel", error="invalid_token"', b'Basic realm="whimbrel", charset="UTF-8"'),
    problem.WRONG_SCOPE: (b'Bearer realm="whimbrel", error="insufficient_scope"',),
}


async def refuse(denied: Denied, send: Send) -> None:
    """Answer with a problem. The older service's clients read the same `detail`."""
    body = problem.body(denied.kind, denied.reason)
    headers = [
        (b"content-type", problem.CONTENT_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        *more_headers(denied.kind),
    ]
    await send({"type": "http.response.start", "status": denied.kind.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def more_headers(kind: Problem) -> list[tuple[bytes, bytes]]:
    """What an answer of a kind says beside its body."""
    if kind is problem.BUSY:
        return [(b"retry-after", b"%d" % RETRY_S)]
    return [(b"www-authenticate", challenge) for challenge in CHALLENGES.get(kind, ())]
