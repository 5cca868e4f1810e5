"""Records changes, questions in SQL and exports over HTTP in the audit log: an ASGI application in front of the API's.

A change is a request that needs a key with `admin`, whether keys are required or not. It is on disk in the log before
it is carried out; if it cannot be recorded, it is refused with 503. All other requests pass with no more than a look at
their method.
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
LOOKING = ("GET", "HEAD", "OPTIONS")
KEPT_BODY_BYTES = 16_384
"""Bytes of a question's body that are looked at: the log cuts its text further."""

ACTIONS: Mapping[tuple[str, str], str] = {("DELETE", DEVICES): "device.delete"}
"""Method and beginning of the path → action. A change that is not here is named by its method, like `http.put`."""


class Audited:
    """The application in front."""

    def __init__(self, behind: ASGIApp, audit: Audit) -> None:
        self._behind = behind
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, recorded if it is one of those."""
        kind = _kind_of(scope) if scope["type"] == "http" else None
        if kind is None and scope["type"] == "http" and scope["path"] in SIGNING:
            await self._behind(scope, receive, partial(self._send_signed, scope, send))
        elif kind is None:
            await self._behind(scope, receive, send)
        else:
            await _Recorded(self._behind, self._audit, kind, scope, receive, send).answer()

    async def _send_signed(self, scope: Scope, send: Send, message: Message) -> None:
        """Send the answer of a login or logout; a session that it begins or ends is recorded first."""
        if message["type"] == "http.response.start":
            name, address, target = scope.get(SIGNED_IN), address_of(scope), target_of(scope)
            if name is not None:
                record = partial(self._audit.happened, "session.begin", Actor("user", name))
                await asyncio.to_thread(record, address=address, target=target)
            elif scope["path"] == LOGOUT and message["status"] == NO_CONTENT:
                record = partial(self._audit.happened, "session.end", actor_of(caller_of(scope)))
                await asyncio.to_thread(record, address=address, target=target)
            elif not caller_of(scope).key_id:  # else the gate notes it
                refusals.note_status(message["status"], scope, ANONYMOUS)
        await send(message)


def _kind_of(scope: Scope) -> Kind | None:
    if scope["method"] in LOOKING:
        return "questions" if scope["path"] == EXPORT else None
    need = need_of(scope)
    return "changes" if need == ADMIN else "questions" if need == SQL else None


def action_of(method: str, path: str) -> str:
    """What a request does, in a word."""
    if path == EXPORT:
        return "export"
    if path == "/v1/sql":
        return "sql"
    found = (action for (of, start), action in ACTIONS.items() if of == method and path.startswith(start))
    return next(found, f"http.{method.lower()}")


class _Recorded:
    """One request on its way."""

    def __init__(self, behind: ASGIApp, audit: Audit, kind: Kind, scope: Scope, receive: Receive, send: Send) -> None:
        self._behind, self._audit, self._kind = behind, audit, kind
        self._scope, self._receive, self._send = scope, receive, send
        self._body = bytearray()
        self._begun: Entry | None = None
        self._is_recorded = False
        self._status = 0

    async def answer(self) -> None:
        """Record it, have it answered, and record the outcome."""
        if self._scope["method"] in LOOKING or self._kind == "changes":
            details = {"query": self._scope["query_string"].decode("latin-1")} if self._scope["query_string"] else {}
            if not await self._begin(details):
                return
        try:
            await self._behind(self._scope, self.receive, self.send)
        finally:
            await asyncio.shield(self._end(is_whole=False))

    async def _end(self, is_whole: bool) -> None:
        """Record the outcome, once. A response that broke off is a failure."""
        begun, self._begun = self._begun, None
        if begun is not None:
            is_done = is_whole and 200 <= self._status < 400
            await asyncio.to_thread(self._audit.end, begun, is_done, self._kind, self._status)

    async def _begin(self, details: dict[str, Any]) -> bool:
        """Whether it could be recorded; if not, the client has its answer."""
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
        """Receive; once a question's body is whole, it is recorded before the application sees the end of it."""
        message = await self._receive()
        if not self._is_recorded and message["type"] == "http.request":
            self._body += message.get("body", b"")[: KEPT_BODY_BYTES - len(self._body)]
            if not message.get("more_body", False):
                await self._begin({"query": _question(bytes(self._body))})
        return message

    async def send(self, message: Message) -> None:
        """Send; before the end of the response its outcome is recorded."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif not message.get("more_body", False):
            await self._end(is_whole=True)
        await self._send(message)


def _question(body: bytes) -> str:
    """The SQL of a body; the body itself where it is not whole or no JSON."""
    try:
        found = json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")
    query = found.get("query") if isinstance(found, dict) else None
    return query if isinstance(query, str) else body.decode("utf-8", "replace")
