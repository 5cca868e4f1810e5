"""The worker program: runs saves that the scheduler asks for through RQ."""

from __future__ import annotations

import logging
import sys

from rq import SimpleWorker
from rq.serializers import JSONSerializer

from telemetry import clock, hot
from telemetry import jobs as background
from telemetry.archive import Archive
from telemetry.columns import open_duckdb
from telemetry.config import Settings
from telemetry.jobs import AllowedJob, persist_queue
from telemetry.program import main
from telemetry.redis_client import connect
from telemetry.steps import teller
from worker import jobs
from worker.persist import Saver
from worker.plan import Bounds


def serve(settings: Settings) -> None:
    """Finish what an earlier worker left, then run jobs until a signal comes."""
    reached = teller("save")
    archive = Archive(settings.archive_dir, reached)
    connection = open_duckdb(settings.data_dir / "tmp" / "worker")
    p = settings.persist
    saver = Saver(archive, connection, clock.now_ms, Bounds.of(p), p.quarantine_max_bytes, reached)
    work = jobs.Work(connect(settings), archive, connection, saver, settings.redis.shards, p.flush_records)
    jobs.prepare(work)
    background.prepare(settings)
    work.begin()
    client = connect(settings, timeout_s=None)
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    queues = [persist_queue(client)]
    worker = SimpleWorker(queues, connection=client, serializer=JSONSerializer, job_class=AllowedJob)
    hot.translated(lambda: worker.work(logging_level="WARNING"))


if __name__ == "__main__":
    sys.exit(main("worker", serve, needs_store=False))
