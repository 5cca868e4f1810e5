"""The scheduler program: enqueues background jobs, but executes none."""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType

from telemetry.startup import early_signals

if __name__ == "__main__":
    early_signals.begin()

from compactor.scheduler import Clock, Due, scheduler
from telemetry.config.settings import Settings
from telemetry.coordination import metric_reports, shared_state
from telemetry.coordination.job_queue import persist_queue
from telemetry.hot_store import shard
from telemetry.hot_store.client import connect
from telemetry.startup.program import main


def serve(settings: Settings) -> None:
    """Tick until a signal arrives."""
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)  # else a line a second while Redis is down
    client = connect(settings)
    p = settings.persist
    due = Due(shard.Flush(p.flush_records, p.max_bytes), p.flush_seconds)
    clock = Clock(lambda: shard.attach(client, settings.redis.shards), persist_queue(client), due)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    with metric_reports.publishing(lambda: connect(settings), metric_reports.Reporter(shared_state.SCHEDULER)):
        scheduler(clock).start()


def _stop(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main("compactor", serve))
