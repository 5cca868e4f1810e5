"""Identity of a request for fair shares: its key, and its client's address as the API program saw it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from api.requests.query_headers import ADDRESS
from telemetry.http.authentication import caller_of
from telemetry.http.rate_limiting import ASKING
from telemetry.limits.client_address import Addresses


class Asker(NamedTuple):
    """A key and an address; each is empty where it is not known, and then has no share."""

    key_id: str = ""
    address: str = ""

    def shares_with(self, other: Asker) -> bool:
        """Whether both have the same key, or the same address."""
        has_key = bool(self.key_id) and self.key_id == other.key_id
        return has_key or (bool(self.address) and self.address == other.address)


THE_BOX = Asker()
"""What the query program asks for itself."""

_asker = ContextVar("asker", default=THE_BOX)


def current_asker() -> Asker:
    """The asker of the request that is being answered."""
    return _asker.get()


def asker_of(scope: Scope, addresses: Addresses) -> Asker:
    """The asker of a request to the API program. A trusted proxy that names no client has no address."""
    asking = scope.get(ASKING)
    if asking is None:
        peer = scope["client"]
        address = addresses.asking(peer[0] if peer else "", scope["headers"])
    else:
        address = asking.address
    return Asker(caller_of(scope).key_id, "" if addresses.is_trusted(address) else address)


class KnowsAsker:
    """ASGI middleware of the query program, which stands behind its gate."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with its asker known."""
        if scope["type"] == "http":
            address = next((value for name, value in scope["headers"] if name == ADDRESS), b"")
            _asker.set(Asker(caller_of(scope).key_id, address.decode("latin-1")))
        await self._app(scope, receive, send)
