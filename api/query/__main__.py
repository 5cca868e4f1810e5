"""The query program: answers queries that the API program forwards over a unix socket."""

from __future__ import annotations

import sys

from telemetry.startup import early_signals, import_blocker

if __name__ == "__main__":
    early_signals.begin()
    import_blocker.refuse()  # before anything loads Arrow

import uvloop

from api.access import open_access
from api.query.program import build, run
from telemetry.config.settings import Settings
from telemetry.http.server import stop_on_signals
from telemetry.startup.program import main


async def serve(settings: Settings) -> None:
    """Answer until a signal comes; then finish the requests under way."""
    stopped = stop_on_signals()
    async with open_access(settings, sees_all=False) as access:
        await run(build(settings, access), stopped)


if __name__ == "__main__":
    sys.exit(main("query", lambda settings: uvloop.run(serve(settings))))
