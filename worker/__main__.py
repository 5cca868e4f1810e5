"""The worker program: runs the jobs that the scheduler enqueues through RQ."""

from __future__ import annotations

import gc
import logging
import sys
from functools import cache, partial

from telemetry.hot_store.response_errors import translated
from telemetry.startup import early_signals, import_blocker

if __name__ == "__main__":
    early_signals.begin()
    import_blocker.refuse()  # before other modules load Arrow

from duckdb import DuckDBPyConnection

from telemetry.archive.schema import open_duckdb
from telemetry.archive.table import Archive
from telemetry.archive.table_cache import TableCache
from telemetry.config.settings import Settings
from telemetry.coordination import job_queue as background
from telemetry.coordination import metric_reports, shared_state
from telemetry.coordination.forward_progress import held_by
from telemetry.hot_store import shard
from telemetry.hot_store.client import connect
from telemetry.startup.program import main
from telemetry.system import clock
from telemetry.system.failpoints import step_reporter
from telemetry.system.permissions import restrict, share_archive
from worker import jobs
from worker.device_erasure import Eraser
from worker.rq_worker import rq_worker
from worker.saving.save_budget import Bounds
from worker.saving.saver import Saver

log = logging.getLogger(__name__)

GC_OBJECTS = 50_000
"""Objects created before a garbage collection. A save creates ten per record, and no cycles; with the default of 700,
collections take a large part of its time."""


def serve(settings: Settings) -> None:
    """Finish interrupted saves, then run jobs until a signal arrives."""
    share_archive(settings)
    for change in restrict(settings):
        log.info("%s", change)
    reached, table_cache = step_reporter("save"), TableCache()
    archive = Archive(settings.archive_dir, reached, held_by(settings), table_cache)
    connection = open_duckdb(settings.data_dir / "tmp" / "worker")
    p = settings.persist
    saver = Saver(archive, connection, clock.now_ms, Bounds.of(p), p.quarantine_max_bytes, reached)
    erasing = Archive(settings.archive_dir, step_reporter("delete"), held_by(settings))
    eraser = Eraser(erasing, cache(partial(eraser_connection, settings)), saver, clock.now_ms, step_reporter("delete"))
    flush = shard.Flush(p.flush_records, p.max_bytes)
    work = jobs.Work(connect(settings), archive, connection, saver, settings.redis.shards, flush, eraser)
    jobs.prepare(work)
    background.prepare(settings, table_cache)
    gc.set_threshold(GC_OBJECTS)
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    with metric_reports.publishing(lambda: connect(settings), metric_reports.Reporter(shared_state.WORKER)):
        work.begin()
        client = connect(settings, timeout_s=None)
        translated(lambda: rq_worker(client).work(logging_level="WARNING"))


def eraser_connection(settings: Settings) -> DuckDBPyConnection:
    """A DuckDB for deletions, made on first use, with the memory limit of merges; beyond it, it spills to disk."""
    return open_duckdb(settings.data_dir / "tmp" / "eraser", f"{settings.archive.merge_memory_bytes}B")


if __name__ == "__main__":
    sys.exit(main("worker", serve, needs_store=False))
