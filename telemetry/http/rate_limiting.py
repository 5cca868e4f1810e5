"""Limits of requests over HTTP: an ASGI application in front of another, which asks first whether there were too many.

It stands in front of the gate that checks keys; `OfKeys` stands behind it and limits by key. What stores records asks
`records_over(scope, count)` before it does. An answer says in `RateLimit-Policy` and `RateLimit` how things stand
(draft-ietf-httpapi-ratelimit-headers-10), and one of 429 in `Retry-After` when to come again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry.coordination import rejection_counts
from telemetry.http.authentication import caller_of
from telemetry.limits.client_address import ADDRESS, Addresses, owner
from telemetry.limits.rate_limits import Over, Rates
from telemetry.model import problems

ASKING = "whimbrel.asking"
"""Where in a scope it stands who asks."""

UNLIMITED = frozenset(("/healthz", "/readyz"))
"""Asked by who watches the box; a limit must not make it look dead."""

UNAUTHORIZED = 401

Refuse = Callable[[str, Over], ASGIApp]
"""What answers a path's request that is over a limit, in the shape that clients of the path know."""


class Asking(NamedTuple):
    """Who asks, and what limits it."""

    address: str
    rates: Rates


def records_over(scope: Scope, count: int) -> Over | None:
    """Whether a request's records are too many now; if not, they are counted."""
    asking: Asking | None = scope.get(ASKING)
    return None if asking is None else asking.rates.records(asking.address, caller_of(scope).key_id, count)


class Throttle:
    """The application in front."""

    def __init__(self, behind: ASGIApp, rates: Rates, addresses: Addresses, refuse: Refuse) -> None:
        self._behind = behind
        self._rates = rates
        self._addresses = addresses
        self._refuse = refuse
        self._shows = rates.are_set

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or say when it may come again."""
        if scope["type"] != "http" or scope["path"] in UNLIMITED:
            await self._behind(scope, receive, send)
            return
        peer = scope["client"]
        asking = Asking(self._addresses.asking(peer[0] if peer else "", scope["headers"]), self._rates)
        scope[ASKING] = asking
        if peer and asking.address != owner(peer[0]):
            scope[ADDRESS] = asking.address
        over = self._rates.request(asking.address, scope["method"] == "POST")
        answer = _Answer(self, scope, receive, send, asking)
        if over is None:
            await self._behind(scope, receive, answer.send)
        else:
            rejection_counts.count(problems.RATE_LIMITED)
            await self._refuse(scope["path"], over)(scope, receive, answer.send_as_it_is)


class _Answer:
    """The answer to one request, on its way."""

    def __init__(self, throttle: Throttle, scope: Scope, receive: Receive, send: Send, asking: Asking) -> None:
        self._throttle = throttle
        self._scope = scope
        self._receive = receive
        self._send = send
        self._asking = asking
        self._is_replaced = False

    async def send(self, message: Message) -> None:
        """Send a part of the answer; where a key was wrong too often, another answer in its place."""
        if self._is_replaced:
            return
        if message["type"] == "http.response.start" and message["status"] == UNAUTHORIZED:
            over = self._asking.rates.wrong_key(self._asking.address)
            if over is not None:
                self._is_replaced = True
                rejection_counts.count(problems.RATE_LIMITED)
                refuse = self._throttle._refuse(self._scope["path"], over)
                await refuse(self._scope, self._receive, self.send_as_it_is)
                return
        await self.send_as_it_is(message)

    async def send_as_it_is(self, message: Message) -> None:
        """Send a part, with the headers of limits."""
        if message["type"] == "http.response.start" and self._throttle._shows:
            policies, levels = self._asking.rates.shown(self._asking.address, caller_of(self._scope).key_id)
            if policies:
                more = [(b"ratelimit-policy", policies), (b"ratelimit", levels)]
                message["headers"] = [*message.get("headers", ()), *more]
        await self._send(message)


class OfKeys:
    """The application behind the gate."""

    def __init__(self, behind: ASGIApp, refuse: Refuse) -> None:
        self._behind = behind
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or say when its key may come again."""
        asking: Asking | None = scope.get(ASKING)
        over = None if asking is None else asking.rates.request_of_key(caller_of(scope).key_id)
        if over is None:
            await self._behind(scope, receive, send)
        else:
            rejection_counts.count(problems.RATE_LIMITED)
            await self._refuse(scope["path"], over)(scope, receive, send)


def throttled(app: ASGIApp, rates: Rates, addresses: Addresses, refuse: Refuse, checks_keys: bool) -> ASGIApp:
    """An application with the limits that are set; as it is where none is."""
    if rates.are_set or (checks_keys and rates.wrong_keys is not None):
        return Throttle(app, rates, addresses, refuse)
    return app
