"""The worker program: runs saves that the scheduler asks for through RQ."""

from __future__ import annotations

import gc
import logging
import sys

from telemetry import early, unneeded

if __name__ == "__main__":
    early.begin()
    unneeded.refuse()  # before anything loads Arrow

import redis
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from telemetry import clock, hot
from telemetry import jobs as background
from telemetry.archive import Archive
from telemetry.columns import open_duckdb
from telemetry.config import Settings
from telemetry.forwards import held_by
from telemetry.jobs import AllowedJob, persist_queue
from telemetry.program import main
from telemetry.redis_client import connect
from telemetry.steps import teller
from worker import jobs
from worker.persist import Saver
from worker.plan import Bounds

GC_OBJECTS = 50_000
"""Objects made before garbage is looked for. A save makes ten a record, and no cycles: at the usual 700 looking takes
a fifth of its time."""

LONGEST_WAIT_S = 5.0
"""Between two tries to reach a Redis that is away: RQ's own minute would be added to every long outage."""


def serve(settings: Settings) -> None:
    """Finish what an earlier worker left, then run jobs until a signal comes."""
    reached = teller("save")
    archive = Archive(settings.archive_dir, reached, held_by(settings))
    connection = open_duckdb(settings.data_dir / "tmp" / "worker")
    p = settings.persist
    saver = Saver(archive, connection, clock.now_ms, Bounds.of(p), p.quarantine_max_bytes, reached)
    work = jobs.Work(connect(settings), archive, connection, saver, settings.redis.shards, p.flush_records)
    jobs.prepare(work)
    background.prepare(settings)
    work.begin()
    gc.set_threshold(GC_OBJECTS)
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    worker = rq_worker(connect(settings, timeout_s=None))
    hot.translated(lambda: worker.work(logging_level="WARNING"))


def rq_worker(client: redis.Redis) -> SimpleWorker:
    """RQ's part of it."""
    worker = SimpleWorker([persist_queue(client)], connection=client, serializer=JSONSerializer, job_class=AllowedJob)
    worker.max_connection_wait_time = LONGEST_WAIT_S
    return worker


if __name__ == "__main__":
    sys.exit(main("worker", serve, needs_store=False))
