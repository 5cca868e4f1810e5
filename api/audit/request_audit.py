"""ASGI middleware that records changes, SQL queries and exports over HTTP in the audit log.

A change is a request that needs a key with `admin`, whether keys are required or not. Its entry is on disk before it
is carried out; if it cannot be recorded, the response is 503. All other requests pass after a check of their method.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.requests.route_scopes import need_of
from api.sign_in.session_start import SIGNED_IN
from telemetry.audit import refusals
from telemetry.audit.entry import ANONYMOUS, Actor, Entry, actor_of
from telemetry.audit.refusals import target_of
from telemetry.audit.writer import Audit, Kind
from telemetry.http.authentication import ADMIN, SQL, caller_of, refuse
from telemetry.limits.client_address import address_of
from telemetry.model import problems
from telemetry.model.api_keys import Denied
from telemetry.model.errors import AuditError

EXPORT = "/v1/export"
DEVICES = "/v1/devices/"
SIGNING = ("/login", "/login/callback", "/logout")
LOGOUT = "/logout"
NO_CONTENT = 204
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
MAX_BODY_BYTES = 16_384
"""Bytes of a query's body that are read for its entry; the log shortens the text further."""

ACTIONS: Mapping[tuple[str, str], str] = {("DELETE", DEVICES): "device.delete"}
"""Method and prefix of the path → action. All other changes are named by their method, like `http.put`."""


class Audited:
    """The middleware."""

    def __init__(self, app: ASGIApp, audit: Audit) -> None:
        self._app = app
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and record it if it needs an entry."""
        kind = _kind_of(scope) if scope["type"] == "http" else None
        if kind is None and scope["type"] == "http" and scope["path"] in SIGNING:
            await self._app(scope, receive, partial(self._send_signing, scope, send))
        elif kind is None:
            await self._app(scope, receive, send)
        else:
            await _Recorded(self._app, self._audit, kind, scope, receive, send).answer()

    async def _send_signing(self, scope: Scope, send: Send, message: Message) -> None:
        """Send a message of the response to a login or logout; first record the session that it begins or ends."""
        if message["type"] == "http.response.start":
            name, address, target = scope.get(SIGNED_IN), address_of(scope), target_of(scope)
            if name is not None:
                record = partial(self._audit.happened, "session.begin", Actor("user", name))
                await asyncio.to_thread(record, address=address, target=target)
            elif scope["path"] == LOGOUT and message["status"] == NO_CONTENT:
                record = partial(self._audit.happened, "session.end", actor_of(caller_of(scope)))
                await asyncio.to_thread(record, address=address, target=target)
            elif not caller_of(scope).key_id:  # with a key, the gate records the refusal
                refusals.note_status(message["status"], scope, ANONYMOUS)
        await send(message)


def _kind_of(scope: Scope) -> Kind | None:
    if scope["method"] in SAFE_METHODS:
        return "questions" if scope["path"] == EXPORT else None
    need = need_of(scope)
    return "changes" if need == ADMIN else "questions" if need == SQL else None


def action_of(method: str, path: str) -> str:
    """Name of a request's action."""
    if path == EXPORT:
        return "export"
    if path == "/v1/sql":
        return "sql"
    actions = (action for (verb, start), action in ACTIONS.items() if verb == method and path.startswith(start))
    return next(actions, f"http.{method.lower()}")


class _Recorded:
    """One request that is recorded."""

    def __init__(self, app: ASGIApp, audit: Audit, kind: Kind, scope: Scope, receive: Receive, send: Send) -> None:
        self._app, self._audit, self._kind = app, audit, kind
        self._scope, self._receive, self._send = scope, receive, send
        self._body = bytearray()
        self._begun: Entry | None = None
        self._is_recorded = False
        self._status = 0

    async def answer(self) -> None:
        """Record the request, pass it on, and record its outcome."""
        if self._scope["method"] in SAFE_METHODS or self._kind == "changes":
            details = {"query": self._scope["query_string"].decode("latin-1")} if self._scope["query_string"] else {}
            if not await self._begin(details):
                return
        try:
            await self._app(self._scope, self.receive, self.send)
        finally:
            await asyncio.shield(self._end(is_whole=False))

    async def _end(self, is_whole: bool) -> None:
        """Record the outcome, once. An incomplete response is a failure."""
        begun, self._begun = self._begun, None
        if begun is not None:
            is_done = is_whole and 200 <= self._status < 400
            await asyncio.to_thread(self._audit.end, begun, is_done, self._kind, self._status)

    async def _begin(self, details: dict[str, Any]) -> bool:
        """Record the request. False if that failed and the client was sent 503."""
        scope = self._scope
        path = scope["path"]
        action = action_of(scope["method"], path)
        fields = {
            "address": address_of(scope),
            "target": target_of(scope),
            "device": path.removeprefix(DEVICES) if path.startswith(DEVICES) else "",
            "details": details,
        }
        self._is_recorded = True
        begin = lambda: self._audit.begin(action, actor_of(caller_of(scope)), self._kind, **fields)  # noqa: E731
        try:
            self._begun = await asyncio.to_thread(begin)
        except AuditError as error:
            if self._kind == "changes":
                await refuse(Denied(problems.BUSY, str(error)), self._send)
                return False
        return True

    async def receive(self) -> Message:
        """Receive a message. A query is recorded before the application receives the end of its body."""
        message = await self._receive()
        if not self._is_recorded and message["type"] == "http.request":
            self._body += message.get("body", b"")[: MAX_BODY_BYTES - len(self._body)]
            if not message.get("more_body", False):
                await self._begin({"query": _query_of(bytes(self._body))})
        return message

    async def send(self, message: Message) -> None:
        """Send a message. The outcome is recorded before the end of the response is sent."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif not message.get("more_body", False):
            await self._end(is_whole=True)
        await self._send(message)


def _query_of(body: bytes) -> str:
    """The SQL of a body, or the body itself if it is incomplete or not JSON."""
    try:
        fields = json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")
    query = fields.get("query") if isinstance(fields, dict) else None
    return query if isinstance(query, str) else body.decode("utf-8", "replace")
