"""The courier program. With nothing to forward or to tell it waits for its end, and has loaded nothing for either."""

from __future__ import annotations

import importlib
import sys
import time

from telemetry import early

if __name__ == "__main__":
    early.begin()

from telemetry import notes, reports
from telemetry.config import Settings
from telemetry.program import Stopped, main
from telemetry.redis_client import connect

LOOK_S = 0.5


def serve(settings: Settings) -> None:
    """Forward and tell until a signal comes. Redis may be away: then that is what is told."""
    told = reports.told(lambda: connect(settings), reports.Teller(notes.COURIER))
    with Stopped() as stopped, told:
        if settings.needs_courier:
            importlib.import_module("worker.courier.service").serve(settings, stopped)
        while not stopped():
            time.sleep(LOOK_S)


if __name__ == "__main__":
    sys.exit(main("courier", serve, waits=False))
