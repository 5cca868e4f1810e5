"""Rate limits over HTTP: ASGI middleware per address, before authentication, and per key, after it.

`Throttle` runs before the gate that checks keys; `OfKeys` runs after it and limits by key. Code that stores records
calls `records_over(scope, count)` first. Responses carry `RateLimit-Policy` and `RateLimit`
(draft-ietf-httpapi-ratelimit-headers-10), and `Retry-After` with status 429.
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
"""Key of an ASGI scope for the request's `Asking`."""

UNLIMITED = frozenset(("/healthz", "/readyz"))
"""Paths without limits: a monitoring system must not see the box as down because of a limit."""

UNAUTHORIZED = 401

Refuse = Callable[[str, Over], ASGIApp]
"""Returns the response to a request over a limit, in the format of the path's clients."""


class ClientLimits(NamedTuple):
    """The client of a request, and its limits."""

    address: str
    rates: Rates


def records_over(scope: Scope, count: int) -> Over | None:
    """Take tokens for a request's records; returns the exceeded limit, if any."""
    asking: ClientLimits | None = scope.get(ASKING)
    return None if asking is None else asking.rates.records(asking.address, caller_of(scope).key_id, count)


class Throttle:
    """Middleware that limits requests per address."""

    def __init__(self, app: ASGIApp, rates: Rates, addresses: Addresses, refuse: Refuse) -> None:
        self._app = app
        self._rates = rates
        self._addresses = addresses
        self._refuse = refuse
        self._shows = rates.are_set

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 429."""
        if scope["type"] != "http" or scope["path"] in UNLIMITED:
            await self._app(scope, receive, send)
            return
        peer = scope["client"]
        asking = ClientLimits(self._addresses.asking(peer[0] if peer else "", scope["headers"]), self._rates)
        scope[ASKING] = asking
        if peer and asking.address != owner(peer[0]):
            scope[ADDRESS] = asking.address
        over = self._rates.request(asking.address, scope["method"] == "POST")
        answer = _Answer(self, scope, receive, send, asking)
        if over is None:
            await self._app(scope, receive, answer.send)
        else:
            rejection_counts.count(problems.RATE_LIMITED)
            await self._refuse(scope["path"], over)(scope, receive, answer.send_unchanged)


class _Answer:
    """The response to one request while it is sent."""

    def __init__(self, throttle: Throttle, scope: Scope, receive: Receive, send: Send, asking: ClientLimits) -> None:
        self._throttle = throttle
        self._scope = scope
        self._receive = receive
        self._send = send
        self._asking = asking
        self._is_replaced = False

    async def send(self, message: Message) -> None:
        """Send a part of the response; if the address sent too many wrong keys, a 429 response instead."""
        if self._is_replaced:
            return
        if message["type"] == "http.response.start" and message["status"] == UNAUTHORIZED:
            over = self._asking.rates.wrong_key(self._asking.address)
            if over is not None:
                self._is_replaced = True
                rejection_counts.count(problems.RATE_LIMITED)
                refuse = self._throttle._refuse(self._scope["path"], over)
                await refuse(self._scope, self._receive, self.send_unchanged)
                return
        await self.send_unchanged(message)

    async def send_unchanged(self, message: Message) -> None:
        """Send a part with the rate limit headers."""
        if message["type"] == "http.response.start" and self._throttle._shows:
            policies, levels = self._asking.rates.shown(self._asking.address, caller_of(self._scope).key_id)
            if policies:
                more = [(b"ratelimit-policy", policies), (b"ratelimit", levels)]
                message["headers"] = [*message.get("headers", ()), *more]
        await self._send(message)


class KeyThrottle:
    """Middleware that limits requests per key."""

    def __init__(self, app: ASGIApp, refuse: Refuse) -> None:
        self._app = app
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 429."""
        asking: ClientLimits | None = scope.get(ASKING)
        over = None if asking is None else asking.rates.request_of_key(caller_of(scope).key_id)
        if over is None:
            await self._app(scope, receive, send)
        else:
            rejection_counts.count(problems.RATE_LIMITED)
            await self._refuse(scope["path"], over)(scope, receive, send)


def throttled(app: ASGIApp, rates: Rates, addresses: Addresses, refuse: Refuse, checks_keys: bool) -> ASGIApp:
    """Wrap an application with the limits that are set; unchanged if there are none."""
    if rates.are_set or (checks_keys and rates.wrong_keys is not None):
        return Throttle(app, rates, addresses, refuse)
    return app
