"""Keys and sessions that the API and query programs accept, kept up to date while they run."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

from telemetry.access import key_cache, session_cache
from telemetry.access.key_cache import Keyring
from telemetry.browsers.session_cookie import Cookies
from telemetry.config.settings import Settings
from telemetry.http.authentication import Sessions


class ApiAccess(NamedTuple):
    """API keys and browser sessions; None where none are required."""

    keys: Keyring | None
    sessions: Sessions | None


@contextlib.asynccontextmanager
async def open_access(settings: Settings, sees_all: bool) -> AsyncIterator[ApiAccess]:
    """Load keys and sessions, and refresh them while it is entered.

    `sees_all`: this program sees every request, so it notes when keys and sessions were last used.
    """
    async with (
        key_cache.required(settings, is_noting=sees_all) as keys,
        session_cache.required(settings, sees_all=sees_all) as cache,
    ):
        has_provider = bool(settings.oidc.issuer)
        sessions = Sessions(cache, Cookies.of(settings), has_provider) if cache is not None else None
        yield ApiAccess(keys, sessions)
