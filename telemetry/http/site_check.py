"""Rejects requests for unknown host names and requests of other sites' pages: ASGI middleware.

Connections that answer requests themselves (direct_response.py) pass a request to the application if it has a header in
`UNUSUAL` or a `Host` that `Hosts` does not accept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from telemetry.audit import refusals as audit_refusals
from telemetry.browsers.host_names import Hosts
from telemetry.browsers.origins import HOST, ORIGIN, SITE, Origins, is_navigation, seen_in
from telemetry.coordination import rejection_counts
from telemetry.http.authentication import refuse
from telemetry.limits.client_address import address_of
from telemetry.model import problems
from telemetry.model.api_keys import Denied

UNUSUAL = frozenset((ORIGIN, SITE))
"""Headers of requests that a page may have made."""

MAX_SHOWN_CHARACTERS = 100

IsPage = Callable[[str], bool]


def no_page(_path: str) -> bool:
    """False for every path, on a port without pages."""
    return False


class SiteCheck:
    """The middleware. `is_page` returns True for paths of pages that links of other sites may open."""

    def __init__(self, app: ASGIApp, hosts: Hosts, origins: Sequence[str], is_page: IsPage = no_page) -> None:
        self._app = app
        self._hosts = hosts
        self._origins = Origins(origins)
        self._is_page = is_page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reject it."""
        denied = self.denied(scope) if scope["type"] == "http" else None
        if denied is None:
            await self._app(scope, receive, send)
        else:
            rejection_counts.count(denied.kind)
            audit_refusals.note(denied.kind, address_of(scope), audit_refusals.target_of(scope))
            await refuse(denied, send)

    def denied(self, scope: Scope) -> Denied | None:
        """Why a request is rejected; None if it is not."""
        seen = seen_in(scope["headers"])
        host = seen.get(HOST)
        if host is not None and not self._hosts.has(host):
            return _misdirected(host)
        if len(seen) <= 1 or not self._origins.is_foreign(seen):
            return None
        if self._is_page(scope["path"]) and is_navigation(scope["method"], seen):
            return None
        return FOREIGN


FOREIGN = Denied(
    problems.FOREIGN_PAGE,
    "a page of another site made this request in a browser; to allow it, add the page's origin to api.cors_origins",
)


def _misdirected(host: bytes) -> Denied:
    name = host.decode("latin-1")[:MAX_SHOWN_CHARACTERS]
    return Denied(
        problems.MISDIRECTED,
        f"cannot answer for host {name!r}: it is not a known name of this box; use its IP address, or add the host "
        "in http.allowed_hosts",
    )
