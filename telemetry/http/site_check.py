"""Refuses requests for another host and those of other sites' pages: an ASGI application before another.

What makes connections that answer by themselves (quick_http.py) hands on whatever has a header of `UNUSUAL` or a `Host`
that `Hosts` does not have.
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
    """Whether a path is a page for people, on a port without any."""
    return False


class SiteCheck:
    """The application. `is_page` says at which paths a link of another site may open a page for people."""

    def __init__(self, behind: ASGIApp, hosts: Hosts, origins: Sequence[str], is_page: IsPage = no_page) -> None:
        self._behind = behind
        self._hosts = hosts
        self._origins = Origins(origins)
        self._is_page = is_page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or say why not."""
        denied = self.denied(scope) if scope["type"] == "http" else None
        if denied is None:
            await self._behind(scope, receive, send)
        else:
            rejection_counts.count(denied.kind)
            audit_refusals.note(denied.kind, address_of(scope), audit_refusals.target_of(scope))
            await refuse(denied, send)

    def denied(self, scope: Scope) -> Denied | None:
        """What speaks against a request; None if nothing does."""
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
    "a page of another site made this request in a browser: name the page's origin in api.cors_origins if it may",
)


def _misdirected(host: bytes) -> Denied:
    name = host.decode("latin-1")[:MAX_SHOWN_CHARACTERS]
    return Denied(
        problems.MISDIRECTED,
        f"cannot answer for host {name!r}: it is not known as a name of this box; use its IP address, or name the host "
        "in http.allowed_hosts",
    )
