"""Checks that run before an application, and before a connection that answers requests itself, for tests of both."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import NamedTuple

from starlette.types import ASGIApp

from telemetry.access.key_cache import Keyring
from telemetry.browsers.host_names import Hosts
from telemetry.config.settings import LimitsSection
from telemetry.coordination.shared_state import Stamp
from telemetry.http.direct_response import DirectChecks
from telemetry.http.problem_responses import too_many_at
from telemetry.http.rate_limiting import throttled
from telemetry.http.request_id import RequestIds
from telemetry.limits.client_address import Addresses
from telemetry.limits.rate_limits import Rates
from telemetry.model.api_keys import Key, KeyRequest, make

NOW_S = 1_795_500_000
NO_LIMITS = LimitsSection()
HOSTS = Hosts(["box"])

REQUESTS: Mapping[str, KeyRequest] = {
    "writes": KeyRequest(("ingest",)),
    "reads": KeyRequest(("read",)),
    "admin": KeyRequest(("admin",)),
    "bound": KeyRequest(("ingest", "read"), devices=("d", "van-7")),
    "elsewhere": KeyRequest(("ingest", "read"), prefix="bus-"),
    "expired": KeyRequest(("ingest", "read"), expires_s=NOW_S + 1),
}


class Keys:
    """Keys by name, and a keyring that knows them. Revoked ones are removed from `known`."""

    def __init__(self) -> None:
        made = {name: make(request, NOW_S, secrets.token_bytes) for name, request in REQUESTS.items()}
        self.texts = {name: text for name, (text, _) in made.items()} | {"unknown": "wk_aaaaaaaa_" + 26 * "a"}
        self.known: dict[str, Key] = {key.id: key for _, key in made.values()}

    def ring(self) -> Keyring:
        """A keyring that has read the keys. Needs an event loop."""
        keyring = Keyring(lambda _: (Stamp(b"", 0), self.known), lambda: NOW_S + 5.0)
        keyring.refresh()
        return keyring


class Guards(NamedTuple):
    """The checks that a server has. Each server counts its own rates."""

    keys: Keys | None = None
    limits: LimitsSection = NO_LIMITS
    logs_access: bool = False


class Front(NamedTuple):
    """The checks of one server: `keyring` for its application."""

    keyring: Keyring | None
    rates: Rates
    addresses: Addresses
    logs_access: bool

    @classmethod
    def of(cls, guards: Guards) -> Front:
        keyring = None if guards.keys is None else guards.keys.ring()
        return cls(keyring, Rates(guards.limits), Addresses((), "x-forwarded-for"), guards.logs_access)

    def before(self, app: ASGIApp) -> RequestIds:
        """The application after the checks that come before its keys."""
        limited = throttled(app, self.rates, self.addresses, too_many_at, self.keyring is not None)
        return RequestIds(limited, self.logs_access)

    def direct(self, scope: str, ids: RequestIds) -> DirectChecks:
        """The same checks for a connection."""
        return DirectChecks(scope, self.keyring, self.rates, self.addresses, HOSTS.has, ids)
