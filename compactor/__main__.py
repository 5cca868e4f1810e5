"""The scheduler program: enqueues background jobs, and does none itself."""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType

from telemetry import early

if __name__ == "__main__":
    early.begin()

from compactor.clock import Clock, Due, scheduler
from telemetry import hot, notes, reports
from telemetry.jobs import persist_queue
from telemetry.program import main
from telemetry.redis_client import connect
from telemetry.settings import Settings


def serve(settings: Settings) -> None:
    """Tick until a signal comes."""
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)  # else a word a second while Redis is silent
    client = connect(settings)
    p = settings.persist
    due = Due(hot.Flush(p.flush_records, p.max_bytes), p.flush_seconds)
    clock = Clock(lambda: hot.attach(client, settings.redis.shards), persist_queue(client), due)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    with reports.told(lambda: connect(settings), reports.Teller(notes.SCHEDULER)):
        scheduler(clock).start()


def _stop(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main("compactor", serve))
