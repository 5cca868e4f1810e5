"""The API program: `latest`, the collector's HTTP routes on the same port, and a proxy to the query program."""

from __future__ import annotations

import sys

from telemetry.startup import early_signals

if __name__ == "__main__":
    early_signals.begin()

import uvloop

from api.access import open_access
from api.program import build, run
from telemetry.config.settings import Settings
from telemetry.http.server import stop_on_signals
from telemetry.startup.program import main


async def serve(settings: Settings) -> None:
    """Answer until a signal comes; then finish the requests under way."""
    stopped = stop_on_signals()
    async with open_access(settings, sees_all=True) as access:
        await run(build(settings, access), stopped)


if __name__ == "__main__":
    sys.exit(main("api", lambda settings: uvloop.run(serve(settings))))
