"""The worker program: runs saves that the scheduler asks for through RQ."""

from __future__ import annotations

import gc
import logging
import sys
from functools import cache, partial

from telemetry import early, unneeded

if __name__ == "__main__":
    early.begin()
    unneeded.refuse()  # before anything loads Arrow

from duckdb import DuckDBPyConnection

from telemetry import clock, hot, notes, reports
from telemetry import jobs as background
from telemetry.archive import Archive
from telemetry.columns import open_duckdb
from telemetry.forwards import held_by
from telemetry.opened import Opened
from telemetry.permissions import restrict, share_archive
from telemetry.program import main
from telemetry.redis_client import connect
from telemetry.settings import Settings
from telemetry.steps import teller
from worker import jobs
from worker.budget import Bounds
from worker.erasing import Eraser
from worker.persist import Saver
from worker.rq_worker import rq_worker

log = logging.getLogger(__name__)

GC_OBJECTS = 50_000
"""Objects made before garbage is looked for. A save makes ten a record, and no cycles: at the usual 700 looking takes
a fifth of its time."""


def serve(settings: Settings) -> None:
    """Finish what an earlier worker left, then run jobs until a signal comes."""
    share_archive(settings)
    for change in restrict(settings):
        log.info("%s", change)
    reached, opened = teller("save"), Opened()
    archive = Archive(settings.archive_dir, reached, held_by(settings), opened)
    connection = open_duckdb(settings.data_dir / "tmp" / "worker")
    p = settings.persist
    saver = Saver(archive, connection, clock.now_ms, Bounds.of(p), p.quarantine_max_bytes, reached)
    erasing = Archive(settings.archive_dir, teller("delete"), held_by(settings))
    eraser = Eraser(erasing, cache(partial(eraser_connection, settings)), saver, clock.now_ms, teller("delete"))
    flush = hot.Flush(p.flush_records, p.max_bytes)
    work = jobs.Work(connect(settings), archive, connection, saver, settings.redis.shards, flush, eraser)
    jobs.prepare(work)
    background.prepare(settings, opened)
    gc.set_threshold(GC_OBJECTS)
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    with reports.told(lambda: connect(settings), reports.Teller(notes.WORKER)):
        work.begin()
        client = connect(settings, timeout_s=None)
        hot.translated(lambda: rq_worker(client).work(logging_level="WARNING"))


def eraser_connection(settings: Settings) -> DuckDBPyConnection:
    """A DuckDB for deletions, made when the first comes: with the memory of merges, beyond which it spills."""
    return open_duckdb(settings.data_dir / "tmp" / "eraser", f"{settings.archive.merge_memory_bytes}B")


if __name__ == "__main__":
    sys.exit(main("worker", serve, needs_store=False))
