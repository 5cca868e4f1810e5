"""Which key a request to the API needs, where keys are required.

What writes records needs `ingest`, what asks in SQL `sql`, what changes the box, and how far
that is, `admin`, all else `read`. How the whole
box is, only a key says that is not bound to devices; and so does all that is new, until its answers go by
api/requests/key_devices.py. `/readyz` says to everybody whether the box is ready, but why it isn't only to who may
read: whoever starts and watches it needs no key.
"""

from __future__ import annotations

from starlette.types import Scope

from collector.http.routes import POST_PATHS
from telemetry.http.authentication import ADMIN, INGEST, OPEN, READ, READ_WHOLE, SQL, Need
from telemetry.model import api_keys

READY = Need(api_keys.READ, is_open=True)
KNOWN = Need(api_keys.READ, is_open=True)
"""Open, and the caller is known if there is one: signing in and out, and who is signed in."""

NEEDS: dict[str, Need] = {
    "/healthz": OPEN,
    **dict.fromkeys(("/", "/page/tiles", "/openapi.json", "/docs", "/docs/", "/redoc", "/redoc/"), OPEN),
    "/readyz": READY,
    **dict.fromkeys(("/login", "/login/oidc", "/login/callback", "/logout", "/v1/session"), KNOWN),
    "/status": READ_WHOLE,
    "/metrics": READ_WHOLE,
    "/v1/box": READ_WHOLE,
    "/v1/sql": SQL,
    "/v1/audit": ADMIN,
    **dict.fromkeys(POST_PATHS, INGEST),
}
"""Path → what it needs whatever its method is."""

WRITTEN = ("/v1/records", "/tracking/data", "/tracking/data/")
"""Where a POST writes records."""

BOUND = ("/v1/latest", "/v1/records", "/v1/export", "/v1/summary", "/v1/trips", "/v1/stops", "/v1/devices", "/v1/live")
BOUND_BELOW = ("/tracking/", "/tcp_tracking/")
"""Where a key that is bound to devices sees these."""

LOOKING = ("GET", "HEAD", "OPTIONS")


def need_of(scope: Scope) -> Need:
    """What a request needs."""
    path: str = scope["path"]
    found = NEEDS.get(path)
    if found is not None:
        return found
    if scope["method"] not in LOOKING:
        return INGEST if path in WRITTEN else ADMIN
    if path.startswith("/v1/deletions/"):
        return ADMIN
    if path.startswith("/static/"):
        return OPEN
    is_of_device = path.startswith("/v1/devices/")
    return READ if is_of_device or path in BOUND or path.startswith(BOUND_BELOW) else READ_WHOLE
